"""Probabilities of choices that can be taken at their word: one temperature, fitted on validation questions.

    p_j = softmax(score_j / T)

A temperature changes no answer, only how sure the student is of it (Guo et al., "On Calibration of Modern Neural
Networks", arXiv 1706.04599).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_RANGE = (0.001, 1000.0)
_HALVINGS = 60
_LEAST_QUESTIONS = 10


def probabilities(scores: Sequence[float], temperature: float = 1.0) -> tuple[float, ...]:
    """Return the probability of each choice; they sum to 1.

    Args:
        scores: by which the choices are ranked (`OptionScores.ranking`).
    """
    top = max(scores)
    mass = [math.exp((s - top) / temperature) for s in scores]
    return tuple(m / sum(mass) for m in mass)


def fit_temperature(scores: Sequence[Sequence[float]], answers: Sequence[int]) -> float:
    """Return the temperature under which the right answers are likeliest; 1 where too few questions tell.

    The log-likelihood is concave in 1/T, and its derivative is Σ_questions (score of the right choice − mean score
    under p), so that halving finds its zero. Of n questions the share 1 / (n + 2) is taken to be answered by lot, so
    that a student that is right on all of them is not taken to be right always.
    """
    if len(answers) < _LEAST_QUESTIONS:
        return 1.0
    by_lot = 1 / (len(answers) + 2)

    def is_too_hot(temperature: float) -> bool:
        slope = 0.0
        for of, answer in zip(scores, answers, strict=True):
            shares = probabilities(of, temperature)
            slope += (1 - by_lot) * of[answer] + by_lot * sum(of) / len(of)
            slope -= sum(p * s for p, s in zip(shares, of, strict=True))
        return slope > 0

    low, high = map(math.log, _RANGE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_too_hot(math.exp(middle)) else (middle, high)
    return round(math.exp((low + high) / 2), 4)
