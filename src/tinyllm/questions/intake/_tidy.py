"""Rows as they are meant: without the escapes of HTML, and with choices that are the keys of an object as a list."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tinyllm.questions.intake._choices import flag_of
from tinyllm.questions.intake._types import Bad, Line, Shape, Table

_SAMPLE = 200
_ESCAPES = re.compile(r"&(?:quot|#0?39|[lr][sd]quo|amp|[aeiou]acute|[aou]uml);")


def tidied(shape: Shape) -> Shape:
    """Return the shape with tidy rows; the same one where there is nothing to tidy."""
    sample = [
        item.cells
        for table in shape.tables
        for item in itertools.islice(table.rows(), _SAMPLE)
        if isinstance(item, Line)
    ]
    names = dict.fromkeys(name for cells in sample for name in cells)
    if _has_escapes(sample):
        shape = _mapped(shape, _unescaped, "HTML escapes (as `&quot;`) are read as what they stand for")
    scored = [name for name in names if _are_scored([cells.get(name) for cells in sample])]
    if scored:
        shape = _mapped(shape, _Scored(tuple(scored)), "the choices are the keys of objects: " + ", ".join(scored))
    return shape


def _mapped(shape: Shape, change: Callable[[Any], Any], said: str) -> Shape:
    tables = tuple(replace(table, rows=_Changed(table, change), file=None) for table in shape.tables)
    return replace(shape, tables=tables, how=(*shape.how, said))


@dataclass(frozen=True)
class _Changed:
    """The rows of a table, each changed; called for each pass."""

    table: Table
    change: Callable[[Any], Any]

    def __call__(self) -> Iterator[Line | Bad]:
        for item in self.table.rows():
            yield item if isinstance(item, Bad) else Line(item.place, self.change(item.cells))


def _has_escapes(sample: list[Mapping[str, Any]]) -> bool:
    """Tell whether texts were written out for HTML, as quiz services do: no other text escapes quotation marks."""
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


@dataclass(frozen=True)
class _Scored:
    """Turns objects from texts to marks into lists of both."""

    columns: tuple[str, ...]

    def __call__(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        return {
            k: {"choices": list(v), "labels": list(v.values())} if k in self.columns and isinstance(v, Mapping) else v
            for k, v in cells.items()
        }
