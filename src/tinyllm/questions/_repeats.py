"""Questions that stand more than once: context, question and choices are the same but for punctuation, case and order.

Twelve bytes of each question are kept while a file is read: hashes of its texts and of its answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence

from tinyllm.questions._words import texts_of, unpunctuated
from tinyllm.questions.types import Question

_SHOWN = 3  # repeated questions that are named, and lines of each


class Repeats:
    """Finds repeated questions, and those of them whose answers differ."""

    def __init__(self) -> None:
        self._codes = array("q")
        self._answers = array("i")  # a short hash of the right choice; -1: unknown

    def add(self, question: Question) -> None:
        """Look at a question."""
        self._codes.append(_code(question))
        self._answers.append(-1 if question.answer is None else _code_of(question.choices[question.answer]))

    @property
    def different(self) -> int:
        """The number of different questions."""
        import numpy as np

        return len(np.unique(np.asarray(self._codes)))

    def told(self, lines: Sequence[int], unit: str, left_out: Collection[int] = ()) -> Iterator[tuple[str, int]]:
        """Yield what to say, with the number of questions. Each repeated question counts once.

        Args:
            lines: the line of each question.
            unit: what the lines are called.
            left_out: places of questions that do not count.
        """
        import numpy as np

        ordered = np.sort(np.asarray(self._codes))
        if not (ordered[1:] == ordered[:-1]).any():
            return
        places = np.delete(np.arange(len(ordered)), np.fromiter(left_out, np.int64, len(left_out)))
        answers = np.asarray(self._answers)[places]
        _, group, counts = np.unique(np.asarray(self._codes)[places], return_inverse=True, return_counts=True)
        known = np.flatnonzero(answers >= 0)
        known = known[np.lexsort((answers[known], group[known]))]
        differ = (group[known][1:] == group[known][:-1]) & (answers[known][1:] != answers[known][:-1])
        found = {
            "question that is there more than once": np.flatnonzero(counts > 1),
            "question that is there more than once with different answers; correct them": np.unique(
                group[known][1:][differ]
            ),
        }
        for text, groups in found.items():
            if not len(groups):
                continue
            of = group[np.isin(group, groups)]
            first = of[np.sort(np.unique(of, return_index=True)[1])[:_SHOWN]]  # in the order of the file
            shown = []
            for one in first:
                at = [lines[places[k]] for k in np.flatnonzero(group == one)]
                shown.append(", ".join(map(str, at[:_SHOWN])) + (", …" if len(at) > _SHOWN else ""))
            more = "; …" if len(groups) > len(first) else ""
            yield f"{text} ({unit}s {'; '.join(shown)}{more})", len(groups)


def copies(questions: Iterable[Question]) -> dict[int, int]:
    """Return the place of each copy, and the place of the question that counts: the first with an answer."""
    import numpy as np

    codes, unknown = array("q"), array("b")
    for question in questions:
        codes.append(_code(question))
        unknown.append(question.answer is None)
    order = np.lexsort((np.asarray(unknown), np.asarray(codes)))
    ordered = np.asarray(codes)[order]
    is_first = np.append(True, ordered[1:] != ordered[:-1])[: len(order)]
    kept = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
    return {int(place): int(first) for place, first in zip(order, kept, strict=True) if place != first}


def _code(question: Question) -> int:
    # Ten microseconds. Python's hash differs between processes, so it is never stored.
    return hash(texts_of(question))


def _code_of(answer: str) -> int:
    return hash(unpunctuated(answer)) & 0x7FFFFFFF
