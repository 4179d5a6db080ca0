"""TinyLLM: learn a small student from the rationales and opinions of several large language models.

The public names are imported when they are first used, so `import tinyllm` loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyllm.system.lazy import lazily

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

_named = lazily(
    __name__,
    **{
        "config": ("Config", "load_config"),
        "errors": ("TinyLLMError",),
        "inference": ("load",),
        "questions": ("Question", "load_splits"),
        "stages.check": ("check_run",),
        "stages.evaluate": ("evaluate_run",),
        "stages.folder": ("RunFolder",),
        "stages.generate": ("generate_run",),
        "stages.report": ("report_run",),
        "stages.run": ("run_all",),
        "stages.train": ("train_run",),
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":  # reading it takes longer than all else here
        from importlib.metadata import version

        return version("tinyllm-distill")
    return _named(name)
