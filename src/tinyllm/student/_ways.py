"""In which ways a model can be computed, and what models have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

UNFIT = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)
"""What models raise whose attention, head or masks have another interface."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute a student's loss; all give the same.

    Attributes:
        packed: all rows of a micro-batch end to end, without padding; else side by side, padded to the longest.
        share_prompt: all tasks of a question in one row, where the student is causal; else a row each.
        whole_forward: the model's own forward, with logits at every token; else its body, and its head at targets.
        alone: each row by itself, by the model's own forward: what the others are held against.
    """

    packed: bool = True
    share_prompt: bool = True
    whole_forward: bool = False
    alone: bool = False


ALONE = Way(packed=False, share_prompt=False, whole_forward=True, alone=True)
"""The way that is right for every model, because it is the definition; and the slowest."""


def decoder_start(model: Any) -> int:
    """Return the token that an encoder-decoder's targets start from; where none is named, as transformers does."""
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in (model.config, model.generation_config):
            if (start := getattr(config, name, None)) is not None:
                return int(start)
    return int(model.config.pad_token_id)


def unwrapped(model: Any) -> Any:
    """Return the model inside LoRA adapters; they are part of its layers, so they still act."""
    inner: Callable[[], Any] | None = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank; its type if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
