"""The commands of the tutorials, as they stand on the pages, in a short form: a tiny student, teachers that answer at once."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from projects import in_thread
from questions.test_release import put, string
from serving.servers import serving
from support import repository
from teachers.fake_endpoint import FakeEndpoint, good
from tinyllm.cli import main
from tinyllm.system.files import write_jsonl

TUTORIALS = repository() / "docs" / "tutorials"
NOT_HERE = {
    "make": "installs",
    "source": "enters what was installed",
    "pip": "installs",
    "ray": "needs a cluster; tests/experiments/test_ray_place.py starts one",
    "torchrun": "tests/student and tests/system start several processes",
    "tinyllm models": "installs; tests/cli/test_models.py",
}
"""Commands that are not run, and why."""


@dataclass(frozen=True)
class File:
    """A file that the page tells the reader to save."""

    name: str
    text: str


def steps(page: Path) -> Iterator[File | str]:
    """The files to save and the command lines of a page, in their order; a command over several lines is one."""
    before = ""
    for part in re.split(r"^(```\w*\n.*?^```)$", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL):
        fence = re.fullmatch(r"```(\w*)\n(.*?)```", part, re.DOTALL)
        if fence is None:
            before = part.strip().splitlines()[-1] if part.strip() else ""
        elif fence[1] == "bash":
            yield from (line for line in fence[2].replace("\\\n", " ").splitlines() if line.strip())
        elif (name := re.search(r"Save this as `([^`]+)`", before)) is not None:
            yield File(name[1], fence[2])


class Short:
    """Makes configurations short: fewer questions, a tiny student, an endpoint of this machine."""

    def __init__(self, url: str, student: Path) -> None:
        self.url = url
        self.student = {"model": str(student), "adapter": "full"}

    def file(self, path: Path) -> None:
        """Shorten a configuration or an experiment where it is."""
        tree = yaml.safe_load(path.read_text("utf-8"))
        path.write_text(yaml.safe_dump(self.grid(tree) if "methods" in tree else self.run(tree)), "utf-8")

    def run(self, tree: dict[str, Any]) -> dict[str, Any]:
        """A configuration, or a part of one."""
        if "teachers" in tree:
            tree["teachers"] = [self.teacher(t) for t in tree["teachers"]]
        if "student" in tree:
            tree["student"] |= self.student
        if "data" in tree:
            tree["data"]["limit"] = 20
        tree["train"] = {**tree.get("train", {}), "epochs": 1, "learning_rate": 1e-2, "micro_batch_tokens": 2048}
        tree["train"].pop("precision", None)
        tree["auto"] = {"candidates": [{"answer": "choices"}, {"method": "tinyllm"}], "rungs": 2}
        tree["evaluate"] = {"max_new_tokens": 2, "rationales": 0, "train_questions": 2, "scorers": ["likelihood"]}
        return tree

    def grid(self, tree: dict[str, Any]) -> dict[str, Any]:
        """An experiment: one dataset, one student, one seed."""
        tree["base"] = self.run(tree.get("base", {}))
        name, dataset = next(iter(tree["datasets"].items()))
        if "dataset" in dataset["data"]:  # there is no hub here
            dataset["data"] = {"folder": f"../shared/data/{name}"}
        tree["datasets"] = {name: dataset | {"data": dataset["data"] | {"limit": 12}}}
        tree["students"] = {n: {"student": s["student"] | self.student} for n, s in [*tree["students"].items()][:1]}
        return tree | {"seeds": [0], "views": ["asked"], "tune": {}}

    def teacher(self, teacher: dict[str, Any]) -> dict[str, Any]:
        if teacher["kind"] == "given":
            return teacher
        local = {"kind": "openai", "model": teacher["name"], "base_url": self.url}
        key = {} if teacher["kind"] == "openai" else {"api_key_env": None}
        return {"name": teacher["name"], **local, **key, **{k: v for k, v in teacher.items() if k == "price"}}


class Reader:
    """Someone who does what a page says, in a folder of their own."""

    def __init__(self, short: Short, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.short, self.stack, self.monkeypatch = short, stack, monkeypatch
        self.served = ""
        self.experiments = 0
        self.done: list[str] = []

    def follow(self, page: Path) -> None:
        """Do everything that stands on a page."""
        for step in steps(page):
            if isinstance(step, File):
                Path(step.name).write_text(step.text, "utf-8")
                if step.name.endswith(".yaml"):
                    self.short.file(Path(step.name))
            else:
                self.run(shlex.split(step, comments=True))

    def run(self, words: list[str]) -> None:
        """Run a command line; it has to end with 0."""
        if not words or words[0] in NOT_HERE or " ".join(words[:2]) in NOT_HERE:
            return
        if words[0] == "export":
            self.monkeypatch.setenv(words[1].partition("=")[0], "key")
        elif words[0] == "python":
            runpy.run_path(words[1])
        elif words[:2] == ["git", "clone"]:
            release(Path(words[3]))
        elif words[0] == "curl":
            asked = [w.replace("http://127.0.0.1:8000", self.served) for w in words]
            said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
            assert sum(json.loads(said)["probabilities"]) == pytest.approx(1, abs=1e-3)
        elif words[:2] == ["tinyllm", "serve"]:
            self.served = self.stack.enter_context(serving(Path(words[2]))).url
        else:
            assert words[0] == "tinyllm", words
            self.tinyllm(words[1:])
        self.done.append(words[0] if words[0] in ("curl", "git") else words[1])

    def tinyllm(self, words: list[str]) -> None:
        """Run a command of ours in this process. Of a page's experiments, the first is run, the others are planned."""
        if words[0] == "experiment" and "--plan" not in words:
            self.experiments += 1
            words = words if self.experiments == 1 else [*words, "--plan"]
        if "--ray" in words or any("=ray" in w for w in words):
            return
        if "--nproc" in words:  # tests/cli starts several processes; here one does the work
            self.tinyllm([*words[: words.index("--nproc")], *words[words.index("--nproc") + 2 :]])
            words = [*words, "--plan"]
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0, words
        if words[0] == "init":
            self.short.file(Path(words[words.index("--out") + 1]))


