"""Student: what it learns (mixture), in which steps and shapes (plan, batch), and how (learner, train).

Add a method or a router: a pure function in `mixture`, a line in its table, and its name in `config/_train.py: Method`.
What several routers rank by: `_routing`. The form of a prompt and its prefix: `encode`. The token budget of a
micro-batch: `plan`. A format to save in: a file beside `model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyllm.system.lazy import lazily

if TYPE_CHECKING:
    from tinyllm.student._batch import to_device
    from tinyllm.student._checkpoints import checkpoint_of_another, discard_checkpoints, gathered_weights, put_weights

__all__ = ["checkpoint_of_another", "discard_checkpoints", "gathered_weights", "put_weights", "to_device"]

__getattr__ = lazily(
    __name__,
    _batch=("to_device",),
    _checkpoints=("checkpoint_of_another", "discard_checkpoints", "gathered_weights", "put_weights"),
)
