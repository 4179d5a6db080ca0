"""BM25: which of many texts are nearest to a text, by the words they share. An inverted index in numpy arrays.

BM25 (Robertson and Zaragoza, 2009) with k1 = 1.2 and b = 0.75, the constants that Lucene has for any text, and
Lucene's idf, ln(1 + (N - n + ½) / (n + ½)), which is positive for a word that every text has.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_K1 = 1.2  # how soon the repetition of a word stops counting
_B = 0.75  # how much a long text has to pay for its length
_WORD = re.compile(r"\w+")
_FIRST = 64  # places that are sorted at first; as more are asked for, four times as many


class Bm25:
    """An index of texts, made once, for any number of queries. It keeps words and numbers, not the texts.

    A text is known by its place, from 0. About 8 bytes for each different word of each text, and the vocabulary.

    Args:
        texts: read once, one after the other.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._numbers: dict[str, int] = {}
        terms, repeats, distinct = array("I"), array("I"), array("I")
        for text in texts:
            words = Counter(_words(text))
            terms.extend([self._numbers.setdefault(word, len(self._numbers)) for word in words])
            repeats.extend(words.values())
            distinct.append(len(words))
        self._length = len(distinct)
        self._weigh(terms, repeats, distinct)

    def _weigh(self, terms: array[int], repeats: array[int], distinct: array[int]) -> None:
        """Turn what was read, text by text, into postings, term by term.

        Args:
            terms: numbers of the different words of the first text, then of the second, and so on.
            repeats: how often each of them stands in its text.
            distinct: how many of them belong to each text.
        """
        import numpy as np

        term, repeat = np.array(terms, np.int32), np.array(repeats, np.float32)
        place = np.repeat(np.arange(self._length, dtype=np.int32), np.array(distinct, np.int32))
        length = np.bincount(place, repeat, minlength=self._length).astype(np.float32)
        burden = _K1 * (1 - _B + _B * length / max(1.0, float(length.sum()) / max(1, self._length)))
        containing = np.bincount(term, minlength=len(self._numbers))
        idf = np.log1p((self._length - containing + 0.5) / (containing + 0.5)).astype(np.float32)
        weight = idf[term] * repeat * (_K1 + 1) / (repeat + burden[place])

        # The postings of term t: _places and _weights from _starts[t] up to _starts[t + 1], by place.
        by_term = np.argsort(term, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(containing)])
        self._places, self._weights, self._idf = place[by_term], weight[by_term], idf

    def __len__(self) -> int:
        return self._length

    def scores(self, text: str) -> NDArray[np.float32]:
        """Return the score of every text, by place; 0 where no word is shared.

        A word that the query repeats counts as often. So the score of several queries in one text is the sum of
        their scores.
        """
        import numpy as np

        scores = np.zeros(self._length, np.float32)
        for word, times in Counter(_words(text)).items():
            number = self._numbers.get(word)
            if number is not None:
                postings = slice(self._starts[number], self._starts[number + 1])
                scores[self._places[postings]] += times * self._weights[postings]  # a place stands there once
        return scores

    def top(self, text: str, k: int, without: Container[int] = ()) -> list[int]:
        """Return the places of the `k` nearest texts, the nearest first, leaving some places out."""
        return list(islice((place for place in ranked(self.scores(text)) if place not in without), k))

    def vector(self, text: str) -> dict[str, float]:
        """Return a text's tf-idf weight of each word that the index knows, as a vector of length 1."""
        counts = Counter(word for word in _words(text) if word in self._numbers)
        weights = {word: times * float(self._idf[self._numbers[word]]) for word, times in counts.items()}
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {word: weight / length for word, weight in weights.items()}


def ranked(scores: NDArray[np.float32]) -> Iterator[int]:
    """Yield places from the highest score on, equals by place; sorted only as far as they are asked for."""
    done, wanted = 0, _FIRST
    while done < len(scores):
        yield from _highest(scores, wanted)[done:]
        done, wanted = wanted, 4 * wanted


def _highest(scores: NDArray[np.float32], k: int) -> list[int]:
    import numpy as np

    k = min(k, len(scores))
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)[: k - len(above)]
    places = np.concatenate([above[np.argsort(-scores[above], kind="stable")], equal])
    return [int(place) for place in places]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
