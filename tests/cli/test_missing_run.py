"""A run that is not there: the message names the runs beside it, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.refusals import refused


@pytest.mark.parametrize(
    "command",
    [("predict", "{}", "q.csv"), ("ask", "{}", "Which?", "-c", "a", "-c", "b"), ("serve", "{}"),
     ("export", "{}", "--to", "gguf"), ("push", "{}", "me/mine"), ("evaluate", "{}"), ("report", "{}"), ("run", "{}")],
)  # fmt: skip
def test_the_runs_that_are_there_are_named(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "demo"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "config.yaml").touch()
    Path("runs", "no-run").mkdir()

    def said(folder: str):
        return cli(*(word.format(folder) for word in command))

    there = "Runs in runs: runs/demo, runs/mine."
    refused(said("runs/min"), "The folder runs/min is not there. Did you mean 'runs/mine'?", there)
    refused(said("mine"), "The folder mine is not there. Did you mean 'runs/mine'?", there)
    refused(said("runs/xyz"), "The folder runs/xyz is not there. Runs", there)
    refused(said("runs"), "The folder runs holds no student itself.", there)
    refused(said("elsewhere/x"), "The folder elsewhere/x is not there. `tinyllm run CONFIG` makes one.")
