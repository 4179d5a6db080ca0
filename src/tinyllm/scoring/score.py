"""Scoring: rank the choices by likelihood, or let the student write an answer and match it to a choice.

Likelihood always gives a choice. A written answer may match no choice. It then counts as unparsed, and as wrong. The
paper reports written answers. Part of a gain in them can come from learning the format of an answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from tinyllm.config import ANSWER_TASK, EvaluateSection
from tinyllm.errors import NonFiniteLossError
from tinyllm.questions.types import Question
from tinyllm.scoring._matching import Generated, match_choice
from tinyllm.scoring._passes import BranchScore, Progress, branch_scores, generate_texts, reasons_for, silence
from tinyllm.scoring.predictions import OptionScores, Prediction, Stage
from tinyllm.student.encode import Branch
from tinyllm.student.learner import Learner
from tinyllm.student.mixture import Target
from tinyllm.student.model import Student


def arithmetic(learner: Learner, precision: Literal["fp32", "bf16"]) -> torch.autocast:
    """Return a context in which a student answers in this precision. Its weights do not change."""
    return torch.autocast(learner.device.type, torch.bfloat16, enabled=precision == "bf16")


def predict(
    stage: Stage,
    student: Student,
    test: Sequence[Question],
    train: Sequence[Question],
    section: EvaluateSection,
    progress: Progress,
) -> list[Prediction]:
    """Have a student answer questions, by every scorer in `section`.

    Args:
        train: training questions for the report. They are answered by one scorer only.
    """
    tested: list[Prediction] = [Prediction(stage, "test", q) for q in test]
    taught: list[Prediction] = [Prediction(stage, "train", q) for q in train]
    learner = student.learner(learns=False)
    reasons_as = student.card.reasons_as
    with arithmetic(learner, section.precision):
        asked = [p.question for p in (*tested, *taught)]
        reasons = reasons_for(student, asked, batch_tokens=section.batch_tokens, progress=progress)
        if reasons_as:
            for prediction, reason in zip((*tested, *taught), reasons, strict=True):
                prediction.rationales[reasons_as] = reason
        if "likelihood" in section.scorers:
            scores = score_options(
                student, learner, asked, batch_tokens=section.batch_tokens, progress=progress, reasons=reasons
            )
            for prediction, score in zip((*tested, *taught), scores, strict=True):
                prediction.likelihood = score
        if "generation" in section.scorers:
            written = tested if "likelihood" in section.scorers else [*tested, *taught]
            answers = generate_answers(
                student,
                [p.question for p in written],
                max_new_tokens=section.max_new_tokens,
                batch_tokens=section.batch_tokens,
                progress=progress,
                reasons=reasons[: len(written)],
            )
            for prediction, answer in zip(written, answers, strict=True):
                prediction.generation = answer
        shown = [*tested[: section.rationales], *taught[: section.rationales]] if stage == "after" else []
        for teacher in [t for t in student.card.teachers if t != reasons_as] if shown else ():
            texts = generate_texts(
                student,
                [p.question for p in shown],
                task=teacher,
                max_new_tokens=section.max_rationale_tokens,
                batch_tokens=section.batch_tokens,
                progress=progress,
            )
            for prediction, text in zip(shown, texts, strict=True):
                prediction.rationales[teacher] = text
    return [*tested, *taught]


@torch.no_grad()
def score_options(
    student: Student,
    learner: Learner,
    questions: Sequence[Question],
    *,
    batch_tokens: int = 4096,
    progress: Progress = silence,
    reasons: Sequence[str] | None = None,
) -> list[OptionScores]:
    """Return the log-likelihoods of all choices of each question, after the prefix that asks for the answer.

    The choices of a question share one pass over its prompt. Questions are batched by length. Choices with the same
    tokens are scored once, so they tie exactly.

    Args:
        reasons: what the student wrote before (`reasons_for`); None: it writes it now.

    Raises:
        NonFiniteLossError: a score is not a number.
    """
    encoder = student.encoder(share_prompt=learner.share_prompt)
    prefix = student.card.prefixes[ANSWER_TASK]
    if reasons is None:
        reasons = reasons_for(student, questions, batch_tokens=batch_tokens, progress=progress)
    rows = [encoder.options(q, prefix, reason) for q, reason in zip(questions, reasons, strict=True)]
    found = branch_scores(learner, rows, batch_tokens, progress, "ranking choices")
    scores = [
        _option_scores(q, [b for row in of for b in row.branches], those)
        for q, of, those in zip(questions, rows, found, strict=True)
    ]
    if broken := next((q.id for q, of in zip(questions, scores, strict=True) if any(map(math.isnan, of.total))), None):
        raise NonFiniteLossError(
            f"The student's scores of question '{broken}' are not a number: the weights are damaged, or the "
            "arithmetic overflows. Train with a smaller learning rate, or set evaluate.precision to fp32."
        )
    return scores


def _option_scores(question: Question, branches: Sequence[Branch], found: Mapping[str, BranchScore]) -> OptionScores:
    """Return the scores in the order of the choices. One branch can stand for several choices."""
    of_choice = {int(number): found[b.task] for b in branches for number in b.task.split()}
    scores = [of_choice[i] for i in range(len(question.choices))]
    return OptionScores(
        total=tuple(float(np.float32(s.total)) for s in scores),
        mean=tuple(float(np.float32(s.total / s.tokens)) for s in scores),
        unended=tuple(float(np.float32(s.total - s.last)) for s in scores),
        characters=tuple(map(len, question.choices)),
    )


@torch.no_grad()
def score_targets(
    student: Student,
    learner: Learner,
    questions: Sequence[Question],
    targets: Sequence[Target],
    *,
    max_target_tokens: int = 256,
    batch_tokens: int = 4096,
    progress: Progress = silence,
) -> dict[tuple[str, str], float]:
    """Return the mean log-likelihood of a token of each target, by question id and task. The end of text counts.

    Args:
        questions: each must have an id of its own.
    """
    encoder = student.encoder(share_prompt=learner.share_prompt, max_target_tokens=max_target_tokens)
    of_question: dict[str, list[Target]] = {}
    for target in targets:
        of_question.setdefault(target.question_id, []).append(target)
    asked = [q for q in questions if q.id in of_question]
    rows = [encoder.rows(q, of_question[q.id]) for q in asked]
    found = branch_scores(learner, rows, batch_tokens, progress, "reading the rationales")
    return {(q.id, task): s.total / s.tokens for q, of in zip(asked, found, strict=True) for task, s in of.items()}


def generate_answers(
    student: Student,
    questions: Sequence[Question],
    *,
    max_new_tokens: int = 48,
    batch_tokens: int = 4096,
    progress: Progress = silence,
    reasons: Sequence[str] | None = None,
) -> list[Generated]:
    """Return the answers that the student writes by greedy decoding, with the choices that they match.

    Args:
        reasons: as of `score_options`.
    """
    if reasons is None:
        reasons = reasons_for(student, questions, batch_tokens=batch_tokens, progress=progress)
    texts = generate_texts(
        student, questions,
        max_new_tokens=max_new_tokens, batch_tokens=batch_tokens, progress=progress, reasons=reasons,
    )  # fmt: skip
    written = student.encoder().written
    return [match_choice(text, q.choices, written) for text, q in zip(texts, questions, strict=True)]
