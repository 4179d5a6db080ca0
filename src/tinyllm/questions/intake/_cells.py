"""Read cells as people write them: texts, numbers, lists as text, nested objects."""

from __future__ import annotations

import ast
import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

_DEEPEST = 6


def flat(cells: Mapping[str, Any], opens: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the cells with nested objects flattened to dotted names. Lists stay lists.

    Args:
        opens: columns in which lists and objects are written as text.
    """
    result: dict[str, Any] = {}
    for name, value in cells.items():
        if isinstance(value, str) and name not in opens:
            result[name] = value if value and not value.isspace() else None
        elif value is None or isinstance(value, int):
            result[name] = value
        else:
            result.update(_flat(opened(value) if name in opens else value, name, 1))
    return result


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) and value and all(isinstance(p, tuple) and len(p) == 2 for p in value):
        value = dict(value)  # Arrow's map type
    if isinstance(value, Mapping) and value and depth < _DEEPEST:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key), depth + 1)
    else:
        yield name, plainly(value)


def plainly(value: Any) -> Any:
    """Return a list for a tuple or an array, and None for a missing value (NaN, blank text)."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str):
        return value if value.strip() else None
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [plainly(v) if not isinstance(v, str) else v for v in value] if isinstance(value, list | tuple) else value


def opened(value: Any) -> Any:
    """Return the list or object that a text holds, written as by JSON, Python or numpy; otherwise the value itself."""
    if not isinstance(value, str) or value.strip()[:1] + value.strip()[-1:] not in ("[]", "{}"):
        return value
    text = value.strip()
    plain = re.sub(r"array\((\[.*?\])(?:,\s*dtype=[\w'<>]+)?\)", r"\1", text, flags=re.DOTALL)
    # numpy writes no commas: ['a' 'b']
    spaced = re.sub(r"""(?<=['"])\s+(?=['"])""", ", ", plain)
    without_commas = "," not in re.sub(r"'[^']*'|\"[^\"]*\"", "", plain)
    # Python would join adjacent texts, so numpy's syntax must be tried first.
    for read, written in ((json.loads, text), (ast.literal_eval, spaced if without_commas else plain)):
        try:
            found = read(written)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(found, list | dict):
            return found
    return value


def text_of(value: Any) -> str:
    """Return a cell as text: whole numbers without a point, dates as 2026-01-31, nothing as an empty text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def number_of(value: Any) -> int | None:
    """Return a whole number, also if it is written as `2.0` or as text; otherwise None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    text = value.strip() if isinstance(value, str) else ""
    return int(float(text)) if re.fullmatch(r"[+-]?\d{1,9}(?:\.0+)?", text) else None


def is_scalar(value: Any) -> bool:
    """Tell whether a value can be a text: text, number, date, true or false."""
    return isinstance(value, str | int | float | datetime.date | datetime.time)


def fold(text: str) -> str:
    """Return a text for comparisons, with single blanks and in lower case."""
    return " ".join(text.split()).casefold()
