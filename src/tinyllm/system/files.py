"""Atomic file writes: a file is written beside its place, flushed to disk, and then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tinyllm.errors import RunFolderError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file. It replaces `path` at the end of the block, unless the block raises.

    The new file gets the permissions that the umask allows.

    Raises:
        OSError: the disk is full, or the folder cannot be written. The old file is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    # `mkstemp` would make a file that only its owner can read. With `os.open` the umask applies.
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    os.close(handle)
    try:
        yield draft
        # Open it again: a library may have replaced it by a file with other permissions (safetensors does).
        with draft.open("rb") as written:
            os.fsync(written.fileno())
            os.fchmod(written.fileno(), mode)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON. Infinity and NaN raise `ValueError`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that TinyLLM wrote.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFolderError(f"{path} is not there; run the stage that writes it first.") from None
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}); remove it and run its stage again.") from None
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line. A missing file gives an empty list."""
    if not path.is_file():
        return []
    # `splitlines` would also split at U+2028, which JSON allows inside a text.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def well_formed(text: str) -> str:
    """Return the text with lone surrogates replaced by U+FFFD: JSON can hold them, UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
