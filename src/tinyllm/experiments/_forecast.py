"""Forecast: how long the runs that are left will take.

Operations: 6 P for each token that is trained on (4 P with LoRA, whose frozen weights need no gradient), 2 P for each
token that is read. P is the number of parameters without embeddings and head. The head is counted at target tokens
only. The speed is that of a matrix product on this machine, times the share of it that training and evaluation reach.
The measured time of finished runs on such a machine corrects the estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tinyllm.comparison.records import Record
from tinyllm.config import Config
from tinyllm.experiments._grid import Cell, Experiment, Group, GroupName
from tinyllm.experiments._shared import Shared, rationale_key
from tinyllm.questions.types import Question
from tinyllm.rationales.files import read_rationales
from tinyllm.stages.check import questions_passed
from tinyllm.stages.student import given_rationales, most_targets, student_card
from tinyllm.system.machine import environment, machine_name, peak_flops

if TYPE_CHECKING:
    from tinyllm.rationales.types import Rationale
    from tinyllm.student.encode import Encoder

_SAMPLE = 64  # questions that are tokenised for the estimate
# Shares of the matrix product's speed. In bf16 the product itself is faster, so that everything else weighs more.
_TRAINING, _ASKING = {"fp32": 0.6, "bf16": 0.3, "fp16": 0.3}, {"fp32": 0.45, "bf16": 0.25, "fp16": 0.25}
_WRITING = 0.08
_START_S = 3.0  # loading, planning, saving


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The amount of work of one run in a group.

    Attributes:
        head: the parameters that compute logits.
        learnt, targets: tokens of the training over all steps, and those of them with logits.
        read, written: tokens of the evaluation in the view `asked`.
        read_again: tokens that are read in each other view.
    """

    parameters: int
    head: int
    learnt: float
    targets: float
    read: float
    read_again: float
    written: float
    is_lora: bool
    trains_in: str
    answers_in: str

    def seconds(self, peak: Callable[[str], float], views: int) -> float:
        """Return the duration of a run at this peak speed, in operations a second."""
        p, training, answering = self.parameters, peak(self.trains_in), peak(self.answers_in)
        learning = (4 if self.is_lora else 6) * (p * self.learnt + self.head * self.targets)
        train = learning / (_TRAINING[self.trains_in] * training)
        ask = 2 * p * (self.read + self.read_again * (views - 1)) / (_ASKING[self.answers_in] * answering)
        return train + ask + 2 * p * self.written / (_WRITING * answering) + _START_S


class Forecast:
    """Estimates the time of runs.

    Args:
        places: the number of runs at the same time.
        is_here: whether runs happen on this machine, and not on a cluster.
    """

    def __init__(
        self, experiment: Experiment, shared: Shared, *, places: int = 1, gpus: int = 0, is_here: bool = True
    ) -> None:
        self._experiment, self._shared = experiment, shared
        self._places = places
        self._at_once = max(1, min(places, gpus)) if gpus else 1  # processes on a CPU share its speed
        self._peak = cache(peak_flops)
        self._machine = machine_name(environment()) if is_here else None
        self._cells = {c.key: c for g in experiment.groups for c in g.cells()}
        self._sizes: dict[GroupName, _Sizes] = {}

    def seconds_of(self, cell: Cell) -> float:
        """Return the estimated time of one run, without correction."""
        if cell.group not in self._sizes:
            self._sizes[cell.group] = self._measure(self._experiment.group(cell))
        views = len(self._experiment.grid.views) if cell.is_first else 1
        return self._sizes[cell.group].seconds(self._peak, views)

    def left(self, cells: Iterable[Cell], more: int, done: Iterable[Record]) -> float:
        """Return the seconds to go.

        Args:
            cells: runs that are known to be needed.
            more: the number of further runs whose settings are not known yet.
            done: finished runs. Their time corrects the estimate.
        """
        each = [self.seconds_of(c) for c in cells]
        total = sum(each) + (more * sum(each) / len(each) if each else 0.0)
        took = expected = 0.0
        for record in done:
            cell, is_known = self._cells.get(record.key), self._machine in (None, record.machine)
            if cell is not None and is_known:
                took += float(record.figures.get("seconds") or 0.0)
                expected += self.seconds_of(cell)
        # Finished runs were measured while others ran beside them.
        return total * (took / expected) / self._places if took and expected else total / self._at_once

    def _measure(self, group: Group) -> _Sizes:
        from tinyllm.student.model import load_tokenizer, parameters_in_use

        cell = group.cells()[0]
        config = self._experiment.config(cell)
        tokenizer, model_config = load_tokenizer(config.student)
        encoder = student_card(config).encoder(
            tokenizer,
            is_encoder_decoder=bool(model_config.is_encoder_decoder),
            max_target_tokens=config.train.max_target_tokens,
        )
        splits = self._shared.splits[group.dataset]
        key = rationale_key(self._experiment, cell)
        folder = self._shared.rationales.get(key or "")
        sample = list(splits.train[:_SAMPLE])
        # Before any are generated, those that come with the questions give an estimate.
        rationales = read_rationales(folder) if folder is not None else given_rationales(config, sample)
        tokens, targets = _mean_tokens(encoder, sample, config, rationales)
        questions = questions_passed(config, splits) if group.spec.trains else 0
        prefix = student_card(config).prefixes["answer"]
        asked = splits.test[:_SAMPLE]
        options = [sum(r.length for r in encoder.options(q, prefix)) for q in asked]
        mean = sum(options) / max(1, len(options))
        writes = "generation" in config.evaluate.scorers
        written = len(splits.test) * config.evaluate.max_new_tokens if writes else 0
        if config.train.rationales == "before":
            written += (len(splits.test) + len(splits.valid)) * config.evaluate.max_rationale_tokens
        steps = questions / config.train.batch_size
        looks = 1 + int(steps / config.train.validate_steps) if config.train.validate_steps else 1
        parameters, head = parameters_in_use(model_config)
        return _Sizes(
            parameters=parameters,
            head=head,
            learnt=tokens * questions,
            targets=targets * questions,
            read=mean * (len(splits.test) + looks * len(splits.valid)),
            read_again=mean * len(splits.test),
            written=float(written),
            is_lora=config.student.adapter == "lora",
            trains_in=config.train.precision,
            answers_in=config.evaluate.precision,
        )


def _mean_tokens(
    encoder: Encoder, sample: Sequence[Question], config: Config, rationales: Sequence[Rationale]
) -> tuple[float, float]:
    """Return the mean numbers of tokens and of target tokens of a training question."""
    from tinyllm.student.train import tokenise

    known = {q.id for q in sample}
    _, targets = most_targets(config, sample, [r for r in rationales if r.question_id in known])
    rows = [r for of in tokenise(encoder, sample, targets) for r in of]
    count = max(1, len(sample))
    return sum(r.length for r in rows) / count, sum(len(b.target) for r in rows for b in r.branches) / count
