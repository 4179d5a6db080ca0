"""The temperature of a student's probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from tinyllm.scoring.calibration import fit_temperature, probabilities


def drawn(count: int, temperature: float, seed: int = 0):
    """Scores, and answers that are drawn from their softmax at a temperature."""
    lot = np.random.default_rng(seed)
    scores = lot.normal(0, 2, (count, 4)).tolist()
    return scores, [int(lot.choice(4, p=probabilities(s, temperature))) for s in scores]


def test_probabilities_are_a_softmax_that_a_temperature_flattens():
    assert probabilities((0.0, np.log(3.0))) == pytest.approx((0.25, 0.75))
    assert probabilities((0.0, np.log(9.0)), 2.0) == pytest.approx((0.25, 0.75))
    assert sum(probabilities((-900.0, -1200.0, -901.0))) == pytest.approx(1.0)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_the_answers_is_found_again(temperature):
    assert fit_temperature(*drawn(4000, temperature)) == pytest.approx(temperature, rel=0.1)


def test_the_probability_of_the_temperature_is_highest_at_it():
    scores, answers = drawn(30, 1.7)
    guessed = 1 / 32

    def likelihood(temperature: float) -> float:
        logs = [np.log(probabilities(s, temperature)) for s in scores]
        return (
            sum((1 - guessed) * log[a] + guessed * log.mean() for log, a in zip(logs, answers, strict=True))
            - np.log(temperature) ** 2 / 2
        )

    best = fit_temperature(scores, answers)
    assert likelihood(best) >= max(likelihood(best * f) for f in (0.5, 0.9, 0.97, 1.03, 1.1, 2.0))


def test_a_few_questions_are_not_taken_at_their_word():
    assert fit_temperature([], []) == 1.0
    scores, _ = drawn(14, 1.0)
    wrong = [min(range(4), key=of.__getitem__) for of in scores]  # the likelihood alone says: infinitely hot
    assert 1.5 < fit_temperature(scores[:4], wrong[:4]) < fit_temperature(scores, wrong) < 20
    sure = [[0.0, 1.0, 0.0]] * 20
    assert 0.6 < probabilities(sure[0], fit_temperature(sure, [1] * 20))[1] < 1 - 2 / 3 / 22
