"""Find questions by id, in a sequence that may be on disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from tinyllm.questions.types import Question

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ById:
    """An index from id to question. It takes 16 bytes per question, and is built at the first lookup."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions

    def get(self, question_id: str) -> Question | None:
        """Return the first question with this id, or None."""
        import numpy as np

        hashes, places = self._index
        code = hash(question_id)
        first, end = (int(np.searchsorted(hashes, code, side)) for side in ("left", "right"))
        found = (self._questions[place] for place in places[first:end])
        return next((q for q in found if q.id == question_id), None)  # two ids may have the same hash

    @cached_property
    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The hashes of all ids in ascending order, and the places of their questions."""
        import numpy as np

        hashes = np.fromiter((hash(q.id) for q in self._questions), np.int64, len(self._questions))
        places = np.argsort(hashes, kind="stable")
        return hashes[places], places


def repeated_ids(hashes: array[int], questions: Sequence[Question]) -> Iterator[tuple[int, int]]:
    """Yield the place of each question whose id came before, and the place where the id came first.

    Args:
        hashes: `hash(id)` of each question, in an array of type `q`. Only questions with a repeated hash are read.
    """
    import numpy as np

    codes = np.asarray(hashes)
    ordered = np.sort(codes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return
    first: dict[str, int] = {}
    for place in map(int, np.flatnonzero(np.isin(codes, repeated))):
        name = questions[place].id  # two ids may have the same hash
        if first.setdefault(name, place) != place:
            yield place, first[name]
