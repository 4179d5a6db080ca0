"""Tables of rows, and the ways to cut a file into tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple


class Line(NamedTuple):
    """One row: its 1-based place in the file, and its cells by column."""

    place: int
    cells: Mapping[str, Any]


class Bad(NamedTuple):
    """A row that cannot be read, and why."""

    place: int
    reason: str


Rows = Callable[[], Iterable[Line | Bad]]
"""Starts a new pass over the rows of a table."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that are read in the same way.

    Attributes:
        where: file (and sheet, split), for messages.
        unit: what a `place` counts: line, row, question.
        split: train, valid or test, if the file says which; else None.
        classes: names of the classes of columns that hold class numbers (from Arrow and Parquet files).
        file: where a run can read the rows without conversion.
    """

    where: str
    rows: Rows
    unit: str = "row"
    split: str | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to read a file as tables.

    Attributes:
        how: what was found out about the file, in words: its encoding, its separator.
        named: whether the columns have names. Otherwise they are called `column 1`, `column 2`, …
        sheet: name of the sheet, in a workbook.
        apart: other parts of the file that may hold the answers.
        dialect: separator and encoding with which another CSV file opens where this one does (Excel needs the mark of
            UTF-8).
    """

    tables: tuple[Table, ...]
    how: tuple[str, ...] = ()
    named: bool = True
    sheet: str | None = None
    apart: tuple[str, ...] = ()
    dialect: tuple[str, str] = (",", "utf-8")

    def changed(self, rows: Callable[[Table], Rows], said: str, **more: Any) -> Shape:
        """Return the shape with other rows, which a run cannot read from the file itself."""
        tables = tuple(replace(table, rows=rows(table), file=None, **more) for table in self.tables)
        return replace(self, tables=tables, how=(*self.how, said))


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user has specified; None or empty: `init` finds it out.

    Attributes:
        answers_from: 0 or 1, the number of the first choice if answers are numbers.
        answers_as: letter, number or text.
        has_answers: False: do not read the file's answers.
        has_context: False: no column is a context.
        choices: the columns of the choices, or the one column that holds them.
        classes: the names of the classes, the same for every question.
    """

    question: str | None = None
    choices: tuple[str, ...] = ()
    answer: str | None = None
    context: str | None = None
    has_context: bool = True
    has_answers: bool = True
    answers_from: int | None = None
    answers_as: str | None = None
    classes: tuple[str, ...] = ()
    sheet: str | None = None
    encoding: str | None = None
    separator: str | None = None
