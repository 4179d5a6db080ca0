"""The verdict claims only what the figures show."""

from __future__ import annotations

import pytest

from tinyllm.report import _verdict
from tinyllm.report._verdict import Gain, Outcomes, Shown, by_other_scorer
from tinyllm.report._words import decimal, duration, moment, p_value, plural, points, size

LOW, HIGH = Shown(0.31, (0.22, 0.41), 100), Shown(0.46, (0.37, 0.56), 100)


def verdict(*figures, **more) -> str:
    return _verdict.verdict(*figures, **more).text


def headline(*figures) -> str:
    return _verdict.verdict(*figures).headline


def headline_with(caution: str) -> str:
    return _verdict.verdict(LOW, HIGH, None, outcomes(20, 5, 0.004), caution=caution).headline


def outcomes(fixed: int, broken: int, p: float) -> Outcomes:
    difference = (fixed - broken) / 100
    return Outcomes(fixed, broken, 20, 80 - fixed - broken, p, difference, (difference - 0.1, difference + 0.1))


def test_a_gain_is_one_sentence_with_the_difference_its_interval_and_p() -> None:
    assert verdict(LOW, HIGH, None, outcomes(20, 5, 0.004)) == (
        "Training helped: 31.0\u00a0% to 46.0\u00a0% (+15.0\u00a0points, 95\u00a0% interval +5.0 to +25.0, "
        "p\u00a0=\u00a00.004) on 100 test questions."
    )


def test_a_change_that_can_be_chance_is_no_change() -> None:
    assert verdict(LOW, HIGH, None, outcomes(27, 12, 0.17)).startswith(
        "Training is not shown to change the accuracy: 31.0\u00a0% to 46.0\u00a0% (+15.0\u00a0points, 95"
    )
    assert "31.0\u00a0% to 31.0\u00a0% (±0.0\u00a0points" in verdict(LOW, LOW, None, outcomes(4, 4, 1.0))


@pytest.mark.parametrize(
    ("soft", "said"),
    [
        ({}, "Training helped: "),
        ({"learnt_without_answer": 9, "with_answer": 5}, "Training helped: "),
        (
            {"learnt_without_answer": 9, "with_answer": 0},
            "Training on the teachers' opinions, without an answer, helped",
        ),
        ({"shuffled": True}, "Training on opinions about other questions (train.soft.shuffle) helped: "),
    ],
)
def test_it_says_what_the_training_was_on(soft, said) -> None:
    what = _verdict.training_in_words(soft)
    assert verdict(LOW, HIGH, None, outcomes(20, 5, 0.004), what=what).startswith(said)


def test_a_loss_is_told_as_one() -> None:
    said = verdict(HIGH, LOW, 0.5, outcomes(5, 20, 0.004))
    assert said.startswith(
        "Training hurt: 46.0\u00a0% to 31.0\u00a0% (−15.0\u00a0points, 95\u00a0% interval −25.0 to −5.0, p"
    )
    assert said.endswith("It does not beat always giving the most frequent answer (50.0\u00a0%).")


def test_without_the_answers_to_single_questions_nothing_is_tested() -> None:
    said = verdict(LOW, HIGH, None, None)
    assert said.startswith("The accuracy went from 31.0\u00a0% to 46.0\u00a0%. The change is not tested")


def test_it_has_at_most_two_sentences_on_the_choices_and_no_talk_of_overlaps() -> None:
    for p in (0.001, 0.5):
        for over in (None, 0.012, 0.06):
            said = verdict(LOW, HIGH, 0.4, outcomes(20, 5, p), 0.25, over)
            assert said.count(". ") == 1, said
            assert "overlap" not in said


@pytest.mark.parametrize(
    ("majority", "said"),
    [
        (0.27, "It is not shown to beat always giving the most frequent answer (27.0\u00a0%)."),
        (0.46, "It does not beat"),
    ],
)
def test_the_majority_rate_is_not_taken_as_exact(majority: float, said: str) -> None:
    assert said in verdict(LOW, HIGH, majority, None)
    assert "It does not beat guessing (90.0\u00a0%)" in verdict(LOW, HIGH, majority, None, chance=0.9)


def test_the_majority_answer_is_beaten_in_pairs_on_the_same_questions() -> None:
    beats = verdict(LOW, HIGH, 0.4, None, 0.25, 0.012)
    assert "It beats always giving the most frequent answer (40.0\u00a0%, p\u00a0=\u00a00.012)." in beats
    unshown = verdict(LOW, HIGH, 0.27, None, 0.25, 0.06)
    assert (
        "It is not shown to beat always giving the most frequent answer (27.0\u00a0%, p\u00a0=\u00a00.060)." in unshown
    )
    assert "It does not beat always" in verdict(LOW, HIGH, 0.5, None, 0.25, 0.09)


