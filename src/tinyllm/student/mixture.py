"""Mixtures: from questions and rationales to weighted targets. Every method is a pure function here.

To add a method, write one function of the type `Mixture` and give it a name in `_MIXTURES`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tinyllm.config import (
    ANSWER_TASK,
    CHOICES_TASK,
    AnswerKind,
    Config,
    Method,
    RationaleUse,
    prefixes_in_use,
    teacher_weights,
    teachers_in_use,
)
from tinyllm.questions.types import Question
from tinyllm.rationales.types import Rationale
from tinyllm.student import _routing as routing


@dataclass(frozen=True, slots=True)
class Target:
    """One thing the student learns from one question.

    Attributes:
        task: `answer`, or the name of the teacher whose rationale this is.
        prefix: the text that tells the student which task it is.
        weight: α of the task in L = L_A + Σ_m α_m L_m; 1 for the answer. Always above 0.
        mean: targets with the same name here are averaged together; empty: those of the same task.
        shares: the target probability of each choice. The student then learns to choose and not to write: the loss is
            the cross-entropy between these shares and the softmax of the choices' log-likelihoods. A question has at
            most one such target per task and reading. Its text is empty.
        reading: a rationale that the student reads before it does the task. It is in the prompt, after the question.
        fades: the reading is dropped step by step, from its end, until nothing is left.
    """

    question_id: str
    task: str
    prefix: str
    text: str
    weight: float
    mean: str = ""
    shares: tuple[float, ...] = ()
    reading: str = ""
    fades: bool = False

    def __post_init__(self) -> None:
        if self.shares and (min(self.shares) < 0 or not math.isclose(sum(self.shares), 1, abs_tol=_SUM_IS_OFF)):
            raise ValueError(f"The shares of question '{self.question_id}' are no probabilities: {self.shares}.")

    @property
    def learnt(self) -> str:
        """The name in logs and counts: its task, or `CHOICES_TASK` if choices are compared."""
        return CHOICES_TASK if self.shares else self.task


@dataclass(frozen=True, slots=True)
class MixtureSettings:
    """The input of a mixture besides the texts.

    Attributes:
        prefixes: the prefix of each task.
        alpha: α_m of each teacher that the method learns from (`config.teachers_in_use`).
        answer: how the right answer is learnt: as a text, by comparing the choices, or both.
        rationales: what the student does with a rationale (`train.rationales`).
        seed: the random seed of the method.
        shares: target probabilities of the choices, by question id. Other questions have 1 for the answer.
        likelihoods: the likelihood of each rationale for the untrained student, by (question id, teacher), for the
            method `student-likelihood`.
    """

    prefixes: Mapping[str, str]
    alpha: Mapping[str, float]
    answer: AnswerKind = "text"
    rationales: RationaleUse = "target"
    seed: int = 0
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    likelihoods: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, shares: Mapping[str, tuple[float, ...]] | None = None) -> MixtureSettings:
        """Return those of a run."""
        weights, train = teacher_weights(config), config.train
        alpha = {t.name: weights[t.name] for t in teachers_in_use(config)}
        return cls(prefixes_in_use(config), alpha, train.answer, train.rationales, train.seed, shares or {})


_ROUTED = "routed"
_SUM_IS_OFF = 1e-6

Questions = Sequence[Question]
Rationales = Sequence[Rationale]
Targets = tuple[Target, ...]
Mixture = Callable[[Questions, Rationales, MixtureSettings], Targets]


def mix(method: Method, questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return the targets of a method, in the order of the questions, the answer first.

    A question without a rationale of a teacher has no target of that task: missing rationales are masked.
    """
    return _MIXTURES[method](questions, rationales, settings)


# --- the paper's methods ------------------------------------------------------------------------------------------


