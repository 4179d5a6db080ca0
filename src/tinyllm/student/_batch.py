"""From rows to tensors: the input of one forward pass of a student.

Shapes: T tokens, U target tokens that a decoder is fed, S prompt tokens, N target tokens in all. A *packed* batch is
one row of all tokens, without padding; a *padded* one has B rows as long as the longest.

The shared-prompt row of a causal student. Each branch sees the prompt and itself, and no other branch. Positions
continue from the prompt. So each branch gets the same logits as in a row of its own:

    tokens     q0 q1 q2 | a0 a1 | b0 b1 b2        may see     q a b
    position    0  1  2    3  4    3  4  5          q         ◣ · ·      ◣ causal, ■ all, · none
    segment     0  0  0    1  1    2  2  2          a         ■ ◣ ·
                                                    b         ■ · ◣
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor

from tinyllm.config import CHOICES_TASK
from tinyllm.student._attention import PROMPT, Block, Packing
from tinyllm.student._choices import Choices
from tinyllm.student._rows import Choice
from tinyllm.student._steps import MicroBatch
from tinyllm.student.encode import Row

Batch = Mapping[str, Any]
"""Tensors, and `Packing`s, of one forward pass; the keys are listed at the functions that make one."""

_PADDING = -1


def packed_causal_batch(micro: MicroBatch, tasks: Sequence[str]) -> Batch:
    """Lay out rows with shared prompts end to end.

    Returns:
        input_ids, position_ids (1, T);
        packing: which tokens see which;
        target_at (N,): where in T the logits of each target token are;
        labels, weights, task_ids, branch_ids (N,): see `_targets`.
    """
    columns = [_flatten(row) for row in micro.rows]
    starts = [0, *accumulate(len(c.tokens) for c in columns)]
    blocks = [b for row, c, start in zip(micro.rows, columns, starts, strict=False) for b in _blocks(row, c, start)]
    positions = torch.tensor(list(chain.from_iterable(c.positions for c in columns)))
    packing = Packing(
        blocks,
        segments=torch.tensor(list(chain.from_iterable(c.segments for c in columns))),
        positions=positions,
        rows=torch.arange(len(columns)).repeat_interleave(torch.tensor([len(c.tokens) for c in columns])),
        longest=max(len(c.tokens) for c in columns),
    )
    return {
        "input_ids": torch.tensor([list(chain.from_iterable(c.tokens for c in columns))]),
        "position_ids": positions[None],
        "packing": packing,
        "target_at": torch.tensor([start + at for c, start in zip(columns, starts, strict=False) for at in c.predicts]),
        **_targets(micro, tasks),
    }


def padded_causal_batch(micro: MicroBatch, tasks: Sequence[str], pad: int, *, whole: bool = False) -> Batch:
    """Lay out rows with shared prompts side by side.

    Args:
        whole: include the last target token of each row, although no result depends on it.

    Returns:
        input_ids, position_ids, segments (B, T): segments are 0 for the prompt, 1… for branches, -1 for padding;
        lengths (B,): of rows, without padding;
        target_at (N,): where, in the flattened (B·T), the logits of each target token are;
        labels, weights, task_ids, branch_ids (N,): see `_targets`.
    """
    columns = [_flatten(row, whole=whole) for row in micro.rows]
    width = max(len(c.tokens) for c in columns)
    return {
        "input_ids": _pad([c.tokens for c in columns], pad),
        "position_ids": _pad([c.positions for c in columns], 0),
        "segments": _pad([c.segments for c in columns], _PADDING),
        "lengths": torch.tensor([len(c.tokens) for c in columns]),
        "target_at": torch.tensor([place * width + at for place, c in enumerate(columns) for at in c.predicts]),
        **_targets(micro, tasks),
    }


def packed_encoder_decoder_batch(micro: MicroBatch, tasks: Sequence[str], start: int) -> Batch:
    """Lay out one-branch rows end to end; rows with the same prompt share one pass through the encoder.

    Returns:
        input_ids (1, S): the different prompts;
        decoder_input_ids (1, U): for each row the start token and the target but for its last token;
        packing, decoder_packing: which tokens see which in the encoder, and in the decoder;
        target_at (N,): where in U the logits of each target token are, which is everywhere;
        labels, weights, task_ids, branch_ids (N,): see `_targets`.
    """
    prompts, targets = _prompts(micro), [row.branches[0].target for row in micro.rows]
    prompt_at = dict(zip(prompts, accumulate(map(len, prompts), initial=0), strict=False))
    target_at = list(accumulate(map(len, targets), initial=0))
    own = [Block(at, len(t), at, len(t), causal=True) for at, t in zip(target_at, targets, strict=False)]
    cross = [
        Block(at, len(t), prompt_at[row.prompt], len(row.prompt))
        for at, t, row in zip(target_at, targets, micro.rows, strict=False)
    ]
    whole = [Block(at, len(p), at, len(p)) for p, at in prompt_at.items()]
    return {
        "input_ids": torch.tensor([list(chain.from_iterable(prompts))]),
        "decoder_input_ids": torch.tensor([list(chain.from_iterable((start, *t[:-1]) for t in targets))]),
        "packing": Packing(whole, longest=max(map(len, prompts))),
        "decoder_packing": Packing(own, cross, longest=max(map(len, targets))),
        "target_at": torch.arange(target_at[-1]),
        **_targets(micro, tasks),
    }


def padded_encoder_decoder_batch(micro: MicroBatch, tasks: Sequence[str], pad: int, start: int) -> Batch:
    """Lay out one-branch rows side by side; rows with the same prompt share one pass through the encoder.

    Returns:
        input_ids, attention_mask (E, S): the different prompts;
        prompt_of (B,): which of them each row reads;
        decoder_input_ids (B, U): the start token and the target but for its last token;
        lengths (B,): of targets;
        target_at (N,): where, in the flattened (B·U), the logits of each target token are;
        labels, weights, task_ids, branch_ids (N,): see `_targets`.
    """
    prompts, targets = _prompts(micro), [row.branches[0].target for row in micro.rows]
    number = {prompt: i for i, prompt in enumerate(prompts)}
    width = max(map(len, targets))
    return {
        "input_ids": _pad(prompts, pad),
        "attention_mask": _pad([[1] * len(p) for p in prompts], 0),
        "prompt_of": torch.tensor([number[row.prompt] for row in micro.rows]),
        "decoder_input_ids": _pad([(start, *t[:-1]) for t in targets], pad),
        "lengths": torch.tensor(list(map(len, targets))),
        "target_at": torch.tensor([r * width + i for r, t in enumerate(targets) for i in range(len(t))]),
        **_targets(micro, tasks),
    }


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move all tensors of a batch to a device."""
    return {name: value.to(device) for name, value in batch.items()}