def test_one_score_makes_no_comparison() -> None:
    assert "it was not scored before training" in verdict(None, HIGH, None, None)
    assert "not been scored after training" in verdict(LOW, None, 0.2, None)
    assert verdict(None, None, None, None) == "The student has not been scored yet."


def test_different_tests_are_told() -> None:
    said = verdict(Shown(0.3, (0.2, 0.4), 50), HIGH, None, None)
    assert "on different questions (50 questions before, 100 after), so the change is not tested" in said


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
    assert [duration(s) for s in (3.21, 59.97, 187.3, 3725)] == [
        "3.2\u00a0s",
        "60.0\u00a0s",
        "3\u00a0min 7\u00a0s",
        "1\u00a0h 2\u00a0min",
    ]
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
    helped = headline(LOW, HIGH, 0.2, outcomes(20, 5, 0.004), 0.2, 0.012)
    assert helped == verdict(LOW, HIGH, None, outcomes(20, 5, 0.004))  # one sentence
    assert headline(HIGH, LOW, 0.2, outcomes(5, 20, 0.004), 0.2).startswith("Training hurt: ")
    unsure = headline(LOW, HIGH, 0.2, outcomes(27, 12, 0.17), 0.2)
    assert unsure.startswith("Training is not shown to change the accuracy: ")


def test_the_headline_hides_no_trivial_answer_that_is_as_good() -> None:
    found = outcomes(20, 5, 0.004)
    assert "most frequent" not in headline(LOW, HIGH, 0.2, found, 0.2, 0.012)
    assert "not shown to beat always" in headline(LOW, HIGH, 0.27, found, 0.25, 0.06)
    assert "It does not beat guessing" in headline(LOW, HIGH, 0.2, found, 0.9)


def test_a_gain_that_the_other_way_to_compare_does_not_show_is_cautioned() -> None:
    per_token, whole = Gain(0.27, 0.73, 0.001), Gain(0.64, 0.73, 0.6)
    said = by_other_scorer({"likelihood_normalised": per_token, "likelihood": whole}, "likelihood_normalised")
    assert said == (
        "Compared by the whole text of a choice, the student gets 64.0\u00a0% right untrained and 73.0\u00a0% trained "
        "(p\u00a0=\u00a00.60). So most of the gain may be that it learnt to be compared in one way."
    )
    assert said in headline_with(said)
    half = {"likelihood_normalised": per_token, "likelihood": Gain(0.5, 0.67, 0.06)}
    assert "So part of the gain may be" in by_other_scorer(half, "likelihood_normalised")
    unsure = {"likelihood_normalised": Gain(0.5, 0.75, 0.065), "likelihood": Gain(0.786, 0.786, 1.0)}
    assert by_other_scorer(unsure, "likelihood_normalised").startswith("Compared by the whole text of a choice")
    figures = {
        "before": {"likelihood_normalised": {"value": 0.27}, "likelihood": {"value": 0.64}},
        "accuracy": {s: {"value": 0.73, "n": 100, "ci95": [0.6, 0.8]} for s in ("likelihood_normalised", "likelihood")},
        "gain": {
            "likelihood_normalised": {"difference": 0.46, "ci95": [0.3, 0.6], "p": 0.001, "n": 100},
            "likelihood": {"difference": 0.09, "ci95": [-0.1, 0.2], "p": 0.6, "n": 100},
        },
        "majority": 0.25,
        "chance": 0.25,
    }
    told = _verdict.verdict_in_words(figures, "likelihood_normalised", "Likelihood per token")
    assert told.endswith(said.replace("\u00a0", " "))


@pytest.mark.parametrize(
    "gains",
    [
        {"likelihood": Gain(0.3, 0.5, 0.001)},  # nothing to compare with
        {"likelihood": Gain(0.3, 0.5, 0.2), "likelihood_normalised": Gain(0.4, 0.4, 1.0)},  # no gain is claimed
        {"likelihood": Gain(0.5, 0.3, 0.01), "likelihood_normalised": Gain(0.6, 0.6, 1.0)},  # a loss
        {"likelihood": Gain(0.3, 0.5, 0.001), "likelihood_normalised": Gain(0.4, 0.5, 0.03)},  # both show it
        {"likelihood": Gain(0.3, 0.5, 0.001), "likelihood_normalised": Gain(0.3, 0.4, 0.1)},  # it starts no higher
        {"likelihood": Gain(0.3, 0.5, 0.001), "generation": Gain(0.4, 0.4, 1.0)},  # writing is another task
    ],
)
def test_no_other_case_is_cautioned(gains) -> None:
    assert not by_other_scorer(gains, "likelihood")
