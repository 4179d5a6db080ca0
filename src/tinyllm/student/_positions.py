"""How long a row may be: the positions of a model, and the lengths beyond which it computes differently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tinyllm.errors import StudentError
from tinyllm.student._ways import unwrapped

_BOUND = re.compile(r"window|chunk|capacity|top_?k|block_(size|length)|radius|local_attention|compress|budget")
_NO_BOUND = re.compile(
    r"^num_|_layers$|pattern|_experts|per_tok|patch|image|video|audio|frame|conf_|feed_forward|speech"
)
_BY_LENGTH = ("dynamic", "longrope")  # kinds of rotary positions that go by the length of the row
_LENGTHS = ("original_max_position_embeddings", "max_position_embeddings")
_ROPE = ("rope_parameters", "rope_scaling", "rope_type")
_SPARE = 32  # tokens by which a row of a probe may exceed a bound
_TABLE = re.compile(r"pos|wpe")
_OTHER = re.compile(r"audio|vision|visual|image|video|speech")  # parts that read no text
_NO_TABLE = re.compile(r"rel_|relative|bias|bucket|inv_freq|rotary|rope")


@dataclass(frozen=True, slots=True)
class Positions:
    """The number of positions of a model, which cannot read longer rows. None: there is no limit.

    Attributes:
        prompt: of an encoder; of a causal model, of prompt and target together.
        target: of a decoder beside an encoder.
    """

    name: str
    prompt: int | None = None
    target: int | None = None

    @property
    def shortest(self) -> int | None:
        """The smaller of both numbers."""
        return min((n for n in (self.prompt, self.target) if n is not None), default=None)

    def check(self, prompt: int, target: int) -> None:
        """Check that rows are not longer.

        Raises:
            StudentError: they are; the message names the setting to change.
        """
        both = "train.max_input_tokens" + (" or train.max_target_tokens" if self.target is None else "")
        for found, allowed, setting in ((prompt, self.prompt, both), (target, self.target, "train.max_target_tokens")):
            if allowed is not None and found > allowed:
                raise StudentError(
                    f"student.model: {self.name} has {allowed} positions, and {found} are needed for the longest row. "
                    f"Lower {setting}, shorten the questions, or choose a student with more positions."
                )


def positions_of(model: Any) -> Positions:
    """Return the number of positions of a model, from its tables of positions."""
    inner = unwrapped(model)
    name = type(inner).__name__
    if not inner.config.is_encoder_decoder:
        return Positions(name, _fewest(inner))
    return Positions(name, _fewest(inner.get_encoder()), _fewest(inner.get_decoder()))


def _fewest(model: nn.Module) -> int | None:
    of_text = ((name, module) for name, module in model.named_modules() if not _OTHER.search(name))
    return min((n for name, module in of_text for n in _tables(name, module)), default=None)


def _tables(name: str, module: nn.Module) -> Iterator[int]:
    """Yield the positions of each table in a module: an embedding, or a tensor with a row a position."""
    own = name.rpartition(".")[2]
    if isinstance(module, nn.Embedding):
        is_table = _is_table(own) or "Position" in type(module).__name__
        if is_table and not hasattr(module, "make_weight"):  # such tables grow
            # Positions may begin behind the padding token (RoBERTa), or behind an offset (BART, OPT).
            start = 0 if module.padding_idx is None else module.padding_idx + 1
            start += "ProphetNet" in type(module).__name__  # its predicting streams look one position ahead
            yield module.num_embeddings - int(getattr(module, "offset", start))
        return
    if isinstance(length := getattr(module, "max_seq_length", None), int):  # MPT's slopes, made for so many tokens
        yield length
    if "Rotary" in type(module).__name__:
        return
    held = {**module._buffers, **{n: v for n, v in vars(module).items() if isinstance(v, torch.Tensor)}}
    for of, tensor in held.items():
        if tensor is None or not _is_table(of):
            continue
        if "ids" in of:
            yield tensor.shape[-1]
        elif tensor.ndim == 2:
            yield tensor.shape[0]


def _is_table(name: str) -> bool:
    return bool(_TABLE.search(name)) and not _NO_TABLE.search(name)


@dataclass(frozen=True, slots=True, order=True)
class Bound:
    """A length in tokens beyond which a model may compute differently, and its name in the configuration."""

    tokens: int
    name: str

    @property
    def counts_company(self) -> bool:
        """Whether the tokens of other rows may count. A sliding window counts positions only."""
        return self.name != "sliding_window"


def bounds(config: Any) -> list[Bound]:
    """Return the bounds that a configuration names, in ascending order."""
    return sorted(Bound(value, name) for name, value in _bounds(config.to_dict()))


def exceeded_bound(config: Any, longest: int, room: int | None) -> Bound | None:
    """Return the largest bound that a row of so many tokens exceeds; None if it exceeds none.

    Of several names, one that counts company is preferred, because it needs a larger probe.

    Args:
        room: the most tokens that the model accepts. A probe must exceed the bound and still fit.
    """
    fitting = [b for b in bounds(config) if b.tokens < longest and (room is None or b.tokens + _SPARE <= room)]
    name = next((b.name for b in fitting if b.counts_company), None)
    return None if not fitting else replace(fitting[-1], name=name or fitting[-1].name)


def _bounds(values: Mapping[str, Any], of_lengths: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the names and values of what may be a bound, in a configuration and all that it holds.

    Args:
        of_lengths: also of the lengths that rotary positions were trained for.
    """
    of_lengths = of_lengths or any(kind in str(values.get(n)) for n in _ROPE for kind in _BY_LENGTH)
    for name, value in ((str(n), v) for n, v in values.items()):
        if isinstance(value, Mapping):
            yield from _bounds(value, of_lengths)
        elif (_BOUND.search(name) and not _NO_BOUND.search(name)) or (of_lengths and name in _LENGTHS):
            several = value if isinstance(value, list | tuple) else [value]
            yield from ((name, v) for v in several if isinstance(v, int) and not isinstance(v, bool) and v > 1)


def forget_lengths(model: nn.Module) -> None:
    """Reset dynamic rotary positions. transformers keeps them as the longest row so far needed them."""
    for module in model.modules():
        if "dynamic" not in str(getattr(module, "rope_type", "")):
            continue
        for name in [n for n in vars(module) if n.endswith("max_seq_len_cached")]:
            setattr(module, name, module.original_max_seq_len)
            kind = name.removesuffix("max_seq_len_cached")
            frequencies = getattr(module, f"{kind}inv_freq")
            original: Any = getattr(module, f"{kind}original_inv_freq")
            setattr(module, f"{kind}inv_freq", original.to(frequencies.device))
