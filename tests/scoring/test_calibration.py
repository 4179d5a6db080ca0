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


def test_the_likelihood_of_the_answers_is_highest_at_it():
    scores, answers = drawn(3000, 1.7)

    def likelihood(temperature: float) -> float:
        return sum(np.log(probabilities(s, temperature)[a]) for s, a in zip(scores, answers, strict=True))

    best = fit_temperature(scores, answers)
    assert likelihood(best) >= max(likelihood(best * f) for f in (0.5, 0.9, 0.97, 1.03, 1.1, 2.0))


def test_a_few_questions_and_questions_that_are_all_right_are_not_taken_at_their_word():
    scores, answers = drawn(9, 5.0)
    assert fit_temperature(scores, answers) == 1.0
    sure = [[0.0, 1.0, 0.0]] * 20
    assert probabilities(sure[0], fit_temperature(sure, [1] * 20))[1] == pytest.approx(1 - 2 / 3 / 22, abs=1e-3)
