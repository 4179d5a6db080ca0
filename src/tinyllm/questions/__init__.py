"""Questions: what one is, and how files, the hub and the authors' release become questions.

Add a file shape for `init`: a reader in `intake/_shapes.py`, or a way to find choices in `intake/_finding.py`. A named
dataset: a row conversion in `named` and a line in its table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyllm.questions.types import Dropped, Question, Splits

if TYPE_CHECKING:
    from tinyllm.questions.load import load_splits
    from tinyllm.questions.release import import_release

__all__ = ["Dropped", "Question", "Splits", "import_release", "load_splits"]


def __getattr__(name: str) -> Any:
    """Import the readers when they are first asked for: most who need `Question` read no file."""
    if name == "load_splits":
        from tinyllm.questions.load import load_splits

        return load_splits
    if name == "import_release":
        from tinyllm.questions.release import import_release

        return import_release
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