def _prompts(micro: MicroBatch) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(row.prompt for row in micro.rows))


@dataclass(frozen=True, slots=True)
class _Column:
    """The input for a shared-prompt row. `predicts`: the places whose logits predict target tokens."""

    tokens: list[int]
    positions: list[int]
    segments: list[int]
    predicts: list[int]


def _flatten(row: Row, *, whole: bool = False) -> _Column:
    tokens, at = list(row.prompt), len(row.prompt)
    positions, segments, predicts = list(range(at)), [PROMPT] * at, []
    for number, branch in enumerate(row.branches, start=1):
        fed = (*branch.prefix, *branch.target)
        fed = fed if whole else fed[:-1]  # the last target token is predicted and never read
        start = len(tokens)
        first = start + len(branch.prefix) - 1 if branch.prefix else at - 1
        predicts += [first, *range(start + len(branch.prefix), start + len(branch.prefix) + len(branch.target) - 1)]
        tokens += fed
        positions += range(at, at + len(fed))
        segments += [number] * len(fed)
    return _Column(tokens, positions, segments, predicts)


def _blocks(row: Row, column: _Column, start: int) -> list[Block]:
    """Return the blocks of one row that begins at `start`: its prompt, and its branches together."""
    prompt, whole = len(row.prompt), len(column.tokens)
    if len(row.branches) == 1 or whole == prompt:
        return [Block(start, whole, start, whole, causal=True)]
    return [
        Block(start, prompt, start, prompt, causal=True),
        Block(start + prompt, whole - prompt, start, whole, branches_at=prompt),
    ]


def _targets(micro: MicroBatch, tasks: Sequence[str]) -> dict[str, Any]:
    """Return, for each target token: its label, its weight in the loss, its task's and its branch's number.

    Branches are numbered across the micro-batch, row by row. The tokens of compared choices have weight 0 here, unless
    they are also learnt as a text. `choices` says how they are compared. Without compared choices, this key is missing.
    """
    branches = [
        pair for row, weights in zip(micro.rows, micro.weights, strict=True)
        for pair in zip(row.branches, weights, strict=True)
    ]  # fmt: skip
    number = {task: i for i, task in enumerate(tasks)}
    lengths = [len(b.target) for b, _ in branches]
    repeat = torch.tensor(lengths)
    choices = _choices(micro, number.get(CHOICES_TASK, 0))
    return {
        "labels": torch.tensor(list(chain.from_iterable(b.target for b, _ in branches))),
        "weights": torch.tensor(
            [w * b.text if isinstance(b, Choice) else w for b, w in branches], dtype=torch.float32
        ).repeat_interleave(repeat),
        "task_ids": torch.tensor([number.get(b.task, 0) for b, _ in branches]).repeat_interleave(repeat),
        "branch_ids": torch.arange(len(branches)).repeat_interleave(repeat),
        **({} if choices is None else {"choices": choices}),
    }


def _choices(micro: MicroBatch, task: int) -> Choices | None:
    """Return to which choice of which question each target token belongs; None if no choices are compared."""
    compared: dict[tuple[str, str, tuple[int, ...]], list[tuple[Choice, float, int]]] = {}
    end = 0
    for row, weights in zip(micro.rows, micro.weights, strict=True):
        for branch, weight in zip(row.branches, weights, strict=True):
            if isinstance(branch, Choice):
                compared.setdefault((row.question_id, branch.task, row.prompt), []).append((branch, weight, end))
            end += len(branch.target)
    if not compared:
        return None
    width = max(map(len, compared.values()))
    places = [len(compared) * width] * end
    for question, of in enumerate(compared.values()):
        for number, (branch, _, start) in enumerate(of):
            places[start : start + len(branch.target)] = [question * width + number] * len(branch.target)
    return Choices(
        places=torch.tensor(places),
        shares=_pad([[b.share for b, _, _ in of] for of in compared.values()], 0.0),
        scales=_pad([[b.scale for b, _, _ in of] for of in compared.values()], 0.0),
        weights=torch.tensor([of[0][1] for of in compared.values()], dtype=torch.float32),
        spans=tuple((of[0][2], of[-1][2] + len(of[-1][0].target)) for of in compared.values()),
        task=task,
    )


def _pad(rows: Sequence[Sequence[float]], value: float) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
