"""The student of a run: how it is asked, and what it is about to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tinyllm.config import ANSWER_TASK, Config, candidates_of, prefixes_in_use, teachers_in_use
from tinyllm.questions.types import Question

if TYPE_CHECKING:
    from tinyllm.rationales.types import Rationale
    from tinyllm.student.learner import Learner
    from tinyllm.student.mixture import Targets
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


def given_rationales(config: Config, questions: Sequence[Question]) -> list[Rationale]:
    """Return the rationales that come with questions, of the teachers in use."""
    from tinyllm.rationales.types import Rationale

    sources = {t.name: t.source or t.name for t in teachers_in_use(config) if t.kind == "given"}
    return [
        Rationale(q.id, name, q.rationales[source])
        for q in questions
        for name, source in sources.items()
        if source in q.rationales
    ]


def most_targets(
    config: Config, questions: Sequence[Question], rationales: Sequence[Rationale]
) -> tuple[Config, Targets]:
    """Return the candidate of `method: auto` with the most targets, and its targets.

    Their number does not depend on which rationale is likelier, so no student is needed.
    """
    from tinyllm.student.mixture import MixtureSettings, mix

    config = max(candidates_of(config), key=lambda c: len(teachers_in_use(c)))
    likelihoods = dict.fromkeys(((r.question_id, r.teacher) for r in rationales), 0.0)
    settings = replace(MixtureSettings.of(config), likelihoods=likelihoods)
    return config, mix(config.train.method, questions, rationales, settings)


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
