"""Accuracy over several trainings: intervals and tests that know both sources of noise, questions and seeds.

A table of right and wrong has a row a seed and a column a question. Its mean stands for the accuracy that another
training of the kind would have on other questions of the kind, and varies for three reasons:

    Var(mean) = σ_q² / Q  +  σ_s² / S  +  σ_e² / (S Q)       q: questions, s: seeds, e: the rest

The order of the questions comes from the seed, so a good seed is good for several methods at once. Two methods are
therefore compared seed by seed and question by question: the table is that of their differences, on the seeds that
both have, and what they share is gone from it. Every table is judged by its own seeds alone, with S − 1 degrees of
freedom: the seeds of other methods are the same seeds, and other methods may be noisier or calmer.

`docs/statistics.md` says it in plain words, decision 15 what was tried; `python -m benchmarks.statistics` simulates it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Right = NDArray[np.float64]
"""How right each answer is: 1 right, 0 wrong, 1/k where the student cannot tell k choices apart; (seeds, questions)."""

ALPHA = 0.05
_HALVINGS, _QUANTILES, _LEAST_P = 40, 400, 1e-15


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The answers of one method on one dataset.

    Attributes:
        right: (seeds, questions).
        seeds: one a row; None for what is not trained: it has one row, which stands for every seed.
    """

    right: Right
    seeds: tuple[int, ...] | None

    def __post_init__(self) -> None:
        if self.right.ndim != 2 or 0 in self.right.shape:
            raise ValueError(
                f"right and wrong must be (seeds, questions) with one or more of each, got {self.right.shape}"
            )
        rows = 1 if self.seeds is None else len(set(self.seeds))
        if rows != len(self.right):
            raise ValueError(f"{len(self.right)} rows need as many different seeds, got {self.seeds}")

    def on(self, seeds: Sequence[int]) -> Right:
        """Return the rows of these seeds, in their order."""
        if self.seeds is None:
            return np.repeat(self.right, max(1, len(seeds)), axis=0).astype(np.float64)
        return self.right[[self.seeds.index(seed) for seed in seeds]].astype(np.float64)


