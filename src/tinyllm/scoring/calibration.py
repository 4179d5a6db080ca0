"""Calibration: probabilities of choices, with one temperature that is fitted on validation questions.

    p_j = softmax(score_j / T)

The temperature changes no answer, only the probabilities (Guo et al., "On Calibration of Modern Neural Networks", arXiv
1706.04599).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_RANGE = (0.001, 1000.0)
_HALVINGS = 60


def probabilities(scores: Sequence[float], temperature: float = 1.0) -> tuple[float, ...]:
    """Return the probability of each choice. They sum to 1.

    Args:
        scores: the scores that rank the choices (`OptionScores.ranking`).
    """
    top = max(scores)
    mass = [math.exp((s - top) / temperature) for s in scores]
    return tuple(m / sum(mass) for m in mass)


def fit_temperature(scores: Sequence[Sequence[float]], answers: Sequence[int]) -> float:
    """Return the most probable temperature, given the right answers, if ln T is standard normal beforehand.

    Few questions alone say little: on fourteen, chance can make a good student look like a guessing one. The prior
    counts for less, the more questions there are; `benchmarks/calibration.py` measures what it gains. Bisection finds
    the zero of the derivative by 1/T: the sum over questions of (score of the right choice − mean score under p), plus
    T · ln T. A share 1 / (n + 2) of the n answers is taken as random guesses. Otherwise a student that is right on all
    n questions would get a probability of 1.
    """
    guessed = 1 / (len(answers) + 2)

    def is_too_hot(temperature: float) -> bool:
        slope = temperature * math.log(temperature)
        for of, answer in zip(scores, answers, strict=True):
            shares = probabilities(of, temperature)
            slope += (1 - guessed) * of[answer] + guessed * sum(of) / len(of)
            slope -= sum(p * s for p, s in zip(shares, of, strict=True))
        return slope > 0

    low, high = map(math.log, _RANGE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_too_hot(math.exp(middle)) else (middle, high)
    return round(math.exp((low + high) / 2), 4)
