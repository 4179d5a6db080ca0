"""Packed attention: all rows of a micro-batch form one long row without padding. Blocks say which tokens see which.

All other layers of a transformer process each token separately. Only attention has to know where a row ends. It is
registered with transformers under `NAME`. A model uses it if it is called with `packing=…`. Otherwise its attention is
plain scaled-dot-product attention.

    on the CPU    one small dense attention per block, so the cost is that of the blocks and not of the whole square
    on a GPU      FlexAttention, whose compiled kernel skips what the mask hides (causal students)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "tinyllm_packed"
PROMPT = 0  # segment of a row's prompt; its branches count from 1
_PLAIN_SCORES = 1 << 18  # of one head; above, what is saved for the backward pass would take too much memory


@dataclass(frozen=True, slots=True)
class Block:
    """Queries [query, query + queries) see keys [key, key + keys).

    Attributes:
        branches_at: the first key of the branches; None: there are no branches. A query sees all keys before it, and
            from there on its own branch up to itself. The queries are the keys from there on.
        causal: each query sees the keys up to itself. There are as many queries as keys.
    """

    query: int
    queries: int
    key: int
    keys: int
    causal: bool = False
    branches_at: int | None = None


@dataclass(slots=True)
class Packing:
    """What attention needs to know about a packed micro-batch.

    Attributes:
        blocks: of self-attention; together their queries are all tokens, in order.
        cross: blocks of a decoder's attention to its encoder; empty elsewhere.
        segments, positions, rows: of each token (T,): its branch (`PROMPT` or 1, 2, …), its position in its own
            sequence, and its row. For causal students only.
        longest: tokens of the longest block.
    """

    blocks: Sequence[Block]
    cross: Sequence[Block] = ()
    segments: Tensor | None = None
    positions: Tensor | None = None
    rows: Tensor | None = None
    longest: int = 0
    _masks: dict[tuple[Block, int | None], Tensor] = field(default_factory=dict)
    _biases: dict[tuple[Block, int | None], Tensor | None] = field(default_factory=dict)
    _block_masks: dict[int | None, Any] = field(default_factory=dict)

    def mask(self, block: Block, window: int | None) -> Tensor | None:
        """Return which queries see which keys in a block, (queries, keys); None if no mask is needed.

        Args:
            window: hide keys that are so many positions back, or more.
        """
        if block.branches_at is None and (window is None or block.keys <= window):
            return None
        if (block, window) not in self._masks:
            assert self.segments is not None  # noqa: S101
            assert self.positions is not None  # noqa: S101
            queries, keys = _places(block)
            self._masks[block, window] = visible(
                self.segments[None, queries], self.positions[None, queries],
                self.segments[None, keys], self.positions[None, keys], window=window,
            )[0]  # fmt: skip
        return self._masks[block, window]

    def bias(self, block: Block, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """Return what is added to the scores of a block, (queries, keys): 0, or -inf where nothing is seen; or None."""
        if (block, window) not in self._biases:
            seen = self.mask(block, window)
            if seen is None and block.causal:
                seen = ~_later(block.queries, device)
            bias = None if seen is None else torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -torch.inf)
            self._biases[block, window] = bias
        return self._biases[block, window]

    def block_mask(self, window: int | None) -> Any:
        """Return which tokens see which in the whole row, in the format of FlexAttention."""
        if window not in self._block_masks:
            from torch.nn.attention.flex_attention import create_block_mask

            assert self.segments is not None  # noqa: S101
            size, device = len(self.segments), self.segments.device
            self._block_masks[window] = create_block_mask(
                self.seen_by_flex(window), B=None, H=None, Q_LEN=size, KV_LEN=size, device=str(device)
            )
        return self._block_masks[window]

    def seen_by_flex(self, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Return the rule of `block_mask`, as a function of the places of a query and a key."""
        segments, positions, rows = self.segments, self.positions, self.rows
        assert segments is not None  # noqa: S101
        assert positions is not None  # noqa: S101
        assert rows is not None  # noqa: S101

        def rule(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            seen = (rows[query] == rows[key]) & (key <= query)
            seen = seen & ((segments[key] == PROMPT) | (segments[key] == segments[query]))
            return seen if window is None else seen & (positions[query] - positions[key] < window)

        return rule

    def to(self, device: torch.device) -> Packing:
        """Return it on a device."""
        segments, positions, rows = (
            None if t is None else t.to(device) for t in (self.segments, self.positions, self.rows)
        )
        return Packing(self.blocks, self.cross, segments, positions, rows, self.longest)


def visible(
    query_segments: Tensor,
    query_positions: Tensor,
    key_segments: Tensor,
    key_positions: Tensor,
    *,
    window: int | None = None,
) -> Tensor:
    """Return which tokens see which in rows with shared prompts, (B, Q, K).

    A token sees the prompt and its own branch, up to itself.

    Args:
        query_segments, query_positions: (B, Q); of keys: (B, K). In each branch, positions continue from the prompt.
        window: also hide what is `window` or more positions back (sliding attention).
    """
    back = query_positions[:, :, None] - key_positions[:, None, :]
    own = key_segments[:, None, :] == query_segments[:, :, None]
    seen = (back >= 0) & ((key_segments[:, None, :] == PROMPT) | own)
    return seen if window is None else seen & (back < window)


# --- the function that transformers calls -------------------------------------------------------------------------


def register() -> None:
    """Register the attention with transformers. A second call changes nothing.

    It is not compiled with the layers, because the packing is different for each micro-batch.
    """
    AttentionInterface.register(NAME, torch.compiler.disable(packed_attention))
    AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Compute attention within blocks.

    Args:
        query, key, value: (1, heads, T, size); keys and values may have fewer heads.
        position_bias: (1, heads, longest, longest), for blocks of their own positions (T5).

    Returns:
        (1, T, heads, size).
    """
    if packing is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask,
            scaling=scaling, dropout=dropout, position_bias=position_bias, sliding_window=sliding_window, **rest,
        )  # fmt: skip
        return output, None
    if rest.get("softcap") is not None:
        raise ValueError("packed attention caps no scores")  # the probe then finds another way
    if position_bias is not None:
        blocks = packing.cross if packing.cross and not module.is_causal else packing.blocks
        bias = None if position_bias.numel() == 1 else position_bias[0]
        biased: Any = _BiasedBlocks  # its `apply` is not typed
        mixed = biased.apply(query[0], key[0], value[0], bias, tuple(blocks), scaling, dropout)
        return mixed.transpose(0, 1)[None], None
    if dropout and not drops_scores(query.device):
        raise ValueError("packed attention drops no scores here")  # the probe then finds another way
    if query.is_cuda:
        mixed = _flex()(
            query, key, value, block_mask=packing.block_mask(sliding_window), scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
    else:
        mixed = _dense_blocks(packing, query, key, value, scaling, dropout, sliding_window)
    return mixed.transpose(1, 2), None


def drops_scores(device: torch.device) -> bool:
    """Return whether packed attention supports dropout on a device. FlexAttention does not."""
    return device.type != "cuda"


@cache
def _flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled


def _dense_blocks(
    packing: Packing, query: Tensor, key: Tensor, value: Tensor, scale: float | None, dropout: float, window: int | None
) -> Tensor:
    """Compute one dense attention per block. The blocks of a row share its keys.

    Rows are split once, because that has a cheap gradient.
    """
    rows = [list(row) for _, row in groupby(packing.blocks, key=lambda block: block.key)]
    half = None if dropout else _half(query)
    lengths = [row[-1].key + row[-1].keys - row[0].key for row in rows]
    parts = zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True)
    mixed = []
    for row, (q, k, v) in zip(rows, parts, strict=True):
        queries = q.split([block.queries for block in row], dim=2)
        for block, some in zip(row, queries, strict=True):
            keys, values = k[:, :, : block.keys], v[:, :, : block.keys]
            if half and block.queries * block.keys <= _PLAIN_SCORES:
                mixed.append(_plain(some, keys, values, packing.bias(block, window, half, q.device), scale))
                continue
            mask = packing.mask(block, window)
            mixed.append(
                functional.scaled_dot_product_attention(
                    some, keys, values, attn_mask=mask, is_causal=block.causal and mask is None, scale=scale,
                    dropout_p=dropout, enable_gqa=q.shape[1] != k.shape[1],
                )
            )  # fmt: skip
    return torch.cat(mixed, dim=2)


def _half(query: Tensor) -> torch.dtype | None:
    """Return the half-precision type in which attention is computed; None in full precision."""
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    return dtype if dtype in {torch.bfloat16, torch.float16} else None


def _plain(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
    """Compute attention by two products and a softmax.

    In half precision, the CPU's fused kernel takes three times as long.

    Args:
        query: (1, heads, Q, size). Heads that share keys and values are adjacent.
        key, value: (1, key heads, K, size).
        bias: (Q, K), or None.
    """
    _, heads, queries, size = query.shape
    shared = key.shape[1]
    scale = size**-0.5 if scale is None else scale
    grouped = query.reshape(shared, heads // shared * queries, size) * scale
    if bias is None:
        scores = torch.bmm(grouped, key[0].transpose(1, 2))
    else:
        scores = torch.baddbmm(bias.repeat(heads // shared, 1), grouped, key[0].transpose(1, 2))
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    return torch.bmm(shares, value[0]).view(1, heads, queries, size)


class _BiasedBlocks(torch.autograd.Function):
    """softmax(scale · q kᵀ + bias) v in each block, with a gradient for the bias. The usual kernels do not return it.

    Forward and backward are written by hand. All blocks share the bias, so its gradient is summed in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        blocks: tuple[Block, ...],
        scale: float | None,
        dropout: float,
    ) -> Tensor:
        """Return (heads, T, size)."""
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        out = query.new_empty(query.shape[1], query.shape[0], query.shape[2]).transpose(0, 1)
        saved: list[Tensor] = []
        for block in blocks:
            q, k, v = _of(query, key, value, block)
            with torch.autocast(query.device.type, enabled=False):
                scores = _scores(q, k, bias, block, scale)
                exact = torch.promote_types(scores.dtype, torch.float32)
                shares = torch.softmax(scores, dim=-1, dtype=exact).to(v.dtype)
                kept = functional.dropout(shares, dropout) if dropout else shares
                out[:, block.query : block.query + block.queries] = kept @ v
            saved += [shares, kept] if dropout else [shares]
        ctx.blocks, ctx.scale, ctx.dropout, ctx.has_bias = blocks, scale, dropout, bias is not None
        ctx.save_for_backward(query, key, value, *([] if bias is None else [bias]), *saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key, value and bias."""
        query, key, value, *saved = ctx.saved_tensors
        bias = saved.pop(0) if ctx.has_bias else None
        # (heads, T, size), with a token's heads side by side in memory, as the projections need them.
        grad_q, grad_k, grad_v = (
            t.new_zeros(t.shape[1], t.shape[0], t.shape[2]).transpose(0, 1) for t in (query, key, value)
        )
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[3] else None
        per_block = 2 if ctx.dropout else 1
        for number, block in enumerate(ctx.blocks):
            shares, kept = saved[number * per_block], saved[(number + 1) * per_block - 1]
            q, k, v = _of(query, key, value, block)
            queries, keys = _places(block)
            above = grad[:, queries]
            grad_v[:, keys] += kept.transpose(1, 2) @ above
            grad_kept = above @ v.transpose(1, 2)
            if ctx.dropout:  # what was dropped is zero in `kept`; the rest was scaled up
                grad_kept = grad_kept * (kept != 0) / (1 - ctx.dropout)
            inner = torch._softmax_backward_data(grad_kept, shares, -1, shares.dtype)
            if grad_bias is not None:
                grad_bias[:, : block.queries, : block.keys] += inner
            grad_q[:, queries] += (inner @ k) * ctx.scale
            grad_k[:, keys] += (inner.transpose(1, 2) @ q) * ctx.scale
        return grad_q, grad_k, grad_v, grad_bias, None, None, None


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, block: Block, scale: float) -> Tensor:
    if bias is None:
        return torch.bmm(q, k.transpose(1, 2)) * scale
    part = bias[:, : block.queries, : block.keys].to(q.dtype)
    scores = torch.baddbmm(part, q, k.transpose(1, 2), alpha=scale)
    if block.causal:
        scores.masked_fill_(_later(block.queries, q.device), -torch.inf)
    return scores


def _later(size: int, device: torch.device) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool, device=device).triu_(1)


def _places(block: Block) -> tuple[slice, slice]:
    return slice(block.query, block.query + block.queries), slice(block.key, block.key + block.keys)


def _of(query: Tensor, key: Tensor, value: Tensor, block: Block) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys = _places(block)
    return query[:, queries], key[:, keys], value[:, keys]


# --- T5's relative positions --------------------------------------------------------------------------------------


def share_position_bias(model: nn.Module) -> None:
    """Make T5 compute its position bias for the longest block, and not for all tokens at once.

    T5 computes the bias in the first layer of a stack and passes it to the others. The hooks change packed calls only.
    """
    for module in model.modules():
        if callable(getattr(module, "compute_bias", None)) and hasattr(module, "has_relative_attention_bias"):
            module.register_forward_pre_hook(_with_bias, with_kwargs=True)


def _with_bias(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    packing: Packing | None = kwargs.get("packing")
    if packing is None or kwargs.get("position_bias") is not None:
        return args, kwargs
    if module.has_relative_attention_bias:
        bias = module.compute_bias(packing.longest, packing.longest)
    else:
        bias = torch.zeros(1, 1, 1, 1, device=args[0].device)  # none
    return args, {**kwargs, "position_bias": bias}
