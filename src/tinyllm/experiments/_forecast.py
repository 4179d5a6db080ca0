"""How long an experiment will take: arithmetic of the runs that are left over the speed of this machine.

Arithmetic is counted as 6 P a token learnt from (4 P with LoRA, whose frozen weights need no gradient) and 2 P a token
read, P being the student's parameters without embeddings and head; the head is counted at targets. The speed is what
this machine's matrix product reaches, times a share that trainings and evaluations have been seen to reach; the time of
this experiment's runs that were made on such a machine corrects it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tinyllm.comparison.records import Record
from tinyllm.config import Config
from tinyllm.experiments._grid import Cell, Experiment, Group
from tinyllm.experiments._shared import Shared, rationale_key
from tinyllm.questions.types import Question, Splits
from tinyllm.rationales.files import read_rationales
from tinyllm.stages.student import mixture_settings, student_card
from tinyllm.system.machine import environment, machine_name

if TYPE_CHECKING:
    from tinyllm.rationales.types import Rationale
    from tinyllm.student.encode import Encoder

_SAMPLE = 64  # questions that are tokenised
_TRAINING, _ASKING, _WRITING = 0.6, 0.45, 0.08  # shares of the matrix product's speed
_START_S = 3.0  # loading, planning, saving
_SIZE = 1024

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one run of a group computes.

    Attributes:
        head: of the parameters, those that make logits.
        learnt, targets: tokens that a training goes through, and those of them with logits, once over all steps.
        read, written: tokens of the evaluation in the view `asked`; `read_again` of each other view.
    """

    parameters: int
    head: int
    learnt: float
    targets: float
    read: float
    read_again: float
    written: float
    is_lora: bool
    trains_in: Precision
    answers_in: Precision

    def seconds(self, peaks: Mapping[Precision, float], views: int) -> float:
        """Return how long a run takes at peaks of so many operations a second."""
        p, training, answering = self.parameters, peaks[self.trains_in], peaks[self.answers_in]
        learning = (4 if self.is_lora else 6) * (p * self.learnt + self.head * self.targets)
        train = learning / (_TRAINING * training)
        ask = 2 * p * (self.read + self.read_again * (views - 1)) / (_ASKING * answering)
        return train + ask + 2 * p * self.written / (_WRITING * answering) + _START_S


class Forecast:
    """Knows how long runs take; made once, asked as often as one likes.

    Args:
        places: runs under way at once.
        gpus: of this machine.
        is_here: whether runs are made on this machine, and not on a cluster's.
    """

    def __init__(
        self, experiment: Experiment, shared: Shared, *, places: int = 1, gpus: int = 0, is_here: bool = True
    ) -> None:
        self._experiment, self._shared = experiment, shared
        self._places = places
        self._at_once = max(1, min(places, gpus)) if gpus else 1  # processes on a CPU share its speed
        self._peaks = _Peaks()
        self._machine = machine_name(environment()) if is_here else None
        self._cells = {c.key: c for g in experiment.groups for c in g.cells()}
        self._sizes: dict[tuple[str, str, str], Sizes] = {}

    def seconds_of(self, cell: Cell) -> float:
        """Return how long one run takes by arithmetic alone."""
        group = self._experiment.group(cell)
        name = (group.dataset, group.student, group.spec.id)
        if name not in self._sizes:
            self._sizes[name] = self._measure(group)
        views = len(self._experiment.grid.views) if cell.is_first else 1
        return self._sizes[name].seconds(self._peaks, views)

    def left(self, cells: Iterable[Cell], more: int, done: Iterable[Record]) -> float:
        """Return seconds to go.

        Args:
            cells: runs that are known to be needed.
            more: runs that will be needed, of which it is not known yet with which settings.
            done: finished runs, whose time corrects the estimate.
        """
        each = [self.seconds_of(c) for c in cells]
        total = sum(each) + (more * sum(each) / len(each) if each else 0.0)
        correction = self._correction(done)
        # What finished runs took, they took beside each other.
        return total / self._at_once if correction is None else total * correction / self._places

    def _correction(self, done: Iterable[Record]) -> float | None:
        took = expected = 0.0
        for record in done:
            cell, is_known = self._cells.get(record.key), self._machine in (None, record.machine)
            if cell is not None and is_known:
                took += float(record.figures.get("seconds") or 0.0)
                expected += self.seconds_of(cell)
        return took / expected if took and expected else None

    def _measure(self, group: Group) -> Sizes:
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
        rationales = read_rationales(folder) if folder is not None else _as_given(config, splits.train)
        tokens, targets = _mean_tokens(encoder, splits, config, rationales)
        questions = _questions_learnt(config, len(splits.train)) if group.spec.trains else 0
        prefix = student_card(config).prefixes["answer"]
        asked = splits.test[:_SAMPLE]
        options = [sum(r.length for r in encoder.options(q, prefix)) for q in asked]
        mean = sum(options) / max(1, len(options))
        writes = "generation" in config.evaluate.scorers
        parameters, head = parameters_in_use(model_config)
        return Sizes(
            parameters=parameters,
            head=head,
            learnt=tokens * questions,
            targets=targets * questions,
            read=mean * (len(splits.test) + len(splits.valid)),
            read_again=mean * len(splits.test),
            written=len(splits.test) * config.evaluate.max_new_tokens if writes else 0.0,
            is_lora=config.student.adapter == "lora",
            trains_in=config.train.precision,
            answers_in=config.evaluate.precision,
        )


def _as_given(config: Config, questions: Sequence[Question]) -> list[Rationale]:
    """Return the rationales that come with the first questions: what is known before any is written."""
    from tinyllm.rationales.types import Rationale

    sources = {t.name: t.source or t.name for t in config.teachers if t.kind == "given"}
    return [
        Rationale(q.id, name, q.rationales[source])
        for q in questions[:_SAMPLE]
        for name, source in sources.items()
        if source in q.rationales
    ]


def _questions_learnt(config: Config, questions: int) -> int:
    every = config.train.epochs * questions
    return every if config.train.max_steps is None else min(every, config.train.max_steps * config.train.batch_size)


def _mean_tokens(
    encoder: Encoder, splits: Splits, config: Config, rationales: Sequence[Rationale]
) -> tuple[float, float]:
    """Return the mean tokens that a question takes in training, and its target tokens, by the first questions."""
    from tinyllm.student.mixture import mix
    from tinyllm.student.train import tokenise

    sample = list(splits.train[:_SAMPLE])
    known = {q.id for q in sample}
    some = [r for r in rationales if r.question_id in known]
    likelihoods = dict.fromkeys(((r.question_id, r.teacher) for r in some), 0.0)
    targets = mix(config.train.method, sample, some, replace(mixture_settings(config), likelihoods=likelihoods))
    rows = [r for of in tokenise(encoder, sample, targets) for r in of]
    count = max(1, len(sample))
    return sum(r.length for r in rows) / count, sum(len(b.target) for r in rows for b in r.branches) / count


class _Peaks(dict[Precision, float]):
    """Peaks by precision, each measured when it is first asked for."""

    def __missing__(self, precision: Precision) -> float:
        self[precision] = peak_flops(precision)
        return self[precision]


def peak_flops(precision: Precision = "fp32", rounds: int = 5) -> float:
    """Return the operations a second of a large matrix product on this machine, at its best."""
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    size = _SIZE if device is None or device.type == "cpu" else 8 * _SIZE
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