@dataclass(frozen=True, slots=True)
class Spread:
    """What a mean varies by, as variances of the mean.

    Attributes:
        questions: what other questions would change; 0 where nothing is left of it besides `rest`.
        rest: luck on each question with each seed.
        seeds: what other seeds would change, `rest` included, as the seeds show it; 0 where they do not.
        freedom: degrees of freedom of `seeds`; 0 where there is one seed, or what is not trained.
        count: how many questions.
    """

    questions: float
    rest: float
    seeds: float
    freedom: int
    count: int

    @classmethod
    def of(cls, tables: Sequence[Right], ends: tuple[float, float], *, is_trained: bool = True) -> Spread:
        """Estimate it by analysis of variance.

        Args:
            tables: one a dataset, each (seeds, questions) with the same seeds; their means are averaged.
            ends: the least and the greatest value. Half a question of each is added to the questions, so that an
                interval has a width where all came out alike.
        """
        whole = rest = 0.0
        for values in tables:
            seeds, questions = values.shape
            by_question = values.mean(axis=0)
            centre = (by_question.sum() + sum(ends) / 2) / (questions + 1)
            squares = ((by_question - centre) ** 2).sum() + sum((end - centre) ** 2 for end in ends) / 2
            whole += float(squares) / (questions + 1) ** 2 / len(tables) ** 2
            if seeds > 1 and questions > 1:
                left = values - values.mean(axis=1, keepdims=True) - by_question + values.mean()
                luck = float((left**2).sum()) / ((seeds - 1) * (questions - 1))
                rest += luck / (seeds * questions) / len(tables) ** 2
        rest = min(rest, whole)
        rows, count = len(tables[0]), sum(t.shape[1] for t in tables)
        if not is_trained or rows < 2:
            return cls(whole - rest, rest, 0.0, 0, count)
        by_seed = np.mean([t.mean(axis=1) for t in tables], axis=0)
        # Accuracies come in whole questions: seeds that agree to the last one still differ by what is rounded away.
        least = sum(1 / t.shape[1] ** 2 for t in tables) / len(tables) ** 2 / 12
        return cls(whole - rest, rest, max(float(by_seed.var(ddof=1)), least) / rows, rows - 1, count)

    @property
    def of_questions(self) -> float:
        """The variance that the mean has with the very same trainings: other questions alone."""
        return self.questions + self.rest

    def half_width(self, alpha: float = ALPHA) -> float:
        """Return half the width of the interval.

        √(z² · questions + t² · seeds · √(seeds' share of both)): each source with its own critical value, Student's t
        of `freedom` for the seeds. Without the root the interval would be too wide wherever both sources matter.
        """
        z = _critical(alpha, self.count - 1)
        if not self.freedom:
            return z * math.sqrt(self.of_questions)
        share = self.seeds / (self.questions + self.seeds)
        t = _critical(alpha, self.freedom)
        return math.sqrt(z * z * self.questions + t * t * self.seeds * math.sqrt(share))

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of a mean that should be 0: the least α at which it is `found`."""
        from scipy.special import stdtr

        p = 2 * float(stdtr(max(1, self.count - 1), -abs(value) / math.sqrt(self.of_questions)))
        if self.freedom:
            low, high = math.log(_LEAST_P), 0.0
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                found = abs(value) > self._reach(math.exp(middle), self.seeds)
                low, high = (low, middle) if found else (middle, high)
            p = max(p, math.exp(high))
        return min(1.0, p)

    def _reach(self, alpha: float, seeds: float) -> float:
        """Return what a difference has to exceed to be found at α, where the seeds show such a variance.

        √(z² · questions + t² · seeds): stricter than the interval, which would reject too often at the small α of many
        comparisons.
        """
        z, t = _critical(alpha, self.count - 1), _critical(alpha, self.freedom)
        return math.sqrt(z * z * self.questions + t * t * seeds)

    def power(self, effect: float, alpha: float = ALPHA) -> float:
        """Return how often a true difference is found at α, if the variances are what they seem.

        What the seeds of another experiment would show is averaged over: their variance times χ² / `freedom`.
        """
        from scipy.special import gammaincinv, ndtr

        floor = _critical(alpha, self.count - 1) * math.sqrt(self.of_questions)
        if not self.freedom:
            reach, error = np.array([floor]), math.sqrt(self.of_questions)
        else:
            true = max(self.seeds, self.rest)
            quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
            shown = true * 2 * gammaincinv(self.freedom / 2, quantiles) / self.freedom
            z, t = _critical(alpha, self.count - 1), _critical(alpha, self.freedom)
            reach = np.maximum(np.sqrt(z * z * self.questions + t * t * shown), floor)
            error = math.sqrt(self.questions + true)
        return float(np.mean(ndtr((abs(effect) - reach) / error) + ndtr((-abs(effect) - reach) / error)))


def _critical(alpha: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return -float(stdtrit(max(1, freedom), alpha / 2))


def findable(spreads: Sequence[Spread], comparisons: int, power: float = 0.8) -> float:
    """Return the true difference that is found with a probability of `power`, as the only one among the comparisons.

    That is Holm's first step, α / comparisons. The variances are the means of those given, since one comparison with
    few seeds hardly knows them.
    """
    typical = Spread(
        float(np.mean([s.questions for s in spreads])),
        float(np.mean([s.rest for s in spreads])),
        float(np.mean([s.seeds for s in spreads])),
        min(s.freedom for s in spreads),
        min(s.count for s in spreads),
    )
    alpha = ALPHA / max(1, comparisons)
    low, high = 0.0, 1.0
    while typical.power(high, alpha) < power:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if typical.power(middle, alpha) >= power else (middle, high)
    return high


# --- figures ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean accuracy over seeds with its 95 % interval.

    Attributes:
        knows_seeds: False where there is one seed: the interval is then of this training, over other questions alone.
    """

    value: float
    ci95: tuple[float, float]
    seeds: int
    questions: int
    knows_seeds: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """How much a method is above another, on the seeds and questions that both have, with its 95 % interval.

    Attributes:
        p: two-sided; None with one common seed, which says nothing of methods.
        relative, relative_ci95: the gain in per cent of the other's accuracy, as the paper prints it, and its interval,
            which knows that this accuracy is uncertain, too; None where it is 0.
        seeds: how many both have.
        spread: what it varies by.
        knows_seeds: as of an `Estimate`.
    """

    value: float
    ci95: tuple[float, float]
    p: float | None
    relative: float | None
    relative_ci95: tuple[float, float] | None
    seeds: int
    spread: Spread
    knows_seeds: bool = True


