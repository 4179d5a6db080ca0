"""Figures with intervals: no accuracy without its 95 % interval, no comparison with its own noise left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

from tinyllm.questions.types import Question

_Z95 = 1.959963984540054
_FEW = 20  # questions; with five, the approximation finds a difference at 0.05 where the exact p is 0.0625


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right answers among n, with Wilson's 95 % interval."""

    value: float
    ci95: tuple[float, float]
    n: int


def accuracy(right: Sequence[float]) -> Accuracy:
    """Return the mean mark (1 right, 0 wrong, between them a tie) with its interval; (0, 1) where there is none."""
    n, k = len(right), sum(right)
    return Accuracy(k / n if n else 0.0, wilson(k, n), n)


def wilson(successes: float, n: int, z: float = _Z95) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion.

    With p = k / n:  (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). It stays within 0…1 and holds its level for
    small n and for p near 0 or 1, where p ± 1.96 s.e. does not.
    """
    if n == 0:
        return 0.0, 1.0
    p, square = successes / n, z * z
    centre = p + square / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    # At the ends the bound is p itself; rounding must not put it on the other side.
    low = 0.0 if successes == 0 else (centre - half) / (1 + square / n)
    high = 1.0 if successes == n else (centre + half) / (1 + square / n)
    return low, high


@dataclass(frozen=True, slots=True)
class Paired:
    """Two students on the same questions: difference of accuracies (second minus first), interval, p.

    Attributes:
        fixed, broken: questions that the second, or the first, gets more right.
    """

    difference: float
    ci95: tuple[float, float]
    p: float
    fixed: int
    broken: int
    n: int


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare two lists of marks (1 right, 0 wrong, between them a tie) on the same questions.

    The interval is Agresti and Min's for a difference of paired proportions (half a question added to each of the
    four outcomes, so that it has a width also where the two never differ); p is McNemar's exact (two-sided binomial)
    test on the questions on which they differ. Where answers are tied, so that differences are no whole marks, p is of
    the test that McNemar's is the case of: any difference might as well have had the other sign. It is exact up to
    `_FEW` differences, beyond them the normal approximation with Edwards' correction for continuity.
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
    return Paired(total / n, (max(-1.0, centre - half), min(1.0, centre + half)), p, fixed, broken, n)


def _sign_test(changes: Sequence[float]) -> float:
    moved = [Fraction(c).limit_denominator(1000) for c in changes if c]
    if len(moved) > _FEW:
        excess = max(0.0, abs(sum(changes)) - float(min(map(abs, moved))))
        return math.erfc(excess / math.sqrt(2 * sum(c * c for c in changes)))
    unit = math.lcm(*(c.denominator for c in moved))
    whole = [int(c * unit) for c in moved]
    ways = Counter({0: 1})  # how many choices of signs give each sum
    for c in whole:
        ways = Counter({s: ways[s - c] + ways[s + c] for s in {at + by for at in ways for by in (-c, c)}})
    return sum(n for s, n in ways.items() if abs(s) >= abs(sum(whole))) / (1 << len(whole))


def _mcnemar(b: int, c: int) -> float:
    n, k = b + c, min(b, c)
    if n == 0:
        return 1.0
    # Σ C(n, i) for i ≤ k, each term from the one before: exact whole numbers, also for thousands of questions.
    term = tail = 1
    for i in range(k):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, float(Fraction(2 * tail, 1 << n)))


def majority_right(train: Sequence[Question], test: Sequence[Question]) -> list[bool]:
    """Return which questions of `test` the most frequent answer of `train` gets right, to be compared in pairs.

    Where all questions have the same choices (yes / no / maybe) an answer is its text, else its position.
    """
    if not test:
        return []
    same = len({frozenset(q.choices) for q in chain(train, test)}) == 1
    answers = Counter(_answer(q, same) for q in train if q.answer is not None)
    answers = answers or Counter(_answer(q, same) for q in test)
    best = min(answers, key=lambda a: (-answers[a], str(a)))
    return [_answer(q, same) == best for q in test]


def _answer(question: Question, by_text: bool) -> str | int:
    return question.answer_text if by_text else question.known_answer


def chance_rate(test: Sequence[Question]) -> float:
    """Return the expected accuracy of guessing."""
    return sum(1 / len(q.choices) for q in test) / len(test) if test else 0.0
