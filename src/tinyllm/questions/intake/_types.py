"""What the readers hand to the understanding: tables of rows, and the ways in which a file can be cut into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Line(NamedTuple):
    """One row: where it is in its file (1-based), and its cells by column."""

    place: int
    cells: Mapping[str, Any]


class Bad(NamedTuple):
    """What is in the place of a row and cannot be read, and why."""

    place: int
    reason: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that are read alike; `rows` may be called any number of times.

    Attributes:
        where: file (and sheet, split), for messages.
        unit: what a `place` counts: line, row, question.
        split: train, valid or test, where the file says which; None: it doesn't.
        classes: names of the classes of columns that hold class numbers (a feature of Arrow and Parquet files).
        file: where a run can read the rows itself, if they need no conversion.
    """

    where: str
    rows: Callable[[], Iterator[Line | Bad]]
    unit: str = "row"
    split: str | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to see a file as tables.

    Attributes:
        how: what was found out about the file, in words: its encoding, its separator.
        named: the columns have names; else they are called `column 1`, `column 2`, …
        sheet: name of the sheet, in a workbook.
        apart: what else the file holds, that may be the answers.
    """

    tables: tuple[Table, ...]
    how: tuple[str, ...] = ()
    named: bool = True
    sheet: str | None = None
    apart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person has settled; None or empty: it is to be found out.

    Attributes:
        answers_from: 0 or 1, the number of the first choice where answers are numbers.
        answers_as: letter, number or text.
        has_answers: False: the file's answers are not to be read.
        has_context: False: no column is a context.
        choices: the columns of the choices, or the one that holds them.
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
