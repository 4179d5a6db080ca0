"""Many questions in little memory: a sequence on disk.

A few questions stay in a tuple. More are written to an unnamed temporary file, which is deleted when the process ends.
Only the position of each question stays in memory.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import os
import tempfile
import weakref
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, overload

from tinyllm.errors import DataError
from tinyllm.questions.types import Question

if TYPE_CHECKING:
    from io import FileIO

    import numpy as np
    from numpy.typing import NDArray

    Places = NDArray[np.int64]

IN_MEMORY = 10_000
"""Up to this many questions stay in a tuple. They take about 15 MB, less than the libraries that read them."""

_AT_ONCE = 1000  # questions that an iteration reads ahead
_LONGEST_READ = 4 << 20  # bytes; rows that are further apart are read one by one
_WRITE_BYTES = 1 << 16
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def gather(questions: Iterable[Question], in_memory: int = IN_MEMORY) -> Sequence[Question]:
    """Return the questions as a tuple; more than `in_memory` questions as a `_Spool`.

    Raises:
        DataError: the disk is full.
    """
    rest = iter(questions)
    first = tuple(itertools.islice(rest, in_memory + 1))
    return first if len(first) <= in_memory else _Spool(_Rows(map(_encode, itertools.chain(first, rest))))


def pick(questions: Sequence[Question], places: Places) -> Sequence[Question]:
    """Return the questions at the given places, in that order. No row on disk is copied."""
    if isinstance(questions, _Spool):
        return questions.at(places)
    return tuple(questions[place] for place in places)


def leave_out(questions: Sequence[Question], places: Collection[int]) -> Sequence[Question]:
    """Return all questions except those at the given places."""
    if not places:
        return questions
    import numpy as np

    return pick(questions, np.delete(np.arange(len(questions)), np.fromiter(places, np.int64, len(places))))


class _Spool(Sequence[Question]):
    """Questions on disk. Immutable and safe for threads. Slices share the rows.

    Args:
        places: which rows, in which order; None: all.
    """

    def __init__(self, rows: _Rows, places: range | Places | None = None) -> None:
        self._rows = rows
        self._places: range | Places = range(len(rows)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> _Spool: ...
    def __getitem__(self, index: int | slice) -> Question | _Spool:
        if isinstance(index, slice):
            return _Spool(self._rows, self._places[index])
        return _decode(self._rows[int(self._places[operator.index(index)])])

    def __iter__(self) -> Iterator[Question]:
        for start in range(0, len(self), _AT_ONCE):
            yield from map(_decode, self._rows.read([int(p) for p in self._places[start : start + _AT_ONCE]]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Spool | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it equals a tuple, and the same hash would need all rows

    def __repr__(self) -> str:
        return f"<Spool of {len(self)} questions>"

    def at(self, places: Places) -> _Spool:
        """Return the questions at the given places."""
        mine = self._places
        return _Spool(self._rows, places * mine.step + mine.start if isinstance(mine, range) else mine[places])


class _Rows:
    """Texts in an unnamed temporary file, which is deleted with this object."""

    def __init__(self, rows: Iterable[bytes]) -> None:
        self._starts = array("Q", [0])
        with _disk_errors():
            self._file: FileIO = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        waiting, size = [], 0
        for row in rows:
            waiting.append(row)
            size += len(row)
            self._starts.append(self._starts[-1] + len(row))
            if size >= _WRITE_BYTES:
                self._put(b"".join(waiting))
                waiting, size = [], 0
        self._put(b"".join(waiting))

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        with _disk_errors():
            while left:
                left = left[self._file.write(left) :]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, place: int) -> bytes:
        start = self._starts[place]
        return os.pread(self._file.fileno(), self._starts[place + 1] - start, start)

    def read(self, places: Sequence[int]) -> Iterator[bytes]:
        """Yield the rows at the given places. Rows that are close together are read at once."""
        starts = self._starts
        first, end = starts[min(places)], starts[max(places) + 1]
        if end - first > _LONGEST_READ:
            yield from (self[place] for place in places)
            return
        block = os.pread(self._file.fileno(), end - first, first)
        for place in places:
            yield block[starts[place] - first : starts[place + 1] - first]


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn an error of the temporary folder into a message that says what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{tempfile.gettempdir()}: the questions cannot be stored in this temporary folder "
            f"({error.strerror or error}); make room, or name another folder in the environment variable TMPDIR"
        ) from None


def _encode(question: Question) -> bytes:
    row = (
        question.id,
        question.question,
        question.choices,
        question.answer,
        question.context,
        dict(question.rationales) or None,
        dict(question.opinions) or None,
    )
    return _JSON.encode(row).encode("utf-8", "surrogatepass")


def _decode(row: bytes) -> Question:
    name, question, choices, answer, context, rationales, opinions = json.loads(row.decode("utf-8", "surrogatepass"))
    scores = {teacher: tuple(of) for teacher, of in (opinions or {}).items()}
    return Question(name, question, tuple(choices), answer, context, rationales or {}, scores)
