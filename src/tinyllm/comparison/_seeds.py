"""Accuracy over several trainings: intervals and tests that include the variance over questions and over seeds.

A table of marks has a row for each seed and a column for each question. Its mean estimates the accuracy of another
training on other questions of the same kind. The variance of the mean has three parts:

    Var(mean) = σ_q² / Q  +  σ_s² / S  +  σ_e² / (S Q)       q: questions, s: seeds, e: the rest

The seed decides the order of the questions, so a good seed is good for several methods. Therefore two methods are
compared on the table of their differences, by seed and question, on the seeds that both have. Effects that both methods
share cancel out. The variance over seeds is estimated from this table only, with S − 1 degrees of freedom, because
methods can differ in it.

`docs/statistics.md` explains the method, decision 15 the alternatives. `python -m benchmarks.statistics` simulates it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Right = NDArray[np.float64]
"""The mark of each answer, (seeds, questions): 1 right, 0 wrong, 1/k in a tie of k choices."""

ALPHA = 0.05
_HALVINGS, _QUANTILES, _LEAST_P = 40, 400, 1e-15
_BINS = 10  # of equal width, for calibration


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The answers of one method on one dataset.

    Attributes:
        right: (seeds, questions).
        seeds: one for each row; None for an untrained method, whose single row is used for every seed.
    """

    right: Right
    seeds: tuple[int, ...] | None

    def __post_init__(self) -> None:
        if self.right.ndim != 2 or 0 in self.right.shape:
            raise ValueError(
                f"marks must have the shape (seeds, questions) with one or more of each, got {self.right.shape}"
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
    """The variance of a mean, by source.

    Attributes:
        questions: variance over questions without `rest`; at least 0.
        rest: variance that depends on both question and seed.
        seeds: variance over seeds with `rest`; 0 with one seed.
        freedom: degrees of freedom of `seeds`; 0 with one seed, or for untrained methods.
        count: the number of questions.
    """

    questions: float
    rest: float
    seeds: float
    freedom: int
    count: int

    @classmethod
    def of(cls, tables: Sequence[Right], ends: tuple[float, float], *, is_trained: bool = True) -> Spread:
        """Estimate the variances by analysis of variance.

        Args:
            tables: one for each dataset, (seeds, questions), with the same seeds. Their means are averaged.
            ends: the least and the greatest possible value. Half a question of each is added to the questions, so that
                the interval has a width where all values are equal.
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
        # An accuracy is a number of whole questions, so equal seeds can still differ by less than a question.
        least = sum(1 / t.shape[1] ** 2 for t in tables) / len(tables) ** 2 / 12
        return cls(whole - rest, rest, max(float(by_seed.var(ddof=1)), least) / rows, rows - 1, count)

    @property
    def of_questions(self) -> float:
        """The variance of the mean over questions, for these trainings."""
        return self.questions + self.rest

    def half_width(self, alpha: float = ALPHA) -> float:
        """Return half the width of the interval.

        √(z² · questions + t² · seeds · √(share of seeds in both)). Each source has its own critical value. That of the
        seeds is Student's t with `freedom`. Without the inner root, the interval is too wide where both sources matter.
        """
        z = _critical(alpha, self.count - 1)
        if not self.freedom:
            return z * math.sqrt(self.of_questions)
        share = self.seeds / (self.questions + self.seeds)
        t = _critical(alpha, self.freedom)
        return math.sqrt(z * z * self.questions + t * t * self.seeds * math.sqrt(share))

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of the hypothesis that the true mean is 0."""
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

    def _reach(self, alpha: float, seeds: float | NDArray[np.float64]) -> Any:
        """Return the smallest significant difference at α, for a measured variance over seeds.

        √(z² · questions + t² · seeds). This is stricter than the interval, which would reject too often at the small α
        of many comparisons.
        """
        z, t = _critical(alpha, self.count - 1), _critical(alpha, self.freedom)
        return np.sqrt(z * z * self.questions + t * t * seeds)

    def power(self, effect: float, alpha: float = ALPHA) -> float:
        """Return the probability that a true difference is significant at α, given these variances.

        It is averaged over the variance that the seeds of another experiment would show: `seeds` times χ² / `freedom`.
        """
        from scipy.special import gammaincinv, ndtr

        floor = _critical(alpha, self.count - 1) * math.sqrt(self.of_questions)
        if not self.freedom:
            reach, error = np.array([floor]), math.sqrt(self.of_questions)
        else:
            true = max(self.seeds, self.rest)
            quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
            shown = true * 2 * gammaincinv(self.freedom / 2, quantiles) / self.freedom
            reach = np.maximum(self._reach(alpha, shown), floor)
            error = math.sqrt(self.questions + true)
        return float(np.mean(ndtr((abs(effect) - reach) / error) + ndtr((-abs(effect) - reach) / error)))


def _critical(alpha: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return -float(stdtrit(max(1, freedom), alpha / 2))


def findable(spreads: Sequence[Spread], comparisons: int, power: float = 0.8) -> float:
    """Return the true difference that is significant with a probability of `power`, if all other differences are 0.

    This is Holm's first step, α / comparisons. The variances are averaged over `spreads`, because a single comparison
    with few seeds estimates them badly.
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
        knows_seeds: False with one seed. The interval then holds for this training, over questions only.
    """

    value: float
    ci95: tuple[float, float]
    seeds: int
    questions: int
    knows_seeds: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """The accuracy of a method minus that of another, on common seeds and questions, with its 95 % interval.

    Attributes:
        p: two-sided; None with one common seed, which is not enough to compare methods.
        relative, relative_ci95: the gain in per cent of the other accuracy, as in the paper. The interval includes the
            uncertainty of that accuracy. None where that accuracy is 0.
        knows_seeds: see `Estimate`.
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
    """Return the mean accuracy with its interval. For several datasets it is the mean of their accuracies.

    Only the seeds that all datasets have are used. None without such a seed.
    """
    seeds, is_trained = _common(of), any(r.seeds is not None for r in of)
    if is_trained and not seeds:
        return None
    tables = [r.on(seeds) for r in of]
    value = float(np.mean([t.mean() for t in tables]))
    spread = Spread.of(tables, (0.0, 1.0), is_trained=is_trained)
    return Estimate(value, _within(value, spread), len(tables[0]), spread.count, not is_trained or spread.freedom > 0)


def _within(value: float, spread: Spread) -> tuple[float, float]:
    """Return Wilson's interval with the variance of this mean in place of p (1 - p) / n. It stays within 0 and 1.

    All θ with (value - θ)² ≤ half² · θ (1 - θ) / (value (1 - value)).
    """
    inner = (value * spread.count + 0.5) / (spread.count + 1)  # never 0 or 1
    ratio = spread.half_width() ** 2 / (inner * (1 - inner))
    centre = (value + ratio / 2) / (1 + ratio)
    half = math.sqrt(ratio * value * (1 - value) + ratio * ratio / 4) / (1 + ratio)
    # At 0 and 1 the bound is the value itself. Rounding must not move it past the value.
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))


def difference(*pairs: tuple[Runs, Runs]) -> Difference | None:
    """Compare a method with another. The questions of each pair are the same, in the same order.

    Args:
        pairs: (method, other) for each dataset. For several datasets the mean of the differences is returned.

    Returns:
        None without a seed that all runs have. Means over different seeds are not compared.

    Raises:
        ValueError: the two of a pair have different numbers of questions.
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
        # The delta method: the variance of m / o - 1 is that of (m - (1 + r) o) / o.
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
    """Return the seeds that all trained runs have, in order."""
    sets = [set(r.seeds) for r in runs if r.seeds is not None]
    return tuple(sorted(set.intersection(*sets))) if sets else ()


def holm(p_values: Sequence[float], planned: int = 0) -> list[float]:
    """Return Holm's (1979) adjusted p-values. Below 0.05, at most 5 % of experiments have any false difference.

    Args:
        planned: the number of all comparisons, unfinished ones included, so that a mark stays when they are finished.
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


def calibration(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> Calibration:
    """Return accuracy by confidence in bins of equal width; empty ones are left out.

    Args:
        confidence: probability that the student gave its answer, (n,).
        right: whether that was the right one, (n,).
    """
    places = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    found = [
        Bin(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (places == b for b in range(_BINS))
        if inside.any()
    ]
    total = sum(b.n for b in found)
    error = sum(b.n * abs(b.accuracy - b.confidence) for b in found) / total if total else 0.0
    return Calibration(tuple(found), error)
