"""Scoring: rank the choices by likelihood, or generate the answer and match it.

The two differ. Likelihood asks which choice the student finds likeliest, and always gets an answer. Generation asks
what the student writes, and may get nothing that is a choice (counted as unparsed, and wrong). The paper reports the
second; part of a gain in it is the gain of learning the format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from tinyllm.config import ANSWER_TASK, Layout, compares_by_token
from tinyllm.errors import StudentError
from tinyllm.questions.types import Question
from tinyllm.scoring.matching import Generated, match_choice
from tinyllm.student import to_device
from tinyllm.student.encode import Branch, Row
from tinyllm.student.generation import continued, groups_of, within_positions
from tinyllm.student.learner import Learner
from tinyllm.student.mixture import Target
from tinyllm.student.model import Student
from tinyllm.student.plan import cut

Progress = Callable[[int, int, str], None]
"""Called with questions done, questions in all, and a note."""

_LABEL_TOKENS = 8  # beyond the longest choice: for its label, marks around it, and to see that a text goes on


def _silence(done: int, total: int, note: str) -> None:
    """Tell nobody."""


def arithmetic(learner: Learner, precision: Literal["fp32", "bf16"]) -> torch.autocast:
    """Return a context in which a student answers in this precision; its weights stay as they are."""
    return torch.autocast(learner.device.type, torch.bfloat16, enabled=precision == "bf16")


@dataclass(frozen=True, slots=True)
class OptionScores:
    """Log-likelihoods (natural logarithm) of the choices of one question (docs/decisions/0013-scores.md).

    Attributes:
        total: of each choice and the end-of-text token after it: that the student writes this choice and stops.
        mean: the same, divided by the number of tokens with the end-of-text token.
        unended: of each choice without the end-of-text token, as lm-evaluation-harness counts.
        characters: of each choice.
    """

    total: tuple[float, ...]
    mean: tuple[float, ...]
    unended: tuple[float, ...] = ()
    characters: tuple[int, ...] = ()

    @property
    def best(self) -> int:
        """The likeliest choice by `total`; of choices that tie the first."""
        return leaders(self.total)[0]

    @property
    def best_normalised(self) -> int:
        """The likeliest choice by `mean`; of choices that tie the first."""
        return leaders(self.mean)[0]

    @property
    def acc(self) -> int:
        """The choice that lm-evaluation-harness's `acc` takes; of equals the first, as there."""
        return self.unended.index(max(self.unended))

    @property
    def acc_norm(self) -> int:
        """The choice that lm-evaluation-harness's `acc_norm` takes (by character); of equals the first, as there."""
        values = [t / n for t, n in zip(self.unended, self.characters, strict=True)]
        return values.index(max(values))

    def ranking(self, layout: Layout) -> tuple[float, ...]:
        """Return what a student goes by when it is asked or picked, before training and after.

        It is `total` where the choices are in the prompt. A student that is not shown them goes by `mean`, because a
        total falls with every token.
        """
        return self.mean if compares_by_token(layout) else self.total


def leaders(values: Sequence[float]) -> tuple[int, ...]:
    """Return the choices with the highest value: one, or all that tie.

    Scores are float32 numbers, here and in what is kept of them. Those that are equal tie.
    """
    top = max(values)
    return tuple(i for i, v in enumerate(values) if v == top)


def credit(values: Sequence[float], answer: int) -> float:
    """Return the mark for an answer: 1; 1/k where k choices tie and the right one is among them; else 0."""
    best = leaders(values)
    return 1 / len(best) if answer in best else 0.0


@torch.no_grad()
def score_options(
    student: Student,
    learner: Learner,
    questions: Sequence[Question],
    *,
    batch_tokens: int = 4096,
    progress: Progress | None = None,
    reasons: Sequence[str] | None = None,
) -> list[OptionScores]:
    """Return the log-likelihoods of every choice of every question under the answering prefix.

    All choices of a question share one pass over its prompt, and questions are batched by length. Choices of the same
    tokens are scored once, so they tie exactly.

    Args:
        reasons: what the student wrote before (`reasons_for`); None: it writes it now.
    """
    encoder = student.encoder(share_prompt=learner.share_prompt)
    prefix = student.card.prefixes[ANSWER_TASK]
    if reasons is None:
        reasons = reasons_for(student, questions, batch_tokens=batch_tokens, progress=progress)
    rows = [encoder.options(q, prefix, reason) for q, reason in zip(questions, reasons, strict=True)]
    found = branch_scores(learner, rows, batch_tokens, progress or _silence, "ranking the choices")
    scores = [
        _option_scores(q, [b for row in of for b in row.branches], those)
        for q, of, those in zip(questions, rows, found, strict=True)
    ]
    if broken := next((q.id for q, of in zip(questions, scores, strict=True) if any(map(math.isnan, of.total))), None):
        raise StudentError(
            f"The student's scores of question '{broken}' are not a number: its weights are spoilt, or its arithmetic "
            "overflows. Train it with a smaller learning rate, or set evaluate.precision to fp32."
        )
    return scores