def estimate(*of: Runs) -> Estimate | None:
    """Return the mean accuracy with its interval; of several datasets, the mean of their accuracies.

    Of several datasets only the seeds that all have count; None where there are none.
    """
    seeds, is_trained = _common(of), any(r.seeds is not None for r in of)
    if is_trained and not seeds:
        return None
    tables = [r.on(seeds) for r in of]
    value = float(np.mean([t.mean() for t in tables]))
    spread = Spread.of(tables, (0.0, 1.0), is_trained=is_trained)
    return Estimate(value, _within(value, spread), len(tables[0]), spread.count, not is_trained or spread.freedom > 0)


def _within(value: float, spread: Spread) -> tuple[float, float]:
    """Return Wilson's interval with the variance of this mean in place of p (1 - p) / n: it stays within 0 and 1.

    All θ with (value - θ)² ≤ half² · θ (1 - θ) / (value (1 - value)).
    """
    inner = (value * spread.count + 0.5) / (spread.count + 1)  # never 0 or 1
    ratio = spread.half_width() ** 2 / (inner * (1 - inner))
    centre = (value + ratio / 2) / (1 + ratio)
    half = math.sqrt(ratio * value * (1 - value) + ratio * ratio / 4) / (1 + ratio)
    # At the ends the bound is the value itself; rounding must not put it on the other side.
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))


def difference(*pairs: tuple[Runs, Runs]) -> Difference | None:
    """Compare a method with another, each pair on the same questions in the same order.

    Args:
        pairs: (method, other), one a dataset; of several, the mean of the differences is compared.

    Returns:
        None where no seed is common to all: a mean over some seeds is not compared with one over others.

    Raises:
        ValueError: the questions of a pair are not as many.
    """
    for method, other in pairs:
        if method.right.shape[1] != other.right.shape[1]:
            sizes = f"{method.right.shape[1]} and {other.right.shape[1]}"
            raise ValueError(f"{sizes} questions cannot be compared in pairs")
    every = [runs for pair in pairs for runs in pair]
    seeds, is_trained = _common(every), any(r.seeds is not None for r in every)
    if is_trained and not seeds:
        return None
    tables = [(method.on(seeds), other.on(seeds)) for method, other in pairs]
    value = float(np.mean([m.mean() - o.mean() for m, o in tables]))
    base = float(np.mean([o.mean() for _, o in tables]))
    spread = Spread.of([m - o for m, o in tables], (-1.0, 1.0), is_trained=is_trained)
    half, knows_seeds = spread.half_width(), not is_trained or spread.freedom > 0
    relative = ends = None
    if base > 0:
        # The delta method: m / o - 1 varies as (m - (1 + r) o) / o.
        relative = value / base
        scaled = [m - (1 + relative) * o for m, o in tables]
        by = Spread.of(scaled, (-1 - relative, 1.0), is_trained=is_trained).half_width() / base
        ends = max(-100.0, 100 * (relative - by)), 100 * (relative + by)
    return Difference(
        value,
        (max(-1.0, value - half), min(1.0, value + half)),
        spread.p_value(value) if knows_seeds else None,
        None if relative is None else 100 * relative,
        ends,
        len(tables[0][0]),
        spread,
        knows_seeds,
    )


def _common(runs: Iterable[Runs]) -> tuple[int, ...]:
    """Return the seeds that all have that have any, in order."""
    sets = [set(r.seeds) for r in runs if r.seeds is not None]
    return tuple(sorted(set.intersection(*sets))) if sets else ()


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


def calibration(confidence: NDArray[np.float64], right: NDArray[np.float64], bins: int = 10) -> Calibration:
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
