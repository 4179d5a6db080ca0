"""Rows that hold several questions each: a passage with its questions, or lists that run beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tinyllm.questions.intake._cells import flat, is_scalar
from tinyllm.questions.intake._types import Bad, Line, Shape, Table


def taken_apart(shape: Shape, sample: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Shape | None:
    """Return the shape with a row for each question that a row holds; None: no row holds several."""
    for column in columns:
        if _holds_records(sample, column):
            return _with_rows(shape, (column,), as_records=True)
    beside = _beside(sample, columns)
    return _with_rows(shape, beside, as_records=False) if beside else None


def _holds_records(sample: Sequence[Mapping[str, Any]], column: str) -> bool:
    """A list of objects that are more than a text with its label."""
    items = [item for row in sample if isinstance(row.get(column), list) for item in row[column]]
    return (
        bool(items)
        and all(isinstance(i, Mapping) for i in items)
        and any(len(i) > 3 or any(isinstance(v, list | Mapping) for v in i.values()) for i in items)
    )


def _beside(sample: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns with lists of one length in every row, one of them holding lists of lists or objects."""
    lists = [c for c in columns if all(isinstance(row.get(c), list) for row in sample)]
    deep = [c for c in lists if all(isinstance(v, list | Mapping) for row in sample for v in row[c])]
    if not deep:
        return ()
    same = [c for c in lists if all(len(row[c]) == len(row[deep[0]]) for row in sample)]
    flat_ones = [c for c in same if all(is_scalar(v) for row in sample for v in row[c])]
    return tuple(same) if flat_ones else ()


def _with_rows(shape: Shape, columns: tuple[str, ...], *, as_records: bool) -> Shape:
    tables = tuple(
        replace(table, rows=_Apart(table, columns, as_records), file=None, unit="question") for table in shape.tables
    )
    return replace(shape, tables=tables, how=(*shape.how, "each row holds several questions, which are taken apart"))


class _Apart:
    """The rows of a table, taken apart; called for each pass."""

    def __init__(self, table: Table, columns: tuple[str, ...], as_records: bool) -> None:
        self._table = table
        self._columns = columns
        self._as_records = as_records

    def __call__(self) -> Iterator[Line | Bad]:
        count = 0
        for item in self._table.rows():
            if isinstance(item, Bad):
                yield item
                continue
            cells = flat(item.cells)
            around = {k: v for k, v in cells.items() if k not in self._columns}
            for inner in self._inner(cells):
                count += 1
                # What a question says of itself goes before what its passage says.
                yield Line(count, {**{k: v for k, v in around.items() if k not in inner}, **inner})

    def _inner(self, cells: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        values = [cells.get(c) for c in self._columns]
        if self._as_records:
            yield from (item for item in values[0] or [] if isinstance(item, Mapping))
            return
        for parts in zip(*(v if isinstance(v, list) else [] for v in values), strict=False):
            yield dict(zip(self._columns, parts, strict=True))
