"""Statistics over seeds and questions: against scipy and statsmodels, and by simulating what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tinyllm.evaluation.comparison import SeedNoise, calibration, difference, estimate, holm
from tinyllm.evaluation.statistics import paired, wilson

SIMULATIONS, DRAWS = 1500, 3000


def simulated(rng, questions, seeds, *, level=0.4, spread=1.2, seed_sd=0.0, effects=None):
    """Right and wrong of one method: questions are hard or easy, seeds good or bad, the rest is luck."""
    effects = rng.normal(0, spread, questions) if effects is None else effects
    logits = np.log(level / (1 - level)) + effects[None, :] + rng.normal(0, seed_sd, (seeds, 1))
    return rng.random((seeds, questions)) < 1 / (1 + np.exp(-logits))


def expected(level, spread, seed_sd):
    """The accuracy that all questions and seeds have on average."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    logits = np.log(level / (1 - level)) + nodes * np.hypot(spread, seed_sd)
    return float((weights / (1 + np.exp(-logits))).sum() / weights.sum())


# --- what they promise, by simulation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("questions", "seeds", "seed_sd"),
    [(150, 1, 0.0), (400, 3, 0.0), (400, 3, 0.1)],
)
def test_intervals_cover_and_tests_reject_as_often_as_they_promise(questions, seeds, seed_sd):
    """As a table is made: six methods that do not differ, the noise of seeds estimated from all of them."""
    rng, truth = np.random.default_rng([1, questions, seeds]), expected(0.4, 1.2, seed_sd)
    covered = rejected = held = 0
    for _ in range(SIMULATIONS):
        effects = rng.normal(0, 1.2, questions)  # the same questions for all
        methods = [simulated(rng, questions, seeds, seed_sd=seed_sd, effects=effects) for _ in range(6)]
        noise = [SeedNoise.of(*methods)]
        low, high = estimate(methods[0], noise=noise, draws=DRAWS).ci95
        compared = difference((methods[0], methods[1]), noise=noise, draws=DRAWS)
        covered += low <= truth <= high
        rejected += compared.p < 0.05
        held += compared.ci95[0] <= 0 <= compared.ci95[1]
    assert 0.93 <= covered / SIMULATIONS <= 0.97
    assert 0.04 <= rejected / SIMULATIONS <= 0.06
    assert 0.93 <= held / SIMULATIONS <= 0.97


def test_two_methods_alone_are_judged_with_more_caution():
    """Three seeds of two methods say little of the noise of seeds; what is then lost is power, not honesty."""
    rng, alone, together = np.random.default_rng(0), [], []
    rejected = 0
    for _ in range(300):
        effects = rng.normal(0, 1.2, 400)
        methods = [simulated(rng, 400, 3, effects=effects) for _ in range(6)]
        mine = difference((methods[0], methods[1]), draws=DRAWS)
        rejected += mine.p < 0.05
        alone.append(mine.ci95[1] - mine.ci95[0])
        known = difference((methods[0], methods[1]), noise=[SeedNoise.of(*methods)], draws=DRAWS)
        together.append(known.ci95[1] - known.ci95[0])
    assert rejected / 300 <= 0.06
    assert np.mean(together) < 0.85 * np.mean(alone)


def test_without_the_seeds_part_the_interval_would_be_too_narrow():
    """What the seeds' part is for: seeds that differ much, and a bootstrap of questions alone."""
    rng, truth = np.random.default_rng(3), expected(0.4, 1.2, 0.3)
    whole = questions_only = 0
    for _ in range(250):
        effects = rng.normal(0, 1.2, 1000)
        methods = [simulated(rng, 1000, 3, seed_sd=0.3, effects=effects) for _ in range(6)]
        low, high = estimate(methods[0], noise=[SeedNoise.of(*methods)], draws=DRAWS).ci95
        whole += low <= truth <= high
        by_question = methods[0].mean(axis=0)
        half = 1.96 * by_question.std(ddof=1) / np.sqrt(len(by_question))
        questions_only += abs(by_question.mean() - truth) <= half
    assert questions_only / 250 < 0.7
    assert whole / 250 >= 0.92


def test_a_relative_gain_is_as_uncertain_as_what_it_is_relative_to():
    rng, low, high = np.random.default_rng(6), expected(0.13, 1.2, 0.0), expected(0.25, 1.2, 0.0)
    covered = 0
    for _ in range(1000):
        effects = rng.normal(0, 1.2, 400)
        one, other = (simulated(rng, 400, 1, level=level, effects=effects) for level in (0.25, 0.13))
        ends = difference((one, other), draws=DRAWS).relative_ci95
        covered += ends[0] <= 100 * (high / low - 1) <= ends[1]
    assert 0.93 <= covered / 1000 <= 0.97


def test_seeds_that_nothing_is_known_of_would_make_differences_of_nothing():
    """Why a comparison of one seed with one is no test of methods, and is not marked as one in any table."""
    rng, wrong = np.random.default_rng(7), 0
    for _ in range(300):
        effects = rng.normal(0, 1.2, 1000)
        one, other = (simulated(rng, 1000, 1, seed_sd=0.2, effects=effects) for _ in range(2))
        compared = difference((one, other), draws=DRAWS)
        assert not compared.knows_seeds
        wrong += compared.p < 0.05
    assert wrong / 300 > 0.25


