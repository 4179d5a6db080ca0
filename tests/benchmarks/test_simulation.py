"""The simulation of what intervals and tests promise: its rows, its page, and its worlds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import statistics as simulation

CELL = (2, 100, 1.0, "unequal")


def test_a_cell_has_every_measure_and_a_row_can_be_read_back():
    rows = simulation.simulate(5, [CELL, (1, 100, 0.0, "equal")])
    of_two = [r for r in rows if r.seeds == 2]
    assert [(r.measure, r.comparisons) for r in of_two[:5]] == [
        ("coverage of an accuracy", None), ("coverage of a difference", None),
        ("wrong marks", 2), ("wrong marks", 5), ("wrong marks", 20),
    ]  # fmt: skip
    assert all(0 <= r.ours <= 1 and r.spread[0] <= r.ours <= r.spread[1] for r in rows)
    assert all(r.ours == 0 for r in rows if r.seeds == 1 and r.measure == "wrong marks")  # one seed has no marks


@pytest.mark.parametrize("noise", list(simulation.NOISES))
def test_no_method_is_better_unless_the_second_is_to_be(noise):
    made = simulation.world(3, 100, 0.5, noise, 6)
    accuracies = simulation.World.accuracy(np.array(made.levels), np.array(made.noise))
    assert np.ptp(accuracies) < 1e-9
    better = simulation.world(3, 100, 0.5, noise, 6, effect=0.07)
    accuracies = simulation.World.accuracy(np.array(better.levels), np.array(better.noise))
    assert accuracies[1] - accuracies[0] == pytest.approx(0.07, abs=1e-6)


def test_what_is_drawn_has_the_true_accuracy_and_shares_its_seeds():
    rng, made = np.random.default_rng(0), simulation.world(3, 2000, 1.0, "equal", 2)
    drawn = [made.draw(rng) for _ in range(150)]
    right = np.array([r for r, _ in drawn])
    assert right.mean() == pytest.approx(float(drawn[0][1][0]), abs=0.01)
    by_seed = right.mean(axis=3) - right.mean(axis=(2, 3), keepdims=True)[..., 0]
    together = np.corrcoef(by_seed[:, 0].ravel(), by_seed[:, 1].ravel())[0, 1]
    assert together > 0.9  # wholly shared seeds are good for both methods at once


def test_the_page_is_made_of_the_rows_that_are_kept():
    found = simulation.read(simulation.RESULTS)
    assert simulation.PAGE.read_text("utf-8") == simulation.page(found["rows"], found["settings"]["tables"])
    cells = {(r["seeds"], r["questions"], r["shared"], r["noise"]) for r in found["rows"]}
    assert {c[0] for c in cells} == {1, 2, 3, 4, 5}
    assert {c[2] for c in cells} == {0.0, 0.5, 1.0}
    assert (min(c[1] for c in cells), max(c[1] for c in cells)) == (100, 3000)
    assert json.dumps(found)
