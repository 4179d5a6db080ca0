"""From rows to tensors: what one forward pass of a student computes.

Shapes: B rows, T tokens of the longest row, U of the longest target, E different prompts, S tokens of the longest
prompt, N target tokens in all.

The shared-prompt row of a causal student. Every branch sees the prompt and itself, and no other branch; positions
continue from the prompt. So each branch gets the logits it would get in a row of its own:

    tokens     q0 q1 q2 | a0 a1 | b0 b1 b2        may see     q a b
    position    0  1  2    3  4    3  4  5          q         ◣ · ·      ◣ causal, ■ all, · none
    segment     0  0  0    1  1    2  2  2          a         ■ ◣ ·
                                                    b         ■ · ◣
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from tinyllm.student.encode import Row
from tinyllm.student.plan import MicroBatch

Batch = dict[str, Tensor]
"""Tensors of one forward pass; the keys are listed at `causal_batch` and `encoder_decoder_batch`."""

_PROMPT, _PADDING = 0, -1


def causal_batch(micro: MicroBatch, tasks: Sequence[str], pad: int) -> Batch:
    """Lay out rows with shared prompts.

    Returns:
        input_ids, position_ids, segments (B, T): segments are 0 for the prompt, 1… for branches, -1 for padding;
        target_at (N,): where, in the flattened (B·T), the logits of each target token are;
        labels, weights, task_ids, branch_ids (N,): see `_targets`.
    """
    columns = [_flatten(row) for row in micro.rows]
    width = max(len(tokens) for tokens, _, _, _ in columns)
    target_at = [
        place * width + at for place, (_, _, _, predicts) in enumerate(columns) for branch in predicts for at in branch
    ]
    return {
        "input_ids": _pad([c[0] for c in columns], pad),
        "position_ids": _pad([c[1] for c in columns], 0),
        "segments": _pad([c[2] for c in columns], _PADDING),
        "target_at": torch.tensor(target_at),
        **_targets(micro, tasks),
    }


def encoder_decoder_batch(micro: MicroBatch, tasks: Sequence[str], pad: int, start: int) -> Batch:
    """Lay out one-branch rows; rows with the same prompt share one pass through the encoder.

    Returns:
        input_ids, attention_mask (E, S): the different prompts;
        prompt_of (B,): which of them each row reads;
        decoder_input_ids (B, U): the start token and the target but for its last token;
        target_at (N,): where, in the flattened (B·U), the logits of each target token are;
        labels, weights, task_ids, branch_ids (N,): see `_targets`.
    """
    prompts = list(dict.fromkeys(row.prompt for row in micro.rows))
    number = {prompt: i for i, prompt in enumerate(prompts)}
    targets = [row.branches[0].target for row in micro.rows]
    width = max(map(len, targets))
    return {
        "input_ids": _pad(prompts, pad),
        "attention_mask": _pad([[1] * len(p) for p in prompts], 0),
        "prompt_of": torch.tensor([number[row.prompt] for row in micro.rows]),
        "decoder_input_ids": _pad([(start, *t[:-1]) for t in targets], pad),
        "target_at": torch.tensor([r * width + i for r, t in enumerate(targets) for i in range(len(t))]),
        **_targets(micro, tasks),
    }


def shared_prompt_mask(segments: Tensor, position_ids: Tensor, window: int | None = None) -> Tensor:
    """Return who may see whom: (B, 1, T, T) of booleans, True where row i may attend to column j.

    Args:
        window: also hide what is `window` or more positions back (sliding attention).
    """
    width = segments.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    visible = causal & ((key == _PROMPT) | (key == query))
    if window is not None:
        visible = visible & (position_ids[:, :, None] - position_ids[:, None, :] < window)
        # A padding token may lie outside every window; it sees itself, so that its softmax stays finite.
        visible = visible | torch.eye(width, dtype=torch.bool, device=segments.device)
    return visible[:, None]


def _flatten(row: Row) -> tuple[list[int], list[int], list[int], list[list[int]]]:
    """Return a row's tokens, positions, segments, and for each branch the places that predict its targets."""
    tokens, at = list(row.prompt), len(row.prompt)
    positions, segments, predicts = list(range(at)), [_PROMPT] * at, []
    for number, branch in enumerate(row.branches, start=1):
        fed = (*branch.prefix, *branch.target)[:-1]  # the last target token is predicted and never read
        start = len(tokens)
        first = start + len(branch.prefix) - 1 if branch.prefix else at - 1
        predicts.append([first, *range(start + len(branch.prefix), start + len(fed))])
        tokens += fed
        positions += range(at, at + len(fed))
        segments += [number] * len(fed)
    return tokens, positions, segments, predicts


def _targets(micro: MicroBatch, tasks: Sequence[str]) -> Batch:
    """Return, for each target token: its label, its weight in the loss, its task's and its branch's number.

    Branches are numbered through the micro-batch, row by row.
    """
    branches = [
        pair for row, weights in zip(micro.rows, micro.weights, strict=True)
        for pair in zip(row.branches, weights, strict=True)
    ]  # fmt: skip
    number = {task: i for i, task in enumerate(tasks)}
    lengths = [len(b.target) for b, _ in branches]
    repeat = torch.tensor(lengths)
    return {
        "labels": torch.tensor(list(chain.from_iterable(b.target for b, _ in branches))),
        "weights": torch.tensor([w for _, w in branches], dtype=torch.float32).repeat_interleave(repeat),
        "task_ids": torch.tensor([number.get(b.task, 0) for b, _ in branches]).repeat_interleave(repeat),
        "branch_ids": torch.arange(len(branches)).repeat_interleave(repeat),
    }


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
