"""The weighted cross-entropy of target tokens, computed in chunks, so that never all logits are in memory.

    L = L_A + Σ_m α_m L_m = Σ_tokens weight · cross-entropy

The weight of a token includes the α of its task and the normalisers of the whole optimizer step (`plan`). Weights are
known in advance, so the gradient of a chunk is computed while its logits are in memory: three matrix products per
chunk, and no logits are computed twice. For a vocabulary of 256,000 and a thousand target tokens, this takes 64 MiB
instead of 1 GB.

The weights of compared choices (`_choices`) are known only after their question is computed, so a chunk ends between
questions. If the choices of one question are larger than a chunk, a first pass without a gradient finds the weights.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tinyllm.student._choices import Choices

_CHUNK_BYTES = 1 << 26  # of float32 logits


@dataclass(frozen=True, slots=True)
class Head:
    """Computes logits from hidden states.

    Attributes:
        layer: usually one linear layer.
        cap: logits become cap · tanh(logits / cap) (Gemma 2); None: they do not change.
    """

    layer: nn.Module
    cap: float | None = None

    @property
    def is_linear(self) -> bool:
        """Whether it is a single matrix, without an adapter."""
        return type(self.layer) is nn.Linear

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (N, V) of hidden states (N, d). Without a gradient they are always in float32."""
        logits: Tensor = self.layer(hidden) if torch.is_grad_enabled() else logits_in_fp32(self.layer, hidden)
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def logits_in_fp32(layer: nn.Module, hidden: Tensor) -> Tensor:
    """Return a head's logits, computed in float32 from hidden states and weights of any precision.

    bfloat16 keeps eight bits: logits near 20 are then multiples of 1/8, and different choices score the same.
    """
    state = {name: t.float() for name, t in chain(layer.named_parameters(), layer.named_buffers())}
    with torch.autocast(hidden.device.type, enabled=False):
        logits: Tensor = functional_call(layer, state, (hidden.float(),))
    return logits


@contextlib.contextmanager
def head_in_fp32(layer: nn.Module) -> Iterator[None]:
    """Make a model compute its head in float32 when its whole forward is called; for scoring, without a gradient."""
    if isinstance(layer, nn.Embedding):  # FSMT names its table of tokens, which makes no logits
        yield
        return
    replaced, plain = vars(layer).get("forward"), layer.forward

    def forward(hidden: Tensor) -> Tensor:
        layer.forward = plain  # `logits_in_fp32` calls the layer itself
        try:
            return logits_in_fp32(layer, hidden)
        finally:
            layer.forward = forward

    layer.forward = forward
    try:
        yield
    finally:
        if replaced is None:
            del layer.forward
        else:
            layer.forward = replaced


def step_loss(cross_entropy: Tensor, weights: Tensor, choices: Choices | None) -> Tensor:
    """Return Σ weight · cross-entropy and the loss of choices, given each token's cross-entropy (N,)."""
    total = (cross_entropy * weights).sum()
    return total if choices is None else total + choices.loss(cross_entropy)


