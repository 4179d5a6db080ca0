"""Runtimes: what computes a student. Each ranks choices by the same scores, so each gives the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tinyllm.questions.types import Question
from tinyllm.scoring._passes import Progress, generate_texts, silence
from tinyllm.scoring.predictions import OptionScores
from tinyllm.scoring.score import score_options
from tinyllm.student.encode import Encoder
from tinyllm.student.model import Student, StudentCard


class Runtime(Protocol):
    """A student that is loaded, in any program that can compute it. Calls come one at a time.

    `progress` is called with the number of questions done, their number in all, and a note.
    """

    name: str
    card: StudentCard
    encoder: Encoder

    def scores(self, questions: Sequence[Question], progress: Progress = silence) -> list[OptionScores]:
        """Return the log-likelihoods of every choice of every question."""
        ...

    def texts(
        self, questions: Sequence[Question], teacher: str, max_new_tokens: int, progress: Progress = silence
    ) -> list[str]:
        """Return what the student writes for each question in a teacher's manner."""
        ...


class TorchRuntime:
    """A student computed by torch, as in training and evaluation."""

    name = "torch"

    def __init__(self, student: Student, *, batch_tokens: int = 4096) -> None:
        self.card = student.card
        self.encoder = student.encoder()
        self._student = student
        self._learner = student.learner(learns=False)
        self._batch_tokens = batch_tokens

    def scores(self, questions: Sequence[Question], progress: Progress = silence) -> list[OptionScores]:
        """Return the scores; questions are batched by length, and choices share one pass over their prompt."""
        return score_options(
            self._student, self._learner, questions, batch_tokens=self._batch_tokens, progress=progress
        )

    def texts(
        self, questions: Sequence[Question], teacher: str, max_new_tokens: int, progress: Progress = silence
    ) -> list[str]:
        """Return the texts; they are written in batches where each is what the student writes alone."""
        return generate_texts(
            self._student, questions, task=teacher, max_new_tokens=max_new_tokens, batch_tokens=self._batch_tokens,
            progress=progress,
        )  # fmt: skip
