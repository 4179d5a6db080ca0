"""Statistics over seeds and questions, tested by simulation and against scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from benchmarks import statistics as simulation
from tinyllm.comparison._seeds import ALPHA, Runs, Spread, calibration, difference, estimate, findable, holm
from tinyllm.comparison._statistics import paired, wilson

World, world = simulation.World, simulation.world


def of(right, seeds=None) -> Runs:
    """The answers of trained students; seeds 0, 1, … by default."""
    right = np.asarray(right, dtype=np.float64)
    return Runs(right, tuple(range(len(right))) if seeds is None else seeds)


def untrained(right) -> Runs:
    return Runs(np.asarray(right, dtype=np.float64), None)


# --- what they promise, by simulation -----------------------------------------------------------------------------


def promises(made: World, tables: int, seed: int) -> tuple[float, float, float]:
    """Return the coverage of the intervals of accuracies and of differences, and the rate of wrong marks."""
    rng, held, wrong = np.random.default_rng(seed), np.zeros(2), 0
    for _ in range(tables):
        right, truth = made.draw(rng)
        baseline, *others = made.runs(right)
        gains = [difference((runs, baseline)) for runs in others]
        for runs, gain, true in zip(others, gains, truth[1:], strict=True):
            low, high = estimate(runs).ci95
            held += (low <= true <= high, gain.ci95[0] <= true - truth[0] <= gain.ci95[1])
        known = [g.p for g in gains if g.p is not None]
        wrong += bool(known) and min(holm(known)) < ALPHA
    return *(held / tables / len(others)), wrong / tables


@pytest.mark.parametrize("noise", ["equal", "unequal"])
@pytest.mark.parametrize("shared", [0.0, 1.0])
@pytest.mark.parametrize(("seeds", "questions"), [(1, 400), (2, 400), (3, 1000), (5, 400)])
def test_intervals_and_marks_keep_their_error_rates(seeds, questions, shared, noise):
    """This includes seeds that are shared by all methods, and methods with very different variances."""
    accuracy, gain, wrong = promises(world(seeds, questions, shared, noise, 6), 400, 3)
    assert 0.92 <= accuracy <= 0.98  # 400 experiments: two standard errors are 0.02
    assert 0.93 <= gain <= 0.975
    assert wrong <= 0.07
    assert wrong == 0 or seeds > 1


@pytest.mark.parametrize(("seeds", "shared", "count"), [(3, 1.0, 5), (5, 0.0, 5), (4, 0.5, 2)])
def test_a_difference_is_found_with_the_stated_power(seeds, shared, count):
    made, rng = world(seeds, 1000, shared, "equal", 2), np.random.default_rng(0)
    pilots = [difference(tuple(reversed(made.runs(made.draw(rng)[0])))).spread for _ in range(200)]
    effect = findable(pilots, count, power=0.8)
    better, found = world(seeds, 1000, shared, "equal", 2, effect), 0
    for _ in range(800):
        first, second = better.runs(better.draw(rng)[0])
        found += difference((second, first)).p * count < ALPHA
    assert found / 800 == pytest.approx(0.8, abs=0.05)


def test_an_interval_over_questions_only_is_too_narrow_for_other_seeds():
    """With one seed the interval is over questions only, so it does not hold for other trainings."""
    made, rng, held = world(1, 1000, 0.0, "unequal", 3), np.random.default_rng(3), 0
    truth = float(World.accuracy(made.levels[2], made.noise[2]))
    for _ in range(300):
        low, high = estimate(made.runs(made.draw(rng)[0])[2]).ci95
        held += low <= truth <= high
    assert held / 300 < 0.7


def test_a_relative_gain_is_as_uncertain_as_what_it_is_relative_to():
    made, covered = world(4, 400, 0.5, "equal", 2, effect=0.1), 0
    rng, base = np.random.default_rng(6), float(World.accuracy(made.levels[0], made.noise[0]))
    truth = float(World.accuracy(made.levels[1], made.noise[1])) / base - 1
    for _ in range(600):
        first, second = made.runs(made.draw(rng)[0])
        low, high = difference((second, first)).relative_ci95
        covered += low <= 100 * truth <= high
    assert 0.93 <= covered / 600 <= 0.975


# --- seeds are shared ---------------------------------------------------------------------------------------------


def test_effects_of_seeds_that_both_methods_share_cancel_out():
    """Accuracies vary by ten points over seeds, and the difference stays at two points."""
    rng, ease = np.random.default_rng(0), np.sort(np.random.default_rng(1).random(400))
    first = np.stack([ease < level for level in (0.50, 0.60, 0.55)])
    second = first.copy()
    for row in second:
        row[rng.choice(np.flatnonzero(~row), 8, replace=False)] = True
    gain, alone = difference((of(second), of(first))), estimate(of(first))
    assert gain.value == pytest.approx(0.02)
    assert gain.ci95[1] - gain.ci95[0] < 0.04
    assert gain.p < 0.05
    assert alone.ci95[1] - alone.ci95[0] > 0.2  # another seed would change either accuracy much


def test_only_common_seeds_are_compared():
    rng = np.random.default_rng(0)
    three, one = rng.random((3, 200)) < 0.5, rng.random((1, 200)) < 0.6
    gain = difference((of(one, (2,)), of(three)))
    assert gain.value == pytest.approx(one.mean() - three[2].mean())
    assert (gain.seeds, gain.p, gain.knows_seeds) == (1, None, False)
    assert difference((of(one, (7,)), of(three))) is None
    two = difference((of(three[[2, 0]], (2, 0)), of(three, (0, 1, 2))))
    assert (two.value, two.seeds) == (0.0, 2)  # rows are matched by seed, not by place


@settings(max_examples=25)
@given(st.permutations(range(4)), st.permutations(range(50)), st.integers(0, 10**6))
def test_the_order_of_seeds_and_questions_changes_nothing(seeds, questions, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.random((4, 50)) < 0.5, rng.random((4, 50)) < 0.6
    there = difference((of(first), of(second)))
    moved = of(first[seeds][:, questions], tuple(seeds)), of(second[:, questions])
    again = difference(moved)
    assert again.ci95 == pytest.approx(there.ci95)
    assert again.p == pytest.approx(there.p)
    assert estimate(moved[0]).ci95 == pytest.approx(estimate(of(first)).ci95)


def test_the_same_row_twice_is_not_two_seeds():
    with pytest.raises(ValueError, match="different seeds"):
        of(np.ones((2, 3)), (1, 1))


def test_several_datasets_are_averaged_on_the_seeds_that_all_have():
    rng = np.random.default_rng(4)
    first, second = rng.random((3, 300)) < 0.5, rng.random((2, 500)) < 0.7
    both = estimate(of(first), of(second, (0, 2)))
    assert both.value == pytest.approx((first[[0, 2]].mean() + second.mean()) / 2)
    assert (both.questions, both.seeds) == (800, 2)
    assert estimate(of(first), of(second, (5, 6))) is None
    base = of(rng.random((3, 300)) < 0.4), of(rng.random((3, 500)) < 0.6)
    gain = difference((of(first), base[0]), (of(second, (0, 2)), base[1]))
    assert gain.seeds == 2


def test_seeds_that_are_good_on_every_dataset_widen_the_average():
    """A seed effect that is common to datasets does not average out."""
    rng, goodness = np.random.default_rng(5), np.array([[0.35], [0.5], [0.65]])
    same = [of(rng.random((3, 2000)) < goodness) for _ in range(2)]
    turned = [same[0], of(same[1].right, (2, 1, 0))]
    wide, narrow = (estimate(*pair).ci95 for pair in (same, turned))
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


# --- one seed, or none --------------------------------------------------------------------------------------------


def test_one_training_without_seeds_has_nearly_wilsons_interval_and_scipys_bootstrap():
    right = np.random.default_rng(0).random((1, 400)) < 0.6
    low, high = estimate(untrained(right)).ci95
    theirs = stats.bootstrap((right[0],), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.006)
    assert (low, high) == pytest.approx(wilson(int(right.sum()), 400), abs=0.002)


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.08])
def test_without_seeds_the_test_is_nearly_mcnemars(shift):
    """This is the case of an untrained student against the majority answer."""
    rng = np.random.default_rng(5)
    one = rng.random((1, 600)) < 0.5
    other = np.where(rng.random((1, 600)) < 0.7, one, rng.random((1, 600)) < 0.5 - shift)
    compared = difference((untrained(one), untrained(other)))
    fixed, broken = int((one & ~other).sum()), int((~one & other).sum())
    theirs = mcnemar([[0, fixed], [broken, 0]], exact=False, correction=False).pvalue
    assert compared.p == pytest.approx(theirs, abs=0.03)
    assert compared.ci95 == pytest.approx(paired(other[0].tolist(), one[0].tolist()).ci95, abs=0.004)


def test_what_is_not_trained_stands_beside_every_seed():
    rng = np.random.default_rng(8)
    trained, other = rng.random((3, 200)) < 0.6, rng.random((1, 200)) < 0.5
    there, back = difference((of(trained), untrained(other))), difference((untrained(other), of(trained)))
    assert there.seeds == 3
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))
    assert there.p == pytest.approx(back.p)
    assert estimate(untrained(other)).knows_seeds
    assert not estimate(of(other)).knows_seeds


def test_mcnemars_exact_test_is_statsmodels():
    for fixed, broken in [(0, 0), (1, 0), (5, 1), (12, 9), (40, 70)]:
        first = [False] * fixed + [True] * broken + [True] * 10
        second = [True] * fixed + [False] * broken + [True] * 10
        theirs = mcnemar([[10, broken], [fixed, 0]], exact=True).pvalue
        assert paired(first, second).p == pytest.approx(theirs if fixed + broken else 1.0)


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_comparisons_to_come_are_corrected_for_already():
    whole = holm([0.01, 0.02, 1.0, 1.0, 1.0])
    assert holm([0.01, 0.02], planned=5) == pytest.approx(whole[:2])
    assert holm([0.01, 0.02], planned=1) == holm([0.01, 0.02])


# --- what always holds ----------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(1, 40), st.floats(0, 1), st.integers(0, 10**6))
def test_an_interval_holds_its_value_and_stays_within_bounds(seeds, questions, level, seed):
    right = np.random.default_rng(seed).random((seeds, questions)) < level
    found = estimate(of(right))
    assert 0 <= found.ci95[0] <= found.value <= found.ci95[1] <= 1
    assert found.ci95[1] - found.ci95[0] > 0
    assert (found.seeds, found.questions) == right.shape
    assert found.knows_seeds == (seeds > 1)


@settings(max_examples=50)
@given(st.integers(2, 5), st.integers(20, 200), st.floats(-0.3, 0.3), st.integers(0, 10**6))
def test_a_mark_is_stricter_than_the_interval_and_than_the_questions_alone(seeds, questions, shift, seed):
    rng = np.random.default_rng(seed)
    one, other = rng.random((seeds, questions)) < 0.5 + shift, rng.random((seeds, questions)) < 0.5
    gain = difference((of(one), of(other)))
    if gain.p < ALPHA:
        assert not gain.ci95[0] <= 0 <= gain.ci95[1]
    alone = 2 * stats.t.sf(abs(gain.value) / np.sqrt(gain.spread.of_questions), questions - 1)
    assert gain.p >= alone - 1e-9


def test_a_p_value_is_the_level_at_which_a_difference_is_just_found():
    spread = Spread(0.0004, 0.0002, 0.0003, 3, 500)
    for value in (0.03, 0.06, 0.15):
        p = spread.p_value(value)
        z, t = stats.t.isf(p / 2, 499), stats.t.isf(p / 2, 3)
        assert np.sqrt(z**2 * 0.0004 + t**2 * 0.0003) == pytest.approx(value, rel=1e-6)


@settings(max_examples=25)
@given(st.floats(0, 0.3), st.integers(0, 6))
def test_power_grows_with_the_difference_and_is_the_level_without_any(effect, freedom):
    spread = Spread(0.0004, 0.0002, 0.0003 * bool(freedom), freedom, 500)
    assert spread.power(effect) <= spread.power(effect + 0.01) + 1e-9
    assert spread.power(0.0) <= ALPHA + 0.001
    assert spread.power(effect, 0.001) <= spread.power(effect, 0.05)


def test_a_method_does_not_differ_from_itself():
    right = np.random.default_rng(1).random((3, 200)) < 0.5
    compared = difference((of(right), of(right)))
    assert (compared.value, compared.relative) == (0, 0)
    assert compared.p > 0.9


def test_the_order_of_a_comparison_turns_its_sign():
    rng = np.random.default_rng(2)
    one, other = rng.random((3, 200)) < 0.6, rng.random((3, 200)) < 0.5
    there, back = difference((of(one), of(other))), difference((of(other), of(one)))
    assert there.value == pytest.approx(-back.value)
    assert there.p == pytest.approx(back.p)
    assert there.relative == pytest.approx(100 * (one.mean() - other.mean()) / other.mean())


def test_shares_of_a_tie_count_as_what_they_are():
    right = np.full((2, 100), 0.5)
    assert estimate(of(right)).value == 0.5
    assert difference((of(right), of(np.ones((2, 100))))).value == -0.5


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="3 and 4 questions"):
        difference((of(np.ones((2, 3))), of(np.ones((2, 4)))))
    with pytest.raises(ValueError, match="one or more of each"):
        of(np.ones((2, 0)))


def test_all_right_has_an_interval_with_a_width():
    low, high = estimate(of(np.ones((3, 50)))).ci95
    assert 0.8 < low < 0.99
    assert high == 1.0


# --- calibration ----------------------------------------------------------------------------------------------------


def test_calibration_counts_by_confidence():
    confidence = np.array([0.31, 0.35, 0.99, 1.0])
    found = calibration(confidence, np.array([1.0, 0.0, 1.0, 1.0]))
    assert [(b.n, b.accuracy) for b in found.bins] == [(2, 0.5), (2, 1.0)]
    assert found.error == pytest.approx(0.5 * abs(0.5 - 0.33) + 0.5 * abs(1 - 0.995))


def test_confidence_that_is_the_truth_has_hardly_an_error():
    rng = np.random.default_rng(0)
    confidence = rng.random(50_000)
    assert calibration(confidence, (rng.random(50_000) < confidence).astype(float)).error < 0.01
