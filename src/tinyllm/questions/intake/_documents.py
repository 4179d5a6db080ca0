"""JSON: one object per line, or one document that holds the rows somewhere inside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tinyllm.errors import DataError
from tinyllm.questions._files import LEFT_OUT
from tinyllm.questions.intake._files import Bytes, Text, as_text
from tinyllm.questions.intake._names import has_role, plain
from tinyllm.questions.intake._types import Bad, Line, Shape, Table, Wishes

SPLITS: Mapping[str, str] = {
    "train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
_DEEPEST = 6


def is_json(file: Bytes, wishes: Wishes) -> bool:
    """Tell whether a text begins like JSON."""
    with as_text(file, wishes.encoding).open() as stream:
        head = stream.read(4096).lstrip("\ufeff").lstrip()
    if head[:1] not in ("{", "["):
        return False
    return head[:1] == "[" or head[1:].lstrip()[:1] in ('"', "}")


def documents(file: Bytes, wishes: Wishes) -> Iterator[Shape]:
    """Yield the ways to read JSON as tables.

    Raises:
        DataError: it is not JSON.
    """
    text = as_text(file, wishes.encoding)
    how = (text.how,) if text.how else ()
    if _is_lines(text):
        plain = file.path.suffix.lower() == ".jsonl" and not file.packed and text.encoding in ("utf-8", "utf-8-sig")
        table = Table(str(file.path), partial(_lines, text), "line", file=file.path if plain else None)
        yield Shape((table,), how)
        return
    with text.open() as stream:
        whole = stream.read()
    try:
        tree = json.loads(whole)
    except RecursionError:
        raise DataError(f"{file.path}: the JSON is nested too deeply to be read") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file.path}, line {error.lineno}: not JSON ({error.msg}, column {error.colno}); cut off? Write it again"
        ) from None
    yield from _in_document(tree, str(file.path), how)


def _is_lines(text: Text) -> bool:
    """Tell whether there is one object per line. Looks at the first two lines that are not blank."""
    with text.open() as stream:
        lines = (line for line in stream if line.strip())
        first = [line for line, _ in zip(lines, range(2), strict=False)]
    try:
        found = [json.loads(line) for line in first]
    except (ValueError, RecursionError):
        return len(first) > 1 and first[0].lstrip()[:1] == "{" and first[0].rstrip()[-1:] == "}"
    return all(isinstance(f, dict) for f in found) and (len(found) > 1 or not _records(found[0], ""))


def _lines(text: Text) -> Iterator[Line | Bad]:
    with text.open() as stream:
        for place, line in enumerate(stream, 1):
            stripped = line.strip().lstrip("\ufeff")
            if not stripped:
                continue
            try:
                found = json.loads(stripped)
            except (ValueError, RecursionError) as error:
                yield Bad(place, f"not JSON ({error})")
                continue
            if not isinstance(found, dict):
                yield Bad(place, "not an object")
            else:
                yield Bad(place, str(found[LEFT_OUT])) if [*found] == [LEFT_OUT] else Line(place, found)


# --- one document ------------------------------------------------------------------------------------------------


def _in_document(tree: Any, where: str, how: tuple[str, ...]) -> Iterator[Shape]:
    if isinstance(tree, dict) and (splits := _splits(tree)):
        tables = [
            Table(f"{where}, {name}", partial(_numbered, rows), "question", split)
            for name, (split, rows) in splits.items()
        ]
        yield Shape(tuple(tables), how)
        return
    found = _records(tree, "")
    if not found and isinstance(tree, dict) and any(isinstance(v, list | dict) for v in tree.values()):
        found = {"": [tree]}  # one row, which may hold several questions
    if not found:
        raise DataError(
            f"{where}: there is no list of objects in the JSON: give a list of questions, as "
            '[{"question": …, "choices": […], "answer": …}, …], or one such object per line'
        )
    apart = tuple(_answers_apart(tree, found)) if isinstance(tree, dict) else ()
    # Try the longest list first, and then the others.
    together = _together(found)
    for paths, rows in sorted(together.items(), key=lambda item: -len(item[1])):
        said = [*how, f"the questions are in {', '.join(f'`{p}`' for p in paths)}"] if paths != ("",) else list(how)
        others = [p for other in together if other != paths for p in other]
        if others:
            said.append(f"not read: {', '.join(f'`{p}`' for p in others)}")
        yield Shape((Table(where, partial(_numbered, rows), "question"),), tuple(said), apart=apart)


def _together(found: Mapping[str, list[Mapping[str, Any]]]) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """Join lists whose objects have most keys in common."""
    joined: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for path, rows in found.items():
        keys = {k for row in rows[:50] for k in row}
        for others, theirs in joined.items():
            known = {k for row in theirs[:50] for k in row}
            if len(keys & known) > 0.7 * len(keys | known):
                joined[(*others, path)] = [*joined.pop(others), *rows]
                break
        else:
            joined[(path,)] = rows
    return joined


def _answers_apart(tree: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a document, outside its questions, whose names sound like answers."""
    for key, value in tree.items():
        named = has_role(key, "answer") or plain(key) in ("answers", "solutions", "key", "keys")
        if named and isinstance(value, list | dict) and not any(p.split(".")[0] == key for p in found):
            yield key


