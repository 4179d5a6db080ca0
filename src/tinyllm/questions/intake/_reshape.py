"""Change the rows of a table before they are understood: HTML escapes, choices as keys, several questions per row."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tinyllm.questions.intake._cells import flat, is_scalar
from tinyllm.questions.intake._choices import flag_of
from tinyllm.questions.intake._types import Bad, Line, Shape, Table

_SAMPLE = 200
_ESCAPES = re.compile(r"&(?:quot|#0?39|[lr][sd]quo|amp|[aeiou]acute|[aou]uml);")


# --- escapes, and choices as keys --------------------------------------------------------------------------------


def tidied(shape: Shape) -> Shape:
    """Return the shape without HTML escapes, and with choices that are the keys of an object as a list."""
    sample = [
        item.cells
        for table in shape.tables
        for item in itertools.islice(table.rows(), _SAMPLE)
        if isinstance(item, Line)
    ]
    names = dict.fromkeys(name for cells in sample for name in cells)
    if _has_escapes(sample):
        shape = shape.changed(lambda table: partial(_mapped, table, _unescaped), "HTML escapes (`&quot;`) are decoded")
    scored = [name for name in names if _are_scored([cells.get(name) for cells in sample])]
    if scored:
        said = "the choices are the keys of objects: " + ", ".join(scored)
        shape = shape.changed(lambda table: partial(_mapped, table, partial(_keys_as_list, scored)), said)
    return shape


def _mapped(table: Table, change: Any) -> Iterator[Line | Bad]:
    for item in table.rows():
        yield item if isinstance(item, Bad) else Line(item.place, change(item.cells))


def _has_escapes(sample: list[Mapping[str, Any]]) -> bool:
    """Tell whether texts are escaped for HTML, as by quiz services: other texts do not escape quotation marks."""
    texts = [v for row in sample for v in row.values() if isinstance(v, str)]
    return sum(bool(_ESCAPES.search(t)) for t in texts) >= 0.02 * len(texts) > 0 and not any("<" in t for t in texts)


def _unescaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.unescape(value)
    if isinstance(value, Mapping):
        return {k: _unescaped(v) for k, v in value.items()}
    return [_unescaped(v) for v in value] if isinstance(value, list) else value


def _are_scored(values: list[Any]) -> bool:
    """Tell whether values are objects from texts to marks, as `{"red": 0, "blue": 1}`, with other texts in each row."""
    objects = [v for v in values if isinstance(v, Mapping)]
    if len(objects) < 2 or len(objects) < len(values) or len({tuple(o) for o in objects}) == 1:
        return False
    return all(len(o) > 1 and all(flag_of(v) is not None and v != "" for v in o.values()) for o in objects)


def _keys_as_list(columns: Sequence[str], cells: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: {"choices": list(v), "labels": list(v.values())} if k in columns and isinstance(v, Mapping) else v
        for k, v in cells.items()
    }


# --- several questions per row -----------------------------------------------------------------------------------


def taken_apart(shape: Shape, sample: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Shape | None:
    """Return the shape with one row per question, if a row holds several: a passage with its questions, or parallel
    lists. Otherwise return None.
    """
    records = next(((c,) for c in columns if _holds_records(sample, c)), ())
    inside = records or _parallel(sample, columns)
    if not inside:
        return None
    said = "each row holds several questions; they are split"
    return shape.changed(lambda table: partial(_apart, table, inside, bool(records)), said, unit="question")


def _holds_records(sample: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Tell whether a column holds lists of objects that are more than a text with its label."""
    items = [item for row in sample if isinstance(row.get(column), list) for item in row[column]]
    return (
        bool(items)
        and all(isinstance(i, Mapping) for i in items)
        and any(len(i) > 3 or any(isinstance(v, list | Mapping) for v in i.values()) for i in items)
    )


def _parallel(sample: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns with lists of equal length in every row, if one of them holds lists of lists or objects."""
    lists = [c for c in columns if all(isinstance(row.get(c), list) for row in sample)]
    deep = [c for c in lists if all(isinstance(v, list | Mapping) for row in sample for v in row[c])]
    if not deep:
        return ()
    same = [c for c in lists if all(len(row[c]) == len(row[deep[0]]) for row in sample)]
    return tuple(same) if any(all(is_scalar(v) for row in sample for v in row[c]) for c in same) else ()


def _apart(table: Table, columns: tuple[str, ...], as_records: bool) -> Iterator[Line | Bad]:
    count = 0
    for item in table.rows():
        if isinstance(item, Bad):
            yield item
            continue
        cells = flat(item.cells)
        values = [cells.get(c) for c in columns]
        questions: Iterator[Mapping[str, Any]]
        if as_records:
            questions = (inner for inner in values[0] or [] if isinstance(inner, Mapping))
        else:
            parts = zip(*(v if isinstance(v, list) else [] for v in values), strict=False)
            questions = (dict(zip(columns, part, strict=True)) for part in parts)
        for inner in questions:
            count += 1
            # A cell of the question itself takes precedence over the same cell of the passage.
            around = {k: v for k, v in cells.items() if k not in columns and k not in inner}
            yield Line(count, {**around, **inner})