def release(folder: Path) -> None:
    """A repository in the shape of the authors', with two small datasets."""
    for name in ("obqa", "arc"):
        for split, count in (("train", 12), ("validation" if name == "obqa" else "valid", 6), ("test", 6)):
            items = [
                {"id": f"{split}{i}", "question": f"What is number {i} of {split}?", "choices": ["ice", "fire"],
                 "answer": ("ice", "fire")[i % 2]} for i in range(count)
            ]  # fmt: skip
            texts = [string(item, f"It is {item['answer']}.", f"All say {item['answer']}.") for item in items]
            put(folder / "datasets" / name / f"{name}_{split}.json", items)
            put(folder / "datasets" / name / "llm" / f"{split}_CoT_0.json", texts)
            put(folder / "datasets" / name / "llm" / f"{split}_CoT_1.json", [])


@pytest.fixture
def reader(tmp_path, monkeypatch, tiny_llama) -> Iterator[Reader]:
    """A reader in the folder of the repository, as far as tutorials need one."""
    place = tmp_path / "repository"
    for folder in ("configs", "examples"):
        shutil.copytree(repository() / folder, place / folder)
    monkeypatch.chdir(place)
    endpoint = FakeEndpoint()
    with ExitStack() as stack:
        short = Short(stack.enter_context(in_thread(endpoint)), tiny_llama)
        for config in (place / "configs").rglob("*.yaml"):
            short.file(config)
        yield Reader(short, stack, monkeypatch)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_a_spreadsheet_becomes_a_served_student(reader):
    pytest.importorskip("xllamacpp")
    reader.follow(TUTORIALS / "spreadsheet.md")
    assert reader.done == ["init", "check", "run", "ask", "predict", "serve", "curl", "export"]


