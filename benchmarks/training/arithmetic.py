"""Useful arithmetic: what the real tokens of a job need, and what this machine's matrix product gives at best.

`python -m benchmarks.training.arithmetic` prints the latter as JSON.
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch


def peak_flops(size: int = 2048, rounds: int = 8) -> float:
    """Return operations a second of a float32 matrix product, the best of several; a multiply-add is two."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def useful_flops(job: dict[str, Any], config: Any) -> float:
    """Return the operations of a forward and a backward pass over the real tokens of a job.

    Matrix products alone: 2 forward and 4 backward for each weight and token, with logits at target tokens; and
    attention's two products over the pairs of tokens that may see each other. Tasks of a question that can share its
    prompt do.
    """
    return sum(_t5(q, config) if config.is_encoder_decoder else _causal(q, config) for q in job["questions"])


def _t5(question: dict[str, Any], config: Any) -> float:
    inner, wide = config.num_heads * config.d_kv, config.d_model
    attention, feed = 4 * wide * inner, 3 * wide * config.d_ff
    total = 0.0
    for row in question["rows"]:
        s, u = len(row["prompt"]), len(row["target"])
        encoder = config.num_layers * s * (attention + feed)
        decoder = config.num_decoder_layers * (u * (attention + feed + 2 * wide * inner) + s * 2 * wide * inner)
        pairs = config.num_layers * s * s + config.num_decoder_layers * (u * (u + 1) / 2 + u * s)
        total += encoder + decoder + u * wide * config.vocab_size + 2 * pairs * inner
    return 6 * total


def _causal(question: dict[str, Any], config: Any) -> float:
    size = config.head_dim or config.hidden_size // config.num_attention_heads
    heads, key_heads, wide = config.num_attention_heads * size, config.num_key_value_heads * size, config.hidden_size
    weights = wide * (2 * heads + 2 * key_heads + 3 * config.intermediate_size)
    prompt = len(question["rows"][0]["prompt"])
    tokens, pairs, targets = float(prompt), prompt * (prompt + 1) / 2, 0
    for row in question["rows"]:
        own = len(row["prefix"]) + len(row["target"]) - 1  # the last target token is never read
        tokens, targets = tokens + own, targets + len(row["target"])
        pairs += own * prompt + own * (own + 1) / 2
    layers = config.num_hidden_layers * (tokens * weights + 2 * pairs * heads)
    return 6 * (layers + targets * wide * config.vocab_size)


if __name__ == "__main__":
    print(json.dumps({"peak_flops": peak_flops()}))
