"""Accuracy over several trainings: intervals and tests that know both sources of noise, questions and seeds.

A matrix of right and wrong has a row a seed and a column a question. Its mean stands for the accuracy that another
training of the kind would have on other questions of the kind, and varies for three reasons:

    Var(mean) = σ_q² / Q  +  σ_s² / S  +  σ_e² / (S Q)       q: questions, s: seeds, e: the rest

The hierarchical bootstrap here draws questions anew, all seeds of a question together, which covers the first term and
the last. Drawing two to five seeds anew would understate the second, and by far in the tails; so the bootstrap's
deviations are widened to the whole variance, whose seeds' part is estimated by analysis of variance (`SeedNoise`), and
get the tails of Student's t with as many degrees of freedom as that estimate has (Satterthwaite). The noise of seeds is
best estimated from all methods of a table together, and stands then for methods with one seed, too. Where no method has
more than one it is not known: the interval is then of the questions alone, and `Estimate.seeds` says so.
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
        seed_sd: standard deviation of the seeds' accuracies; None with one seed.
    """

    value: float
    ci95: tuple[float, float]
    seeds: int
    questions: int
    seed_sd: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """How much a method is above another on the same questions, with its 95 % interval.

    Attributes:
        p: two-sided, of the same bootstrap distribution as the interval.
        relative, relative_ci95: the gain in per cent of the other's accuracy, as the paper prints it, and the ends of
            the interval likewise; None where that accuracy is 0.
    """

    value: float
    ci95: tuple[float, float]
    p: float
    relative: float | None
    relative_ci95: tuple[float, float] | None


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
    for stream, right in enumerate(of):
        _check(right)
        known = SeedNoise.of(right) if noise is None else noise[stream]
        spread = _Spread(right.mean(axis=0), (0.0, 1.0), known, is_trained / len(right))
        drawn += spread.draws(draws, stream) / len(of)
    low, high = np.quantile(drawn, (_ALPHA / 2, 1 - _ALPHA / 2))
    return Estimate(
        value=float(np.mean([right.mean() for right in of])),
        ci95=(max(0.0, float(low)), min(1.0, float(high))),
        seeds=min(len(right) for right in of),
        questions=sum(right.shape[1] for right in of),
        seed_sd=_seed_sd(of),
    )


def _seed_sd(of: Sequence[Right]) -> float | None:
    if len({len(right) for right in of}) > 1 or len(of[0]) < 2:
        return None
    return float(np.mean([right.mean(axis=1) for right in of], axis=0).std(ddof=1))


def difference(
    *pairs: tuple[Right, Right],
    noise: Sequence[SeedNoise] | None = None,
    is_trained: bool = True,
    draws: int = _DRAWS,
) -> Difference:
    """Compare a method with another, each pair on the same questions in the same order; seeds need not be as many.

    Args:
        pairs: (method, other), one a dataset; of several, the mean of the differences is compared.
        noise: of seeds, one a dataset; by default as the seeds of the two show it.
        is_trained: False where the method (not the other) has no seeds.

    Raises:
        ValueError: the questions of a pair are not as many.
    """
    drawn, values, before = np.zeros(draws), [], []
    for stream, (method, other) in enumerate(pairs):
        _check(method)
        _check(other)
        if method.shape[1] != other.shape[1]:
            raise ValueError(f"{method.shape[1]} and {other.shape[1]} questions cannot be compared in pairs")
        by_question = method.mean(axis=0) - other.mean(axis=0)
        known = SeedNoise.of(method, other) if noise is None else noise[stream]
        share = is_trained / len(method) + 1 / len(other)
        drawn += _Spread(by_question, (-1.0, 1.0), known, share).draws(draws, stream) / len(pairs)
        values.append(by_question.mean())
        before.append(other.mean())
    low, high = np.quantile(drawn, (_ALPHA / 2, 1 - _ALPHA / 2))
    # A draw of exactly no difference counts half for either side, as in the mid-p form of McNemar's test.
    below, same = int((drawn < 0).sum()), int((drawn == 0).sum())
    tail = min(below, draws - below - same) + same / 2
    value, base = float(np.mean(values)), float(np.mean(before))
    ends = max(-1.0, float(low)), min(1.0, float(high))
    return Difference(
        value,
        ends,
        min(1.0, 2 * (tail + 1) / (draws + 1)),
        100 * value / base if base > 0 else None,
        (100 * ends[0] / base, 100 * ends[1] / base) if base > 0 else None,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's (1979) adjusted p-values: of all comparisons together, a wrong one is found in 5 % of tables."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = so_far
    return adjusted


@dataclass(frozen=True, slots=True)
class _Spread:
    """What one mean over questions is drawn from.

    Attributes:
        by_question: what is averaged, (questions,).
        ends: the least and the greatest that a question can give.
        share: of the variance of a single seed that the mean has, 1 / S; of a difference the sum of both.
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
        questions = len(self.by_question) - 1
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
