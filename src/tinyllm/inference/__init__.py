"""Inference: a trained student answers one question, a list of them, or a file.

Add a format of predictions: a line in `_rows.py: WRITERS`. Another program that computes a student: a `Runtime`
(`scoring/runtime.py`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyllm.inference._predict import Predictions, predict_file
    from tinyllm.inference._student import Chosen, LoadedStudent, load

_HOMES = {
    "Chosen": "_student",
    "LoadedStudent": "_student",
    "Predictions": "_predict",
    "load": "_student",
    "predict_file": "_predict",
}

__all__ = ["Chosen", "LoadedStudent", "Predictions", "load", "predict_file"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tinyllm.inference.{_HOMES[name]}"), name)
