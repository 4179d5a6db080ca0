"""From a path to the ways to read it as tables, the most likely first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tinyllm.errors import DataError, did_you_mean
from tinyllm.questions.intake._delimited import delimited
from tinyllm.questions.intake._documents import SPLITS, documents, is_json
from tinyllm.questions.intake._files import Bytes, look_into
from tinyllm.questions.intake._quiz import quizzes
from tinyllm.questions.intake._tables import columnar, saved_folder, workbook
from tinyllm.questions.intake._types import Shape, Wishes

_OF_TABLES = (".csv", ".tsv", ".tab", ".psv")
_SHARD = re.compile(r"\d+-of-\d+")
_NO_QUESTIONS = (".md", ".yaml", ".yml", ".py", ".log", ".lock")


def shapes_of(path: Path, wishes: Wishes) -> Iterator[Iterable[Shape]]:
    """Yield groups of ways to read a path. At most one way of a group is right. Each sheet of a workbook is a group.

    Raises:
        DataError: it does not exist, cannot be read, or files of this kind are not supported.
    """
    if path.is_dir():
        yield from _of_folder(path, wishes)
        return
    if not path.exists():
        here = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file.{did_you_mean(path.name, here)}")
    files = look_into(path)
    if len(files) == 1:
        yield from _of_file(files[0], wishes)
    else:
        yield from _of_several(path, files, wishes)


def _of_file(file: Bytes, wishes: Wishes) -> Iterator[Iterable[Shape]]:
    if file.kind == "workbook":
        yield from workbook(file, wishes)
    elif file.kind in ("parquet", "arrow"):
        yield [columnar(file)]
    elif is_json(file, wishes):
        yield documents(file, wishes)
    else:
        readers = (delimited, quizzes) if Path(file.name).suffix.lower() in _OF_TABLES else (quizzes, delimited)
        yield (shape for read in readers for shape in read(file, wishes))


def _split_of(name: str) -> str | None:
    words = Path(name).name.casefold().replace("-", "_").replace(".", "_").split("_")
    found = {SPLITS[w] for w in words if w in SPLITS}
    return found.pop() if len(found) == 1 else None


def _of_several(path: Path, files: list[Bytes], wishes: Wishes) -> Iterator[Iterable[Shape]]:
    """Read several files as splits of one dataset. Each must be named after its split."""
    splits = [_split_of(f.name) for f in files]
    shards = all(_SHARD.search(f.name) for f in files)
    if None in splits or (len(set(splits)) < len(splits) and not shards) or "train" not in splits:
        listed = ", ".join(f.name for f in files[:10]) + (", …" if len(files) > 10 else "")
        raise DataError(
            f"{path}: holds several files: {listed}. Give one of them, or a folder (or zip) with one file per split, "
            "named train, valid and test"
        )
    ways = [list(next(iter(_of_file(f, wishes)), [])) for f in files]
    together = []
    for number in range(min(map(len, ways))):
        parts = [way[number] for way in ways]
        tables = tuple(replace(p.tables[0], split=s) for p, s in zip(parts, splits, strict=True))
        together.append(Shape(tables, parts[0].how, parts[0].named))
    yield together


def _of_folder(folder: Path, wishes: Wishes) -> Iterator[Iterable[Shape]]:
    if saved := saved_folder(folder, look_into):
        yield [saved]
        return
    inside = list(folder.iterdir())
    # In a copy of a repository, the data are in a subfolder.
    inside = inside if any(p.is_file() and _may_hold_questions(p) for p in inside) else list(folder.rglob("*"))
    names = sorted(p for p in inside if p.is_file() and _may_hold_questions(p))
    if not names:
        raise DataError(
            f"{folder}: holds no files of questions; give a file, or a folder with train, valid and test files"
        )
    named = [p for p in names if _split_of(p.name)]
    chosen = named if any(_split_of(p.name) == "train" for p in named) else names
    files = [f for p in chosen for f in look_into(p)]
    if len(files) == 1:
        yield from _of_file(files[0], wishes)
    else:
        yield from _of_several(folder, files, wishes)


def _may_hold_questions(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() not in _NO_QUESTIONS
