"""Views: other ways to ask a question, which show where an accuracy comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from tinyllm.questions.types import Question
from tinyllm.scoring.predictions import View

_T = TypeVar("_T")


def viewed(question: Question, view: View) -> Question:
    """Return the question as a view asks it.

    `rotated` moves each choice one place up, and the first one to the end. `choices-only` removes question and context.
    """
    if view == "rotated":
        choices = (*question.choices[1:], question.choices[0])
        return replace(question, choices=choices, answer=(question.known_answer - 1) % len(choices))
    return question if view == "asked" else replace(question, question="", context=None)


def unrotated(values: Sequence[_T], view: View) -> tuple[_T, ...]:
    """Return the values of a view's choices in the order of the original choices."""
    return (values[-1], *values[:-1]) if view == "rotated" else tuple(values)
