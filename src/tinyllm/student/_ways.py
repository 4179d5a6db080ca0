"""The ways to compute a model, and small functions for all models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

UNFIT = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)
"""The errors of models whose attention, head or masks have another interface."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute the loss of a student. All ways give the same loss.

    Attributes:
        packed: all rows of a micro-batch in one long row, without padding; otherwise each is padded to the longest.
        share_prompt: all tasks of a question in one row, if the student is causal; otherwise one row per task.
        whole_forward: the model's own forward, with logits at every token; otherwise its body, and its head at targets.
        alone: each row by itself, by the model's own forward. The other ways are compared with this one.
    """

    packed: bool = True
    share_prompt: bool = True
    whole_forward: bool = False
    alone: bool = False


ALONE = Way(packed=False, share_prompt=False, whole_forward=True, alone=True)
"""The way that is right for every model by definition. It is the slowest."""


def decoder_start(model: Any) -> int:
    """Return the start token of an encoder-decoder. If the model names none, it is chosen as transformers does."""
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in (model.config, model.generation_config):
            if (start := getattr(config, name, None)) is not None:
                return int(start)
    return int(model.config.pad_token_id)


def from_config(model_config: Any) -> Any:
    """Return a model with random weights."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind: Any = AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_config(model_config, dtype=torch.float32)


def unwrapped(model: Any) -> Any:
    """Return the model inside the LoRA wrapper. Its layers contain the adapters, so these stay active."""
    inner: Callable[[], Any] | None = getattr(model, "get_base_model", None)
    return model if inner is None else inner()
