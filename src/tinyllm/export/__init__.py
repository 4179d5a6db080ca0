"""Export: a student in the format of another program, with a proof that it answers the same.

Add a format: a writer and a `Runtime` (`scoring/runtime.py`) in a file of its own, its name and precisions in `_kinds`,
and its case in `_formats` (`_write_model` and `open_export`). How much an export may differ: `_parity`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyllm.export._kinds import FORMATS

if TYPE_CHECKING:
    from tinyllm.export._formats import open_export, write_export
    from tinyllm.export._parity import Parity, compare

_HOMES = {
    "Parity": "_parity",
    "compare": "_parity",
    "open_export": "_formats",
    "write_export": "_formats",
}

__all__ = ["FORMATS", "Parity", "compare", "open_export", "write_export"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tinyllm.export.{_HOMES[name]}"), name)
