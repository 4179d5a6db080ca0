"""Mixtures: from questions and rationales to weighted targets. Every method is a pure function here.

To add a method, write one function of the type `Mixture` and give it a name in `_MIXTURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinyllm.config import ANSWER_TASK, Method
from tinyllm.questions.types import Question
from tinyllm.rationales.types import Rationale


@dataclass(frozen=True, slots=True)
class Target:
    """One thing the student learns from one question.

    Attributes:
        task: `answer`, or the name of the teacher whose rationale this is.
        prefix: the text that tells the student which task it is.
        weight: α of the task in L = L_A + Σ_m α_m L_m; 1 for the answer. Always above 0.
    """

    question_id: str
    task: str
    prefix: str
    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class MixtureSettings:
    """What a mixture needs to know besides the texts.

    Attributes:
        prefixes: the prefix of each task.
        alpha: α_m of each teacher that the method learns from (`config.teachers_in_use`).
    """

    prefixes: Mapping[str, str]
    alpha: Mapping[str, float]


Mixture = Callable[[Sequence[Question], Sequence[Rationale], MixtureSettings], tuple[Target, ...]]


def mix(
    method: Method, questions: Sequence[Question], rationales: Sequence[Rationale], settings: MixtureSettings
) -> tuple[Target, ...]:
    """Return the targets of a method, in the order of the questions, the answer first.

    A question without a teacher's rationale simply has no target of that task: what is missing is masked.
    """
    return _MIXTURES[method](questions, rationales, settings)


def fine_tuning(
    questions: Sequence[Question],
    rationales: Sequence[Rationale],  # noqa: ARG001
    settings: MixtureSettings,
) -> tuple[Target, ...]:
    """Return answers only: L = L_A."""
    return _answers_and(questions, (), settings, teachers=())


def step_by_step(
    questions: Sequence[Question], rationales: Sequence[Rationale], settings: MixtureSettings
) -> tuple[Target, ...]:
    """Return answers and one teacher's rationales (distilling step-by-step): L = L_A + α L_m."""
    return _answers_and(questions, rationales, settings, teachers=tuple(settings.alpha)[:1])


def tinyllm(
    questions: Sequence[Question], rationales: Sequence[Rationale], settings: MixtureSettings
) -> tuple[Target, ...]:
    """Return answers and every teacher's rationales (the paper): L = L_A + Σ_m α_m L_m; α_m = 0 leaves one out."""
    return _answers_and(questions, rationales, settings, teachers=tuple(settings.alpha))


_MIXTURES: Mapping[Method, Mixture] = {
    "fine-tuning": fine_tuning,
    "step-by-step": step_by_step,
    "tinyllm": tinyllm,
}


def _answers_and(
    questions: Sequence[Question],
    rationales: Sequence[Rationale],
    settings: MixtureSettings,
    *,
    teachers: Sequence[str],
) -> tuple[Target, ...]:
    texts = {(r.question_id, r.teacher): r.text for r in rationales}
    targets = []
    for question in questions:
        targets.append(Target(question.id, ANSWER_TASK, settings.prefixes[ANSWER_TASK], question.answer_text, 1.0))
        for teacher in teachers:
            text, weight = texts.get((question.id, teacher)), settings.alpha[teacher]
            if text is not None and weight > 0:
                targets.append(Target(question.id, teacher, settings.prefixes[teacher], text, weight))
    return tuple(targets)
