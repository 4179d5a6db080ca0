"""The step plan: which questions form an optimizer step, and in what shapes they are computed.

The *semantics* are the configuration's: `batch_size` questions a step, in a seeded order. The *shapes* are ours: the
rows of a step are sorted by length and cut into micro-batches by a token budget. So that the cut cannot change the
result, every target token carries its weight in the loss of the whole step:

    L = Σ_tokens weight · cross-entropy,    weight = α_task / N_task               (normalisation `tokens`)
                                            weight = α_task / (n_task · length)    (normalisation `examples`)

with N_task the target tokens, and n_task the rows, of that task in the whole step.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tinyllm.student.encode import Row

Normalisation = Literal["tokens", "examples"]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows computed in one forward pass; `weights[r][b]` is the weight of each target token of branch b of row r."""

    rows: tuple[Row, ...]
    weights: tuple[tuple[float, ...], ...]

    def silenced(self) -> MicroBatch:
        """Return the same rows with weight 0: work without effect, to keep processes in step."""
        return MicroBatch(self.rows, tuple(tuple(0.0 for _ in w) for w in self.weights))


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step."""

    index: int
    epoch: int
    question_ids: tuple[str, ...]
    micro_batches: tuple[MicroBatch, ...]

    def share(self, rank: int, processes: int) -> tuple[MicroBatch, ...]:
        """Return the micro-batches of one of several processes; every process gets the same number of them."""
        rounds = -(-len(self.micro_batches) // processes)
        indices = [rank + processes * i for i in range(rounds)]
        spare = self.micro_batches[-1].silenced()
        return tuple(self.micro_batches[i] if i < len(self.micro_batches) else spare for i in indices)


@dataclass(frozen=True, slots=True)
class Padding:
    """Tokens that are computed, and how many of them are padding."""

    real: int
    padded: int

    @property
    def fraction(self) -> float:
        """Share of the computed tokens that is padding."""
        return 1 - self.real / self.padded if self.padded else 0.0


class StepPlan:
    """All optimizer steps of a training, made one by one on demand; the same arguments give the same plan.

    Args:
        questions: for each training question, its rows.
        batch_size: questions a step.
        epochs: passes over the questions; the last step of a pass may be smaller.
        seed: seed of the order, another one each pass.
        normalisation: see the module.
        micro_batch_tokens: padded tokens in one forward pass; a longer row stands alone.
        max_steps: end after so many steps.
    """

    def __init__(
        self,
        questions: Sequence[Sequence[Row]],
        *,
        batch_size: int,
        epochs: int = 1,
        seed: int = 0,
        normalisation: Normalisation = "tokens",
        micro_batch_tokens: int = 2048,
        max_steps: int | None = None,
    ) -> None:
        self.questions = questions
        self.batch_size = batch_size
        self.seed = seed
        self.normalisation = normalisation
        self.micro_batch_tokens = micro_batch_tokens
        self.steps_per_epoch = -(-len(questions) // batch_size)
        self._order: tuple[int, list[int]] | None = None
        self._length = min(max_steps or epochs * self.steps_per_epoch, epochs * self.steps_per_epoch)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Step:
        if not 0 <= index < len(self):
            raise IndexError(index)
        epoch, place = divmod(index, self.steps_per_epoch)
        chosen = self._shuffled(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        rows = [row for i in chosen for row in self.questions[i]]
        ids = tuple(dict.fromkeys(row.question_id for row in rows))
        return Step(index, epoch, ids, cut(rows, token_weights(rows, self.normalisation), self.micro_batch_tokens))

    def __iter__(self) -> Iterator[Step]:
        return (self[i] for i in range(len(self)))

    def padding(self) -> Padding:
        """Return the real and the computed tokens of the whole plan."""
        real = padded = 0
        for step in self:
            for batch in step.micro_batches:
                real += sum(row.length for row in batch.rows)
                padded += padded_tokens(batch.rows)
        return Padding(real, padded)

    def _shuffled(self, epoch: int) -> list[int]:
        if self._order is None or self._order[0] != epoch:
            order = list(range(len(self.questions)))
            random.Random(f"{self.seed}:{epoch}").shuffle(order)
            self._order = epoch, order
        return self._order[1]


def token_weights(rows: Sequence[Row], normalisation: Normalisation) -> list[tuple[float, ...]]:
    """Return, for each branch of each row, the weight of one of its target tokens in the loss of the step."""
    counts: Counter[str] = Counter()
    for row in rows:
        for branch in row.branches:
            counts[branch.task] += len(branch.target) if normalisation == "tokens" else 1
    return [
        tuple(
            b.weight / (counts[b.task] if normalisation == "tokens" else counts[b.task] * len(b.target))
            for b in row.branches
        )
        for row in rows
    ]


def cut(rows: Sequence[Row], weights: Sequence[tuple[float, ...]], max_tokens: int) -> tuple[MicroBatch, ...]:
    """Sort rows by length, longest first, and cut them into micro-batches of at most `max_tokens` padded tokens.

    The longest come first so that memory that does not suffice shows at once, not after an hour.
    """
    order = sorted(range(len(rows)), key=lambda i: (rows[i].target_length, len(rows[i].prompt)), reverse=True)
    batches: list[list[int]] = []
    for i in order:
        if batches and padded_tokens([*(rows[j] for j in batches[-1]), rows[i]]) <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return tuple(MicroBatch(tuple(rows[i] for i in b), tuple(weights[i] for i in b)) for b in batches)


def padded_tokens(rows: Sequence[Row]) -> int:
    """Return the tokens computed for these rows in one batch.

    An encoder-decoder pads prompts and targets apart, a causal student pads whole rows; the bound for the first
    holds for the second.
    """
    if all(len(r.branches) == 1 and not r.branches[0].prefix for r in rows):
        return len(rows) * (max(len(r.prompt) for r in rows) + max(r.target_length for r in rows))
    return len(rows) * max(row.length for row in rows)
