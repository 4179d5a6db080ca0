"""Find questions by their ids, in a sequence that may be on disk."""

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
    """Questions by id, in 16 bytes a question besides the sequence itself; all are gone through at the first look."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions

    def get(self, question_id: str) -> Question | None:
        """Return the (first) question with an id, None if there is none."""
        import numpy as np

        hashes, places = self._index
        code = hash(question_id)
        first, end = (int(np.searchsorted(hashes, code, side)) for side in ("left", "right"))
        found = (self._questions[place] for place in places[first:end])
        return next((q for q in found if q.id == question_id), None)  # the same hash is not yet the same id

    @cached_property
    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The hashes of all ids in ascending order, and the places of their questions."""
        import numpy as np

        hashes = np.fromiter((hash(q.id) for q in self._questions), np.int64, len(self._questions))
        places = np.argsort(hashes, kind="stable")
        return hashes[places], places


def repeated_ids(hashes: array[int], questions: Sequence[Question]) -> Iterator[tuple[int, int]]:
    """Yield the place of each question whose id came before, and the place where it first came.

    Args:
        hashes: of the ids (`hash`), of type `q`. Only questions whose hash comes twice are looked at.
    """
    import numpy as np

    codes = np.asarray(hashes)
    ordered = np.sort(codes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return
    first: dict[str, int] = {}
    for place in map(int, np.flatnonzero(np.isin(codes, repeated))):
        name = questions[place].id  # the same hash is not yet the same id
        if first.setdefault(name, place) != place:
            yield place, first[name]
