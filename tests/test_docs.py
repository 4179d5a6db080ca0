"""The documents are true: configurations load, commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from comparison.made_up import made_up_experiment
from projects import in_thread, rows
from support import repository
from teachers.fake_endpoint import FakeEndpoint, good
from tinyllm.cli import main
from tinyllm.cli.app import app
from tinyllm.config import Config, build_config, dump_config, load_config
from tinyllm.config.read import _page_of
from tinyllm.experiments._schema import Grid
from tinyllm.system.files import write_jsonl

PAGES = sorted([*repository().glob("*.md"), *repository().glob("docs/**/*.md")])
CONFIGS = sorted(repository().glob("configs/*.yaml"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_configuration_loads(path):
    config = load_config(path)
    assert build_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_yaml_in_the_documents_is_a_configuration_or_a_part_of_one(page):
    for block in blocks(page, "yaml"):
        tree = yaml.safe_load(block)
        tree = tree.get("release", tree)
        if "methods" in tree:  # an experiment's, or a part of one
            Grid.model_validate({"name": "any", "datasets": {"any": {}}, "students": {"any": {}}} | tree)
            continue
        tree.setdefault("data", {"dataset": "starter"})
        tree.setdefault("teachers", [{"name": "any", "kind": "scripted"}])
        build_config(tree)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_the_documents_exist(page):
    import typer.main

    commands = typer.main.get_command(app).commands
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *re.findall(r"`(tinyllm [^`]+)`", text)]:
        words = shlex.split(line, comments=True)
        if "tinyllm" not in words[:1] and not (words[:1] and words[0].endswith("/tinyllm")):
            continue
        if words[1].startswith("-") or "|" in words:
            continue
        assert words[1] in commands, line
        command = commands[words[1]]
        if hasattr(command, "commands"):  # a group, such as `store`
            command = command.commands[words[2]]
        options = {o for p in command.params for o in p.opts} | {"--help", "-h"}
        assert {w.partition("=")[0] for w in words[2:] if w.startswith("-")} <= options, line


def test_python_in_the_documents_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = {"data": {"dataset": "starter", "limit": 20, "cut": {"valid": 0.2, "test": 0.2}},
              "student": {"model": "tiny-untrained"}, "train": {"method": "fine-tuning"}}  # fmt: skip
    Path("mine.yaml").write_text(yaml.safe_dump(config), "utf-8")
    made_up_experiment(Path("runs/table"))
    names: dict[str, object] = {}
    for block in blocks(repository() / "docs" / "python.md", "python"):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "arc tinyllm" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_documents_lead_somewhere(page):
    for target, _, heading in re.findall(r"\]\(([^)#]+)(#([^)]+))?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            there = page.parent / target
            assert there.exists(), target
            assert not heading or heading in headings(there), (target, heading)


def test_every_page_that_an_error_names_has_that_heading():
    named = {
        keyword.value.value
        for file in (repository() / "src").rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "page" and isinstance(keyword.value, ast.Constant)
    }
    named |= {_page_of([f"line 3: {section}.x: unknown key"]) for section in Config.model_fields}
    assert len(named) > 20
    for address in named:
        page, _, heading = address.partition("#")
        assert not heading or heading in headings(repository() / "docs" / page), address
        assert (repository() / "docs" / page).is_file(), address


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in found}


def test_the_readme_is_short():
    assert len((repository() / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def by_letter(body):
    """What an endpoint says that knows the answers of `rows`, asked for the letter of a choice."""
    said = body["messages"][-1]["content"]
    right = ("ice", "water", "iron", "the moon")[int(re.search(r"number (\d+)", said)[1]) % 4]
    listed = re.findall(r"^([A-D])\. (.*)$", said, re.MULTILINE)
    reply = json.loads(good(body).text)
    top = [{"token": letter, "logprob": -0.1 if text == right else -3.5} for letter, text in listed]
    reply["choices"][0] |= {"logprobs": {"content": [{"token": "A", "top_logprobs": top}]}}
    return web.json_response(reply)


@pytest.mark.parametrize("name", ["few-labels", "no-labels"])
def test_the_tutorial_on_opinions_runs_with_a_tiny_student_and_local_teachers(name, tmp_path, monkeypatch, tiny_t5):
    trees = [yaml.safe_load(block) for block in blocks(repository() / "docs" / "opinions.md", "yaml")]
    tree = next(t for t in trees if t.get("name") == name)
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "labelled.jsonl", rows(40))
    unlabelled = [
        {"question": f"And which of them is number {i}?", "choices": r["choices"]} for i, r in enumerate(rows(20))
    ]
    write_jsonl(tmp_path / "unlabelled.jsonl", unlabelled)
    tree["student"]["model"] = str(tiny_t5)
    tree["evaluate"] = {"max_new_tokens": 4, "rationales": 0, "train_questions": 2, "before": False}
    tree["auto"] = {"candidates": [{"answer": "choices"}, {"answer": "both"}], "rungs": 2}
    with in_thread(FakeEndpoint(by_letter)) as url:
        names = [t["name"] for t in tree["teachers"]]
        local = {"kind": "openai", "base_url": url, "api_key_env": None, "price": {"prompt": 0.15, "completion": 0.6}}
        tree["teachers"] = [{"name": n, "model": n, **local} for n in names]
        Path("few.yaml").write_text(yaml.safe_dump(tree), "utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["run", "few.yaml", "--quiet"])
    assert ended.value.code == 0
    soft = json.loads(Path(f"runs/{name}/train_result.json").read_text("utf-8"))["soft"]
    assert soft["learnt_without_answer"] == 20
    assert soft["weights"].keys() == set(names)


def test_make_targets_in_the_documents_exist():
    makefile = (repository() / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"\bmake ([a-z-]+)`", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)


TRANSLATED = [("README.md", "README.zh.md"), *((f"docs/{p}", f"docs/zh/{p}") for p in ("glossary.md", "tutorials/spreadsheet.md"))]  # fmt: skip


@pytest.mark.parametrize(("english", "chinese"), TRANSLATED, ids=lambda p: p)
def test_both_languages_have_the_same_commands(english, chinese):
    assert code_of(repository() / chinese) == code_of(repository() / english)


def code_of(page: Path) -> list[str]:
    """What stands in a page's blocks of code; without comments, which are translated, and without pictures."""
    found = re.findall(r"^```(bash|text)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for language, block in found for line in block.splitlines() if language != "bash" or line.strip()]
    return [re.sub(r"\s+# .*", "", line) for line in lines]


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((repository() / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "__main__"}

    async def kernel() -> None:  # a notebook's cells run inside of a loop
        for cell in notebook["cells"]:
            assert cell.get("outputs", []) == [], "the notebook is kept without outputs"
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"notebook, cell {cell['id']}", "exec"), names)

    asyncio.run(kernel())
    assert "24 rationales" in capsys.readouterr().out


def test_the_notebook_links_to_pages_that_exist():
    notebook = json.loads((repository() / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    text = "".join(line for cell in notebook["cells"] for line in cell["source"])
    assert all((repository() / "docs" / target).is_file() for target in re.findall(r"\]\(([^)#:]+)\)", text))


def test_the_reference_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(repository() / "docs"))
    for file, page in importlib.import_module("reference").PAGES.items():
        assert (repository() / "docs" / file).read_text(encoding="utf-8") == page(), file


def test_every_page_is_in_the_navigation():
    index = repository() / "docs" / "index.md"
    decisions = repository() / "docs" / "decisions" / "README.md"
    listed = {
        (page.parent / target).resolve()
        for page in (index, decisions)
        for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text(encoding="utf-8"))
    }
    parts = {"fragments", "results"}
    assert {p for p in PAGES if p.parent.name not in parts} <= listed | {index}


def test_the_site_is_built_without_a_warning(tmp_path):
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", "docs"]
    built = subprocess.run([*command, ".", str(tmp_path)], cwd=repository(), capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "docs" / "tutorials" / "spreadsheet.html").is_file()
