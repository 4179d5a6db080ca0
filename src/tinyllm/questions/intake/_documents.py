"""JSON: one object a line, or one document that holds the rows somewhere inside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyllm.errors import DataError
from tinyllm.questions.intake._files import Bytes, Text, as_text
from tinyllm.questions.intake._names import has_role, plain
from tinyllm.questions.intake._types import Bad, Line, Shape, Table, Wishes

SPLITS: Mapping[str, str] = {
    "train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
_DEEPEST = 6


def is_json(file: Bytes, wishes: Wishes) -> bool:
    """Tell whether a text begins as JSON does."""
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
        in_place = file.path if _is_plain(file, text) else None
        yield Shape((Table(str(file.path), _Lines(text), "line", file=in_place),), how)
        return
    with text.open() as stream:
        whole = stream.read()
    try:
        tree = json.loads(whole)
    except RecursionError:
        raise DataError(f"{file.path}: JSON that is nested too deeply to be read") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file.path}, line {error.lineno}: not JSON ({error.msg}, column {error.colno}); cut off? Write it again"
        ) from None
    yield from _in_document(tree, str(file.path), how)


def _is_plain(file: Bytes, text: Text) -> bool:
    named = file.path.suffix.lower() == ".jsonl"
    return named and not file.packed and text.encoding in ("utf-8", "utf-8-sig")


def _is_lines(text: Text) -> bool:
    """One object a line: the first two lines that are not blank are whole objects, or the only one is."""
    with text.open() as stream:
        lines = (line for line in stream if line.strip())
        first = [line for line, _ in zip(lines, range(2), strict=False)]
    try:
        found = [json.loads(line) for line in first]
    except (ValueError, RecursionError):
        return len(first) > 1 and first[0].lstrip()[:1] == "{" and first[0].rstrip()[-1:] == "}"
    return all(isinstance(f, dict) for f in found) and (len(found) > 1 or not _records(found[0], ""))


@dataclass(frozen=True)
class _Lines:
    """The objects of JSON Lines; called for each pass."""

    text: Text

    def __call__(self) -> Iterator[Line | Bad]:
        with self.text.open() as stream:
            for place, line in enumerate(stream, 1):
                stripped = line.strip().lstrip("\ufeff")
                if not stripped:
                    continue
                try:
                    found = json.loads(stripped)
                except (ValueError, RecursionError) as error:
                    yield Bad(place, f"not JSON ({error})")
                    continue
                yield Line(place, found) if isinstance(found, dict) else Bad(place, "not an object")


# --- one document ------------------------------------------------------------------------------------------------


def _in_document(tree: Any, where: str, how: tuple[str, ...]) -> Iterator[Shape]:
    if isinstance(tree, dict) and (splits := _splits(tree)):
        yield Shape(
            tuple(Table(f"{where}, {name}", _Rows(rows), "question", split) for name, (split, rows) in splits.items()),
            how,
        )
        return
    found = _records(tree, "")
    if not found and isinstance(tree, dict) and any(isinstance(v, list | dict) for v in tree.values()):
        found = {"": [tree]}  # one row, which may hold several questions
    if not found:
        raise DataError(
            f"{where}: JSON in which no list of objects was found: give a list of questions, as "
            '[{"question": …, "choices": […], "answer": …}, …], or one such object a line'
        )
    apart = tuple(_answers_apart(tree, found)) if isinstance(tree, dict) else ()
    # The longest first; what is not proven in one may be in another.
    together = _together(found)
    for paths, rows in sorted(together.items(), key=lambda item: -len(item[1])):
        said = [*how, f"the questions are in {', '.join(f'`{p}`' for p in paths)}"] if paths != ("",) else list(how)
        others = [p for other in together if other != paths for p in other]
        if others:
            said.append(f"not read: {', '.join(f'`{p}`' for p in others)}")
        yield Shape((Table(where, _Rows(rows), "question"),), tuple(said), apart=apart)


def _together(found: Mapping[str, list[Mapping[str, Any]]]) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """Return lists whose objects have most of their keys in common as one."""
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
    """Yield the keys of a document beside its questions that are called like answers."""
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
    """Return the lists of objects in a document, by where they are, and what can be seen as one."""
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
    """Return lists under a list of names as objects."""
    header = rows[0]
    if not all(isinstance(name, str) for name in header) or len(set(header)) < len(header) or len(header) < 2:
        return []
    if any(len(row) != len(header) for row in rows):
        return []
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]


def _as_columns(tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return columns of one length as rows: {"question": [...], …}, or as pandas has it {"question": {"0": ...}, …}."""
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
    """Return objects that all have the same keys as rows, each with its own key as id."""
    values = list(tree.values())
    if len(values) < 2 or not all(isinstance(v, dict) and len(v) > 1 for v in values):
        return []
    common = set.intersection(*(set(v) for v in values))
    if len(common) < 2 or not any(isinstance(values[0][k], str) and len(values[0][k]) > 3 for k in common):
        return []
    return [{**({} if "id" in v else {"id": k}), **v} for k, v in tree.items()]


@dataclass(frozen=True)
class _Rows:
    """Rows that are in memory; called for each pass."""

    rows: Sequence[Mapping[str, Any]]

    def __call__(self) -> Iterator[Line | Bad]:
        for place, cells in enumerate(self.rows, 1):
            yield Line(place, cells)
