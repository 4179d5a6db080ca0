"""Dataclasses from stored JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from tinyllm.errors import RunFolderError

_T = TypeVar("_T")
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def from_json(kind: type[_T], raw: Any, file: Path, advice: str) -> _T:
    """Make a dataclass of what was read from a file. Unknown keys are ignored.

    Raises:
        RunFolderError: a field is missing, or has a value of another type. The message names it and ends with `advice`.
    """
    try:
        found: _T = _adapter(kind).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RunFolderError(f"{file} is damaged ({where}: {first['msg']}); {advice}") from None
    return found
