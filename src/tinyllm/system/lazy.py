"""Lazy imports: a package imports a file when one of its names is first used, so that `tinyllm --help` is fast."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazily(package: str, **names: tuple[str, ...]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that imports its names when they are first used.

    Args:
        package: the `__name__` of the package.
        names: the names that each file of the package defines, by the name of the file.
    """
    files = {name: file for file, defined in names.items() for name in defined}

    def get(name: str) -> Any:
        if name not in files:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{files[name]}"), name)

    return get
