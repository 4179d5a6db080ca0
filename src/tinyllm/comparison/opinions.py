"""Accuracy, calibration and agreement of the teachers' opinions, counted one question at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from tinyllm.comparison._statistics import Accuracy
from tinyllm.opinions.types import Opinion
from tinyllm.questions.types import Question
from tinyllm.scoring.predictions import credit, leaders

_BINS = 10


class OpinionFigures:
    """Counts opinions. Its memory does not grow with the number of questions."""

    def __init__(self, teachers: Iterable[str]) -> None:
        # For each bin of confidence: the questions with a known answer, their confidences, and their right answers.
        self._bins = {name: np.zeros((_BINS, 3)) for name in teachers}
        self._together: Counter[tuple[str, str]] = Counter()
        self._same: Counter[tuple[str, str]] = Counter()

    def add(self, question: Question, opinions: Mapping[str, Opinion]) -> None:
        """Count the teachers' opinions of one question."""
        first = {name: leaders(o.probabilities)[0] for name, o in opinions.items()}
        for pair in combinations(sorted(first), 2):
            self._together[pair] += 1
            self._same[pair] += first[pair[0]] == first[pair[1]]
        if question.answer is not None:
            for name, opinion in opinions.items():
                confidence, right = max(opinion.probabilities), credit(opinion.probabilities, question.answer)
                self._bins[name][min(int(confidence * _BINS), _BINS - 1)] += 1, confidence, right

    def figures(self, usage: Mapping[str, Any], usd: Mapping[str, float | None]) -> dict[str, Any]:
        """Return the figures as `opinions.json` holds them.

        Args:
            usage: the usage of each teacher.
            usd: the cost of each teacher's replies; None for a teacher without a price.
        """
        teachers = {
            name: {**asdict(usage[name]), "usd": usd.get(name), **_worth(bins)} for name, bins in self._bins.items()
        }
        agreement = [
            {"teachers": list(pair), "n": n, "same": self._same[pair] / n} for pair, n in self._together.items()
        ]
        return {"teachers": teachers, "agreement": agreement}


def _worth(bins: Any) -> dict[str, Any]:
    """Return accuracy with its interval, and ECE: |confidence - accuracy| averaged over the bins by their questions."""
    total, _, hits = bins.sum(0).tolist()
    if not total:
        return {"accuracy": None, "ece": None, "reliability": []}
    filled = [(int(n), confidence / n, right / n) for n, confidence, right in bins.tolist() if n]
    return {
        "accuracy": asdict(Accuracy.of(hits, int(total))),
        "ece": sum(n * abs(confidence - right) for n, confidence, right in filled) / total,
        "reliability": [{"n": n, "confidence": c, "accuracy": r} for n, c, r in filled],
    }
