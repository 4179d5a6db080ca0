"""Overlap of test questions with training or validation questions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tinyllm.questions.types import Question

_WORD = re.compile(r"\w+")
_N = 13  # words in a row, as in the GPT-3 paper


@dataclass(frozen=True, slots=True)
class Overlap:
    """Ids of test questions that overlap with other questions.

    Attributes:
        exact: context, question and choices are the same. Case, spaces and the order of choices are ignored.
        ngram: thirteen words in a row of the question or context are the same, and the question is not in `exact`.
    """

    exact: frozenset[str]
    ngram: frozenset[str]

    @property
    def touched(self) -> frozenset[str]:
        """All test questions that overlap."""
        return self.exact | self.ngram


def overlap(train: Iterable[Question], test: Sequence[Question]) -> Overlap:
    """Find the test questions that overlap with the training questions, or with other questions in their place."""
    wanted = {gram for q in test for gram in _grams(q)}
    whole = {_key(q) for q in test}
    seen_grams: set[tuple[str, ...]] = set()
    seen_whole: set[tuple[str, str, tuple[str, ...]]] = set()
    for question in train:
        seen_grams.update(wanted.intersection(_grams(question)))
        if (key := _key(question)) in whole:
            seen_whole.add(key)
    exact = frozenset(q.id for q in test if _key(q) in seen_whole)
    ngram = frozenset(q.id for q in test if not seen_grams.isdisjoint(_grams(q)))
    return Overlap(exact, ngram - exact)


def _key(question: Question) -> tuple[str, str, tuple[str, ...]]:
    context = _folded(question.context or "")  # text classification asks the same question about many contexts
    return context, _folded(question.question), tuple(sorted(map(_folded, question.choices)))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _grams(question: Question) -> Iterator[tuple[str, ...]]:
    for text in (question.question, question.context or ""):
        words = _WORD.findall(text.casefold())
        for start in range(len(words) - _N + 1):
            yield tuple(words[start : start + _N])
