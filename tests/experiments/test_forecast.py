"""The forecast: more work takes longer, and finished runs correct it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.grids import grid_tree, write_grid
from tinyllm.comparison.records import Record
from tinyllm.experiments._forecast import Forecast
from tinyllm.experiments._grid import load_experiment
from tinyllm.experiments._shared import read_questions, write_rationales
from tinyllm.system.machine import environment, peak_flops
from tinyllm.system.news import News

_VALIDATED = {"name": "validated", "like": "fine-tuning", "set": {"train": {"validate_steps": 1, "keep": "best"}}}


@pytest.fixture
def made(tmp_path, tiny_t5):
    """A forecast of a small grid, and its first cells by method."""
    methods = ["inference", "fine-tuning", _VALIDATED, "lora", "tinyllm"]
    experiment = load_experiment(write_grid(tmp_path, grid_tree(tmp_path, tiny_t5, methods=methods)))
    news = News(quiet=True)
    forecast = Forecast(
        experiment, write_rationales(experiment, tmp_path / "out", read_questions(experiment, news), news)
    )
    forecast._peak = {"fp32": 1e6}.__getitem__  # a slow machine, on which the arithmetic is what takes time
    cells = {g.spec.id: g.cell({}, 0) for g in experiment.groups if g.dataset == "one"}
    return forecast, cells


def test_more_work_takes_longer(made):
    forecast, cells = made
    seconds = {name: forecast.seconds_of(cell) for name, cell in cells.items()}
    assert seconds["inference"] < seconds["lora"] < seconds["fine-tuning"] < seconds["tinyllm"]
    assert seconds["fine-tuning"] < seconds["validated"]
    later = forecast.seconds_of(replace(cells["tinyllm"], is_first=False))
    assert later < seconds["tinyllm"]  # which is asked in fewer views


def test_finished_runs_correct_it(made):
    forecast, cells = made
    alone = forecast.left([cells["tinyllm"]], 0, [])
    cell = cells["fine-tuning"]
    took = 3 * forecast.seconds_of(cell)
    figures = {"seconds": took, "environment": environment()}
    done = Record(Path(), cell.key, "one", "tiny", "fine-tuning", {}, 0, "", "", {}, figures)
    assert forecast.left([cells["tinyllm"]], 0, [done]) == pytest.approx(3 * alone)
    elsewhere = replace(done, figures=figures | {"environment": environment() | {"gpu": "a fast one"}})
    assert forecast.left([cells["tinyllm"]], 0, [elsewhere]) == pytest.approx(alone)
    forecast._machine = None  # a cluster's, of whatever kind
    assert forecast.left([cells["tinyllm"]], 0, [elsewhere]) == pytest.approx(3 * alone)
    assert forecast.left([cells["tinyllm"]], 2, []) == pytest.approx(3 * alone)
    assert forecast.left([], 0, [done]) == 0


def test_the_machine_has_a_speed():
    assert all(peak_flops(precision, rounds=1) > 1e8 for precision in ("fp32", "bf16"))
