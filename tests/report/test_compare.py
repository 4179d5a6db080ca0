"""`tinyllm compare`: several runs on the same test questions."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from report.made_up import prediction, write_lines
from tinyllm.cli.app import app
from tinyllm.comparison import paired
from tinyllm.errors import RunFolderError
from tinyllm.report import compare_runs


@pytest.fixture
def run(tmp_path):
    """A function that writes a run whose student is right on some of the test questions, by number."""

    def write(name: str, right, questions=range(40), layout: str = "menu", other_answer=()):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(f"name: made-up\nstudent: {{layout: {layout}}}\n", "utf-8")
        dice, lines = random.Random(0), []
        for stage in ("before", "after"):
            for number in questions:
                line = prediction(stage, "test", number, 0, dice)
                line["answer"] = (line["answer"] + (number in other_answer)) % 4
                best = line["answer"] if stage == "after" and number in right else (line["answer"] + 1) % 4
                scores = [-1.0 if place == best else -9.0 for place in range(4)]
                line["likelihood"] |= {"total": scores, "mean": scores, "pred": best, "pred_normalised": best}
                lines.append(line)
        write_lines(folder / "predictions.jsonl", lines)
        return folder

    return write


def test_each_run_is_compared_with_the_first_in_pairs(run) -> None:
    without, taught, shuffled = run("without", range(10)), run("with", range(30)), run("shuffled", range(5, 15))
    first, second, third = compare_runs([without, taught, shuffled])
    assert (first.difference, first.corrected, first.accuracy.value) == (None, None, 0.25)
    assert second.difference == paired([n < 10 for n in range(40)], [n < 30 for n in range(40)])
    assert second.corrected == pytest.approx(2 * second.difference.p)
    assert (third.difference.fixed, third.difference.broken, third.corrected) == (5, 5, 1.0)


def test_only_questions_that_all_runs_have_count(run) -> None:
    first, second = compare_runs([run("a", range(10), range(30)), run("b", range(20), range(10, 40))])
    assert (first.accuracy.n, first.accuracy.value, second.accuracy.value) == (20, 0.0, 0.5)


def test_a_question_whose_answer_was_corrected_is_not_the_same(run) -> None:
    first, second = compare_runs([run("a", range(10)), run("b", range(10), other_answer=range(4))])
    assert (first.accuracy.n, second.accuracy.n) == (36, 36)


def test_runs_without_a_question_in_common_are_refused(run, tmp_path) -> None:
    a = run("a", range(3), range(5))
    with pytest.raises(RunFolderError, match="no test question in common"):
        compare_runs([a, run("b", range(3), range(5, 9))])
    (tmp_path / "empty").mkdir()
    (tmp_path / "unscored").mkdir()
    (tmp_path / "unscored" / "metrics.json").write_text('{"accuracy": {}, "data": {"train": 3, "test": 0}}')
    with pytest.raises(RunFolderError, match="no test question of it has an answer"):
        compare_runs([tmp_path / "unscored", tmp_path / "unscored"])
    with pytest.raises(RunFolderError, match=r"empty has no scored test question.*tinyllm evaluate"):
        compare_runs([a, tmp_path / "empty"])


def test_each_run_has_its_own_headline(run) -> None:
    shown, asked = compare_runs([run("a", range(3)), run("b", range(3), layout="cloze")])
    assert (shown.scorer, asked.scorer) == ("Likelihood", "Likelihood per token")


def test_the_command_prints_a_row_for_each_run(run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    names = [str(run("without", range(10))), str(run("with", range(30)))]
    said = CliRunner().invoke(app, ["compare", *names])
    assert said.exit_code == 0, said.output
    head, first, second, *_ = said.output.splitlines()
    assert head == "40 test questions in common, by likelihood:"
    assert first.endswith(" 25.0 % (14.2–40.2)")
    assert " 75.0 % (59.8–85.8)  +50.0 points (" in second
    assert "corrected" not in second
    rows = json.loads(CliRunner().invoke(app, ["compare", *names, "--json"]).output)
    assert [row["run"] for row in rows] == names
    assert " steps" not in said.output
    (Path(names[0]) / "train_result.json").write_text('{"steps": 45}')
    assert " steps" not in CliRunner().invoke(app, ["compare", *names]).output  # of the other nothing is known
    (Path(names[1]) / "train_result.json").write_text('{"steps": 90}')
    _, first, second, *_ = CliRunner().invoke(app, ["compare", *names]).output.splitlines()
    assert (first.endswith(")  45 steps"), second.endswith("  90 steps")) == (True, True)
    for name, rate in zip(names, (1e-4, 2e-4), strict=True):
        train = f"{{method: fine-tuning, learning_rate: {rate}}}"
        (Path(name) / "config.yaml").write_text(f"data: {{train: q.csv}}\ntrain: {train}\n", "utf-8")
    said = CliRunner().invoke(app, ["compare", *names]).output
    assert said.endswith(f"What differs ({names[0]} → {names[1]}):\n  - train.learning_rate: 0.0001 → 0.0002\n")
    assert "given twice" in str(CliRunner().invoke(app, ["compare", names[0], names[0]]).exception)
    assert "Give two or more" in str(CliRunner().invoke(app, ["compare", names[0]]).exception)
