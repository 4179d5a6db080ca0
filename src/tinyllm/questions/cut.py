"""A seeded cut of one set of questions into splits. Pure, and the same on every machine and Python."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from tinyllm.questions.types import Question

_BETWEEN = "\x1f"


def cut(questions: Sequence[Question], counts: Mapping[str, int], seed: int) -> dict[str, tuple[Question, ...]]:
    """Take `counts[split]` questions for each named split, in that order; the rest is `train`.

    The order in which questions are taken is that of a hash of the seed and of the question's texts. So a question
    that comes or goes elsewhere in the file moves few others, and questions that repeat each other (same question,
    context and choices) stay on the same side of the cut; a split may be larger than asked by such repetitions.
    Inside each split questions keep the order of the file.
    """
    groups: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(_rank(question, seed), []).append(index)
    waiting = [groups[key] for key in sorted(groups)]
    parts: dict[str, list[int]] = {}
    for split, count in counts.items():
        taken = parts.setdefault(split, [])
        while waiting and len(taken) < count:
            taken += waiting.pop(0)
    parts["train"] = [index for group in waiting for index in group]
    return {split: tuple(questions[i] for i in sorted(indices)) for split, indices in parts.items()}


def _rank(question: Question, seed: int) -> str:
    texts = [question.question, question.context or "", *sorted(question.choices)]
    return hashlib.sha256(_BETWEEN.join([str(seed), *texts]).encode()).hexdigest()
