"""Choosing settings on validation questions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.comparison.selection import ALPHA, FAILED, Sweep, named

RATES = ({"train.learning_rate": 1e-4}, {"train.learning_rate": 1e-3})


def found(*runs):
    return {(named(settings), seed): value for settings, seed, value in runs}


def test_without_a_choice_every_seed_is_run_and_nothing_has_to_be_known():
    sweep = Sweep((0, 1, 2))
    assert sweep.wanted({}) == [({}, 0), ({}, 1), ({}, 2)]
    assert sweep.chosen({}) == {}
    assert (sweep.runs(), sweep.chooses) == (3, False)


def test_candidates_are_tried_with_the_first_seed_and_the_best_gets_the_others():
    low, high = RATES
    sweep = Sweep((7, 8), tuned=RATES)
    assert sweep.wanted({}) == [(low, 7), (high, 7)]
    assert sweep.chosen(found((low, 7, 0.4))) is None
    known = found((low, 7, 0.4), (high, 7, 0.5))
    assert sweep.wanted(known) == [(low, 7), (high, 7), (high, 8)]
    assert sweep.chosen(known) is None or sweep.chosen(known) == high


def test_of_equals_the_first_is_chosen():
    sweep = Sweep((0,), tuned=RATES)
    assert sweep.chosen(found((RATES[0], 0, 0.5), (RATES[1], 0, 0.5))) == RATES[0]


def test_every_alpha_gets_every_seed_and_its_own_tuning():
    sweep = Sweep((0, 1), alphas=(0.1, 1.0), tuned=RATES)
    both = [[{ALPHA: a, **r} for r in RATES] for a in (0.1, 1.0)]
    assert [s for s, _ in sweep.wanted({})] == [*both[0], *both[1]]
    known = found((both[0][0], 0, 0.5), (both[0][1], 0, 0.4), (both[1][0], 0, 0.4), (both[1][1], 0, 0.6))
    assert [r for r in sweep.wanted(known) if r[1] == 1] == [(both[0][0], 1), (both[1][1], 1)]
    assert sweep.best_by_alpha(known) == [both[0][0], both[1][1]]
    assert sweep.chosen(known) is None  # α is chosen by all seeds
    known |= found((both[0][0], 1, 0.9), (both[1][1], 1, 0.6))
    assert sweep.chosen(known) == both[0][0]
    assert sweep.runs() == len(sweep.wanted(known))


def test_an_alpha_whose_every_candidate_failed_has_lost_and_holds_nothing_up():
    sweep = Sweep((0,), alphas=(0.1, 3.0), tuned=RATES)
    known = found(*(({ALPHA: a, **r}, 0, 0.4 if a < 1 else FAILED) for a in (0.1, 3.0) for r in RATES))
    assert sweep.chosen(known) == {ALPHA: 0.1, **RATES[0]}
    assert sweep.chosen(dict.fromkeys(known, FAILED)) is None


def test_of_alphas_that_all_lost_a_seed_the_best_of_the_others_is_chosen():
    sweep = Sweep((0, 1, 2), alphas=(0.1, 1.0, 3.0))
    low, middle, high = ({ALPHA: a} for a in sweep.alphas)
    known = found(*((s, seed, 0.5) for s in (low, middle, high) for seed in (1, 2)))
    known |= found((low, 0, FAILED), (middle, 0, FAILED), (high, 0, FAILED), (middle, 1, 0.6))
    assert sweep.chosen(known) == middle
    known |= found((high, 0, 0.1))  # worse, and whole
    assert sweep.chosen(known) == high


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_done_run_by_run_it_ends_with_as_many_as_it_said(seeds, alphas, candidates, data):
    sweep = Sweep(
        tuple(range(seeds)), tuple(float(a + 1) for a in range(alphas)), tuple({"x": i} for i in range(candidates))
    )
    known: dict[tuple[str, int], float] = {}
    while left := [(s, seed) for s, seed in sweep.wanted(known) if (named(s), seed) not in known]:
        settings, seed = data.draw(st.sampled_from(left))
        known[named(settings), seed] = data.draw(st.floats(0, 1))
    assert len(known) == sweep.runs()
    assert sweep.chosen(known) is not None
