"""Inference: a trained student answers one question, a list of questions, or a file of questions.

Add a format of predictions: a line in `_rows.py: WRITERS`. Another program that runs a student: a `Runtime`
(`scoring/runtime.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyllm.system.lazy import lazily

if TYPE_CHECKING:
    from tinyllm.inference._predict import Predictions, predict_file
    from tinyllm.inference._student import Chosen, LoadedStudent, load

__all__ = ["Chosen", "LoadedStudent", "Predictions", "load", "predict_file"]

__getattr__ = lazily(__name__, _predict=("Predictions", "predict_file"), _student=("Chosen", "LoadedStudent", "load"))
