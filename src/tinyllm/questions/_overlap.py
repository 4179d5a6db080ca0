"""Overlap of test questions with training or validation questions. A student may have memorised the answers.

`HeldOut.overlap` finds it between the splits of a dataset, in the usual way. The rest of `HeldOut` is stricter: it
keeps questions of other sources out of training, and warns of a test question that is nearly a training question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tinyllm.questions._words import words_of
from tinyllm.questions.types import Content, Question

_N = 13  # words in a row, as is usual since GPT-3's report
_NEAR = (17, 20)  # of all different words of two questions, so many are in both: one in thirteen may be another
_BOILERPLATE = 20  # words in a row that stand in more than one of so many held-out questions say nothing of one
_SHARED = (20, 2)  # of so many questions or more, a word that stands in more than one of two says nothing of one


@dataclass(frozen=True, slots=True)
class Overlap:
    """Test questions that are also among the training (or validation) questions, by id.

    Attributes:
        exact: context, question and choices are the same. Order, case and white space do not count.
        ngram: the same thirteen words in a row, in question or context. Without those in `exact`.
    """

    exact: frozenset[str]
    ngram: frozenset[str]


class HeldOut:
    """Questions that must not be trained on, such as validation and test questions."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions
        self._whole: dict[Content, list[int]] = {}
        for place, question in enumerate(questions):
            self._whole.setdefault(question.content, []).append(place)
        grams: dict[tuple[str, ...], set[int]] = {}
        for place, question in enumerate(questions):
            for gram in _grams(question):
                grams.setdefault(gram, set()).add(place)
        common = max(10, len(questions) // _BOILERPLATE)
        self._grams = {gram: places for gram, places in grams.items() if len(places) <= common}
        words_of_each = [_words(q) for q in questions]
        self._counts = Counter(word for words in words_of_each for word in words)
        enough, part = _SHARED
        self._shared = {w for w, n in self._counts.items() if n * part > len(questions) >= enough}
        self._words = [words - self._shared for words in words_of_each]
        self._with: dict[str, list[int]] = {}
        for place, words in enumerate(self._words):
            for word in self._rarest(words):
                self._with.setdefault(word, []).append(place)

    def meets(self, question: Question) -> str | None:
        """Return how a question matches a held-out question, such as "the same as a validation or test question".

        Return None if it matches none. "Nearly the same" means: the same thirteen words in a row in question or
        context, or 85 % of the different words of question, context and choices. Words that most held-out questions
        have, such as those of the question where texts are classified, do not count.
        """
        held_out = "as a validation or test question"
        if question.content in self._whole:
            return f"the same {held_out}"
        return f"nearly the same {held_out}" if next(self._near(question), None) is not None else None

    def met(self, questions: Iterable[Question]) -> dict[str, str]:
        """Return the held-out questions that are, exactly or nearly, among these, in their order.

        Returns:
            For the id of each, the id of the first of these that matches it.
        """
        by: dict[int, str] = {}
        for question in questions:
            for place in (*self._whole.get(question.content, ()), *self._near(question)):
                by.setdefault(place, question.id)
        return {self._questions[place].id: by[place] for place in sorted(by)}

    def overlap(self, others: Iterable[Question]) -> Overlap:
        """Find the held-out questions that are also among others, in the usual way: whatever words are shared."""
        wanted = {gram for q in self._questions for gram in _grams(q)}
        seen_grams: set[tuple[str, ...]] = set()
        seen_whole: set[Content] = set()
        for question in others:
            seen_grams.update(wanted.intersection(_grams(question)))
            if (key := question.content) in self._whole:
                seen_whole.add(key)
        exact = frozenset(q.id for q in self._questions if q.content in seen_whole)
        ngram = frozenset(q.id for q in self._questions if not seen_grams.isdisjoint(_grams(q)))
        return Overlap(exact, ngram - exact)

    def _near(self, question: Question) -> Iterator[int]:
        """Yield the places of held-out questions that are nearly the same, some of them twice."""
        for gram in _grams(question):
            yield from self._grams.get(gram, ())
        words = _words(question) - self._shared
        part, of = _NEAR
        for place in {place for word in self._rarest(words) for place in self._with.get(word, ())}:
            other = self._words[place]
            if of * len(words & other) >= part * len(words | other):
                yield place

    def _rarest(self, words: frozenset[str]) -> list[str]:
        """Return enough of the rarest words that two questions with nearly the same words share one of them."""
        part, of = _NEAR
        spare = len(words) - -(-part * len(words) // of)
        return sorted(words, key=lambda word: (self._counts[word], word))[: spare + 1]


def _words(question: Question) -> frozenset[str]:
    texts = (question.question, question.context or "", *question.choices)
    return frozenset(word for text in texts for word in words_of(text))


def _grams(question: Question) -> Iterator[tuple[str, ...]]:
    for text in (question.question, question.context or ""):
        words = words_of(text)
        for start in range(len(words) - _N + 1):
            yield tuple(words[start : start + _N])
