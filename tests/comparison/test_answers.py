"""Answers in a Parquet file, and the scorers that read them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinyllm.comparison.answers import _FILE, Answer, Answers
from tinyllm.errors import RunFolderError

ANSWERS = [
    Answer("test", "asked", "q1", 0, (-1.0, -2.0), (-0.9, -0.5), "ice", 0),
    Answer("test", "asked", "q2", 2, (-3.0, -2.5, -1.0), (-0.5, -0.6, -0.7), "what?", None),
    Answer("test", "rotated", "q1", 0, (-2.0, -1.0), (-1.0, -1.0)),
    Answer("valid", "asked", "v1", 1, (-1.0, -5.0), (-1.0, -2.5)),
]


def test_what_is_written_is_read(tmp_path):
    Answers.of(ANSWERS).write(tmp_path)
    found = Answers.read(tmp_path)
    likelihood = found.scored("likelihood")
    assert list(likelihood.ids) == ["q1", "q2"]
    assert list(likelihood.chosen) == [0, 2]
    assert list(likelihood.right) == [True, True]
    assert list(found.scored("likelihood_normalised").chosen) == [1, 0]
    written = found.scored("generation")
    assert list(written.chosen) == [0, -1]
    assert (list(written.right), written.unparsed) == ([True, False], 1)
    assert list(found.scored("likelihood", view="rotated").chosen) == [1]
    assert found.accuracies()["valid"] == {"likelihood": 0.0, "likelihood_normalised": 0.0}


def test_what_was_not_scored_is_none():
    found = Answers.of([Answer("test", "asked", "q", 0, text="ice", written=0)])
    assert found.scored("likelihood") is None
    assert found.scored("generation", "valid") is None
    assert found.scored("generation", view="rotated") is None
    assert found.confidence("total", 1.0) is None


def test_confidence_is_the_share_of_the_likeliest_choice():
    found = Answers.of(ANSWERS).confidence("total", 1.0)
    assert found == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-1.5) + math.exp(-2))])
    flatter = Answers.of(ANSWERS).confidence("total", 2.0)
    assert flatter == pytest.approx([1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-0.75) + math.exp(-1))])


def test_a_file_of_before_probabilities_were_kept_is_read(tmp_path):
    Answers(Answers.of(ANSWERS).table.drop(["probabilities"])).write(tmp_path)
    found = Answers.read(tmp_path)
    assert found.table["probabilities"].null_count == len(ANSWERS)
    assert found.accuracies() == Answers.of(ANSWERS).accuracies()


def test_a_choice_that_cannot_be_is_never_taken():
    found = Answers.of([Answer("test", "asked", "q", 1, (-math.inf, -9.0), (-math.inf, -9.0))])
    assert list(found.scored("likelihood").chosen) == [1]
    assert found.confidence("total", 1.0) == pytest.approx([1.0])


def test_a_missing_or_damaged_file_says_what_to_do(tmp_path):
    with pytest.raises(RunFolderError, match="is not there; remove"):
        Answers.read(tmp_path)
    (tmp_path / _FILE).write_bytes(b"PAR1 what?")
    with pytest.raises(RunFolderError, match="damaged"):
        Answers.read(tmp_path)


def test_thousands_of_answers_are_small(tmp_path):
    rng = np.random.default_rng(0)
    rows = (Answer("test", "asked", f"q{i}", 0, tuple(rng.random(4)), tuple(rng.random(4))) for i in range(2000))
    Answers.of(rows).write(tmp_path)
    assert (tmp_path / _FILE).stat().st_size < 100_000


def test_choices_that_are_equally_likely_share_the_answer():
    rows = [
        Answer("test", "asked", "two", 1, (-1.0, -1.0, -3.0), (-1.0, -1.0, -3.0)),
        Answer("test", "asked", "none", 2, (-1.0, -1.0, -3.0), (-1.0, -1.0, -3.0)),
        Answer("test", "asked", "all", 0, (-2.0, -2.0), (-2.0, -1.0)),
    ]
    found = Answers.of(rows)
    total, mean = found.scored("likelihood"), found.scored("likelihood_normalised")
    assert total.right.tolist() == [0.5, 0.0, 0.5]
    assert total.tied.tolist() == [2, 2, 2]
    assert mean.right.tolist() == [0.5, 0.0, 0.0]
    assert found.accuracies()["test"]["likelihood"] == 1 / 3
