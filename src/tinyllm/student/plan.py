"""The step plan: which questions form an optimizer step, and in what shapes they are computed.

The configuration decides the *semantics*: `batch_size` questions per step, in a seeded order, each task with its α at
that point of the training. The plan decides the *shapes*: it cuts the rows of a step into micro-batches by a memory
budget. Each target token has its weight in the loss of the whole step, so the cut cannot change the result:

    L = Σ_tokens weight · cross-entropy,    weight = α_task / N_task               (normalisation `tokens`)
                                            weight = α_task / (n_task · length)    (normalisation `examples`)

N_task are the target tokens and n_task the rows of that task in the whole step. For methods that take one rationale per
question, both count all rationales together.

If choices are compared, a question is one unit of the loss, with the weight α_task / (questions of the step) under both
normalisations. The gradient of one choice depends on all of them, so they are never cut apart.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tinyllm.student._rows import Branch, Choice, Row
from tinyllm.student._steps import MicroBatch, Schedule, Size, Step, Totals

Normalisation = Literal["tokens", "examples"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of micro-batches.

    Attributes:
        tokens: memory budget of one forward pass, in tokens. Longer rows get their own pass.
        packed: rows without padding; otherwise they are padded to the longest.
        encoder_decoder: prompts and targets go through different stacks, and equal prompts are computed once.
    """

    tokens: int = 2048
    packed: bool = True
    encoder_decoder: bool = False

    def size(self, rows: Sequence[Row]) -> Size:
        """Return the size of a forward pass over these rows."""
        prompts = list({row.prompt for row in rows}) if self.encoder_decoder else [row.prompt for row in rows]
        real = sum(map(len, prompts)) + sum(row.target_length for row in rows)
        if self.packed:
            return Size(real, real, sum(self._scores(len(r.prompt), r.target_length) for r in rows))
        prompt, target = max(map(len, prompts)), max(row.target_length for row in rows)
        if self.encoder_decoder:
            return Size(real, len(prompts) * prompt + len(rows) * target, len(rows) * self._scores(prompt, target))
        longest = max(row.length for row in rows)
        return Size(real, len(rows) * longest, len(rows) * longest * longest)

    def _scores(self, prompt: int, target: int) -> int:
        own = target * target if self.encoder_decoder else target * target // 2
        return prompt * prompt + own + target * prompt


