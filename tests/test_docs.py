"""The documents are true: configurations load, commands exist, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from comparison.made_up import made_up_experiment
from support import repository
from tinyllm.cli.app import app
from tinyllm.config import build_config, dump_config, load_config
from tinyllm.experiments._schema import Grid

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
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_make_targets_in_the_documents_exist():
    makefile = (repository() / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"\bmake ([a-z-]+)`", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)
