"""From a question file of any shape to a reading that is proven on its rows; for `tinyllm init`.

    _shapes      a path → tables of rows: what the bytes are (compression, encoding, separator, sheets, splits)
    _understand  rows → which column is what, and how the answer is given, with the proof
    _reading     a proven reading → questions

A run never guesses: it reads what `init` has written down. `predict` reads a file as `init` does.
"""

from tinyllm.questions.intake._find import FEW, Found, Tally, every_row, find_reading, in_place, questions_of, record
from tinyllm.questions.intake._names import has_role
from tinyllm.questions.intake._types import Wishes

__all__ = [
    "FEW",
    "Found",
    "Tally",
    "Wishes",
    "every_row",
    "find_reading",
    "has_role",
    "in_place",
    "questions_of",
    "record",
]
