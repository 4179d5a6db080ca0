"""Questions: what one is, and where they come from."""

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
