"""Accuracies with 95 % intervals, and paired tests, for one run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

from tinyllm.questions.types import Question

_ALPHA = 0.05
_Z95 = 1.959963984540054
_MOST_STEPS = 10**9  # of the exact sign test: a second; only ties of many different sizes need more


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right answers among n, with Wilson's 95 % interval."""

    value: float
    ci95: tuple[float, float]
    n: int

    @classmethod
    def of(cls, right: float, n: int) -> Accuracy:
        """Return the accuracy of so many right answers (a tie counts as a part of one) among n; (0, 1) among none."""
        return cls(right / n if n else 0.0, wilson(right, n), n)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion.

    With p = k / n:  (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± 1.96 s.e., it stays within 0…1, and
    keeps its coverage for small n and for p near 0 or 1.
    """
    if n == 0:
        return 0.0, 1.0
    p, z = successes / n, _Z95
    square = z * z
    centre = p + square / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    # At 0 and 1 the bound is p itself. Rounding must not move it past p.
    low = 0.0 if successes == 0 else (centre - half) / (1 + square / n)
    high = 1.0 if successes == n else (centre + half) / (1 + square / n)
    return low, high


@dataclass(frozen=True, slots=True)
class Paired:
    """Two students on the same questions. `difference` is the accuracy of the second minus that of the first.

    Attributes:
        fixed, broken: number of questions with a higher mark by the second student, and by the first.
    """

    difference: float
    ci95: tuple[float, float]
    p: float
    fixed: int
    broken: int
    n: int


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare two lists of marks (1 right, 0 wrong, between them a tie) on the same questions.

    The interval is Agresti and Min's for a difference of paired proportions. It adds half a question to each of the
    four outcomes, so its width is never 0. p comes from McNemar's exact test (two-sided binomial) on the questions on
    which the two differ. Where ties make fractional differences, p comes from the sign-flip test, of which McNemar's
    is a special case. It is exact, except where ties of many different sizes would make it take more than a second:
    then it is the normal approximation with Edwards' correction for continuity. Where p is 0.05 or more, the interval
    is extended to 0, which it may miss if few questions differ, so that a reader of both does not find them at odds.
    Without ties it then excludes 0 if and only if p is below 0.05; with ties it may still hold 0 beside a lower p.
    """
    n = len(first)
    changes = [b - a for a, b in zip(first, second, strict=True)]
    fixed, broken = sum(c > 0 for c in changes), sum(c < 0 for c in changes)
    if n == 0:
        return Paired(0.0, (-1.0, 1.0), 1.0, 0, 0, 0)
    total, squares = sum(changes), sum(c * c for c in changes)
    centre = total / (n + 2)
    half = _Z95 * math.sqrt(((squares + 1) / (n + 2) - centre**2) / (n + 2))
    are_whole = all(c in (-1, 0, 1) for c in changes)
    p = _mcnemar(fixed, broken) if are_whole else _sign_test(changes)
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    if p >= _ALPHA:
        low, high = min(low, 0.0), max(high, 0.0)
    return Paired(total / n, (low, high), p, fixed, broken, n)


def _sign_test(changes: Sequence[float]) -> float:
    import numpy as np

    moved = [Fraction(c).limit_denominator(1000) for c in changes if c]
    unit = math.lcm(*(c.denominator for c in moved))
    whole = [abs(int(c * unit)) for c in moved]
    span, seen = sum(whole), abs(sum(int(c * unit) for c in moved))
    if span * len(whole) > _MOST_STEPS:
        excess = max(0.0, abs(sum(changes)) - float(min(map(abs, moved))))
        return math.erfc(excess / math.sqrt(2 * sum(c * c for c in changes)))
    chances = np.zeros(span + 1)  # of each sum of the changes that are positive, where each sign is as likely
    chances[0] = 1.0
    for change in whole:
        chances[change:] += chances[:-change].copy()
        chances /= 2
    sums = 2 * np.arange(span + 1) - span
    return min(1.0, float(chances[np.abs(sums) >= seen].sum()))


def _mcnemar(b: int, c: int) -> float:
    n, k = b + c, min(b, c)
    # The sum of C(n, i) for i ≤ k in whole numbers. Each term comes from the one before, which is fast for large n.
    term = tail = 1
    for i in range(k):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))


def majority_right(train: Sequence[Question], test: Sequence[Question]) -> list[bool]:
    """Return for each question of `test` whether the most frequent answer of `train` is right.

    Where all questions have the same choices (yes / no / maybe), answers are compared by text, otherwise by position.
    """
    if not test:
        return []
    by_text = len({frozenset(q.choices) for q in chain(train, test)}) == 1

    def answer(question: Question) -> str | int:
        return question.answer_text if by_text else question.known_answer

    answers = Counter(answer(q) for q in train if q.answer is not None) or Counter(map(answer, test))
    best = min(answers, key=lambda a: (-answers[a], str(a)))
    return [answer(q) == best for q in test]


def chance_rate(test: Sequence[Question]) -> float:
    """Return the expected accuracy of guessing."""
    return sum(1 / len(q.choices) for q in test) / len(test) if test else 0.0
