"""Cut one set of questions into splits by a seed. Pure, and the same on every machine and Python version."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

from tinyllm.questions._spool import pick
from tinyllm.questions._words import texts_of
from tinyllm.questions.types import Question


def cut(
    questions: Sequence[Question], counts: Mapping[str, int], seed: int, *, answered: bool = False
) -> dict[str, Sequence[Question]]:
    """Take `counts[split]` questions for each named split, in that order. The rest is `train`.

    Questions are taken in the order of a hash of the seed and the question's texts. So adding or removing a question
    moves few others. Duplicates always go to the same split, so a split may be a few questions larger than requested:
    question, context and choices are the same but for case, white space, punctuation and the order of the choices.
    Inside each split, questions keep the order of the file.

    Args:
        answered: whether questions without an answer, which cannot be scored, stay in `train`.
    """
    import numpy as np

    splits = ("train", *counts)
    side = np.zeros(len(questions), np.uint8)  # for each question, the index of its split
    groups = _duplicates(questions, seed)
    for split, count in counts.items():
        taken = 0
        while taken < count and (group := next(groups, None)):
            if answered and all(questions[place].answer is None for place in group):
                continue
            side[group] = splits.index(split)
            taken += len(group)
    return {split: pick(questions, np.flatnonzero(side == k)) for k, split in enumerate(splits)}


def _duplicates(questions: Sequence[Question], seed: int) -> Iterator[list[int]]:
    """Yield the places of questions that are duplicates of each other, group by group, in hash order.

    A group has the lowest hash of its questions.
    """
    import numpy as np

    # Sort by four bytes of the hash, to save memory. The whole hash is only computed again where these are equal.
    ranks = np.fromiter((int.from_bytes(_rank(q, seed)[:4], "big") for q in questions), np.uint32, len(questions))
    leaders: dict[int, bytes] = {}
    for copies in _alike(questions):
        lowest = min(_rank(questions[place], seed) for place in copies)
        leaders |= dict.fromkeys(copies, lowest)
        ranks[copies] = int.from_bytes(lowest[:4], "big")
    for _, equal in itertools.groupby(map(int, np.argsort(ranks)), key=ranks.__getitem__):
        places = list(equal)
        if len(places) == 1:
            yield places
            continue
        whole = {place: leaders.get(place) or _rank(questions[place], seed) for place in places}
        for _, group in itertools.groupby(sorted(places, key=lambda p: (whole[p], p)), key=whole.__getitem__):
            yield list(group)


def _alike(questions: Sequence[Question]) -> Iterator[list[int]]:
    """Yield the places of questions that are duplicates, if there is more than one."""
    import numpy as np

    if not questions:
        return
    keys = np.fromiter((hash(texts_of(q)) for q in questions), np.int64, len(questions))
    order = np.argsort(keys, kind="stable")
    equal = keys[order][1:] == keys[order][:-1]
    for _, several in itertools.groupby(order[np.append(equal, False) | np.append(False, equal)], keys.__getitem__):
        alike: dict[tuple[str, ...], list[int]] = {}
        for place in map(int, several):
            alike.setdefault(texts_of(questions[place]), []).append(place)
        yield from (places for places in alike.values() if len(places) > 1)


def _rank(question: Question, seed: int) -> bytes:
    texts = [str(seed), question.question, question.context or "", *sorted(question.choices)]
    return hashlib.sha256("\x1f".join(texts).encode()).digest()
