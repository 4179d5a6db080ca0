"""TinyLLM: learn a small student from the rationales of several large language models.

The public names are imported when they are first used, so `import tinyllm` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyllm.config import Config, load_config
    from tinyllm.errors import TinyLLMError
    from tinyllm.inference import load
    from tinyllm.questions import Question, load_splits
    from tinyllm.stages.check import check_run
    from tinyllm.stages.evaluate import evaluate_run
    from tinyllm.stages.folder import RunFolder
    from tinyllm.stages.generate import generate_run
    from tinyllm.stages.report import report_run
    from tinyllm.stages.run import run_all
    from tinyllm.stages.train import train_run

_HOMES = {
    "Config": "config",
    "Question": "questions",
    "RunFolder": "stages.folder",
    "TinyLLMError": "errors",
    "check_run": "stages.check",
    "evaluate_run": "stages.evaluate",
    "generate_run": "stages.generate",
    "load": "inference",
    "load_config": "config",
    "load_splits": "questions",
    "report_run": "stages.report",
    "run_all": "stages.run",
    "train_run": "stages.train",
}

__all__ = [
    "Config",
    "Question",
    "RunFolder",
    "TinyLLMError",
    "check_run",
    "evaluate_run",
    "generate_run",
    "load",
    "load_config",
    "load_splits",
    "report_run",
    "run_all",
    "train_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinyllm' has no attribute '{name}'")
    return getattr(import_module(f"tinyllm.{_HOMES[name]}"), name)