class StepPlan:
    """All optimizer steps of a training, made on demand. The same arguments give the same plan.

    Args:
        questions: for each training question, its rows.
        epochs: passes over the questions. The last step of a pass may be smaller.
        seed: of the order, which is different in each pass.
        normalisation: see the module.
        schedule: of the weights of rationales. A target with weight 0 is not computed.
        max_steps: end after so many steps.
        processes: how many share each step. If possible, the number of micro-batches is a multiple of it.
    """

    def __init__(
        self,
        questions: Sequence[Sequence[Row]],
        *,
        batch_size: int,
        epochs: int = 1,
        seed: int = 0,
        normalisation: Normalisation = "tokens",
        schedule: Schedule | None = None,
        max_steps: int | None = None,
        shape: Shape | None = None,
        processes: int = 1,
    ) -> None:
        self.questions = questions
        self.batch_size = batch_size
        self.seed = seed
        self.normalisation = normalisation
        self.schedule = schedule or Schedule()
        self.shape = shape or Shape()
        self.processes = processes
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
        rows = [row for i in chosen for row in self._scheduled(self.questions[i], index)]
        ids = tuple(dict.fromkeys(row.question_id for row in rows))
        rows, weights = _weighted(rows, self.normalisation)
        return Step(index, epoch, ids, cut(rows, weights, self.shape, self.processes))

    def __iter__(self) -> Iterator[Step]:
        return (self[i] for i in range(len(self)))

    def totals(self, steps: int | None = None) -> Totals:
        """Return the totals of the first steps, or of all steps."""
        sums: Counter[str] = Counter()
        dearest = 0
        for step in itertools.islice(self, steps):
            sums["questions"] += len(step.question_ids)
            for micro in step.micro_batches:
                size = self.shape.size(micro.rows)
                sums.update(micro_batches=1, real=size.real, computed=size.computed, target_tokens=micro.target_tokens)
                dearest = max(dearest, size.cost)
        names = ("questions", "micro_batches", "real", "computed", "target_tokens")
        return Totals(**{name: sums[name] for name in names}, dearest=dearest)

    def as_json(self, steps: int | None = None) -> dict[str, Any]:
        """Return the plan as JSON: its settings, and the questions and shapes of its first steps.

        Args:
            steps: the number of these steps; None: all.
        """
        return {
            "steps": len(self),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "normalisation": self.normalisation,
            "schedule": {"kinds": dict(self.schedule.kinds), "answers_only": self.schedule.answers_only},
            "micro_batch_tokens": self.shape.tokens,
            "packed": self.shape.packed,
            "processes": self.processes,
            "plan": [self._step_as_json(self[i]) for i in range(len(self) if steps is None else min(steps, len(self)))],
        }

    def _step_as_json(self, step: Step) -> dict[str, Any]:
        sized = [(micro, self.shape.size(micro.rows)) for micro in step.micro_batches]
        alpha = {b.task: b.weight for micro in step.micro_batches for row in micro.rows for b in row.branches}
        return {
            "step": step.index + 1,
            "questions": list(step.question_ids),
            "alpha": alpha,
            "micro_batches": [
                {
                    "rows": len(micro.rows),
                    "tokens": size.real,
                    "padding": size.computed - size.real,
                    "target_tokens": micro.target_tokens,
                }
                for micro, size in sized
            ],
        }

    def _scheduled(self, rows: Sequence[Row], step: int) -> Sequence[Row]:
        """Return the rows of a question at a step: with the weights of that step, without branches of weight 0."""
        if any(row.fading[1] for row in rows):
            rows = [row.faded(self.schedule.read(step, len(self))) for row in rows]
        if self.schedule.is_constant:
            return rows
        scheduled = []
        for row in rows:
            factors = [self.schedule.factor(b.task, step, len(self)) for b in row.branches]
            kept = tuple(replace(b, weight=b.weight * f) for b, f in zip(row.branches, factors, strict=True) if f > 0)
            if kept:
                scheduled.append(replace(row, branches=kept))
        return scheduled

    def _shuffled(self, epoch: int) -> list[int]:
        if self._order is None or self._order[0] != epoch:
            order = list(range(len(self.questions)))
            random.Random(f"{self.seed}:{epoch}").shuffle(order)
            self._order = epoch, order
        return self._order[1]


def _weighted(rows: Sequence[Row], normalisation: Normalisation) -> tuple[list[Row], list[tuple[float, ...]]]:
    """Return, for each branch of each row, the weight of one of its target tokens in the loss of the step.

    The choices of a question have one weight, which is the question's. The weight of one that is learnt as a text, too,
    is in the row: see `Choice.text`.
    """
    counts: Counter[str] = Counter()
    compared: dict[str, set[tuple[str, tuple[int, ...]]]] = {}  # by question and what is read before
    for row in rows:
        for branch in row.branches:
            if isinstance(branch, Choice):
                compared.setdefault(branch.mean or branch.task, set()).add((row.question_id, row.prompt))
            if not isinstance(branch, Choice) or branch.text:
                counts[branch.mean or branch.task] += len(branch.target) if normalisation == "tokens" else 1

    def weight(branch: Branch) -> float:
        if isinstance(branch, Choice):
            return branch.weight / len(compared[branch.mean or branch.task])
        return as_text(branch, branch.weight)

    def as_text(branch: Branch, alpha: float) -> float:
        count = counts[branch.mean or branch.task]
        return alpha / (count if normalisation == "tokens" else count * len(branch.target))

    def told(branch: Branch) -> Branch:
        if not isinstance(branch, Choice) or not branch.text:
            return branch
        return replace(branch, text=as_text(branch, branch.text) / weight(branch))

    weights = [tuple(map(weight, row.branches)) for row in rows]
    if not compared:
        return list(rows), weights
    return [replace(row, branches=tuple(map(told, row.branches))) for row in rows], weights


