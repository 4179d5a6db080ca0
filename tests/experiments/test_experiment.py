"""An experiment from its file to its page, on the command line, in real processes that are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from experiments.grids import base, grid_tree, write_grid
from forked import Started, start_tinyllm
from projects import in_thread
from support import repository
from teachers.fake_endpoint import FakeEndpoint, good
from tinyllm.comparison.records import read_records


@pytest.fixture
def grid(tmp_path, tiny_llama, monkeypatch):
    """A small grid in a folder of one's own."""
    monkeypatch.chdir(tmp_path)

    def written(**changes):
        return write_grid(tmp_path, grid_tree(tmp_path, tiny_llama, **changes))

    return written


def start(grid: Path, *more: str, **how: bool) -> Started:
    return start_tinyllm("experiment", grid, *more, cwd=grid.parent, **how)


def done(folder: Path) -> dict[str, float]:
    return {f.parent.name: f.stat().st_mtime for f in folder.glob("cells/*/run.json")}


def wait_for(condition, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)


def test_a_killed_experiment_continues_and_writes_page_tables_and_figures(grid, tmp_path):
    file = grid(
        datasets={"one": {"data": {"folder": str(tmp_path / "one")}}},
        methods=["inference", "fine-tuning", "lora", "step-by-step", "tinyllm", "student-likelihood"],
    )
    folder = file.parent / "runs" / "small"
    first = start(file)
    try:
        wait_for(lambda: len(done(folder)) >= 3)
    finally:
        first.kill()
        first.communicate()
    kept = done(folder)
    wait_for(lambda: done(folder) == done(folder) and _unlocked(folder))
    kept = done(folder)
    second = start(file, "--json", "--workers", "2")
    out, err = second.communicate(timeout=280)
    assert second.returncode == 0, err
    summary = json.loads(out)
    assert (summary["failed"], summary["left"], summary["done"]) == ({}, 0, 1 + 6 * 2)
    assert {k: v for k, v in done(folder).items() if k in kept} == kept  # none of them was done again
    assert not list((folder / "work").glob("*/student"))
    for name in ("report.html", "tables/table1.csv", "tables/table1.md", "tables/table1.tex", "figures/accuracy.svg",
                 "figures/accuracy.png", "outline.json", "experiment.yaml"):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name
    records = {r.key: r for r in read_records(folder)}
    trained = records["one--tiny--tinyllm--seed1"]
    assert len(trained.log) == 3
    assert trained.answers.scored("likelihood", "test", "rotated") is None
    assert records["one--tiny--tinyllm--seed0"].answers.scored("likelihood", "test", "rotated") is not None


def _unlocked(folder: Path) -> bool:
    """Whether the workers of a killed experiment are gone, too."""
    import fcntl

    for lock in folder.glob("work/*/.lock"):
        with lock.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def test_a_run_whose_process_is_killed_fails_alone(grid):
    file = grid(methods=["fine-tuning"], seeds=[0])
    folder = file.parent / "runs" / "small"
    experiment = start(file, "--json")
    try:
        wait_for(lambda: list((folder / "work").glob("one--*/.lock")) if (folder / "work").is_dir() else False)
        (worker,) = _workers(experiment.pid)
        os.kill(worker, signal.SIGKILL)
        out, err = experiment.communicate(timeout=200)
    finally:
        experiment.kill()
    assert experiment.returncode == 3, err
    summary = json.loads(out)
    assert list(summary["failed"]) == ["one--tiny--fine-tuning--seed0"]
    assert "killed by SIGKILL" in summary["failed"]["one--tiny--fine-tuning--seed0"]
    assert summary["done"] == 1


