"""The parts of a probe of a student: its rows, a model without noise, and the comparison of two results.

Architectures compute differently at certain lengths: beyond a sliding window or a chunk, when an expert is full, when
there are more keys than an index keeps, beyond the length for which rotary positions were trained. Configurations name
these lengths. Only longer rows can show whether a computation is right there.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinyllm.student._positions import Bound
from tinyllm.student._steps import MicroBatch
from tinyllm.student.encode import Branch, Row

_LOGITS = 2e-4  # relative; sums in another order differ by 4e-6 (SmolLM2-135M), another mask by 1e-2 and more
_GRADIENTS = 5e-3  # relative; sums in another order differ by 4e-4
_COMPARED = 1 << 24  # parameters whose gradients are compared at most: 64 MiB, the small ones first
_BEYOND, _WELL_BEYOND = 13, 28  # tokens by which rows of a probe are longer than a bound
_NOISE = re.compile(r"drop|jitter|noise")


# --- rows ---------------------------------------------------------------------------------------------------------


def short_rows(tokens: Sequence[int], *, is_encoder_decoder: bool) -> list[Row]:
    """Return rows of different lengths that exceed no bound; one prompt has two branches."""
    made = _Rows(tokens, is_encoder_decoder)
    made.add(3, (1, 3))
    made.add(11, (2, 5), (0, 9))
    return made.rows


def long_rows(tokens: Sequence[int], bound: Bound, *, is_encoder_decoder: bool) -> list[Row]:
    """Return rows that exceed a bound, in their prompts and with their branches."""
    made, length = _Rows(tokens, is_encoder_decoder), bound.tokens
    made.add(length + 3, (0, 2), (1, _BEYOND))
    if bound.counts_company:
        # One branch stays within the bound, the other does not; and the same token again and again, which goes to the
        # same expert each time.
        made.add(max(1, length - 4), (0, 2), (1, _BEYOND))
        made.rows.append(Row("", (tokens[0],) * (length + _WELL_BEYOND), (Branch("", (), tuple(tokens[:3])),)))
    if is_encoder_decoder:
        made.add(7, (0, length + _BEYOND))
    return made.rows


class _Rows:
    """Rows of random tokens; an encoder-decoder's have one branch each, and those of a prompt share it."""

    def __init__(self, tokens: Sequence[int], is_encoder_decoder: bool) -> None:
        self.rows: list[Row] = []
        self._tokens, self._apart, self._draw = tokens, is_encoder_decoder, random.Random(0)

    def add(self, prompt: int, *branches: tuple[int, int]) -> None:
        """Add a prompt with branches of so many tokens of prefix and target."""
        made = tuple(
            Branch(str(i), () if self._apart else self._some(p), self._some(t)) for i, (p, t) in enumerate(branches)
        )
        row = Row("", self._some(prompt), made)
        self.rows += row.apart() if self._apart else [row]

    def _some(self, count: int) -> tuple[int, ...]:
        return tuple(self._draw.choices(self._tokens, k=count))


def apart(rows: Sequence[Row]) -> list[Row]:
    """Return rows of one branch each."""
    return [r for row in rows for r in row.apart()]


def probe_prompts(tokens: Sequence[int], bound: Bound | None) -> list[tuple[int, ...]]:
    """Return prompts to continue: some of one length, and longer ones, up to well beyond a bound."""
    draw = random.Random(1)
    past = 9 if bound is None else bound.tokens
    lengths = (5, 5, 12, past + 7, past + _WELL_BEYOND)
    return [*(tuple(draw.choices(tokens, k=n)) for n in lengths), (tokens[0],) * (past + _WELL_BEYOND)]


def micro_batch(rows: Sequence[Row], branches: int) -> MicroBatch:
    """Return rows as a micro-batch whose loss is the mean over so many branches of the mean over their tokens."""
    weights = (tuple(1 / branches / len(b.target) for b in row.branches) for row in rows)
    return MicroBatch(tuple(rows), tuple(weights))


def plain_tokens(model: Any) -> list[int]:
    """Return tokens of a model's vocabulary that have no meaning of their own in its configuration."""
    config = model.config
    sizes = [getattr(c, "vocab_size", None) for c in (config, config.get_text_config())]
    sizes.append(getattr(model.get_input_embeddings(), "num_embeddings", None))
    size = min((s for s in sizes if isinstance(s, int) and s > 0), default=0)
    special = set(_token_ids(config.to_dict()))
    usual = [t for t in range(3, min(size, 1 << 15)) if t not in special]
    return usual or list(range(max(1, size)))


def _token_ids(values: Mapping[str, Any]) -> Iterator[int]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _token_ids(value)
        elif str(name).endswith(("token_id", "token_index", "token_ids")):
            yield from (v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, int))


# --- a model without noise ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def without_noise(model: nn.Module) -> Iterator[None]:
    """Switch off dropout and the noise of routers inside the block, so that two computations can be compared."""
    kept: list[tuple[Any, str, float]] = []
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    for holder in (*model.modules(), *configs.values()):
        names = [n for n, v in vars(holder).items() if isinstance(v, float) and v and _NOISE.search(n)]
        if isinstance(holder, nn.modules.dropout._DropoutNd):
            names.append("p")
        kept += [(holder, name, getattr(holder, name)) for name in names]
    try:
        for holder, name, _ in kept:
            setattr(holder, name, 0.0)
        yield
    finally:
        for holder, name, value in kept:
            setattr(holder, name, value)


# --- comparing ----------------------------------------------------------------------------------------------------


def same_logits(ours: Tensor, plain: Tensor) -> bool:
    """Return whether logits (N, V) are the same at every token, up to rounding and to a constant for each token."""
    if ours.shape != plain.shape or not torch.equal(ours.isfinite(), plain.isfinite()):
        return False
    ours, plain = (t.float().nan_to_num(0.0, 0.0, 0.0) for t in (ours, plain))
    ours, plain = (t - t.mean(-1, keepdim=True) for t in (ours, plain))
    return bool(((ours - plain).norm(dim=-1) <= _LOGITS * plain.norm(dim=-1).clamp_min(1e-6)).all())


def compared_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters whose gradients are compared: all that are trained, or as many small ones as fit."""
    trained = sorted((p for p in model.parameters() if p.requires_grad), key=lambda p: p.numel())
    total = 0
    chosen: list[nn.Parameter] = []
    for parameter in trained:
        total += parameter.numel()
        if chosen and total > _COMPARED:
            break
        chosen.append(parameter)
    return chosen


Gradients = Sequence[Tensor | None]


def same_gradients(ours: Gradients, plain: Gradients) -> bool:
    """Return whether gradients are the same, parameter by parameter, up to rounding."""
    whole = float(torch.stack([g.norm() for g in plain if g is not None] or [torch.zeros(())]).norm())
    if not torch.isfinite(torch.tensor(whole)):
        return False
    for mine, theirs in zip(ours, plain, strict=True):
        both = [torch.zeros(()) if g is None else g.detach() for g in (mine, theirs)]
        # Some gradients are zero but for rounding, such as that of a bias of keys.
        if not float((both[0] - both[1]).norm()) <= _GRADIENTS * (float(both[1].norm()) + 1e-2 * whole):
            return False
    return True
