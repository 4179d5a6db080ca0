"""A seeded cut of one set of questions into splits. Pure, and the same on every machine and Python."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tinyllm.questions._spool import pick
from tinyllm.questions.types import Question

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BETWEEN = "\x1f"


def cut(questions: Sequence[Question], counts: Mapping[str, int], seed: int) -> dict[str, Sequence[Question]]:
    """Take `counts[split]` questions for each named split, in that order; the rest is `train`.

    The order in which questions are taken is that of a hash of the seed and of the question's texts. So a question
    that comes or goes elsewhere in the file moves few others, and questions that repeat each other (same question,
    context and choices) stay on the same side of the cut; a split may be larger than asked by such repetitions.
    Inside each split questions keep the order of the file.
    """
    import numpy as np

    splits = ("train", *counts)
    side = np.zeros(len(questions), np.uint8)  # of each question: its place in `splits`
    groups = _groups(questions, seed)
    for split, count in counts.items():
        taken = 0
        while taken < count and (group := next(groups, None)):
            side[group] = splits.index(split)
            taken += len(group)
    return {split: pick(questions, np.flatnonzero(side == k)) for k, split in enumerate(splits)}


def _groups(questions: Sequence[Question], seed: int) -> Iterator[list[int]]:
    """Yield the places of questions that repeat each other, group by group, in the order in which they are taken."""
    import numpy as np

    # Four bytes of the hash settle the order of nearly all; the rest of it is looked at where they are equal.
    ranks = np.fromiter((int.from_bytes(_rank(q, seed)[:4], "big") for q in questions), np.uint32, len(questions))
    order = np.argsort(ranks)
    for places in _runs(ranks, order):
        if len(places) == 1:
            yield places
            continue
        whole = {place: _rank(questions[place], seed) for place in places}
        for _, group in itertools.groupby(sorted(places, key=lambda p: (whole[p], p)), key=whole.__getitem__):
            yield list(group)


def _runs(ranks: NDArray[np.uint32], order: NDArray[np.int64]) -> Iterator[list[int]]:
    """Yield the places of equal ranks, in the order of the ranks."""
    run: list[int] = []
    for place in map(int, order):
        if run and ranks[run[0]] != ranks[place]:
            yield run
            run = []
        run.append(place)
    if run:
        yield run


def _rank(question: Question, seed: int) -> bytes:
    texts = [question.question, question.context or "", *sorted(question.choices)]
    return hashlib.sha256(_BETWEEN.join([str(seed), *texts]).encode()).digest()
