"""The verdict claims only what the figures show."""

from __future__ import annotations

import pytest

from tinyllm.report._verdict import Outcomes, Over, Shown, headline, verdict
from tinyllm.report._words import decimal, duration, moment, p_value, plural, points, size

LOW, HIGH = Shown(0.31, (0.22, 0.41), 100), Shown(0.46, (0.37, 0.56), 100)


def test_overlapping_intervals_may_be_noise() -> None:
    said = verdict(LOW, HIGH, None, None)
    assert said == (
        "Training moved accuracy from 31.0\u00a0% to 46.0\u00a0% (+15.0\u00a0points, 100 questions). "
        "The 95\u00a0% intervals (22.0 to 41.0\u00a0% and 37.0 to 56.0\u00a0%) overlap, so this may be noise."
    )


def test_intervals_apart_are_hardly_noise() -> None:
    said = verdict(LOW, Shown(0.6, (0.5, 0.7), 100), None, None)
    assert "do not overlap, so noise is an unlikely explanation" in said


def test_intervals_that_touch_overlap() -> None:
    touching = Shown(0.5, (0.41, 0.59), 100)
    assert "overlap, so this may be noise" in verdict(LOW, touching, None, None)
    assert "overlap, so this may be noise" in verdict(touching, LOW, None, None)


def test_a_paired_test_can_tell_where_intervals_cannot() -> None:
    told = verdict(LOW, HIGH, None, Outcomes(20, 5, 26, 49, 0.004))
    assert "by these alone this may be noise; but question by question it fixed 20 and broke 5" in told
    assert "p\u00a0=\u00a00.004" in told
    untold = verdict(LOW, HIGH, None, Outcomes(27, 17, 19, 37, 0.17))
    assert "overlap, so this may be noise: question by question, it fixed 27 and broke 17" in untold


def test_a_loss_is_told_as_one() -> None:
    said = verdict(HIGH, LOW, 0.5, None)
    assert "from 46.0\u00a0% to 31.0\u00a0% (−15.0\u00a0points" in said
    assert "It does not beat always giving the most frequent answer (50.0\u00a0%)." in said


@pytest.mark.parametrize(
    ("majority", "said"),
    [
        (0.27, "It is above always giving the most frequent answer (27.0\u00a0%); whether by more than noise"),
        (0.46, "It does not beat"),
    ],
)
def test_the_majority_rate_is_not_taken_as_exact(majority: float, said: str) -> None:
    assert said in verdict(LOW, HIGH, majority, None)
    assert "It does not beat guessing (90.0\u00a0%)" in verdict(LOW, HIGH, majority, None, chance=0.9)


def test_the_majority_answer_is_beaten_in_pairs_on_the_same_questions() -> None:
    beats = verdict(LOW, HIGH, 0.4, None, 0.25, Over(16, 4, 0.012))
    assert "It beats always giving the most frequent answer (40.0\u00a0%): it alone is right on 16 questions, " in beats
    assert "that answer alone on 4 (exact paired test, p\u00a0=\u00a00.012)" in beats
    assert "not shown to beat it" in verdict(LOW, HIGH, 0.27, None, 0.25, Over(40, 21, 0.06))
    assert "It does not beat always" in verdict(LOW, HIGH, 0.5, None, 0.25, Over(3, 10, 0.09))


def test_no_change_is_no_move() -> None:
    assert verdict(LOW, LOW, None, None).startswith("Training left accuracy at 31.0\u00a0%")
    assert "fixed 4 and broke 4" in verdict(LOW, LOW, None, Outcomes(4, 4, 27, 65, 1.0))


def test_one_score_makes_no_comparison() -> None:
    assert "cannot say what training did" in verdict(None, HIGH, None, None)
    assert "not been scored after training" in verdict(LOW, None, 0.2, None)
    assert verdict(None, None, None, None) == "The student has not been scored yet."


def test_different_tests_are_told() -> None:
    said = verdict(Shown(0.3, (0.2, 0.4), 50), HIGH, None, None)
    assert "50 questions before, 100 after: not the same test" in said


def test_a_gain_in_form_is_told() -> None:
    before, after = Shown(0.08, (0.04, 0.15), 100, 71), Shown(0.44, (0.35, 0.54), 100, 3)
    assert "against 71 before training: part of the gain may come from the format of the answers." in verdict(
        before, after, None, None
    )
    assert "format" not in verdict(before, Shown(0.05, (0.02, 0.1), 100, 3), None, None)
    assert "could not be read" not in verdict(None, Shown(0.44, (0.35, 0.54), 100, 0), None, None)


def test_numbers_read_well() -> None:
    assert [points(x) for x in (0.15, -0.0301, 0.0)] == ["+15.0\u00a0points", "−3.0\u00a0points", "±0.0\u00a0points"]
    assert [decimal(x) for x in (5e-5, 0.000198, 6.4211, None)] == ["5e-5", "0.000198", "6.42", "–"]
    assert [duration(s) for s in (3.21, 187.3, 3725)] == ["3.2\u00a0s", "3\u00a0min 7\u00a0s", "1\u00a0h 2\u00a0min"]
    assert [size(n) for n in (512, 2**20, 3 * 2**30)] == ["512\u00a0bytes", "1\u00a0MiB", "3.00\u00a0GiB"]
    assert [plural(n, "question") for n in (1, 2000)] == ["1 question", "2,000 questions"]
    assert [p_value(p) for p in (0.0001, 0.0123, 0.5)] == [
        "p\u00a0<\u00a00.001",
        "p\u00a0=\u00a00.012",
        "p\u00a0=\u00a00.50",
    ]
    assert moment("2026-01-31T12:34:56+01:00") == "2026-01-31 11:34 UTC"
    assert moment("yesterday") == "yesterday"


def test_the_headline_says_helped_only_if_the_paired_test_does() -> None:
    helped = headline(LOW, HIGH, 0.2, Outcomes(20, 5, 26, 49, 0.004), 0.2, gain=(0.06, 0.24))
    assert helped.startswith(
        "Training helped: 31.0\u00a0% to 46.0\u00a0% (+15.0\u00a0points, 95\u00a0% interval +6.0 to"
    )
    assert headline(HIGH, LOW, 0.2, Outcomes(5, 20, 26, 49, 0.004), 0.2).startswith("Training hurt: ")
    unsure = headline(LOW, HIGH, 0.2, Outcomes(27, 17, 19, 37, 0.17), 0.2)
    assert unsure.startswith("Training is not shown to change the accuracy: ")


def test_the_headline_hides_no_trivial_answer_that_is_as_good() -> None:
    outcomes = Outcomes(20, 5, 26, 49, 0.004)
    assert "most frequent" not in headline(LOW, HIGH, 0.2, outcomes, 0.2, Over(16, 4, 0.012))
    assert "not shown to beat it" in headline(LOW, HIGH, 0.27, outcomes, 0.25, Over(40, 21, 0.06))
    assert "It does not beat guessing" in headline(LOW, HIGH, 0.2, outcomes, 0.9)
