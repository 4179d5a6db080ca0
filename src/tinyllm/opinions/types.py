"""The type of an opinion."""

from __future__ import annotations

from dataclasses import dataclass

from tinyllm.config import Way


@dataclass(frozen=True, slots=True)
class Opinion:
    """One teacher's own answer to one question.

    Attributes:
        probabilities: one per choice, in the order of the question. Their sum is 1.
        way: how the teacher was asked.
        orders: number of replies that are combined. Each reply saw the choices in some order.
        mass: mean probability that fell on the letters of the choices; None if it is not known. A small mass means that
            the teacher did not understand that it should answer with a letter.
    """

    question_id: str
    teacher: str
    probabilities: tuple[float, ...]
    way: Way
    orders: int
    mass: float | None = None
