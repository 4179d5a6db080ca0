"""A student that is loaded once and answers many questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tinyllm.config import ANSWER_TASK
from tinyllm.errors import DataError, RunFolderError, did_you_mean
from tinyllm.questions.types import Question
from tinyllm.scoring.calibration import probabilities
from tinyllm.scoring.predictions import leaders
from tinyllm.system.packaged import folder_checksum

if TYPE_CHECKING:
    from tinyllm.scoring.runtime import Runtime

_RATIONALE_TOKENS = 96


@dataclass(frozen=True, slots=True)
class Chosen:
    """A student's answer to one question.

    Attributes:
        choice: 0-based index of the most likely choice; the first one if several tie.
        text: the text of this choice.
        probabilities: one per choice. They sum to 1 and are calibrated on the validation questions of the run.
        tied: the indices of the choices that tie for the highest probability; empty if there is no tie.
        context_cut: whether the context was cut to the longest input of the student.
    """

    choice: int
    text: str
    probabilities: tuple[float, ...]
    tied: tuple[int, ...] = ()
    context_cut: bool = False

    @property
    def probability(self) -> float:
        """The probability of the choice."""
        return self.probabilities[self.choice]


class LoadedStudent:
    """A trained student that answers questions and explains its answers.

    It takes the choice with the highest log-likelihood. With `student.layout: cloze`, where the prompt does not list
    the choices, this is the mean per token, because the total is lower for long choices.

    Attributes:
        identity: the checksum of its files.
        folder: the folder that it was loaded from.
    """

    def __init__(self, runtime: Runtime, identity: str = "", folder: Path | None = None) -> None:
        self._runtime = runtime
        self.identity = identity
        self.folder = folder

    @property
    def runtime(self) -> str:
        """The program that computes the student: `torch`, or the program of an export."""
        return self._runtime.name

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers in whose style it writes rationales."""
        return self._runtime.card.teachers

    @overload
    def choose(self, question: str, choices: Sequence[str], context: str | None = None) -> Chosen: ...
    @overload
    def choose(
        self, question: list[str], choices: Sequence[Sequence[str]], context: Sequence[str | None] | None = None
    ) -> list[Chosen]: ...
    def choose(
        self,
        question: str | list[str],
        choices: Sequence[str] | Sequence[Sequence[str]],
        context: str | Sequence[str | None] | None = None,
    ) -> Chosen | list[Chosen]:
        """Answer a question, or a list of questions. A list is several times faster than one question after the other.

        Args:
            question: the question, or a list of questions.
            choices: the choices of the question; for a list of questions, a list of choices for each.
            context: a text that the question is about; for a list of questions, one text or None for each.

        Raises:
            DataError: a question has no text, too few choices, or choices that have the same tokens.
        """
        asked = _questions(question, choices, context)
        found = self.answers(asked)
        _raise_problems(found)
        chosen = [f for f in found if isinstance(f, Chosen)]
        return chosen[0] if isinstance(question, str) else chosen

    @overload
    def explain(
        self, question: str, choices: Sequence[str], context: str | None = None, *, teacher: str | None = None
    ) -> dict[str, str]: ...
    @overload
    def explain(
        self,
        question: list[str],
        choices: Sequence[Sequence[str]],
        context: Sequence[str | None] | None = None,
        *,
        teacher: str | None = None,
    ) -> list[dict[str, str]]: ...
    def explain(
        self,
        question: str | list[str],
        choices: Sequence[str] | Sequence[Sequence[str]],
        context: str | Sequence[str | None] | None = None,
        *,
        teacher: str | None = None,
    ) -> dict[str, str] | list[dict[str, str]]:
        """Return a rationale in the style of each teacher, by name.

        Args:
            question, choices, context: as in `choose`.
            teacher: write in the style of this teacher only.

        Raises:
            DataError: as in `choose`; or the student was not trained on rationales of this teacher.
        """
        asked = _questions(question, choices, context)
        _raise_problems(self._problems(asked)[0])
        written = self.rationales(asked, self.styles(teacher))
        return written[0] if isinstance(question, str) else written

    def styles(self, teacher: str | None = None) -> tuple[str, ...]:
        """Return the teachers in whose style rationales are written: all of them, or the named one.

        Raises:
            DataError: the student was not trained on rationales, or not on those of this teacher.
        """
        known = self.teachers
        if not known:
            raise DataError(
                "This student cannot explain its answers, because it was trained without rationales, which "
                "`train.method: auto` may choose. Ask it without `explain`, or train it with `train.method: tinyllm`.",
                page="training.md#methods",
            )
        if teacher is not None and teacher not in known:
            raise DataError(
                f"The student was not trained on rationales of a teacher '{teacher}'.{did_you_mean(teacher, known)} "
                f"Known: {', '.join(known)}."
            )
        return known if teacher is None else (teacher,)

    def answers(
        self, questions: Sequence[Question], progress: Callable[[int, int, str], None] | None = None
    ) -> list[Chosen | str]:
        """Return the answer to each question, or a message if the student cannot be asked the question.

        Args:
            progress: called with the number of questions done, their number, and a note.
        """
        problems, cut = self._problems(questions)
        sound = [q for q, problem in zip(questions, problems, strict=True) if problem is None]
        scores = iter(self._runtime.scores(sound, progress or _silent) if sound else ())
        card = self._runtime.card
        found: list[Chosen | str] = []
        for place, (question, problem) in enumerate(zip(questions, problems, strict=True)):
            if problem is not None:
                found.append(problem)
                continue
            ranked = next(scores).ranking(card.layout)
            best = leaders(ranked)
            found.append(
                Chosen(
                    choice=best[0],
                    text=question.choices[best[0]],
                    probabilities=probabilities(ranked, card.temperature),
                    tied=best if len(best) > 1 else (),
                    context_cut=place in cut,
                )
            )
        return found

    def rationales(
        self,
        questions: Sequence[Question],
        teachers: Sequence[str],
        max_tokens: int = _RATIONALE_TOKENS,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> list[dict[str, str]]:
        """Return the rationales for each question, by teacher.

        Args:
            questions: questions that `answers` has answered.
            teachers: names from `styles`.
            max_tokens: length of the longest rationale, in tokens of the student.
            progress: called with the number of texts that are written, their number, and a note.
        """
        by_teacher: dict[str, list[str]] = {}
        total = len(questions) * len(teachers)
        for teacher in teachers if questions else ():
            before = len(questions) * len(by_teacher)

            def count(done: int, _: int, note: str, before: int = before) -> None:
                (progress or _silent)(before + done, total, note)

            by_teacher[teacher] = self._runtime.texts(questions, teacher, max_tokens, count)
        return [{t: texts[place] for t, texts in by_teacher.items()} for place in range(len(questions))]

    def usage(self, question: Question, teacher: str | None, text: str) -> dict[str, int]:
        """Return the number of tokens in a question and in the reply `text`, as chat completions name them."""
        encoder, card = self._runtime.encoder, self._runtime.card
        prompt = len(encoder.generation_prompt(question, card.prefixes[teacher or ANSWER_TASK]))
        said = encoder.answer_length(text)
        return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}

    def _problems(self, questions: Sequence[Question]) -> tuple[list[str | None], set[int]]:
        """Return a message for each question that cannot be asked (else None), and the places of cut contexts."""
        encoder = self._runtime.encoder
        found = [_problem(q) for q in questions]
        numbered = [replace(q, id=str(n)) for n, q in enumerate(questions) if found[n] is None]
        fit = encoder.fit(numbered, self._runtime.card.prefixes.values())
        for place, tokens in fit.too_long.items():
            found[int(place)] = (
                f"The question has {tokens} tokens with its choices; the student takes at most "
                f"{encoder.max_input_tokens}. Shorten it."
            )
        for question in numbered:
            if found[int(question.id)] is None and (alike := encoder.indistinct(question.choices)):
                found[int(question.id)] = f"The student cannot choose: {alike}. Use other words for the choices."
        return found, set(map(int, fit.cut))


