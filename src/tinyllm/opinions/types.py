"""What an opinion is, apart from how it is made."""

from __future__ import annotations

from dataclasses import dataclass

from tinyllm.config import Way


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one teacher would answer to one question.

    Attributes:
        probabilities: of each choice, in the question's own order; their sum is 1.
        orders: replies that it is made of, each to the choices in some order.
        mass: the mean share of all probability that fell on the choices' letters; None where that is not known. A small
            one says that the teacher did not take the question for one to be answered with a letter.
    """

    question_id: str
    teacher: str
    probabilities: tuple[float, ...]
    way: Way
    orders: int
    mass: float | None = None
