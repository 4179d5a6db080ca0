"""From the rows of one split to its questions and its problems, in one pass."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

from tinyllm.questions._by_id import repeated_ids
from tinyllm.questions._files import Problem, SplitRows
from tinyllm.questions._repeats import Repeats
from tinyllm.questions._rows import MissingColumns, RowForm, oddities, own_id, to_question
from tinyllm.questions._spool import gather, leave_out
from tinyllm.questions.types import Dropped, Question

MOST_LISTED = 20


class ReadSplit:
    """The questions of one split. The constructor reads and checks them.

    Args:
        drop: whether invalid rows may be left out.
        in_memory: more questions than this are kept on disk.
        stop_after: stop reading after this many questions; None: read all rows.

    Attributes:
        fatal: problems with the whole file. If there are any, the questions do not count.
        bad: the first problems with single rows, at most `MOST_LISTED`.
        warnings: counts of oddities of the questions.
        has_repeats: whether a question is there more than once.
    """

    def __init__(
        self, split: str, source: SplitRows, form: RowForm, *, drop: bool, in_memory: int, stop_after: int | None = None
    ) -> None:
        self.fatal: list[Problem] = []
        self.bad: list[Problem] = []
        self.bad_count = 0
        self.dropped: list[Dropped] = []
        self.warnings: Counter[str] = Counter()
        self._split = split
        self._source = source
        self._drop = drop
        # Eight bytes of each id's hash and four of its line, to find repeated ids at the end.
        self._hashes = array("q")
        self._lines = array("I")
        self._unit = ""
        self._bad_hashes = array("q")
        self._bad_lines = array("I")
        columns, repeats = MissingColumns(form), Repeats()
        questions = gather(self._read(form, columns, repeats, stop_after), in_memory)
        self.questions = self._without_repeated_ids(questions, repeats)
        self._tell_repeated_ids_of_bad_rows()
        if not self.fatal:
            self.fatal = columns.problems(source.where)
        if not self.fatal and not self.questions:
            text = f"no question is left for the split '{split}' after leaving out {len(self.dropped)} rows"
            first = self.dropped[0].reason if self.dropped else "no rows"
            self.fatal = [Problem(source.where, f"{text}; the first problem: {first}", fatal=True)]
        elif self.fatal:
            self.bad, self.bad_count, self.dropped = [], 0, []
        self.warnings = +self.warnings

    def _read(
        self, form: RowForm, columns: MissingColumns, repeats: Repeats, stop_after: int | None
    ) -> Iterator[Question]:
        """Yield the questions, and record what is wrong with the other rows."""
        different: set[int] = set()
        for row in self._source.items:
            if isinstance(row, Problem):
                if row.fatal:
                    self.fatal.append(row)
                    return
                self._leave_out(row.where, [row.text])
                continue
            columns.see(row)
            self._unit = row.unit
            result = to_question(row, form, self._split)
            if not isinstance(result, Question):
                self._leave_out(row.where, result)
                if not self._drop and (name := own_id(row, form, [])):
                    self._bad_hashes.append(hash(name))
                    self._bad_lines.append(row.place)
                continue
            self.warnings.update(oddities(result))
            repeats.add(result)
            self._hashes.append(hash(result.id))
            self._lines.append(row.place)
            yield result
            if stop_after is not None:
                different.add(self._hashes[-1])
                if len(different) >= stop_after:
                    return

    def _without_repeated_ids(self, questions: Sequence[Question], repeats: Repeats) -> Sequence[Question]:
        """Leave out each question whose id an earlier one has. Tell which of the others are there more than once."""
        repeated = []
        for place, first in repeated_ids(self._hashes, questions):
            question = questions[place]
            where, before = (f"{self._unit} {self._lines[k]}" for k in (place, first))
            text = f"the id '{question.id}' is also that of {before}; give each question its own id"
            self._leave_out(f"{self._source.where}, {where}", [text])
            self.warnings.subtract(oddities(question))
            repeated.append(place)
        told = dict(repeats.told(self._lines, f"{self._source.where}, {self._unit}", repeated))
        self.has_repeats = bool(told)
        self.warnings.update(told)
        return leave_out(questions, repeated)

    def _tell_repeated_ids_of_bad_rows(self) -> None:
        """Tell now which bad rows repeat an id. Else it would be the next problem, once they are corrected."""
        first: dict[int, int | None] = dict.fromkeys(self._bad_hashes)
        for code, line in zip(self._hashes, self._lines, strict=True) if first else ():
            if code in first and first[code] is None:
                first[code] = line
        for code, line in zip(self._bad_hashes, self._bad_lines, strict=True):
            if (before := first[code]) is None:
                first[code] = line
            else:
                text = f"its id is also that of {self._unit} {before}; give each question its own id"
                self._leave_out(f"{self._source.where}, {self._unit} {line}", [text])

    def _leave_out(self, where: str, reasons: Sequence[str]) -> None:
        self.bad_count += len(reasons)
        self.bad += [Problem(where, text) for text in reasons][: MOST_LISTED - len(self.bad)]
        if self._drop:
            self.dropped.append(Dropped(self._split, where, "; ".join(reasons)))
