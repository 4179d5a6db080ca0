"""Ask: a trained student answers one question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinyllm.config import ANSWER_TASK
from tinyllm.errors import DataError, RunFolderError
from tinyllm.questions.types import Question


@dataclass(frozen=True, slots=True)
class Answered:
    """A student's answer to one question.

    Attributes:
        probabilities: of each choice, from the choices' log-likelihoods (they sum to 1): the totals, or the means a
            token where the student is not shown the choices; at the temperature that validation questions gave.
        rationales: what the student writes in each teacher's manner.
        tied: other choices that the student finds just as likely.
        context_cut: whether the context was cut to fit the longest input.
    """

    choice: int
    text: str
    probabilities: tuple[float, ...]
    rationales: dict[str, str]
    tied: tuple[str, ...] = ()
    context_cut: bool = False


def _check_asked(question: Question) -> None:
    choices = [c.strip() for c in question.choices]
    if not question.question.strip():
        raise DataError("The question is empty.")
    if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
        raise DataError(f"A question needs two or more different choices that are not empty, got {choices}.")


def ask_student(folder: Path, question: Question, *, explain: bool, max_rationale_tokens: int = 96) -> Answered:
    """Ask a trained student one question.

    A student that is not shown the choices goes by the mean log-likelihood a token, which long choices do not lower.

    Args:
        folder: a run folder, or the student's own.
        explain: also have it write a rationale in the manner of each of its teachers.
    """
    from tinyllm.scoring.calibration import probabilities
    from tinyllm.scoring.predictions import leaders
    from tinyllm.scoring.score import generate_texts, score_options
    from tinyllm.student.model import read_student, student_folder

    _check_asked(question)
    if not folder.is_dir():
        raise RunFolderError(f"There is no folder {folder}; give the folder of a run, or of its student.")
    student = read_student(student_folder(folder))
    encoder = student.encoder()
    fit = encoder.fit([question], student.card.prefixes.values())
    if long := fit.too_long:
        raise DataError(
            f"The question has {long[0].tokens} tokens with its choices; the student takes {long[0].allowed}."
        )
    if alike := encoder.indistinct(question.choices):
        raise DataError(f"The student cannot choose: {alike}. Write the choices in other words.")
    longest = max(row.length for row in encoder.options(question, student.card.prefixes[ANSWER_TASK]))
    score = score_options(student, student.learner(longest, learns=False), [question])[0]
    ranked = score.ranking(student.card.layout)
    teachers = student.card.teachers if explain else ()
    rationales = {
        t: generate_texts(student, [question], task=t, max_new_tokens=max_rationale_tokens)[0] for t in teachers
    }
    best, *tied = leaders(ranked)
    shares = probabilities(ranked, student.card.temperature)
    tied_texts = tuple(question.choices[i] for i in tied)
    return Answered(best, question.choices[best], shares, rationales, tied_texts, bool(fit.cut))
