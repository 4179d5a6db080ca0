"""Views of a question that show what an accuracy rests on: asked with its choices moved, or without the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from tinyllm.questions.types import Question

View = Literal["asked", "rotated", "choices-only"]
_T = TypeVar("_T")


def viewed(question: Question, view: View) -> Question:
    """Return the question as a view asks it.

    `rotated`: every choice one place further up, the first one last. `choices-only`: without question and context.
    """
    if view == "rotated":
        choices = (*question.choices[1:], question.choices[0])
        return replace(question, choices=choices, answer=(question.known_answer - 1) % len(choices))
    return question if view == "asked" else replace(question, question="", context=None)


def unrotated(values: Sequence[_T], view: View) -> tuple[_T, ...]:
    """Bring what belongs to a view's choices back to the order of the question's own."""
    return (values[-1], *values[:-1]) if view == "rotated" else tuple(values)
