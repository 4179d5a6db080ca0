"""From the rows of one split to its questions, and to what is wrong with the others. Goes through the rows once."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tinyllm.questions._by_id import repeated_ids
from tinyllm.questions._files import Problem, SplitRows
from tinyllm.questions._rows import MissingColumns, RowForm, oddities, to_question
from tinyllm.questions._spool import gather, leave_out
from tinyllm.questions.types import Dropped, Question

MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class ReadSplit:
    """What is read of one split.

    Attributes:
        fatal: what is wrong with the file as a whole; then there are no questions.
        bad: what is wrong with single rows, as much of it as is ever told.
        bad_count: how much there is.
        dropped: the rows left out; empty where none may be.
        warnings: counts oddities of the questions.
    """

    questions: Sequence[Question] = ()
    fatal: tuple[Problem, ...] = ()
    bad: tuple[Problem, ...] = ()
    bad_count: int = 0
    dropped: tuple[Dropped, ...] = ()
    warnings: Mapping[str, int] = field(default_factory=dict)


def read_split(
    split: str, source: SplitRows, form: RowForm, *, drop: bool, in_memory: int, stop_after: int | None = None
) -> ReadSplit:
    """Read and check the questions of one split.

    Args:
        drop: rows that are no questions may be left out.
        in_memory: more questions than these are kept on disk.
        stop_after: read no further than to so many questions; None: all rows.
    """
    reader = _Reader(split, source, form, drop=drop, stop_after=stop_after)
    questions = reader.without_repeated_ids(gather(reader.questions(), in_memory))
    if fatal := reader.fatal or reader.columns.problems(source.where):
        return ReadSplit(fatal=tuple(fatal))
    if not questions:
        text = f"no question is left for the split '{split}' after leaving out {len(reader.dropped)} rows"
        first = reader.dropped[0].reason if reader.dropped else "no rows"
        fatal = [Problem(source.where, f"{text}, the first because: {first}", fatal=True)]
    dropped, warnings = tuple(reader.dropped), dict(+reader.warnings)
    return ReadSplit(questions, tuple(fatal), tuple(reader.bad), reader.bad_count, dropped, warnings)


class _Reader:
    """Goes through the rows of a split and takes notes."""

    def __init__(self, split: str, source: SplitRows, form: RowForm, *, drop: bool, stop_after: int | None) -> None:
        self.fatal: list[Problem] = []
        self.bad: list[Problem] = []
        self.bad_count = 0
        self.dropped: list[Dropped] = []
        self.warnings: Counter[str] = Counter()
        self.columns = MissingColumns(form)
        self._split = split
        self._source = source
        self._form = form
        self._drop = drop
        self._stop_after = stop_after
        # Of each question, so that a repeated id can be found at the end: eight bytes of a hash of it, and its line.
        self._hashes = array("q")
        self._lines = array("Q")
        self._unit = ""

    def questions(self) -> Iterator[Question]:
        """Yield the rows that are questions, and note what is wrong with the others."""
        different: set[int] = set()
        for row in self._source.items:
            if isinstance(row, Problem):
                if row.fatal:
                    self.fatal.append(row)
                    return
                self._leave_out(row.where, [row.text])
                continue
            self.columns.see(row)
            result = to_question(row, self._form, self._split)
            if not isinstance(result, Question):
                self._leave_out(row.where, result)
                continue
            self.warnings.update(oddities(result))
            self._hashes.append(hash(result.id))
            self._lines.append(row.place)
            self._unit = row.unit
            yield result
            if self._stop_after is not None:
                different.add(self._hashes[-1])
                if len(different) >= self._stop_after:
                    return

    def without_repeated_ids(self, questions: Sequence[Question]) -> Sequence[Question]:
        """Leave out each question whose id an earlier one has."""
        repeated = []
        for place, first in repeated_ids(self._hashes, questions):
            question = questions[place]
            where, before = (f"{self._unit} {self._lines[k]}" for k in (place, first))
            text = f"the id '{question.id}' is also that of {before}; give each question an id of its own"
            self._leave_out(f"{self._source.where}, {where}", [text])
            self.warnings.subtract(oddities(question))
            repeated.append(place)
        return leave_out(questions, repeated)

    def _leave_out(self, where: str, reasons: Sequence[str]) -> None:
        self.bad_count += len(reasons)
        self.bad += [Problem(where, text) for text in reasons][: MOST_LISTED - len(self.bad)]
        if self._drop:
            self.dropped.append(Dropped(self._split, where, "; ".join(reasons)))
