"""Mixtures: from questions and rationales to weighted targets. Every method is a pure function here.

To add a method, write one function of the type `Mixture` and give it a name in `_MIXTURES`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tinyllm.config import ANSWER_TASK, CHOICES_TASK, AnswerKind, Method, RationaleUse
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
        mean: the targets that share a name here are averaged together; by default those of the same task.
        shares: the probability that is to go to each of the question's choices. The student then learns to choose,
            not to write: the cross-entropy between these shares and the softmax of the choices' log-likelihoods. A
            question has at most one such target a task and reading; its text is empty.
        reading: a rationale that the student reads before it does the task; in the prompt, after the question.
        fades: the reading is dropped from its end, step by step, until nothing of it is left.
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
        """What logs and counts call it: its task, or that an answer is learnt by comparing the choices."""
        return CHOICES_TASK if self.shares else self.task


@dataclass(frozen=True, slots=True)
class MixtureSettings:
    """What a mixture needs to know besides the texts.

    Attributes:
        prefixes: the prefix of each task.
        alpha: α_m of each teacher that the method learns from (`config.teachers_in_use`).
        answer: how the right answer is learnt: as a text, by comparing the choices, or both.
        rationales: what the student does with a rationale (`train.rationales`).
        seed: of what a method draws by lot.
        shares: by question id, the probabilities that its choices are to get where that is not all for the answer.
        likelihoods: how likely the untrained student finds each rationale, by (question id, teacher); for the one
            method that goes by it (`needs_likelihoods`).
    """

    prefixes: Mapping[str, str]
    alpha: Mapping[str, float]
    answer: AnswerKind = "text"
    rationales: RationaleUse = "target"
    seed: int = 0
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    likelihoods: Mapping[tuple[str, str], float] = field(default_factory=dict)


_ROUTED = "routed"
_SUM_IS_OFF = 1e-6

Questions = Sequence[Question]
Rationales = Sequence[Rationale]
Targets = tuple[Target, ...]
Mixture = Callable[[Questions, Rationales, MixtureSettings], Targets]


def mix(method: Method, questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return the targets of a method, in the order of the questions, the answer first.

    A question without a teacher's rationale simply has no target of that task: what is missing is masked.
    """
    return _MIXTURES[method](questions, rationales, settings)


def needs_likelihoods(method: Method) -> bool:
    """Whether a method has to know how likely the untrained student finds each rationale."""
    return method == "student-likelihood"


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


# --- controls: as many words as TinyLLM sees, with less sense in them ---------------------------------------------


def _shuffled(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and with each question the rationale that its teacher wrote for another one."""
    return _answers_and(questions, routing.shuffled(rationales, settings.seed), settings)


def _keywords(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and of each rationale its content words alone."""
    texts = [replace(r, text=routing.content_words(r.text)) for r in rationales]
    return _answers_and(questions, [r for r in texts if r.text], settings)


# --- routers: one rationale a question, under the prefix of the teacher who wrote it ------------------------------


def _one_random(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and with each question one of its rationales, drawn by lot."""
    lot = random.Random(settings.seed)
    return _routed(questions, rationales, settings, lambda _: lot.random())


def _shortest(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and with each question its shortest rationale."""
    return _routed(questions, rationales, settings, lambda r: -len(r.text))


def _similarity(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and with each question the rationale that is nearest to it and its answer, by tf-idf."""
    return _routed(questions, rationales, settings, routing.Nearness(questions, rationales))


def _student_likelihood(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return answers, and with each question the rationale that the untrained student finds likeliest, by token."""
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
    """Return answers and one rationale a question, the one of highest merit: L = L_A + mean of α_m ℓ_m over all.

    With a mean for each teacher, the few rationales of one who is seldom chosen would weigh as much as the many of the
    others.
    """
    usable = [r for r in rationales if settings.alpha.get(r.teacher, 0.0) > 0]
    targets = _answers_and(questions, routing.best_of_each(usable, merit), settings)
    return tuple(t if t.task == ANSWER_TASK else replace(t, mean=_ROUTED) for t in targets)


def _answers_and(questions: Questions, rationales: Rationales, settings: MixtureSettings) -> Targets:
    """Return what is learnt of each question and its rationales, in the way that the settings say."""
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
    read. A question without one teaches its answer alone.
    """
    read = dict.fromkeys(r.text for r in known)
    answers = [replace(a, reading=text) for text in read or [""] for a in _answers(question, settings)]
    return [*answers, *_texts(known, settings)]


def _read(question: Question, known: Sequence[Rationale], settings: MixtureSettings) -> list[Target]:
    """Return the answer alone; the rationales stand in the input, and are dropped step by step.

    After SKIntern (Liao et al., arXiv 2409.13183), which drops what a compressor finds least important. Here the end
    is dropped first, where a rationale names the answer.
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
