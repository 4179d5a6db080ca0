"""Opinions in an experiment: asked once for all its runs, and part of what a run has learnt from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from aiohttp import web

from experiments.grids import grid_tree, write_grid
from projects import in_thread
from teachers.fake_endpoint import FakeEndpoint, good
from tinyllm.comparison.records import Record, cells
from tinyllm.experiments._cell import run_job
from tinyllm.experiments._grid import load_experiment
from tinyllm.experiments._runner import Runner
from tinyllm.experiments._shared import _united, forecast_of_teachers, read_questions, write_rationales
from tinyllm.opinions.files import read_opinions
from tinyllm.questions import Question
from tinyllm.questions.types import Splits
from tinyllm.replies._store import Store
from tinyllm.scoring.calibration import probabilities
from tinyllm.system.news import News

QUIET = News(quiet=True)


def by_letter(body):
    reply = json.loads(good(body).text)
    top = [{"token": letter, "logprob": -1.0 - place} for place, letter in enumerate("ABCD")]
    reply["choices"][0] |= {"logprobs": {"content": [{"token": "A", "top_logprobs": top}]}}
    return web.json_response(reply)


@pytest.mark.parametrize("layout", ["labelled", "cloze"])
def test_opinions_are_asked_once_and_each_run_gets_those_of_its_settings(tmp_path, tiny_t5, layout):
    soft = {"train": {"soft": {}}}
    pooled = {"name": "pooled", "like": "fine-tuning", "set": soft}
    more = {"name": "more-orders", "like": "fine-tuning", "set": {"opinions": {"orders": 3}, **soft}}
    tree = grid_tree(
        tmp_path, tiny_t5, methods=["fine-tuning", pooled, more], tune={"train.answer": ["text", "choices"]}, seeds=[0],
        keep_students=True,
    )  # fmt: skip
    del tree["datasets"]["two"]
    tree["students"]["tiny"]["student"]["layout"] = layout
    tree["base"]["opinions"] = {"teachers": ["cat"], "splits": ["train", "valid"]}
    folder, endpoint = tmp_path / "out", FakeEndpoint(by_letter)
    with in_thread(endpoint) as url:
        cat = {"name": "cat", "kind": "openai", "model": "m", "api_key_env": None, "base_url": url}
        tree["base"]["teachers"].append(cat)
        experiment = load_experiment(write_grid(tmp_path, tree))
        questions = read_questions(experiment, QUIET)
        lines = forecast_of_teachers(experiment, folder, questions, QUIET)
        assert len([line for line in lines if line.startswith("  cat ")]) == 2  # of each of the two settings
        shared = write_rationales(experiment, folder, questions, QUIET)
        # The first two orders are those of both settings, and some prompts of the two splits are the same.
        assert 24 * 3 < (asked := len(endpoint.requests)) <= (24 + 8) * 3
        assert (tmp_path / "replies.sqlite").is_file()  # the store of all runs and experiments beside this one
        write_rationales(experiment, tmp_path / "other", questions, QUIET)
        assert len(endpoint.requests) == asked
        with Store(tmp_path / "old" / "shared" / "replies.sqlite"):
            pass  # an earlier version made it
        write_rationales(experiment, tmp_path / "old", questions, QUIET)
        assert len(endpoint.requests) == 2 * asked
    runner = Runner(experiment, folder, shared)
    runner.open()
    jobs = {cell.key: runner.job(cell) for cell in runner.board().left}
    hashes = {key.split("--")[2]: job.rationales_hash for key, job in jobs.items()}
    assert len(jobs) == 6
    assert hashes["fine-tuning"] == ""  # without `train.soft` a run learns from no opinion
    assert "" != hashes["pooled"] != hashes["more-orders"] != ""
    job = next(job for key, job in jobs.items() if "more-orders--answer=choices" in key)
    run_job(job, QUIET)
    assert {o.orders for o in read_opinions(folder / "work" / job.key)} == {3}
    record = Record.read(cells(folder) / job.key)
    temperature = record.figures["temperature"]
    assert record.figures["train"]["temperature"] == temperature
    ranked_by = "mean" if layout == "cloze" else "total"
    for row in record.answers.table.to_pylist():
        assert row["probabilities"] == pytest.approx(probabilities(row[ranked_by], temperature), abs=1e-5)
    tested = [r for r in record.answers.table.to_pylist() if (r["split"], r["view"]) == ("test", "asked")]
    confidence = record.answers.confidence(ranked_by, temperature)
    assert confidence == pytest.approx(np.array([max(r["probabilities"]) for r in tested]), abs=1e-5)
    assert record.figures["train"]["soft"]["weights"]
    again = Runner(experiment, folder, shared)
    assert list(again.board().done) == [job.key]  # its record fits the opinions that there are


def test_further_questions_of_all_students_are_asked_about():
    common, of_one = (Question(name, "Which?", ("a", "b"), 0) for name in ("common", "of one"))
    first, second = (Splits((common,), (), (), dropped=(), more=more) for more in ((), (of_one,)))
    assert [q.id for q in _united([first, second]).more] == ["of one"]