def load(folder: str | Path) -> LoadedStudent:
    """Load a trained student.

        student = tinyllm.load("runs/my")
        student.choose("What does a thermometer measure?", ["mass", "temperature", "time"]).text

    Args:
        folder: the folder of a run, of its student, or of an export.

    Raises:
        RunFolderError: the folder does not exist.
        StudentError: the folder holds no student, or the checksum of a file is wrong.
    """
    folder = Path(folder)
    RunFolderError.check(folder)
    # `predict` checks its files before it waits for torch.
    from tinyllm.export import open_export
    from tinyllm.student.model import student_folder

    folder = student_folder(folder)
    return LoadedStudent(open_export(folder), folder_checksum(folder) or "", folder)


def _silent(done: int, total: int, note: str) -> None:
    """Report no progress."""


def _questions(
    question: str | list[str],
    choices: Sequence[str] | Sequence[Sequence[str]],
    context: str | Sequence[str | None] | None,
) -> list[Question]:
    texts = [question] if isinstance(question, str) else question
    listed: Sequence[Any] = [choices] if isinstance(question, str) else choices
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"A question must be a text, and several a list of texts; got {_shown([repr(question)])}.")
    contexts = [context] if isinstance(context, str) else context or [None] * len(texts)
    if any(isinstance(of, str) for of in listed):
        raise DataError(
            "The choices of a question must be a list of texts, got one text. Write them as a list; for several "
            "questions, as a list of such lists."
        )
    if not all(isinstance(choice, str) for of in listed for choice in of):
        raise DataError(f"Choices must be texts, got {_shown(list(map(repr, listed)))}.")
    if not len(texts) == len(listed) == len(contexts):
        beside = f" and {len(contexts)} contexts" if context else ""
        raise DataError(
            f"Each question needs one list of choices, and one context if there are contexts. Got {len(texts)} "
            f"questions, {len(listed)} lists of choices{beside}."
        )
    return [
        Question(f"asked-{n}", text, tuple(of), None, about)
        for n, (text, of, about) in enumerate(zip(texts, listed, contexts, strict=True))
    ]


def _problem(question: Question) -> str | None:
    choices = [c.strip() for c in question.choices]
    if not question.question.strip():
        return "The question is empty."
    if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
        return f"A question needs two or more different choices that are not empty, got {_shown(choices)}."
    return None


def _shown(choices: Sequence[str]) -> str:
    few = [c if len(c) <= 40 else f"{c[:39]}…" for c in choices[:8]]
    return f"{few}" if len(choices) <= len(few) else f"{few} and {len(choices) - len(few)} more"


def _raise_problems(found: Sequence[object]) -> None:
    """Raise one error with all messages about the questions, if there are any."""
    problems = {n: f for n, f in enumerate(found) if isinstance(f, str)}
    if not problems:
        return
    if len(found) == 1:
        raise DataError(problems[0])
    listed = "\n".join(f"  - question {n}: {p}" for n, p in list(problems.items())[:10])
    more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
    raise DataError(f"{len(problems)} of {len(found)} questions cannot be asked (counted from 0):\n{listed}{more}")
