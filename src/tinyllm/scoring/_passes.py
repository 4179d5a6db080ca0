"""Passes of a student over rows and prompts: log-likelihoods of targets, and texts that it writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from tinyllm.config import ANSWER_TASK
from tinyllm.questions import Question
from tinyllm.student import to_device
from tinyllm.student.encode import Row
from tinyllm.student.generation import written_on
from tinyllm.student.learner import Learner
from tinyllm.student.model import Student
from tinyllm.student.plan import cut

Progress = Callable[[int, int, str], None]
"""Called with the number of questions done, their number in all, and a note."""

_CPU_TOKENS = 512  # in a pass that ranks choices; on a CPU more are no faster, and nothing is seen meanwhile
_LABEL_TOKENS = 8  # added to the longest choice: for its label and marks, and to see that a text goes on


def silence(done: int, total: int, note: str) -> None:
    """Report no progress."""


class BranchScore(NamedTuple):
    """The log-likelihood of a branch's target, that of its last token, and its number of tokens."""

    total: float
    last: float
    tokens: int


@torch.no_grad()
def branch_scores(
    learner: Learner, rows: Sequence[Sequence[Row]], batch_tokens: int, progress: Progress = silence, note: str = ""
) -> list[dict[str, BranchScore]]:
    """Return the log-likelihood of each branch by task, for the rows of each question. Sums are in float64."""
    learner.eval()
    found: list[dict[str, BranchScore]] = [{} for _ in rows]
    # Several splits can hold the same id, so a row is named by the position of its question.
    flat = [replace(row, question_id=str(place)) for place, of in enumerate(rows) for row in of]
    weights = [tuple(1.0 for _ in row.branches) for row in flat]
    progress(0, len(rows), note)
    done = 0
    if learner.device.type == "cpu":
        batch_tokens = min(batch_tokens, _CPU_TOKENS)
    for micro in cut(flat, weights, learner.shape(batch_tokens)):
        batch = to_device(learner.collate(micro, ()), learner.device)
        _, losses = learner(batch)
        each, start = losses.tolist(), 0
        for row in micro.rows:
            for branch in row.branches:
                own = each[start : start + len(branch.target)]
                start += len(branch.target)
                score = BranchScore(-math.fsum(own), -own[-1] if own else 0.0, len(own))
                found[int(row.question_id)][branch.task] = score
        done += len(micro.rows)
        progress(done * len(rows) // len(flat), len(rows), note)
    return found


def reasons_for(
    student: Student, questions: Sequence[Question], *, batch_tokens: int = 4096, progress: Progress = silence
) -> list[str]:
    """Return the rationale that the student writes before it answers; empty texts where it answers at once."""
    card = student.card
    if not card.reasons_as:
        return [""] * len(questions)
    return generate_texts(
        student, questions, task=card.reasons_as,
        max_new_tokens=card.max_rationale_tokens, batch_tokens=batch_tokens, progress=progress,
    )  # fmt: skip


@torch.no_grad()
def generate_texts(
    student: Student,
    questions: Sequence[Question],
    *,
    task: str = ANSWER_TASK,
    max_new_tokens: int = 48,
    batch_tokens: int = 4096,
    progress: Progress = silence,
    reasons: Sequence[str] | None = None,
) -> list[str]:
    """Return what the student writes for a task by greedy decoding: its answer, or a rationale like a teacher's.

    A rationale ends where the student goes on with a next prompt.

    Args:
        reasons: rationales that stand in the prompts; None: none.
        max_new_tokens: the longest text. An answer may be longer where a choice of its question is longer.
    """
    student.model.eval()
    encoder = student.encoder()
    read, prefix = reasons or [""] * len(questions), student.card.prefixes[task]
    prompts = [encoder.generation_prompt(q, prefix, reason) for q, reason in zip(questions, read, strict=True)]
    limits = [max_new_tokens] * len(prompts)
    if task == ANSWER_TASK:
        longest = (max(map(encoder.answer_length, q.choices)) for q in questions)
        limits = [max(max_new_tokens, tokens + _LABEL_TOKENS) for tokens in longest]
    texts, done = [""] * len(prompts), 0
    note = "writing answers" if task == ANSWER_TASK else f"writing as {task}"
    progress(0, len(prompts), note)
    card, explains = student.card, task != ANSWER_TASK

    def has_ended(tokens: list[int]) -> bool:
        return explains and card.has_ended(encoder.read(tokens))

    def wrote(texts: float) -> None:
        progress(int(done + texts), len(prompts), note)

    for group in written_on(student, encoder.end, prompts, limits, batch_tokens, has_ended, wrote):
        for place, tokens in group.items():
            text = encoder.read(tokens)
            texts[place] = card.own_rationale(text) if explains else text
        done += len(group)
        progress(done, len(prompts), note)
    return texts