# --- against others' implementations --------------------------------------------------------------------------------


def test_with_one_seed_the_interval_is_nearly_wilsons_and_scipys_bootstrap():
    right = np.random.default_rng(0).random((1, 400)) < 0.6
    low, high = estimate(right).ci95
    theirs = stats.bootstrap((right[0],), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert (low, high) == pytest.approx(wilson(int(right.sum()), 400), abs=0.004)


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.08])
def test_with_one_seed_the_test_is_nearly_mcnemars(shift):
    rng = np.random.default_rng(5)
    one = rng.random((1, 600)) < 0.5
    other = np.where(rng.random((1, 600)) < 0.7, one, rng.random((1, 600)) < 0.5 - shift)
    compared = difference((one, other))
    fixed, broken = int((one & ~other).sum()), int((~one & other).sum())
    theirs = mcnemar([[0, fixed], [broken, 0]], exact=False, correction=False).pvalue
    assert compared.p == pytest.approx(theirs, abs=0.03)
    assert compared.ci95 == pytest.approx(paired(other[0].tolist(), one[0].tolist()).ci95, abs=0.004)


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


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 10**6))
def test_an_interval_holds_its_value_and_stays_within_bounds(seeds, questions, seed):
    right = np.random.default_rng(seed).random((seeds, questions)) < 0.5
    found = estimate(right, draws=500)
    assert 0 <= found.ci95[0] <= found.ci95[1] <= 1
    assert found.ci95[0] - 0.35 / questions <= found.value <= found.ci95[1] + 0.35 / questions
    assert (found.seeds, found.questions) == right.shape
    assert found.knows_seeds == (seeds > 1 and questions > 1)


def test_a_method_does_not_differ_from_itself():
    right = np.random.default_rng(1).random((3, 200)) < 0.5
    compared = difference((right, right))
    assert compared.value == 0
    assert compared.relative == 0
    assert compared.p > 0.9


def test_the_order_of_a_comparison_turns_its_sign():
    rng = np.random.default_rng(2)
    one, other = rng.random((3, 200)) < 0.6, rng.random((2, 200)) < 0.5
    there, back = difference((one, other)), difference((other, one))
    assert there.value == pytest.approx(-back.value)
    assert there.p == pytest.approx(back.p, abs=0.01)
    assert there.relative == pytest.approx(100 * (one.mean() - other.mean()) / other.mean())


def test_what_has_no_seeds_adds_no_noise_of_them_on_either_side():
    rng = np.random.default_rng(8)
    trained, untrained = rng.random((3, 200)) < 0.6, rng.random((1, 200)) < 0.5
    known = [SeedNoise(between=0.002, freedom=8)]
    there = difference((trained, untrained), noise=known, trained=(True, False))
    back = difference((untrained, trained), noise=known, trained=(False, True))
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]), abs=0.005)
    both = difference((trained, untrained), noise=known)
    assert there.ci95[1] - there.ci95[0] < 0.8 * (both.ci95[1] - both.ci95[0])
    assert difference((untrained, untrained), trained=(False, False)).knows_seeds


def test_one_question_alone_has_an_interval():
    known = [SeedNoise(between=0.002, within=0.001, freedom=8)]
    assert estimate(np.ones((1, 1), bool), noise=known).ci95[0] < 0.9


def test_the_mean_over_datasets_is_surer_than_each_of_them():
    rng = np.random.default_rng(4)
    first, second = rng.random((3, 300)) < 0.5, rng.random((3, 300)) < 0.7
    known = SeedNoise.of(first, second)
    both = estimate(first, second, noise=[known, known])
    assert both.value == pytest.approx((first.mean() + second.mean()) / 2)
    assert both.questions == 600
    for one in (estimate(first, noise=[known]), estimate(second, noise=[known])):
        assert both.ci95[1] - both.ci95[0] < one.ci95[1] - one.ci95[0]


def test_what_cannot_be_compared_is_refused():
    right = np.ones((2, 3), bool)
    with pytest.raises(ValueError, match="3 and 4 questions"):
        difference((right, np.ones((2, 4), bool)))
    with pytest.raises(ValueError, match="one or more of each"):
        estimate(np.ones((2, 0), bool))


def test_all_right_has_an_interval_with_a_width():
    low, high = estimate(np.ones((3, 50), bool)).ci95
    assert low < 0.99
    assert high == 1.0


# --- calibration ----------------------------------------------------------------------------------------------------


def test_calibration_counts_by_confidence():
    confidence = np.array([0.31, 0.35, 0.99, 1.0])
    found = calibration(confidence, np.array([True, False, True, True]))
    assert [(b.n, b.accuracy) for b in found.bins] == [(2, 0.5), (2, 1.0)]
    assert found.error == pytest.approx(0.5 * abs(0.5 - 0.33) + 0.5 * abs(1 - 0.995))


def test_confidence_that_is_the_truth_has_hardly_an_error():
    rng = np.random.default_rng(0)
    confidence = rng.random(50_000)
    assert calibration(confidence, rng.random(50_000) < confidence).error < 0.01
