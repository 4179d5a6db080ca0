"""BM25: find the texts that are most similar to a text, by the words they share. An inverted index in numpy arrays.

BM25 (Robertson and Zaragoza, 2009) with Lucene's constants k1 = 1.2 and b = 0.75, and with Lucene's idf,
ln(1 + (N - n + ½) / (n + ½)), which is positive even for a word that is in every text.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tinyllm.questions._words import words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_K1 = 1.2  # saturation: with a larger value, repetitions of a word count more
_B = 0.75  # length normalisation: 0 none, 1 full
_FIRST = 64  # places that are sorted first; each time more are needed, four times as many


class Bm25:
    """An index of texts for any number of queries. It stores words and numbers, not the texts.

    A text is identified by its place, from 0. The index takes about 8 bytes for each different word of each text, plus
    the vocabulary.

    Args:
        texts: read once, one after the other.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        import numpy as np

        self._numbers: dict[str, int] = {}
        # For each text: the numbers of its different words, how often it has each of them, and how many there are.
        terms, repeats, distinct = array("I"), array("I"), array("I")
        for text in texts:
            words = Counter(words_of(text))
            terms.extend([self._numbers.setdefault(word, len(self._numbers)) for word in words])
            repeats.extend(words.values())
            distinct.append(len(words))
        count = self._length = len(distinct)
        term, repeat = np.array(terms, np.int32), np.array(repeats, np.float32)
        place = np.repeat(np.arange(count, dtype=np.int32), np.array(distinct, np.int32))
        length = np.bincount(place, repeat, minlength=count).astype(np.float32)
        saturation = _K1 * (1 - _B + _B * length / max(1.0, float(length.sum()) / max(1, count)))
        containing = np.bincount(term, minlength=len(self._numbers))
        self._idf = np.log1p((count - containing + 0.5) / (containing + 0.5)).astype(np.float32)
        weight = self._idf[term] * repeat * (_K1 + 1) / (repeat + saturation[place])

        # The postings of term t: _places and _weights from _starts[t] up to _starts[t + 1], by place.
        by_term = np.argsort(term, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(containing)])
        self._places, self._weights = place[by_term], weight[by_term]

    def scores(self, text: str) -> NDArray[np.float32]:
        """Return the score of every text, by place; 0 where no word is shared.

        A word counts as often as the query has it. So the score of two joined queries is the sum of their scores.
        """
        import numpy as np

        scores = np.zeros(self._length, np.float32)
        for word, times in Counter(words_of(text)).items():
            number = self._numbers.get(word)
            if number is not None:
                postings = slice(self._starts[number], self._starts[number + 1])
                scores[self._places[postings]] += times * self._weights[postings]  # each place occurs once
        return scores

    def nearest(self, text: str) -> Iterator[int]:
        """Yield the places of all texts, the most similar first. Only as many as are needed are sorted."""
        return _ranked(self.scores(text))

    def vector(self, text: str) -> dict[str, float]:
        """Return the tf-idf vector of a text, normalised to length 1, over the words that the index knows."""
        counts = Counter(word for word in words_of(text) if word in self._numbers)
        weights = {word: times * float(self._idf[self._numbers[word]]) for word, times in counts.items()}
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {word: weight / length for word, weight in weights.items()}


def _ranked(scores: NDArray[np.float32]) -> Iterator[int]:
    """Yield places by descending score, equal scores by place."""
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
