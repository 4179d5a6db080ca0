"""What spends can be tried without spending: an endpoint that counts gets no request, and no file is written."""

from __future__ import annotations

import json

import pytest
import typer.main
import yaml

from projects import in_thread
from teachers.fake_endpoint import FakeEndpoint
from tinyllm.cli.app import app
from tinyllm.config import load_config
from tinyllm.stages.folder import RunFolder

REHEARSED = {"check", "experiment", "generate", "run", "train"}
"""The commands that ask teachers, and `train`, which takes long. `push` sends nothing without --upload."""
SPEND_NOTHING = {
    "ask", "compare", "demo", "doctor", "evaluate", "export", "import-release", "init", "lm-eval", "models", "predict",
    "push", "report", "serve", "store",
}  # fmt: skip


@pytest.fixture
def spending(project):
    """A configuration and an experiment whose teacher is an endpoint that counts."""
    server = FakeEndpoint()
    with in_thread(server) as url:
        teachers = [{"name": "ada", "kind": "openai", "model": "m", "base_url": url, "api_key_env": None}]
        project.change("teachers", teachers)
        project.change("opinions", {"teachers": {"ada": "votes"}})
        own = {"data": project.tree["data"], "teachers": teachers}
        grid = {"name": "grid", "datasets": {"d": own}, "methods": ["fine-tuning", "tinyllm"], "seeds": [0],
                "students": {"tiny": {"student": project.tree["student"]}}, "base": {"train": project.tree["train"]}}  # fmt: skip
        (project.folder / "grid.yaml").write_text(yaml.safe_dump(grid), "utf-8")
        yield project, server


def files(folder):
    return sorted(str(f) for f in folder.rglob("*"))


@pytest.mark.parametrize("options", [("run", "tinyllm.yaml"), ("generate", "tinyllm.yaml"),
                                     ("check", "tinyllm.yaml", "--pilot", "2"), ("experiment", "grid.yaml")])  # fmt: skip
def test_a_dry_run_asks_nobody_and_writes_nothing(cli, spending, options):
    project, server = spending
    before = files(project.folder)
    said = cli(*options, "--dry-run")
    assert said.code == 0, said.err
    assert (server.requests, server.looks) == ([], [])
    assert files(project.folder) == before
    assert "ada" in said.out + said.err
    if options[0] == "check":
        assert "have the values of the paper (preset: paper)" in said.out


def test_check_says_that_nobody_has_tried_a_service_until_it_has(cli, spending):
    project, _ = spending
    assert "Not tried yet: whether 'ada' answers." in cli("check", project.config).out
    assert "Not tried yet" not in cli("check", project.config, "--pilot", "2").out


def test_the_same_commands_ask_without_it(cli, spending):
    """The endpoint counts: so that it counts nothing above means something."""
    project, server = spending
    forecasts = json.loads(cli("check", project.config, "--pilot", "2", "--dry-run", "--json").out)["forecasts"]
    assert (forecasts[0]["requests"], forecasts[0]["stored"]) == (2, 0)
    assert cli("check", project.config, "--pilot", "2").code == 0
    asked = len(server.requests)
    assert asked == sum(f["requests"] for f in forecasts)
    cli("generate", project.config)
    assert len(server.requests) > asked


def test_a_rehearsed_run_says_what_it_will_take_and_what_comes_next(cli, spending):
    project, _ = spending
    said = cli("run", project.config, "--dry-run", "--set", "train.epochs=2")
    assert "Nothing was asked or written. Next: tinyllm run" in said.out
    assert said.out.rstrip().endswith("--set train.epochs=2")
    forecasts = json.loads(cli("run", project.config, "--dry-run", "--json").out)["forecasts"]
    assert [f["teacher"] for f in forecasts] == ["ada", "ada (opinions)"]
    assert all(f["requests"] >= 12 for f in forecasts)


@pytest.mark.parametrize("command", [("check",), ("run", "--dry-run")])
def test_a_folder_that_a_run_would_refuse_is_told_before(cli, project, command):
    with RunFolder(project.run).claimed(load_config(project.config)):
        (project.run / "student").mkdir()
    assert cli(*command, project.config, "--run-dir", project.run).code == 0
    said = cli(*command, project.config, "--run-dir", project.run, "--set", "train.epochs=9")
    assert said.code == 2
    assert "holds a run of another configuration" in said.err
    assert "train.epochs" in said.err


def test_every_command_that_spends_has_a_dry_run():
    commands = typer.main.get_command(app).commands
    has_one = {name for name, c in commands.items() if any("--dry-run" in p.opts for p in c.params)}
    assert has_one == REHEARSED
    assert set(commands) == REHEARSED | SPEND_NOTHING, "does the new command spend anything?"
