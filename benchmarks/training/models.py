"""The students of the benchmarks. Imported by contenders in other environments too: no TinyLLM here."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

_DROPOUT = 0.0  # so that losses can be compared


def build(name: str) -> Any:
    """Return a student, the same weights in every process: FLAN-T5-small's shape drawn anew, or SmolLM2-135M."""
    torch.manual_seed(0)
    if name == "t5-small":
        config = T5Config(
            vocab_size=32_128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6, dropout_rate=_DROPOUT,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
        )  # fmt: skip
        model = T5ForConditionalGeneration(config)
        with (
            torch.no_grad()
        ):  # logits about as wide as a trained model's; those of fresh weights make exponentials slow
            model.lm_head.weight.mul_(0.1)
        return model
    return AutoModelForCausalLM.from_pretrained(os.environ["BENCH_SMOLLM"], dtype=torch.float32)


def peak_bytes() -> int:
    """Return this process's greatest resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limit_memory() -> None:
    """Hold this process to so many bytes of data as the environment says, as a smaller machine would."""
    if limit := os.environ.get("BENCH_MEMORY"):
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))


def scratch() -> str:
    """Return a folder that trainers may have for their output."""
    return str(Path(os.environ["BENCH_SCRATCH"]))