def _option_scores(question: Question, branches: Sequence[Branch], found: Mapping[str, BranchScore]) -> OptionScores:
    """Put the scores of a question's branches, each of which stands for one choice or for several, in its order."""
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
    progress: Progress | None = None,
) -> dict[tuple[str, str], float]:
    """Return the mean log-likelihood a token of each target, end-of-text token included, by question id and task.

    Args:
        questions: with ids of their own, as training questions have.
    """
    encoder = student.encoder(share_prompt=learner.share_prompt, max_target_tokens=max_target_tokens)
    of_question: dict[str, list[Target]] = {}
    for target in targets:
        of_question.setdefault(target.question_id, []).append(target)
    asked = [q for q in questions if q.id in of_question]
    rows = [encoder.rows(q, of_question[q.id]) for q in asked]
    found = branch_scores(learner, rows, batch_tokens, progress or _silence, "reading the rationales")
    return {(q.id, task): s.total / s.tokens for q, of in zip(asked, found, strict=True) for task, s in of.items()}


class BranchScore(NamedTuple):
    """Log-likelihood of a branch's target, that of its last token alone, and how many tokens it has."""

    total: float
    last: float
    tokens: int


@torch.no_grad()
def branch_scores(
    learner: Learner,
    rows: Sequence[Sequence[Row]],
    batch_tokens: int,
    tell: Progress = _silence,
    what: str = "",
) -> list[dict[str, BranchScore]]:
    """Return, for the rows of each question, the log-likelihood of each branch, by task; sums are in float64."""
    learner.eval()
    found: list[dict[str, BranchScore]] = [{} for _ in rows]
    # Ids need not be unique here (several splits at once), so a row is named by its question's place.
    flat = [replace(row, question_id=str(place)) for place, of in enumerate(rows) for row in of]
    weights = [tuple(1.0 for _ in row.branches) for row in flat]
    tell(0, len(rows), what)
    done = 0
    for micro in cut(flat, weights, learner.shape(batch_tokens)):
        batch = to_device(learner.collate(micro, ()), learner.device)
        _, losses = learner(batch)
        each, start = losses.tolist(), 0
        for row in micro.rows:
            for branch in row.branches:
                own = each[start : start + len(branch.target)]
                start += len(branch.target)
                found[int(row.question_id)][branch.task] = BranchScore(
                    -math.fsum(own), -own[-1] if own else 0.0, len(own)
                )
        done += len(micro.rows)
        tell(done * len(rows) // len(flat), len(rows), what)
    return found


def reasons_for(
    student: Student, questions: Sequence[Question], *, batch_tokens: int = 4096, progress: Progress | None = None
) -> list[str]:
    """Return the rationale that the student writes before it answers; empty texts where it answers at once."""
    card = student.card
    if not card.reasons_as:
        return [""] * len(questions)
    return generate_texts(
        student, questions, task=card.reasons_as,
        max_new_tokens=card.max_rationale_tokens, batch_tokens=batch_tokens, progress=progress,
    )  # fmt: skip


def generate_answers(
    student: Student,
    questions: Sequence[Question],
    *,
    max_new_tokens: int = 48,
    batch_tokens: int = 4096,
    progress: Progress | None = None,
    reasons: Sequence[str] | None = None,
) -> list[Generated]:
    """Return what the student writes as its answers, greedily, and which choices these are.

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


@torch.no_grad()
def generate_texts(
    student: Student,
    questions: Sequence[Question],
    *,
    task: str = ANSWER_TASK,
    max_new_tokens: int = 48,
    batch_tokens: int = 4096,
    progress: Progress | None = None,
    reasons: Sequence[str] | None = None,
) -> list[str]:
    """Return what the student writes for one task, greedily: its answer, or a rationale in a teacher's manner.

    Args:
        reasons: rationales that stand in the prompts; None: none.
        max_new_tokens: longest text; an answer may be longer where one of the question's choices is.
    """
    student.model.eval()
    encoder = student.encoder()
    read, prefix = reasons or [""] * len(questions), student.card.prefixes[task]
    prompts = [encoder.generation_prompt(q, prefix, reason) for q, reason in zip(questions, read, strict=True)]
    limits = [max_new_tokens] * len(prompts)
    if task == ANSWER_TASK:
        longest = (max(map(encoder.answer_length, q.choices)) for q in questions)
        limits = [max(max_new_tokens, tokens + _LABEL_TOKENS) for tokens in longest]
    limits = within_positions(student, prompts, limits)
    groups = groups_of(student, encoder.end, prompts, limits, batch_tokens)
    texts, done = [""] * len(prompts), 0
    tell, what = progress or _silence, "writing answers" if task == ANSWER_TASK else f"writing as {task}"
    tell(0, len(prompts), what)
    for group in groups:
        output = continued(student, encoder.end, [prompts[i] for i in group], max(limits[i] for i in group))
        # Where a text may end is up to its own question, not to those beside it.
        for i, tokens in zip(group, output, strict=True):
            texts[i] = encoder.read(tokens[: limits[i]])
        done += len(group)
        tell(done, len(prompts), what)
    return texts