def test_the_paper_is_reproduced(reader):
    reader.follow(TUTORIALS / "paper.md")
    assert reader.done.count("experiment") == 8
    assert Path("runs/smoke/report.html").is_file()
    assert Path("runs/arc/report.html").is_file()


def test_teachers_by_api(reader):
    rows = [f"Which is number {i}?,ice,fire,snow,lava,{'ABCD'[i % 4]}" for i in range(40)]
    Path("questions.csv").write_text("\n".join(["question,A,B,C,D,answer", *rows]) + "\n", "utf-8")
    reader.experiments = 1  # plan the experiment; those of other pages are run
    reader.follow(TUTORIALS / "api.md")
    assert Path("runs/api/report.html").is_file()
    spent = json.loads(Path("runs/api/metrics.json").read_text("utf-8"))["teachers"]
    assert spent.keys() == {"mini", "nano"}


def test_few_labels(reader, capsys):
    reader.short.url = reader.stack.enter_context(in_thread(FakeEndpoint(by_letter)))
    reader.follow(TUTORIALS / "few-labels.md")
    assert reader.done == ["sample.py", "check", "run", "run", "run", "compare", "predict"]
    learnt = [json.loads(Path(f"runs/{run}/train_result.json").read_text("utf-8")) for run in ("few", "few-answers")]
    assert learnt[0]["soft"]["learnt_without_answer"] > 0
    said = re.search(r"Training: at most (\d+) optimizer steps\n  Of \d+ questions without", capsys.readouterr().out)
    assert learnt[0]["steps"] <= int(said[1])
    assert not learnt[1].get("soft")
    assert Path("answers.xlsx").is_file()


def by_letter(body: dict[str, Any]) -> web.Response:
    """Answer with log-probabilities of the letters."""
    reply = json.loads(good(body).text)
    top = [{"token": letter, "logprob": -1.0 - place} for place, letter in enumerate("ABCD")]
    reply["choices"][0] |= {"logprobs": {"content": [{"token": "A", "top_logprobs": top}]}}
    return web.json_response(reply)


def test_a_router_in_one_file(reader):
    reader.follow(TUTORIALS / "router.md")
    train = [json.loads(line) for line in Path("routed/train.jsonl").read_text("utf-8").splitlines()]
    assert all(row["rationales"].keys() == {"smollm2", "gemma3", "routed"} for row in train)
    assert Path("runs/router/report.html").is_file()


def test_several_processes(reader):
    write_jsonl(
        Path("questions.jsonl"),
        [{"question": f"Q{i}?", "choices": ["ice", "fire"], "answer": i % 2} for i in range(20)],
    )
    reader.tinyllm(["init", "questions.jsonl", "--out", "my.yaml"])
    shutil.copy("my.yaml", "mine.yaml")
    tree = yaml.safe_load(Path("my.yaml").read_text("utf-8"))
    tree["train"]["method"] = "tinyllm"
    Path("my.yaml").write_text(yaml.safe_dump(tree), "utf-8")
    grid = {"name": "mine", "datasets": {"one": {"data": tree["data"]}}, "students": {"tiny": {"student": tree["student"]}},
            "methods": ["fine-tuning"], "seeds": [0]}  # fmt: skip
    Path("mine.yaml").write_text(yaml.safe_dump(grid), "utf-8")
    reader.follow(TUTORIALS / "cluster.md")
    assert Path("runs/my/report.html").is_file()


def test_a_command_that_is_not_run_stands_on_a_page():
    lines = [s.split() for page in TUTORIALS.glob("*.md") for s in steps(page) if isinstance(s, str)]
    assert NOT_HERE.keys() <= {words[0] for words in lines} | {" ".join(words[:2]) for words in lines}
