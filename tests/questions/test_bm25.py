"""The index agrees with the formula, and its order is the same everywhere."""

import math
import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.questions.bm25 import Bm25, _ranked

TEXTS = ["Ice melts in the sun.", "The moon, the moon!", "", "Sun and moon", "ICE melts, ice melts"]
TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "É", "42"]), max_size=8).map(" ".join)


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.casefold()))


def by_the_formula(texts: list[str], query: str) -> list[float]:
    bags = [words(text) for text in texts]
    mean = max(1.0, sum(bag.total() for bag in bags) / len(bags))
    scores = [0.0] * len(texts)
    for word, times in words(query).items():
        containing = sum(word in bag for bag in bags)
        idf = math.log(1 + (len(texts) - containing + 0.5) / (containing + 0.5))
        for place, bag in enumerate(bags):
            burden = 1.2 * (1 - 0.75 + 0.75 * bag.total() / mean)
            scores[place] += times * idf * bag[word] * 2.2 / (bag[word] + burden)
    return scores


@given(st.lists(TEXT, min_size=1, max_size=9), TEXT)
def test_scores_are_bm25(texts, query):
    assert Bm25(iter(texts)).scores(query).tolist() == pytest.approx(by_the_formula(texts, query), rel=1e-5, abs=1e-6)


@given(st.lists(TEXT, min_size=1, max_size=9), TEXT, TEXT)
def test_the_score_of_two_queries_in_one_is_the_sum_of_their_scores(texts, one, other):
    index = Bm25(texts)
    both = index.scores(one) + index.scores(other)
    assert index.scores(f"{one} {other}").tolist() == pytest.approx(both.tolist(), rel=1e-5, abs=1e-6)


@settings(max_examples=60)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 2.5]), max_size=400), st.integers(0, 400))
def test_places_come_by_score_and_equals_by_place(scores, k):
    import numpy as np

    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    places = _ranked(np.array(scores, np.float32))
    assert [next(places) for _ in range(min(k, len(order)))] == order[:k]
    assert list(places) == order[k:]


def nearest(index: Bm25, query: str, count: int) -> list[int]:
    return list(islice(index.nearest(query), count))


def test_the_most_similar_texts_come_first():
    index = Bm25(TEXTS)
    assert nearest(index, "melting ice melts", 2) == [4, 0]
    assert nearest(index, "moon", 9) == [1, 3, 0, 2, 4]
    assert nearest(index, "nothing of it", 2) == [0, 1]


def test_vectors_have_length_one_and_hold_known_words():
    index = Bm25(TEXTS)
    vector = index.vector("The ICE, the ice and a stone")
    assert set(vector) == {"the", "ice", "and"}
    assert math.hypot(*vector.values()) == pytest.approx(1)
    assert vector["ice"] == vector["the"] > vector["and"]  # twice, in two texts each; once, in one
    assert index.vector("stone") == {}


def test_no_texts_and_empty_texts_are_no_trouble():
    assert nearest(Bm25([]), "ice", 3) == []
    assert nearest(Bm25(["", ""]), "ice", 3) == [0, 1]


def test_chinese_texts_are_compared_by_pairs_of_characters():
    index = Bm25(["室温下哪种金属是液体？", "哪种动物是哺乳动物？", "Which metal is liquid?"])
    assert next(iter(index.nearest("在室温下，液体的金属是 H2O 吗？"))) == 0
    assert index.vector("金属 metal").keys() == {"金属", "metal"}