def _splits(tree: Mapping[str, Any]) -> dict[str, tuple[str, list[Mapping[str, Any]]]]:
    named = {k: SPLITS[k.casefold()] for k in tree if k.casefold() in SPLITS}
    rows = {k: _records(tree[k], "") for k in named}
    if not named or not all(rows.values()) or len(set(named.values())) < len(named):
        return {}
    return {k: (split, max(rows[k].values(), key=len)) for k, split in named.items()}


def _records(tree: Any, path: str, depth: int = 0) -> dict[str, list[Mapping[str, Any]]]:
    """Return the lists of objects in a document by their path, and other structures that can be read as one."""
    if depth > _DEEPEST:
        return {}
    if isinstance(tree, list):
        objects: list[Mapping[str, Any]] = [item for item in tree if isinstance(item, dict)]
        if tree and len(objects) == len(tree):
            return {path: objects}
        if depth == 0 and len(tree) > 1 and all(isinstance(item, list) for item in tree):
            return {path: rows} if (rows := _under_header(tree)) else {}
        return {}
    if not isinstance(tree, dict) or not tree:
        return {}
    if (rows := _as_columns(tree)) or (rows := _by_id(tree)):
        return {path: rows}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for key, value in tree.items():
        found |= _records(value, f"{path}.{key}" if path else str(key), depth + 1)
    return found


def _under_header(rows: Sequence[Sequence[Any]]) -> list[Mapping[str, Any]]:
    """Return lists that follow a list of names as objects."""
    header = rows[0]
    if not all(isinstance(name, str) for name in header) or len(set(header)) < len(header) or len(header) < 2:
        return []
    if any(len(row) != len(header) for row in rows):
        return []
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]


def _as_columns(tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return columns of equal length as rows: {"question": [...], …}, or pandas' {"question": {"0": ...}, …}."""
    columns, data = tree.get("columns"), tree.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return _under_header([columns, *data]) if data else []
    lists = {k: v for k, v in tree.items() if isinstance(v, list)}
    if len(lists) == len(tree) > 1 and len({len(v) for v in lists.values()}) == 1:
        texts = [k for k, v in lists.items() if v and all(isinstance(x, str) for x in v)]
        if texts:
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    objects = {k: v for k, v in tree.items() if isinstance(v, dict) and v}
    if len(objects) == len(tree) > 1:
        keys = [list(v) for v in objects.values()]
        if all(k == keys[0] for k in keys) and keys[0] == [str(i) for i in range(len(keys[0]))] and len(keys[0]) > 1:
            return [{name: column[key] for name, column in objects.items()} for key in keys[0]]
    return []


def _by_id(tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return objects with common keys as rows. The key of each object becomes its id."""
    values = list(tree.values())
    if len(values) < 2 or not all(isinstance(v, dict) and len(v) > 1 for v in values):
        return []
    common = set.intersection(*(set(v) for v in values))
    if len(common) < 2 or not any(isinstance(values[0][k], str) and len(values[0][k]) > 3 for k in common):
        return []
    return [{**({} if "id" in v else {"id": k}), **v} for k, v in tree.items()]


def _numbered(rows: Sequence[Mapping[str, Any]]) -> Iterator[Line | Bad]:
    for place, cells in enumerate(rows, 1):
        yield Line(place, cells)
