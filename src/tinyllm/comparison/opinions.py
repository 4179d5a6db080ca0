"""Accuracy, calibration and agreement of the teachers' opinions, counted one question at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from tinyllm.comparison._statistics import Accuracy
from tinyllm.opinions.types import Opinion
from tinyllm.questions.types import Question
from tinyllm.scoring.predictions import credit, leaders

_BINS = 10


@dataclass
class _Marks:
    """Counts one teacher's opinions on questions with a known answer, by bin of confidence."""

    n: int = 0
    right: float = 0.0
    bins: list[list[float]] = field(default_factory=lambda: [[0, 0.0, 0.0] for _ in range(_BINS)])

    def add(self, probabilities: tuple[float, ...], answer: int) -> None:
        mark, confidence = credit(probabilities, answer), max(probabilities)
        self.n += 1
        self.right += mark
        cell = self.bins[min(int(confidence * _BINS), _BINS - 1)]
        cell[0] += 1
        cell[1] += confidence
        cell[2] += mark


class OpinionFigures:
    """Counts opinions. Its memory does not grow with the number of questions."""

    def __init__(self, teachers: Iterable[str]) -> None:
        self._marks = {name: _Marks() for name in teachers}
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
                self._marks[name].add(opinion.probabilities, question.answer)

    def figures(self, usage: Mapping[str, Any], usd: Mapping[str, float | None]) -> dict[str, Any]:
        """Return the figures as `opinions.json` holds them.

        Args:
            usage: the `opinions.collect.Usage` of each teacher.
            usd: the cost of each teacher's replies; None for a teacher without a price.
        """
        teachers = {
            name: {**asdict(usage[name]), "usd": usd.get(name), **_worth(marks)} for name, marks in self._marks.items()
        }
        agreement = [
            {"teachers": list(pair), "n": n, "same": self._same[pair] / n} for pair, n in self._together.items()
        ]
        return {"teachers": teachers, "agreement": agreement}


def _worth(marks: _Marks) -> dict[str, Any]:
    """Return accuracy with its interval, and ECE: |confidence - accuracy| averaged over the bins by their questions."""
    if not marks.n:
        return {"accuracy": None, "ece": None, "reliability": []}
    filled = [(int(n), confidence / n, right / n) for n, confidence, right in marks.bins if n]
    return {
        "accuracy": asdict(Accuracy.of(marks.right, marks.n)),
        "ece": sum(n * abs(confidence - right) for n, confidence, right in filled) / marks.n,
        "reliability": [{"n": n, "confidence": c, "accuracy": r} for n, c, r in filled],
    }
