"""Overlap of test and training questions."""

from __future__ import annotations

from tinyllm.comparison._overlap import overlap
from tinyllm.questions import Question

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def question(name, text, choices=("yes", "no"), context=None):
    return Question(name, text, choices, 0, context)


def test_the_same_question_is_found_whatever_its_spaces_and_the_order_of_its_choices():
    train = [question("a", "What  is ICE?"), question("b", "Why?")]
    test = [
        question("t1", "what is ice?", ("No", "yes")),
        question("t2", "what is ice?", ("no", "maybe")),
        question("t3", "Where?"),
    ]
    assert overlap(train, test).exact == {"t1"}
    assert overlap(train, test).touched == {"t1"}


def test_thirteen_words_in_a_row_are_found_in_question_and_context():
    train = [question("a", f"Begin {LONG} end"), question("b", "Why?", context=LONG.upper())]
    test = [
        question("t1", f"Other words, then: {LONG}!"),
        question("t2", "Where?", context=f"so, {LONG}"),
        question("t3", " ".join(LONG.split()[:12])),
    ]
    found = overlap(train, test)
    assert found.ngram == {"t1", "t2"}
    assert not found.exact


def test_an_exact_one_is_counted_once():
    same = question("a", LONG)
    found = overlap([same], [same])
    assert (found.exact, found.ngram) == ({"a"}, frozenset())
