"""What the prior of the temperature gains: calibration error on test questions by few validation questions.

    python -m benchmarks.calibration

Of every trained student whose answers are kept in results/, validation questions are drawn four times, the temperature
is fitted to them, and the error (ECE) and the log-loss are measured on 400 test questions. No model is needed.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tinyllm.scoring.calibration import fit_temperature

_RESULTS = Path("results")
_SIZES = (4, 14, 40, 100)
_DRAWS, _TESTED, _LEAST = 4, 400, 100
_GRID = np.exp(np.linspace(np.log(0.001), np.log(1000.0), 400))

Rows = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Scores (questions, choices) and the right choices (questions,)."""


def rows_of(table: list[dict[str, Any]], split: str) -> Rows:
    """Return the scored questions of a split that have the most frequent number of choices."""
    found = [(r["mean"], r["answer"]) for r in table if r["split"] == split and r["view"] == "asked" and r["mean"]]
    sizes = [len(mean) for mean, _ in found]
    usual = max(set(sizes), key=sizes.count, default=0)
    kept = [(mean, answer) for mean, answer in found if len(mean) == usual]
    return np.array([mean for mean, _ in kept], float), np.array([answer for _, answer in kept], int)


def log_probabilities(scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return the logarithm of softmax(scores / temperature), row by row."""
    scaled = scores / temperature
    scaled -= scaled.max(1, keepdims=True)
    found: NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
    return found


def by_likelihood(scores: NDArray[np.float64], answers: NDArray[np.int64]) -> float:
    """Return the temperature with the highest likelihood of the right answers, without a prior."""
    rows = np.arange(len(answers))
    return float(max(_GRID, key=lambda t: log_probabilities(scores, t)[rows, answers].sum()))


def measured(scores: NDArray[np.float64], answers: NDArray[np.int64], temperature: float) -> tuple[float, float]:
    """Return the calibration error in ten bins, and the mean log-loss."""
    logs = log_probabilities(scores, temperature)
    sure, right = np.exp(logs.max(1)), logs.argmax(1) == answers
    bins = np.minimum((10 * sure).astype(int), 9)
    gaps = [abs(sure[bins == b].sum() - right[bins == b].sum()) for b in range(10)]
    return sum(gaps) / len(answers), float(-logs[np.arange(len(answers)), answers].mean())


def main() -> None:
    """Print a row for each number of validation questions."""
    draw = random.Random(0)
    found: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    students = 0
    for file in sorted(_RESULTS.glob("*/cells/*/predictions.parquet")):
        if "--inference--" in file.parent.name or "shuffled" in file.parent.name:
            continue
        table = pq.read_table(file).to_pylist()
        scores, answers = rows_of(table, "valid")
        tested = tuple(part[:_TESTED] for part in rows_of(table, "test"))
        if len(answers) < _LEAST or len(tested[1]) < _LEAST:
            continue
        students += 1
        for size in _SIZES:
            for _ in range(_DRAWS):
                drawn = draw.sample(range(len(answers)), size)
                some, right = scores[drawn], answers[drawn]
                for way, temperature in (
                    ("none (T = 1)", 1.0),
                    ("by the likelihood alone", by_likelihood(some, right)),
                    ("with the prior", fit_temperature(some.tolist(), right.tolist())),
                ):
                    found[size, way].append(measured(*tested, temperature))
    print(f"{students} trained students, {_DRAWS} draws of each size; mean ECE (largest), mean log-loss")
    for (size, way), values in found.items():
        errors, losses = zip(*values, strict=True)
        print(f"{size:4} questions, {way:24} {np.mean(errors):.3f} ({max(errors):.3f})  {np.mean(losses):.3f}")


if __name__ == "__main__":
    main()
