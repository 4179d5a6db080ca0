"""Student: what it learns (mixture), in which steps and shapes (plan, batch), and how (learner, train).

Add a method or a router: a pure function in `mixture`, a line in its table, and its name in `config/_train.py: Method`.
How a router ranks rationales: `_routing`. The form of a prompt and its prefix: `encode`. The token budget of a
micro-batch: `plan`. A format to save in: a file beside `model`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyllm.student._batch import to_device
    from tinyllm.student._checkpoints import (
        checkpoint_of_another,
        discard_checkpoints,
        gathered_weights,
        put_weights,
    )

_HOMES = {
    "checkpoint_of_another": "_checkpoints",
    "discard_checkpoints": "_checkpoints",
    "gathered_weights": "_checkpoints",
    "put_weights": "_checkpoints",
    "to_device": "_batch",
}

__all__ = [
    "checkpoint_of_another",
    "discard_checkpoints",
    "gathered_weights",
    "put_weights",
    "to_device",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tinyllm.student.{_HOMES[name]}"), name)
