"""The Tab key, in a real shell: configurations, runs, settings, models and formats."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinyllm.cli import _completion


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A function that returns what bash offers for the last word of a command line."""
    command = tmp_path / "bin" / "tinyllm"
    command.parent.mkdir()
    start = "import sys; sys.argv[0] = 'tinyllm'; from tinyllm.cli import main; main()"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{start}" "$@"\n', "utf-8")
    command.chmod(0o755)
    here = tmp_path / "here"
    for file in ("my.yaml", ".hidden.yaml", "configs/demo.yaml", "runs/mine/config.yaml", "runs/grid/experiment.yaml"):
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).touch()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")

    def offered(*words: str) -> list[str]:
        script = (
            'eval "$(_TINYLLM_COMPLETE=source_bash tinyllm)"; complete -p tinyllm >/dev/null || exit 1\n'
            'COMP_WORDS=(tinyllm "$@"); COMP_CWORD=$#; _tinyllm_completion tinyllm; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run([bash, "-c", script, "bash", *words], capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if line]

    return offered


def test_bash_offers_configurations_runs_models_methods_and_formats(shell):
    assert shell("do") == ["doctor"]
    assert shell("run", "") == ["configs/demo.yaml", "my.yaml", "runs/grid", "runs/mine"]
    assert shell("ask", "ru") == ["runs/grid", "runs/mine"]
    assert shell("models", "get", "gem") == ["gemma3-270m"]
    assert "train.method=tinyllm" in shell("run", "my.yaml", "--set", "train.met")
    assert shell("export", "runs/mine", "--to", "on") == ["onnx"]
    assert shell("predict", "runs/mine", "my") == [], "bash completes the file itself (complete -o default)"


def test_paths_are_offered_as_they_were_begun(tmp_path):
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    (tmp_path / "a.yml").touch()
    assert _completion.runs(f"{tmp_path}/") == [str(run)]
    assert _completion.runs(f"{run.parent}/m") == [str(run)]
    assert _completion.targets(f"{tmp_path}/") == [str(Path(tmp_path) / "a.yml"), str(run)]
    assert _completion.targets(f"{tmp_path}/b") == []
