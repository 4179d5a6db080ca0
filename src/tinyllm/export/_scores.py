"""The scores of choices, from the log-probabilities that a program returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from tinyllm.questions.types import Question
from tinyllm.scoring.predictions import OptionScores
from tinyllm.student.encode import Branch

Progress = Callable[[int, int, str], None]
"""As of `Runtime`."""
_Done = TypeVar("_Done")


def silence(done: int, total: int, note: str) -> None:
    """Report no progress."""


def counted(results: Iterable[_Done], total: int, progress: Progress, note: str = "") -> Iterator[_Done]:
    """Yield results, and report the number of each."""
    for number, result in enumerate(results, 1):
        yield result
        progress(number, total, note)


def option_scores(question: Question, scored: Iterable[tuple[Branch, Sequence[float]]]) -> OptionScores:
    """Return the scores of a question's choices. One branch can stand for several choices.

    Args:
        scored: each branch, with the log-probability of each of its tokens.
    """
    of_choice = {int(n): np.asarray(of, np.float64) for branch, of in scored for n in branch.task.split()}
    found = [of_choice[n] for n in range(len(question.choices))]
    return OptionScores(
        total=tuple(float(np.float32(of.sum())) for of in found),
        mean=tuple(float(np.float32(of.mean())) for of in found),
        unended=tuple(float(np.float32(of[:-1].sum())) for of in found),
        characters=tuple(map(len, question.choices)),
    )
