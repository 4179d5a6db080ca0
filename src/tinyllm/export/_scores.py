"""The scores of choices, from the log-probabilities that a program returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tinyllm.questions.types import Question
from tinyllm.scoring.predictions import OptionScores
from tinyllm.student.encode import Branch


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