# --- cutting ------------------------------------------------------------------------------------------------------


def cut(
    rows: Sequence[Row], weights: Sequence[tuple[float, ...]], shape: Shape, processes: int = 1
) -> tuple[MicroBatch, ...]:
    """Cut rows into micro-batches within a memory budget, the most expensive first.

    If the memory is not sufficient, the first micro-batch fails, and not one an hour later.
    """
    groups = _balanced(rows, shape, processes) if shape.packed else _by_length(rows, shape, processes)
    groups.sort(key=lambda g: shape.size([rows[i] for i in g]).cost, reverse=True)
    return tuple(MicroBatch(tuple(rows[i] for i in g), tuple(weights[i] for i in g)) for g in groups)


def _balanced(rows: Sequence[Row], shape: Shape, processes: int) -> list[list[int]]:
    """Put rows into as few groups of about equal cost as the budget allows. Without padding, all rows go together."""
    units = _units(rows, shape)
    costs = [shape.size([rows[i] for i in unit]).cost for unit in units]
    order = sorted(range(len(units)), key=lambda u: (-costs[u], u))
    number = max(1, -(-sum(costs) // shape.tokens))
    while True:
        number = min(len(units), -(-number // processes) * processes)
        groups = _dealt(order, costs, number)
        if number == len(units) or all(sum(costs[u] for u in g) <= shape.tokens or len(g) == 1 for g in groups):
            return [[i for u in g for i in units[u]] for g in groups]
        number += 1


def _units(rows: Sequence[Row], shape: Shape) -> list[list[int]]:
    """Group the rows with the same prompt, unless they exceed the budget. Choices of one question stay together."""
    bound = _bound(rows)
    if not shape.encoder_decoder:
        return bound
    same: dict[tuple[int, ...], list[list[int]]] = {}
    for unit in bound:
        same.setdefault(rows[unit[0]].prompt, []).append(unit)
    units: list[list[int]] = []
    for parts in same.values():
        whole = [i for part in parts for i in part]
        units += [whole] if shape.size([rows[i] for i in whole]).cost <= shape.tokens else parts
    return units


def _bound(rows: Sequence[Row]) -> list[list[int]]:
    """Group the rows that hold the choices of one question, because these are computed together."""
    bound: dict[object, list[int]] = {}
    for i, row in enumerate(rows):
        compared = next((b for b in row.branches if isinstance(b, Choice)), None)
        bound.setdefault(i if compared is None else (row.question_id, compared.task, row.prompt), []).append(i)
    return list(bound.values())


def _dealt(order: Sequence[int], costs: Sequence[int], number: int) -> list[list[int]]:
    """Give each unit to the group with the lowest cost so far. The most expensive units come first."""
    groups: list[list[int]] = [[] for _ in range(number)]
    heap = [(0, g) for g in range(number)]
    for unit in order:
        cost, group = heapq.heappop(heap)
        groups[group].append(unit)
        heapq.heappush(heap, (cost + costs[unit], group))
    return groups


def _by_length(rows: Sequence[Row], shape: Shape, processes: int) -> list[list[int]]:
    """Sort rows by both lengths, and cut where the budget is used up. Rows of similar length need little padding."""

    def lengths(unit: list[int]) -> tuple[int, int, int]:
        return max(rows[i].target_length for i in unit), max(len(rows[i].prompt) for i in unit), -unit[0]

    groups: list[list[list[int]]] = []
    for unit in sorted(_bound(rows), key=lengths, reverse=True):
        if groups and shape.size([rows[i] for u in (*groups[-1], unit) for i in u]).cost <= shape.tokens:
            groups[-1].append(unit)
        else:
            groups.append([unit])
    while len(groups) % processes and (dear := max(groups, key=len)) and len(dear) > 1:
        groups.remove(dear)
        groups += [dear[: len(dear) // 2], dear[len(dear) // 2 :]]
    return [[i for unit in group for i in unit] for group in groups]
