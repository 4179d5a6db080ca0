"""Accuracy over several trainings: intervals and tests that know both sources of noise, questions and seeds.

A matrix of right and wrong has a row a seed and a column a question. Its mean stands for the accuracy that another
training of the kind would have on other questions of the kind, and varies for three reasons:

    Var(mean) = σ_q² / Q  +  σ_s² / S  +  σ_e² / (S Q)       q: questions, s: seeds, e: the rest

The hierarchical bootstrap here draws questions anew, all seeds of a question together, which covers the first term and
the last. Drawing two to five seeds anew would understate the second, and by far in the tails; so the bootstrap's
deviations are widened to the whole variance, whose seeds' part is estimated by analysis of variance (`SeedNoise`), and
get the tails of Student's t with as many degrees of freedom as that estimate has (Satterthwaite). The noise of seeds is
best estimated from all methods of a table together, and stands then for methods with one seed, too. Where no method has
more than one it is not known: the interval is then of the questions alone, and `knows_seeds` says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Right = NDArray[np.bool_]
"""Right and wrong, (seeds, questions)."""

_DRAWS = 20_000
_ALPHA = 0.05
_LEAST = 0.1  # of the questions' variance, which an unlucky estimate of the seeds' may seem to take away


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean accuracy over seeds with its 95 % interval.

    Attributes:
        knows_seeds: False where the interval is of the questions alone, because nothing shows how much seeds differ.
    """

    value: float
    ci95: tuple[float, float]
    seeds: int
    questions: int
    knows_seeds: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """How much a method is above another on the same questions, with its 95 % interval.

    Attributes:
        p: two-sided, of the same bootstrap distribution as the interval.
        relative, relative_ci95: the gain in per cent of the other's accuracy, as the paper prints it, and its interval,
            which knows that this accuracy is uncertain, too; None where it is 0.
        knows_seeds: as of an `Estimate`.
    """

    value: float
    ci95: tuple[float, float]
    p: float
    relative: float | None
    relative_ci95: tuple[float, float] | None
    knows_seeds: bool = True


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """How much the accuracies of seeds differ, estimated from one method or several.

    Attributes:
        between: variance of the seeds' accuracies.
        within: the part of it that is luck on each question, and would be there without any noise of seeds.
        freedom: degrees of freedom of `between`; 0: there was one seed only, and nothing is known.
    """

    between: float = 0.0
    within: float = 0.0
    freedom: int = 0

    @classmethod
    def of(cls, *methods: Right) -> SeedNoise:
        """Estimate it from methods that were asked the same questions, as if all of them had the same."""
        between = within = 0.0
        freedom = 0
        for right in methods:
            seeds, questions = right.shape
            if seeds < 2 or questions < 2:
                continue
            values = right.astype(np.float64)
            by_seed, by_question = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
            rest = values - by_seed - by_question + values.mean()
            between += (seeds - 1) * float(by_seed.var(ddof=1))
            within += float((rest**2).sum()) / (questions - 1) / questions
            freedom += seeds - 1
        return cls(between / freedom, within / freedom, freedom) if freedom else cls()


def estimate(
    *of: Right, noise: Sequence[SeedNoise] | None = None, is_trained: bool = True, draws: int = _DRAWS
) -> Estimate:
    """Return the mean accuracy with its interval; of several datasets, the mean of their accuracies.

    Args:
        noise: of seeds, one a dataset; by default as the method's own seeds show it.
        is_trained: False for what has no seeds, and so no noise of them.

    Raises:
        ValueError: there is no question, or no seed.
    """
    drawn = np.zeros(draws)
    known = noise or [SeedNoise.of(right) for right in of]
    for stream, (right, seeds) in enumerate(zip(of, known, strict=True)):
        _check(right)
        spread = _Spread(right.mean(axis=0), (0.0, 1.0), seeds, is_trained / len(right))
        drawn += spread.draws(draws, stream) / len(of)
    low, high = _middle(drawn)
    return Estimate(
        value=float(np.mean([right.mean() for right in of])),
        ci95=(max(0.0, low), min(1.0, high)),
        seeds=min(len(right) for right in of),
        questions=sum(right.shape[1] for right in of),
        knows_seeds=not is_trained or _all_known(known),
    )


def difference(
    *pairs: tuple[Right, Right],
    noise: Sequence[SeedNoise] | None = None,
    trained: tuple[bool, bool] = (True, True),
    draws: int = _DRAWS,
) -> Difference:
    """Compare a method with another, each pair on the same questions in the same order; seeds need not be as many.

    Args:
        pairs: (method, other), one a dataset; of several, the mean of the differences is compared.
        noise: of seeds, one a dataset; by default as the seeds of the two show it.
        trained: whether the method, and the other, have seeds at all.

    Raises:
        ValueError: the questions of a pair are not as many.
    """
    for method, other in pairs:
        _check(method)
        _check(other)
        if method.shape[1] != other.shape[1]:
            raise ValueError(f"{method.shape[1]} and {other.shape[1]} questions cannot be compared in pairs")
    known = noise or [SeedNoise.of(*pair) for pair in pairs]
    value = float(np.mean([method.mean() - other.mean() for method, other in pairs]))
    base = float(np.mean([other.mean() for _, other in pairs]))
    drawn = _drawn(pairs, 1.0, known, trained, draws)
    low, high = _middle(drawn)
    relative = ends = None
    if base > 0:
        relative = value / base
        ends = _relative_ends(relative, base, _drawn(pairs, 1 + relative, known, trained, draws))
    return Difference(
        value,
        (max(-1.0, low), min(1.0, high)),
        _two_sided(drawn),
        None if relative is None else 100 * relative,
        ends,
        knows_seeds=not any(trained) or _all_known(known),
    )


