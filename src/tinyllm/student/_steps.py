"""What a plan consists of: steps, their micro-batches and sizes, and the schedule of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tinyllm.config import ANSWER_TASK
from tinyllm.student._rows import Row

AlphaSchedule = Literal["constant", "linear"]
_SCORES_A_TOKEN = 4096  # attention scores that take about the memory of one token's activations


@dataclass(frozen=True, slots=True)
class Size:
    """What one forward pass computes.

    Attributes:
        real: tokens.
        computed: the same with padding.
        scores: pairs of tokens that attention looks at.
    """

    real: int
    computed: int
    scores: int

    @property
    def cost(self) -> int:
        """The memory that it takes, in tokens. It is rounded up, so that parts never add up to less."""
        return self.computed - (-self.scores // _SCORES_A_TOKEN)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows computed in one forward pass.

    Attributes:
        weights: `weights[r][b]` is the weight of each target token of branch b of row r; that of its question where
            choices are compared.
    """

    rows: tuple[Row, ...]
    weights: tuple[tuple[float, ...], ...]

    def silenced(self) -> MicroBatch:
        """Return the same rows with weight 0. They keep processes synchronous without changing the gradient."""
        return MicroBatch(self.rows, tuple(tuple(0.0 for _ in w) for w in self.weights))

    @property
    def target_tokens(self) -> int:
        """Tokens that are learnt."""
        return sum(len(b.target) for row in self.rows for b in row.branches)


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step. Its micro-batches are sorted by cost, the most expensive first."""

    index: int
    epoch: int
    question_ids: tuple[str, ...]
    micro_batches: tuple[MicroBatch, ...]

    def share(self, rank: int, processes: int) -> tuple[MicroBatch, ...]:
        """Return the micro-batches of one of several processes; every process gets the same number of them.

        The order of the processes changes every round, so that no process always gets the most expensive one.
        """
        rounds = -(-len(self.micro_batches) // processes)
        places = [processes * r + (processes - 1 - rank if r % 2 else rank) for r in range(rounds)]
        spare = [self.micro_batches[-1].silenced()] if rounds else []
        return tuple((*self.micro_batches, *spare * processes)[place] for place in places)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a whole plan computes."""

    questions: int
    micro_batches: int
    real: int
    computed: int
    target_tokens: int
    dearest: int

    @property
    def padding_fraction(self) -> float:
        """Share of the computed tokens that is padding."""
        return 1 - self.real / self.computed if self.computed else 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the weights of rationales change during training. The weight of an answer is always 1.

    Attributes:
        kinds: by teacher: `constant`, or `linear`, which falls to 0. A teacher that is not named is constant.
        answers_only: share of the steps, at the end, in which nothing but answers is learnt, and no rationale is read.
    """

    kinds: Mapping[str, AlphaSchedule] = field(default_factory=dict)
    answers_only: float = 0.0

    def factor(self, task: str, step: int, steps: int) -> float:
        """Return what a task's α is multiplied by in a step, counted from 0."""
        end = steps - round(self.answers_only * steps)
        if task == ANSWER_TASK:
            return 1.0
        if step >= end:
            return 0.0
        return 1.0 - step / end if self.kinds.get(task) == "linear" else 1.0

    def read(self, step: int, steps: int) -> float:
        """Return the share of a rationale in the input that is still there in a step, counted from 0."""
        end = steps - round(self.answers_only * steps)
        return 1.0 - step / end if step < end else 0.0

    @property
    def is_constant(self) -> bool:
        """Whether all weights stay the same."""
        return not self.answers_only and "linear" not in self.kinds.values()
