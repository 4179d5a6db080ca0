"""Packed attention is the attention of separate rows: forward, backward, with windows and with a position bias."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tinyllm.student._attention import Block, Packing, packed_attention, visible
from tinyllm.student._batch import packed_causal_batch
from tinyllm.student._steps import MicroBatch
from tinyllm.student.encode import Branch, Row

HEADS, SIZE = 2, 4

LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4)
ROWS = st.lists(
    st.tuples(st.integers(1, 7), st.lists(st.integers(1, 5), min_size=1, max_size=3)), min_size=1, max_size=4
)


def states(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def softmax_of(query, key, value, seen, bias=0.0):
    scores = query @ key.transpose(-1, -2) * SIZE**-0.5 + bias
    return torch.where(seen, scores, -torch.inf).softmax(-1) @ value


def gradients(output: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    above = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
    return torch.autograd.grad(output, inputs, above)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.sampled_from([None, 1, 3, 100]), st.sampled_from([1, 2]), st.booleans())
def test_blocks_of_shared_prompts_see_what_the_mask_of_the_whole_row_says(rows, window, key_heads, in_bf16):
    made = [
        Row("", tuple(range(prompt)), tuple(Branch(str(i), (7,), tuple(range(n))) for i, n in enumerate(targets)))
        for prompt, targets in rows
    ]
    micro = MicroBatch(tuple(made), tuple(tuple(1.0 for _ in r.branches) for r in made))
    packing: Packing = packed_causal_batch(micro, ())["packing"]
    tokens = len(packing.segments)
    query, key, value = (
        states(1, HEADS, tokens, SIZE),
        states(1, key_heads, tokens, SIZE),
        states(1, key_heads, tokens, SIZE, seed=2),
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
        mixed, _ = packed_attention(nn.Module(), query, key, value, None, packing=packing, sliding_window=window)
    assert mixed.dtype == (torch.bfloat16 if in_bf16 else torch.float32)
    mixed, loose = mixed.float(), 0.05 if in_bf16 else 0.0

    line = packing.segments[None], packing.positions[None]
    seen = visible(*line, *line, window=window)[0] & (packing.rows[:, None] == packing.rows[None])
    rule = packing.seen_by_flex(window)
    place = torch.arange(tokens)
    assert torch.equal(rule(None, None, place[:, None], place[None]), seen), "a GPU's rule is the same"
    each = HEADS // key_heads
    expected = softmax_of(query, key.repeat_interleave(each, 1), value.repeat_interleave(each, 1), seen)
    torch.testing.assert_close(mixed, expected.transpose(1, 2), rtol=1e-5 + loose, atol=1e-6 + loose)
    for ours, theirs in zip(
        gradients(mixed, query, key, value), gradients(expected.transpose(1, 2), query, key, value), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4 + loose, atol=1e-6 + 2 * loose)


def test_in_half_precision_long_blocks_are_left_to_the_fused_kernel_which_needs_no_square_of_memory(monkeypatch):
    packing = Packing([Block(0, 30, 0, 30, causal=True)])
    inputs = [states(1, HEADS, 30, SIZE, seed=s).detach().bfloat16() for s in range(3)]
    short, _ = packed_attention(nn.Module(), *inputs, None, packing=packing)
    monkeypatch.setattr("tinyllm.student._attention._PLAIN_SCORES", 899)
    monkeypatch.setattr("tinyllm.student._attention._plain", None)
    long, _ = packed_attention(nn.Module(), *inputs, None, packing=packing)
    torch.testing.assert_close(short, long, rtol=0.03, atol=0.03)


@settings(deadline=None, max_examples=30)
@given(LENGTHS, st.booleans(), st.booleans())
def test_blocks_with_a_position_bias_are_separate_rows_and_the_bias_learns_from_all(lengths, causal, crosses):
    queries, keys = sum(q for q, _ in lengths), sum(k for _, k in lengths)
    blocks, at, from_ = [], 0, 0
    for q, k in lengths:
        blocks.append(Block(at, q, from_, k) if crosses else Block(at, q, at, q, causal=causal))
        at, from_ = at + q, from_ + k
    longest = 9
    query = states(1, HEADS, queries, SIZE)
    key, value = (states(1, HEADS, keys if crosses else queries, SIZE, seed=s) for s in (1, 2))
    bias = states(1, HEADS, longest, longest, seed=3)
    layer = nn.Module()
    layer.is_causal = not crosses
    packing = Packing([] if crosses else blocks, blocks if crosses else [], longest=longest)
    given_bias = torch.zeros(1, 1, 1, 1) if crosses else bias
    mixed, _ = packed_attention(layer, query, key, value, None, packing=packing, position_bias=given_bias)

    parts = []
    for b in blocks:
        seen = torch.ones(b.queries, b.keys, dtype=torch.bool)
        seen = seen.tril() if b.causal else seen
        part = bias[:, :, : b.queries, : b.keys] if not crosses else 0.0
        rows = (
            query[:, :, b.query : b.query + b.queries],
            key[:, :, b.key : b.key + b.keys],
            value[:, :, b.key : b.key + b.keys],
        )
        parts.append(softmax_of(*rows, seen, part))
    expected = torch.cat(parts, 2).transpose(1, 2)
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-6)
    inputs = (query, key, value) if crosses else (query, key, value, bias)
    for ours, theirs in zip(gradients(mixed, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_dropout_of_attention_drops_and_scales_and_its_gradient_is_that_of_what_was_kept():
    query, key, value = (states(1, HEADS, 40, SIZE, seed=s) for s in range(3))
    layer = nn.Module()
    layer.is_causal = False
    packing = Packing([Block(0, 40, 0, 40)], longest=40)

    def run(q, k, v, seed):
        torch.manual_seed(seed)
        bias = torch.zeros(1, HEADS, 40, 40, dtype=q.dtype)
        return packed_attention(layer, q, k, v, None, packing=packing, position_bias=bias, dropout=0.3)[0]

    assert not torch.equal(run(query, key, value, 0), run(query, key, value, 1))
    mean = torch.stack([run(query, key, value, seed) for seed in range(400)]).mean(0)
    whole = softmax_of(query, key, value, torch.ones(40, 40, dtype=torch.bool)).transpose(1, 2)
    torch.testing.assert_close(mean, whole, rtol=0, atol=0.06)
    doubles = [t.detach().double().requires_grad_() for t in (query, key, value)]
    assert torch.autograd.gradcheck(lambda *t: run(*t, 3).double(), doubles, eps=1e-4, atol=1e-2, rtol=1e-2)


def test_without_a_packing_it_is_plain_attention():
    query, key, value = (states(2, HEADS, 5, SIZE, seed=s) for s in range(3))
    layer = nn.Module()
    layer.is_causal = True
    mixed, _ = packed_attention(layer, query, key, value, None)
    expected = softmax_of(query, key, value, torch.ones(5, 5, dtype=torch.bool).tril())
    torch.testing.assert_close(mixed, expected.transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_scores_that_are_capped_are_refused_so_that_the_probe_finds_another_way():
    query, key, value = (states(1, HEADS, 5, SIZE, seed=s) for s in range(3))
    with pytest.raises(ValueError, match="caps no scores"):
        packed_attention(
            nn.Module(), query, key, value, None, packing=Packing([Block(0, 5, 0, 5, causal=True)]), softcap=30.0
        )
