"""Intervals and tests, compared with independent computations."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.comparison._statistics import Accuracy, chance_rate, majority_right, paired, wilson
from tinyllm.questions import Question


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_rate_and_its_ends_solve_the_score_equation(n, data):
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            assert abs(k / n - bound) == pytest.approx(1.959963984540054 * math.sqrt(bound * (1 - bound) / n), abs=1e-9)


def test_wilson_covers_the_true_rate_about_95_times_in_100():
    draw = random.Random(0)
    for p in (0.1, 0.3, 0.55):
        inside = 0
        for _ in range(3000):
            low, high = wilson(sum(draw.random() < p for _ in range(150)), 150)
            inside += low <= p <= high
        assert 0.935 <= inside / 3000 <= 0.968


def test_nothing_to_count():
    assert Accuracy.of(0, 0).ci95 == (0.0, 1.0)
    assert paired([], []).p == 1.0


def test_mcnemar_is_the_binomial_test_on_the_questions_that_differ():
    first = [True] * 12 + [False] * 3 + [True] * 50
    second = [False] * 12 + [True] * 3 + [True] * 50
    found = paired(first, second)
    assert (found.fixed, found.broken, found.n) == (3, 12, 65)
    assert found.p == pytest.approx(2 * sum(math.comb(15, i) for i in range(4)) / 2**15)
    assert found.difference == pytest.approx(-9 / 65)
    assert found.ci95[1] < 0
    assert paired(first, first).p == 1.0


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400))
def test_the_interval_excludes_0_exactly_where_the_test_is_significant(fixed, broken, same):
    """A reader who is told both must not find that they disagree."""
    found = paired([0.0] * fixed + [1.0] * (broken + same), [1.0] * fixed + [0.0] * broken + [1.0] * same)
    low, high = found.ci95
    assert low <= found.difference <= high
    assert (low > 0 or high < 0) == (found.p < 0.05)


def test_mcnemar_is_quick_and_finite_for_many_questions():
    many = [True, False] * 20_000
    assert paired(many, [not x for x in many]).p == 1.0
    assert 0 <= paired([True] * 5000, [False] * 5000).p < 1e-300


def test_the_paired_test_rejects_about_5_times_in_100_when_there_is_nothing():
    draw = random.Random(1)
    rejected = 0
    for _ in range(2000):
        first = [draw.random() < 0.4 for _ in range(400)]
        second = [draw.random() < 0.4 for _ in range(400)]
        rejected += paired(first, second).p < 0.05
    assert 0.025 <= rejected / 2000 <= 0.055  # the exact test is a little conservative


def test_ties_count_as_shares_and_hold_their_level():
    assert Accuracy.of(0.5 + 0.5 + 1.0 + 0.0, 4).value == 0.5
    found = paired([0.5, 1.0, 0.0, 1.0], [1.0, 1.0, 0.5, 0.0])
    assert (found.difference, found.fixed, found.broken, found.n) == (0.0, 2, 1, 4)
    assert found.p == 1.0
    draw, rejected = random.Random(2), 0
    for _ in range(1500):
        first, second = ([draw.choice((0.0, 0.5, 1.0, 1 / 3)) for _ in range(200)] for _ in range(2))
        rejected += paired(first, second).p < 0.05
    assert 0.035 <= rejected / 1500 <= 0.065


def test_which_questions_the_majority_answer_gets_right_is_known_one_by_one():
    train = [ask(0), ask(0), ask(1)]
    test = [ask(1, ("no", "yes", "maybe")), ask(1), ask(0)]
    assert majority_right(train, test) == [True, False, True]
    assert majority_right(train, []) == []


def ask(answer: int, choices=("yes", "no", "maybe")) -> Question:
    return Question("q", "?", tuple(choices), answer)


def test_majority_is_by_text_where_all_have_the_same_choices_and_by_position_elsewhere():
    train = [ask(0), ask(0), ask(1)]
    turned = ask(1, ("no", "yes", "maybe"))
    assert majority_right(train, [turned, ask(1)]) == [True, False]
    mixed = [ask(0, ("a", "b")), ask(0, ("c", "d")), ask(1, ("e", "f"))]
    assert majority_right(mixed, [ask(0, ("g", "h")), ask(1, ("i", "j"))]) == [True, False]


def test_chance():
    assert chance_rate([ask(0), ask(0, ("a", "b"))]) == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_the_test_stays_exact_with_many_differences_and_ties():
    changes = [-1] * 20 + [1] * 45
    whole = paired([float(c < 0) for c in changes], [float(c > 0) for c in changes])
    halves = paired([(c < 0) / 2 for c in changes], [(c > 0) / 2 for c in changes])
    assert halves.p == pytest.approx(whole.p, rel=1e-9)


@pytest.mark.parametrize(
    "shares", [(1, 1, 1, 1, 1 / 3), (1, 1, 1, 1, 1 / 4), (1, 1, 1, 1, 1, -1 / 3), (1, 1, 1, 1 / 2)]
)
def test_with_few_questions_and_ties_a_difference_is_not_found_where_the_exact_test_finds_none(shares):
    signs = itertools.product((1, -1), repeat=len(shares))
    sums = [abs(sum(s * c for s, c in zip(of, shares, strict=True))) for of in signs]
    exact = sum(s >= abs(sum(shares)) - 1e-9 for s in sums) / len(sums)
    found = paired([max(0.0, -c) for c in shares], [max(0.0, c) for c in shares])
    assert found.p >= exact > 0.05
