"""The words of a text, to compare texts: runs of letters and digits, or pairs of characters where nothing parts words.

Chinese and Japanese have no spaces between words. Their texts are compared by pairs of neighbouring characters, as in
Lucene's `CJKAnalyzer`.
"""

from __future__ import annotations

import re
from itertools import pairwise

from tinyllm.questions.types import Question

_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = re.compile("[\\s.,;:!?¿¡…\"'“”‘’„«»()\\[\\]。，、；：！？（）「」『』]+")
_WORD = re.compile(r"\w+")
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_RUN = re.compile(f"[{_UNSPACED}]+|[^\\W{_UNSPACED}]+")


def unpunctuated(text: str) -> str:
    """Return a text without differences of case, white space and the marks of sentences. Those of formulas stay.

    A text that is nothing else stays as it is.
    """
    return _MARKS.sub(" ", text.casefold()).strip() or text


def texts_of(question: Question) -> tuple[str, ...]:
    """Return context, question and sorted choices, `unpunctuated`: the same for questions that are repeated."""
    context, asked, *choices = map(unpunctuated, (question.context or "", question.question, *question.choices))
    return context, asked, *sorted(choices)


def words_of(text: str) -> list[str]:
    """Return the words of a text in their order, without differences of case."""
    folded = text.casefold()
    if _HAS_UNSPACED.search(folded) is None:
        return _WORD.findall(folded)
    words: list[str] = []
    for run in _RUN.findall(folded):
        pairs = len(run) > 1 and _HAS_UNSPACED.match(run)
        words += ["".join(pair) for pair in pairwise(run)] if pairs else [run]
    return words