def weighted_cross_entropy(
    head: Head,
    hidden: Tensor,
    labels: Tensor,
    weights: Tensor,
    choices: Choices | None = None,
    *,
    chunk_bytes: int = _CHUNK_BYTES,
) -> tuple[Tensor, Tensor]:
    """Return `step_loss`, a scalar with a gradient; and every token's cross-entropy (N,), without one.

    Without a gradient (`torch.no_grad`) nothing is computed for one, and logits are made in float32.

    Args:
        hidden: (N, d), whose logits predict the labels.
        labels, weights: (N,).
        choices: the choices that are compared.
        chunk_bytes: approximate size of the logits of one chunk, in float32.
    """
    vocabulary = getattr(head.layer, "out_features", None) or 1 << 18
    size = max(16, chunk_bytes // (4 * vocabulary))  # tokens of a chunk
    if not torch.is_grad_enabled():
        parts = zip(hidden.split(size), labels.split(size), strict=True)
        each = torch.cat([functional.cross_entropy(head.logits(h), y, reduction="none") for h, y in parts])
    elif _has_fused_kernel(head, hidden):
        each = _fused(head, hidden, labels)
    elif head.is_linear:
        if choices is not None and choices.longest > size:
            with torch.no_grad():
                loss, each = weighted_cross_entropy(head, hidden, labels, weights, choices, chunk_bytes=chunk_bytes)
            known = weights + choices.token_weights(each)
            total, each = weighted_cross_entropy(head, hidden, labels, known, chunk_bytes=chunk_bytes)
            return total + (loss - total).detach(), each
        layer: Any = head.layer
        chunked: Any = _ChunkedCrossEntropy  # its `apply` is not typed
        total, each = chunked.apply(hidden, layer.weight, layer.bias, labels, weights, choices, head.cap, size)
        return total, each
    else:
        each = _in_chunks(head, hidden, labels, size)
    return step_loss(each, weights, choices), each.detach()


def sums_by_task(
    cross_entropy: Tensor, weights: Tensor, task_ids: Tensor, tasks: int, choices: Choices | None = None
) -> Tensor:
    """Return, by task, the sums of weight · loss and of weight, (2, tasks)."""
    both = torch.stack([cross_entropy * weights, weights])
    sums = torch.zeros(2, tasks, device=both.device).index_add_(1, task_ids, both)
    if choices is not None:
        sums[:, choices.task] += torch.stack([choices.loss(cross_entropy), choices.weights.sum()])
    return sums


def _in_chunks(head: Head, hidden: Tensor, labels: Tensor, size: int) -> Tensor:
    """For heads that are more than a matrix. The backward pass computes the logits again."""

    def of(some: Tensor, their_labels: Tensor) -> Tensor:
        return functional.cross_entropy(head.logits(some).float(), their_labels, reduction="none")

    parts = zip(hidden.split(size), labels.split(size), strict=True)
    return torch.cat([checkpoint(of, h, y, use_reentrant=False) for h, y in parts])


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a linear head, chunk by chunk. The forward pass computes the gradients, too."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        weights: Tensor,
        choices: Choices | None,
        cap: float | None,
        size: int,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and every token's cross-entropy."""
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        of_hidden = torch.zeros_like(hidden, dtype=torch.float32) if wants_hidden else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        of_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias and bias is not None else None
        grads = (of_hidden, of_weight, of_bias)
        each = torch.zeros(len(labels), device=hidden.device)
        parts = [slice(at, at + size) for at in range(0, len(labels), size)]
        steepest = weights.abs().max()
        if choices is not None:
            parts = choices.whole_parts(size)
            steepest = torch.maximum(steepest, (choices.weights[:, None] * choices.scales).abs().max())
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)
            # Gradients this small would vanish in half precision; the loss's own scaling comes too late for them.
            scale = 1.0 if dtype != torch.float16 else float(1 / steepest.clamp_min(1e-30))
            for part in parts:
                some = hidden[part].to(dtype)
                logits = (some @ matrix.T).float()
                if bias is not None:
                    logits.add_(bias)
                slope = _cap(logits, cap)
                column = labels[part, None]
                named = logits.gather(1, column)[:, 0]
                top = logits.amax(1)
                likely = logits.sub_(top[:, None]).exp_()  # in the logits' own memory, as all that follows
                total = likely.sum(1)
                each[part] = top + total.log() - named
                if not any(g is not None for g in grads):
                    continue
                # d(weight · cross-entropy) / d logits = weight · (softmax - one-hot)
                weight_of = weights[part]
                if choices is not None:  # of other questions than this part's what is not there yet is not used
                    weight_of = weight_of + choices.token_weights(each)[part]
                weight_of = weight_of * scale
                above = likely.mul_((weight_of / total)[:, None]).scatter_add_(1, column, -weight_of[:, None])
                if slope is not None:
                    above.mul_(slope)
                low = above.to(dtype)
                if of_hidden is not None:
                    of_hidden[part].add_(low @ matrix, alpha=1 / scale)
                if of_weight is not None and dtype == torch.float32:
                    of_weight.addmm_(low.T, some)
                elif of_weight is not None:  # it is widened while it is added: no copy of the vocabulary's size
                    of_weight.add_(low.T @ some, alpha=1 / scale)
                if of_bias is not None:
                    of_bias.add_(above.sum(0), alpha=1 / scale)
        ctx.save_for_backward(*grads)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(each)
        return step_loss(each, weights, choices), each

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass computed."""
        grads = ctx.saved_tensors
        scaled = [None if g is None else (g * grad).to(dtype) for g, dtype in zip(grads, ctx.dtypes, strict=True)]
        return *scaled, *[None] * 5


def _cap(logits: Tensor, cap: float | None) -> Tensor | None:
    """Cap logits in place. Return the derivative."""
    if cap is None:
        return None
    logits.div_(cap).tanh_()
    slope = 1 - logits * logits
    logits.mul_(cap)
    return slope


# --- a kernel for GPUs --------------------------------------------------------------------------------------------


def _has_fused_kernel(head: Head, hidden: Tensor) -> bool:
    """Return whether cut-cross-entropy can be used: installed, bfloat16 on a GPU, a plain matrix without a bias."""
    layer: Any = head.layer
    if not (hidden.is_cuda and head.is_linear and layer.bias is None and torch.is_autocast_enabled("cuda")):
        return False
    in_bf16 = torch.get_autocast_dtype("cuda") == torch.bfloat16
    return in_bf16 and importlib.util.find_spec("cut_cross_entropy") is not None


def _fused(head: Head, hidden: Tensor, labels: Tensor) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    layer: Any = head.layer
    each: Tensor = linear_cross_entropy(
        hidden.bfloat16(), layer.weight.bfloat16(), labels, softcap=head.cap, reduction="none"
    )
    return each.float()