def _fine_tuning(questions: Questions, _: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers only: L = L_A."""
    return _answers_and(questions, (), settings)


def _step_by_step(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers and one teacher's rationales (distilling step-by-step): L = L_A + α L_m."""
    return _answers_and(questions, [r for r in rationales if r.teacher in tuple(settings.alpha)[:1]], settings)


def tinyllm(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers and every teacher's rationales (the paper): L = L_A + Σ_m α_m L_m; α_m = 0 leaves one out."""
    return _answers_and(questions, rationales, settings)


# --- controls: as many words as for TinyLLM, with less meaning ----------------------------------------------------


def _shuffled(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and for each question a rationale that the same teacher wrote for another question."""
    return _answers_and(questions, routing.shuffled(rationales, settings.seed), settings)


def _keywords(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and the content words of each rationale."""
    texts = [replace(r, text=routing.content_words(r.text)) for r in rationales]
    return _answers_and(questions, [r for r in texts if r.text], settings)


# --- routers: one rationale per question, under the prefix of its teacher -----------------------------------------


def _one_random(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and one rationale per question, drawn at random."""
    lot = random.Random(settings.seed)
    return _routed(questions, rationales, settings, lambda _: lot.random())


def _shortest(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and the shortest rationale of each question."""
    return _routed(questions, rationales, settings, lambda r: -len(r.text))


def _similarity(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and for each question the rationale that is most similar to it and its answer, by tf-idf."""
    return _routed(questions, rationales, settings, routing.Nearness(questions, rationales))


def _student_likelihood(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and for each question the rationale with the highest likelihood per token before training."""
    return _routed(questions, rationales, settings, lambda r: settings.likelihoods[r.question_id, r.teacher])


_MIXTURES: Mapping[Method, Mixture] = {
    "fine-tuning": _fine_tuning,
    "step-by-step": _step_by_step,
    "tinyllm": tinyllm,
    "shuffled": _shuffled,
    "keywords": _keywords,
    "one-random": _one_random,
    "shortest": _shortest,
    "similarity": _similarity,
    "student-likelihood": _student_likelihood,
}


def _routed(
    questions: Questions, rationales: Rationales, settings: MixtureSettings, merit: Callable[[Rationale], float]
) -> Targets:
    """Return answers, and the rationale of highest merit for each question: L = L_A + mean of α_m ℓ_m over all.

    With a mean for each teacher, the few rationales of a teacher that is rarely chosen would weigh as much as the many
    rationales of another one.
    """
    usable = [r for r in rationales if settings.alpha.get(r.teacher, 0.0) > 0]
    targets = _answers_and(questions, routing.best_of_each(usable, merit), settings)
    return tuple(t if t.task == ANSWER_TASK else replace(t, mean=_ROUTED) for t in targets)


def _answers_and(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return the targets of each question and its rationales, as the settings say."""
    written: dict[str, list[Rationale]] = {}
    for rationale in rationales:
        if settings.alpha.get(rationale.teacher, 0.0) > 0:
            written.setdefault(rationale.question_id, []).append(rationale)
    order = {teacher: place for place, teacher in enumerate(settings.alpha)}
    learn = {"target": _written, "before": _written_first, "input": _read}[settings.rationales]
    targets: list[Target] = []
    for question in questions:
        known = sorted(written.get(question.id, ()), key=lambda r: order[r.teacher])
        targets += learn(question, known, settings)
    return tuple(targets)


def _written(question: Question, known: Sequence[Rationale], settings: MixtureSettings) -> list[Target]:
    """Return the answer, and each rationale as another text to write (the paper)."""
    return [*_answers(question, settings), *_texts(known, settings)]


def _written_first(question: Question, known: Sequence[Rationale], settings: MixtureSettings) -> list[Target]:
    """Return each rationale as a text to write, and the answer as what follows it: p(R | Q) · p(A | Q, R).

    The loss is that of one text, the rationale and then the answer (Ho et al., "Large Language Models Are Reasoning
    Teachers", arXiv 2212.10071), but each part has its own mean and α. L_A is the mean over all rationales that are
    read. For a question without a rationale, only the answer is learnt.
    """
    read = dict.fromkeys(r.text for r in known)
    answers = [replace(a, reading=text) for text in read or [""] for a in _answers(question, settings)]
    return [*answers, *_texts(known, settings)]


def _read(question: Question, known: Sequence[Rationale], settings: MixtureSettings) -> list[Target]:
    """Return the answer only. The rationales are in the input, and are dropped step by step.

    This follows SKIntern (Liao et al., arXiv 2409.13183), which drops what a compressor finds least important. Here the
    end is dropped first, because a rationale names the answer there.
    """
    reading = "\n".join(dict.fromkeys(r.text for r in known))
    return [replace(a, reading=reading, fades=bool(reading)) for a in _answers(question, settings)]


def _texts(known: Sequence[Rationale], settings: MixtureSettings) -> list[Target]:
    return [
        Target(r.question_id, r.teacher, settings.prefixes[r.teacher], r.text, settings.alpha[r.teacher]) for r in known
    ]


def _answers(question: Question, settings: MixtureSettings) -> list[Target]:
    """Return what is learnt of the right answer, each with weight 1."""
    text = Target(question.id, ANSWER_TASK, settings.prefixes[ANSWER_TASK], question.answer_text, 1.0)
    right = tuple(float(i == question.known_answer) for i in range(len(question.choices)))
    choices = replace(text, text="", shares=settings.shares.get(question.id, right))
    return {"text": [text], "choices": [choices], "both": [text, choices]}[settings.answer]