def _drawn(
    pairs: Sequence[tuple[Right, Right]],
    weight: float,
    noise: Sequence[SeedNoise],
    trained: tuple[bool, bool],
    draws: int,
) -> NDArray[np.float64]:
    """Return draws of the mean over datasets of (method − weight · other)."""
    drawn = np.zeros(draws)
    for stream, ((method, other), known) in enumerate(zip(pairs, noise, strict=True)):
        by_question = method.mean(axis=0) - weight * other.mean(axis=0)
        share = trained[0] / len(method) + weight**2 * trained[1] / len(other)
        drawn += _Spread(by_question, (-weight, 1.0), known, share).draws(draws, stream) / len(pairs)
    return drawn


def _relative_ends(relative: float, base: float, drawn: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval of r = m / o − 1 in per cent, from draws of m − (1 + r) o: the delta method."""
    low, high = _middle(drawn)
    return max(-100.0, 100 * (relative + low / base)), 100 * (relative + high / base)


def _middle(drawn: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(drawn, (_ALPHA / 2, 1 - _ALPHA / 2))
    return float(low), float(high)


def _two_sided(drawn: NDArray[np.float64]) -> float:
    """Return the p-value; a draw of exactly no difference counts half for either side, as in McNemar's mid-p form."""
    below, same = int((drawn < 0).sum()), int((drawn == 0).sum())
    tail = min(below, len(drawn) - below - same) + same / 2
    return min(1.0, 2 * (tail + 1) / (len(drawn) + 1))


def _all_known(noise: Sequence[SeedNoise]) -> bool:
    return all(of.freedom > 0 for of in noise)


def holm(p_values: Sequence[float], planned: int = 0) -> list[float]:
    """Return Holm's (1979) adjusted p-values: of all comparisons together, a wrong one is found in 5 % of tables.

    Args:
        planned: comparisons in all, where some are still to come: what is shown now must not vanish when they have.
    """
    count = max(planned, len(p_values))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        so_far = max(so_far, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = so_far
    return adjusted


@dataclass(frozen=True, slots=True)
class _Spread:
    """What one mean over questions is drawn from.

    Attributes:
        by_question: what is averaged, (questions,).
        ends: the least and the greatest that a question can give.
        share: of the variance of a single seed that the mean has, 1 / S, or 0 without seeds; of a difference the sum.
    """

    by_question: NDArray[np.float64]
    ends: tuple[float, float]
    noise: SeedNoise
    share: float

    def draws(self, count: int, stream: int) -> NDArray[np.float64]:
        """Return so many draws of the mean; streams are independent of each other.

        Few different values occur, so how often each is drawn is all that matters. Half a question at either end is
        added (as by Agresti and Coull), so that an interval has a width where all questions came out alike.
        """
        rng = np.random.default_rng((0, stream))
        values, counts = np.unique(np.concatenate([self.by_question, self.ends]), return_counts=True)
        weights = counts.astype(np.float64)
        weights[[0, -1]] -= 0.5
        weights /= weights.sum()
        size = len(self.by_question) + 1
        drawn: NDArray[np.float64] = rng.multinomial(size, weights, size=count) @ values / size
        if self.share == 0 or self.noise.freedom == 0:
            return drawn
        centre = float(weights @ values)
        of_questions = float(weights @ (values - centre) ** 2) / size
        widened, freedom = self._whole(of_questions)
        tails = np.sqrt(freedom / rng.chisquare(freedom, count))
        return centre + (drawn - centre) * math.sqrt(widened / of_questions) * tails

    def _whole(self, of_questions: float) -> tuple[float, float]:
        """Return the whole variance, seeds' part included, and the degrees of freedom with which it is known."""
        between, within = self.share * self.noise.between, self.share * self.noise.within
        variance = max(of_questions + between - within, _LEAST * of_questions)
        questions = max(1, len(self.by_question) - 1)
        doubt = (
            of_questions**2 / questions + between**2 / self.noise.freedom + within**2 / (self.noise.freedom * questions)
        )
        return variance, max(1.0, variance**2 / doubt)


def _check(right: Right) -> None:
    if right.ndim != 2 or 0 in right.shape:
        raise ValueError(f"right and wrong must be (seeds, questions) with one or more of each, got {right.shape}")


# --- calibration ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about one confidence: its mean, the share of right ones, how many they are."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence says how often an answer is right.

    Attributes:
        error: the expected calibration error, Σ n_b / n · |accuracy_b − confidence_b|.
    """

    bins: tuple[Bin, ...]
    error: float


def calibration(confidence: NDArray[np.float64], right: Right, bins: int = 10) -> Calibration:
    """Return accuracy by confidence in bins of equal width; empty ones are left out.

    Args:
        confidence: probability that the student gave its answer, (n,).
        right: whether that was the right one, (n,).
    """
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    found = [
        Bin(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (places == b for b in range(bins))
        if inside.any()
    ]
    total = sum(b.n for b in found)
    error = sum(b.n * abs(b.accuracy - b.confidence) for b in found) / total if total else 0.0
    return Calibration(tuple(found), error)
