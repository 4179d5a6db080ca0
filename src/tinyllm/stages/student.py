"""The student of a run: how it is asked, what its mixture needs to know, and what it is about to learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyllm.config import ANSWER_TASK, Config, prefixes_in_use, teacher_weights, teachers_in_use

if TYPE_CHECKING:
    from tinyllm.student.learner import Learner
    from tinyllm.student.mixture import MixtureSettings
    from tinyllm.student.model import Student, StudentCard
    from tinyllm.student.plan import StepPlan


def student_card(config: Config) -> StudentCard:
    """Return how this run's student is asked."""
    from tinyllm.student.model import StudentCard

    prefixes = prefixes_in_use(config)
    if config.train.rationales == "input":  # it reads rationales and writes none
        prefixes = {ANSWER_TASK: prefixes[ANSWER_TASK]}
    return StudentCard(
        prefixes=prefixes,
        layout=config.student.layout,
        max_input_tokens=config.train.max_input_tokens,
        reasons_as=teachers_in_use(config)[0].name if config.train.rationales == "before" else "",
        max_rationale_tokens=config.evaluate.max_rationale_tokens,
    )


def mixture_settings(config: Config, shares: Mapping[str, tuple[float, ...]] | None = None) -> MixtureSettings:
    """Return what the mixture of a run needs to know besides the texts.

    Args:
        shares: what the choices of a question are to get, by question id, where that is not all for the answer.
    """
    from tinyllm.student.mixture import MixtureSettings

    weights = teacher_weights(config)
    return MixtureSettings(
        prefixes=prefixes_in_use(config),
        alpha={t.name: weights[t.name] for t in teachers_in_use(config)},
        answer=config.train.answer,
        rationales=config.train.rationales,
        seed=config.train.seed,
        shares=shares or {},
    )


@dataclass(frozen=True)
class Prepared:
    """A student and what it is about to learn.

    Attributes:
        targets: how many of each task; answers that are learnt by comparing the choices are counted apart.
        soft: how the teachers' opinions were pooled and how many questions learn from them; empty where none do.
        notes: what a person should know of the way it is computed.
    """

    plan: StepPlan
    student: Student
    learner: Learner
    targets: dict[str, int]
    soft: dict[str, Any]
    notes: tuple[str, ...]
