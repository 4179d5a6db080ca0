"""From a question file of any shape to a reading that its rows prove; for `tinyllm init`.

    _shapes      a path → tables of rows: compression, encoding, separator, sheets, splits
    _understand  rows → what each column is, and how the answer is given, with the proof
    _reading     a proven reading → questions

A run never guesses. It reads what `init` wrote down. `predict` reads a file as `init` does.
"""

from tinyllm.questions.intake._find import Found, Tally, find_reading
from tinyllm.questions.intake._reading import Asked
from tinyllm.questions.intake._types import Wishes

__all__ = ["Asked", "Found", "Tally", "Wishes", "find_reading"]