def _workers(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == parent and "tinyllm.experiments._worker" in command:
            found.append(int(stat.parent.name))
    return found


def test_ctrl_c_stops_cleanly_and_keeps_finished_runs(grid):
    file = grid(base=base(batch_size=1, epochs=500))  # a training that does not end by itself
    folder = file.parent / "runs" / "small"
    experiment = start(file)
    try:
        wait_for(lambda: list(folder.glob("work/*fine-tuning*/train_log.jsonl")))
        experiment.send_signal(signal.SIGINT)
        _, err = experiment.communicate(timeout=60)
    finally:
        experiment.kill()
    assert experiment.returncode == 130
    assert "Everything finished so far is kept" in err
    assert "Traceback" not in err
    assert not list((folder / "failed").glob("*.json"))


def test_workers_end_with_the_experiment_even_where_ctrl_c_is_ignored(grid):
    """This is the case under nohup, and for background processes of a shell."""
    file = grid(base=base(batch_size=1, epochs=500))  # a training that does not end by itself
    folder = file.parent / "runs" / "small"
    experiment = start(file, ignores_ctrl_c=True)
    wait_for(lambda: list(folder.glob("work/*fine-tuning*/train_log.jsonl")))
    (worker,) = _workers(experiment.pid)
    experiment.kill()
    experiment.wait()
    wait_for(lambda: not Path(f"/proc/{worker}").exists() or _is_zombie(worker), 30)
    assert list(folder.glob("work/*fine-tuning*/checkpoints/checkpoint-*"))


def _is_zombie(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_teacher_behind_an_endpoint_answers_the_test_questions_itself(grid):
    def told(body):
        assert "Answer:" not in body["messages"][-1]["content"]
        return good(body, "Ice is what it is about. The answer is ice.")

    endpoint = FakeEndpoint(told)
    with in_thread(endpoint) as url:
        eve = {"name": "eve", "kind": "openai", "model": "m", "base_url": url, "api_key_env": None}
        file = grid(base=base() | {"teachers": [eve]}, methods=["fine-tuning", "teachers"], seeds=[0])
        experiment = start(file, "--json")
        out, err = experiment.communicate(timeout=200)
    assert experiment.returncode == 0, err
    assert json.loads(out)["failed"] == {}
    assert len(endpoint.requests) == 2 * 12  # each test question once
    record = next(r for r in read_records(file.parent / "runs" / "small") if r.method == "teachers:eve")
    scored = record.answers.scored("generation")
    assert list(scored.chosen) == [0] * 12
    assert scored.right.mean() == 0.25


def test_a_long_plan_proposes_a_first_look(grid, cli, monkeypatch):
    monkeypatch.setattr("tinyllm.cli._experiment._LONG_S", 0)
    assert "A first look: --set 'seeds=[3]'" in cli("experiment", grid(seeds=[3, 4]), "--plan").out
    assert "A first look" not in cli("experiment", grid(seeds=[3]), "--plan").out


def test_a_plan_says_what_is_left_and_runs_nothing(grid, cli):
    settings = base()
    settings["teachers"][1] = {
        "name": "bob",
        "kind": "openai",
        "model": "gpt-4o-mini",
        "api_key_env": "NOBODY_SET_THIS",
    }
    said = cli("experiment", grid(base=settings), "--plan")
    assert said.code == 0, said.err
    assert "0 runs done, 10 to go: about" in said.out
    assert "A first look" not in said.out
    asked = cli("experiment", grid(base=settings, methods=["fine-tuning", "teachers"]), "--plan")
    assert asked.code == 0, asked.err
    assert len(re.findall(r"bob +0 +12 ", asked.err)) == 2, asked.err  # of each dataset's test questions
    assert "Fine-tuning" in said.err
    assert "2 runs, " in said.err
    assert not Path("runs/small/cells").exists()


def test_files_of_runs_and_of_experiments_are_told_apart(grid, cli):
    said = cli("run", grid())
    assert (said.code, "describes an experiment, not a run; use: tinyllm experiment" in said.err) == (2, True)
    Path("run.yaml").write_text("data: {dataset: starter}", encoding="utf-8")
    said = cli("experiment", "run.yaml")
    assert (said.code, "not of an experiment; use: tinyllm run run.yaml" in said.err) == (2, True)


def test_a_mistake_is_one_message(grid, cli):
    said = cli("experiment", grid(methods=["tinylm"]))
    assert said.code == 2
    assert "Did you mean 'tinyllm'?" in said.err
    said = cli("experiment", grid(datasets={"one": {"data": {"train": "one/train.jsonl", "cut": {"valid": 0.0, "test": 0.5}}}},
                                  alpha=[0.1, 1.0]))  # fmt: skip
    assert said.code == 2
    assert "choose on validation questions" in said.err


def test_the_shipped_experiment_runs_on_real_data(tmp_path, cli, monkeypatch):
    if not (repository().parent / "shared" / "data").is_dir():
        pytest.skip("the real data are not here (../shared/data)")
    monkeypatch.chdir(repository())
    said = cli("experiment", "configs/experiments/smoke.yaml", "--run-dir", tmp_path / "smoke", "--plan")
    assert said.code == 0, said.err
    assert "to go: about" in said.out
