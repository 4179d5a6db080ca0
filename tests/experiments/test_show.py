"""Progress of an experiment: test accuracies for chosen settings only, and a table that fits a narrow terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from experiments.grids import grid_tree, write_grid
from tinyllm.comparison.records import Record
from tinyllm.experiments._grid import load_experiment
from tinyllm.experiments._run import _count
from tinyllm.experiments._runner import Board
from tinyllm.experiments._show import Lines, Overview

RATE = "train.learning_rate"


@pytest.fixture
def experiment(tmp_path, tiny_t5):
    tree = grid_tree(tmp_path, tiny_t5, methods=["fine-tuning"], tune={RATE: [1e-2, 1e-3]})
    return load_experiment(write_grid(tmp_path, tree))


def record(experiment, rate, seed, valid, test):
    cell = next(g for g in experiment.groups if g.dataset == "one").cell({RATE: rate}, seed)
    accuracy = {"valid": {"likelihood": valid}, "test": {"likelihood": test}}
    figures = {"accuracy": accuracy, "seconds": 5.0}
    return Record(Path(), cell.key, "one", "tiny", "fine-tuning", {RATE: rate}, seed, "", "", {}, figures)


def board(*records, **others):
    return Board(done={r.key: r for r in records}, **others)


def drawn(what, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(what)
    return console.file.getvalue()


def test_while_settings_are_not_chosen_no_test_figure_is_shown(experiment):
    text = drawn(Overview(experiment).drawn(board(record(experiment, 1e-2, 0, 0.5, 0.91)), 5, 60.0))
    assert "91.0" not in text
    assert "(1/3)" in text
    assert "1 run done, 5 runs to go, about 1 min 0 s" in text


def test_the_figure_is_of_the_settings_chosen_on_validation_questions_alone(experiment):
    done = [record(experiment, 1e-2, 0, 0.5, 0.9), record(experiment, 1e-3, 0, 0.6, 0.2)]
    assert "20.0 (2/3)" in drawn(Overview(experiment).drawn(board(*done), 4, 60.0))
    done.append(record(experiment, 1e-3, 1, 0.1, 0.4))
    text = drawn(Overview(experiment).drawn(board(*done), 3, 60.0))
    assert "30.0" in text
    assert "(3/3)" not in text


def test_a_candidate_that_failed_has_lost_and_is_marked(experiment):
    done, lost = record(experiment, 1e-3, 0, 0.1, 0.25), record(experiment, 1e-2, 0, 0.0, 0.0)
    text = drawn(Overview(experiment).drawn(board(done, failed={lost.key: "out of memory"}), 4, 60.0))
    assert "25.0 (1/3) ✗" in text


def test_what_is_under_way_stands_below_the_table_cut_to_the_width(experiment):
    key = record(experiment, 1e-2, 0, 0, 0).key
    text = drawn(Overview(experiment).drawn(board(running={key: ("Training", 3, 70)}), 6, 60.0), width=60)
    assert "▶" in text
    assert f"▶ {key}"[:50] in text
    assert max(map(len, text.splitlines())) <= 60


def test_lines_tell_a_candidates_accuracy_on_validation_questions(experiment):
    console = Console(file=io.StringIO(), width=200)
    lines = Lines(experiment, console, lambda board: (6 - len(board.done), 30.0))
    lines(board())
    first, second = record(experiment, 1e-2, 0, 0.5, 0.91), record(experiment, 1e-3, 0, 0.6, 0.92)
    lines(board(first))
    lines(board(first, second))
    text = console.file.getvalue()
    assert f"{first.key}: 50.0 % of the validation questions in 5 s · 5 more, about 30 s" in text
    assert "91.0" not in text
    assert "92.0" not in text


def test_of_runs_that_end_together_the_last_alone_is_called_the_last(experiment):
    console = Console(file=io.StringIO(), width=200)
    lines = Lines(experiment, console, lambda board: (0, 0.0))
    lines(board())
    lines(board(record(experiment, 1e-2, 0, 0.5, 0.9), record(experiment, 1e-3, 0, 0.6, 0.9)))
    assert console.file.getvalue().count("the last") == 1


def test_a_plan_lists_what_is_left_by_method_and_dataset(experiment):
    done = record(experiment, 1e-2, 0, 0.5, 0.9)
    plan = Overview(experiment).plan(board(done), lambda group, known: 60.0 if group.dataset == "one" else 5.0)
    text = drawn(plan)
    assert "2 runs, 1 min 0 s" in text
    assert "3 runs, 5 s" in text


def test_what_failed_of_the_same_is_told_once(experiment):
    console = Console(file=io.StringIO(), width=200)
    cells = [c.key for g in experiment.groups for c in g.cells()][:3]
    lines = Lines(experiment, console, lambda _: (0, 0.0))
    lines(board(failed={cells[0]: "no key", cells[1]: "no key", cells[2]: "out of memory"}))
    lines(board(failed={cells[0]: "no key", cells[1]: "no key", cells[2]: "out of memory"}))
    said = console.file.getvalue()
    assert said.count("no key") == said.count("out of memory") == 1
    assert all(key in said for key in cells)


def test_where_every_candidate_has_failed_nothing_is_to_come(experiment):
    first = {c.key: "no key" for g in experiment.groups for c in g.cells() if c.is_first and g.dataset == "one"}
    assert _count(experiment, board(failed=first)) == 3  # the other dataset's two candidates, and one seed more
