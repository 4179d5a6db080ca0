"""Overlap of test and training questions."""

from __future__ import annotations

import random

from tinyllm.questions import Question
from tinyllm.questions._overlap import HeldOut

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
SAME = "the same as a validation or test question"


def question(name, text, choices=("yes", "no"), context=None):
    return Question(name, text, choices, 0, context)


def test_the_same_question_is_found_whatever_its_spaces_and_the_order_of_its_choices():
    train = [question("a", "What  is ICE?"), question("b", "Why?")]
    test = [
        question("t1", "what is ice?", ("No", "yes")),
        question("t2", "what is ice?", ("no", "maybe")),
        question("t3", "Where?"),
    ]
    assert HeldOut(test).overlap(train).exact == {"t1"}
    assert not HeldOut(test).overlap(train).ngram


def test_thirteen_words_in_a_row_are_found_in_question_and_context():
    train = [question("a", f"Begin {LONG} end"), question("b", "Why?", context=LONG.upper())]
    test = [
        question("t1", f"Other words, then: {LONG}!"),
        question("t2", "Where?", context=f"so, {LONG}"),
        question("t3", " ".join(LONG.split()[:12])),
    ]
    found = HeldOut(test).overlap(train)
    assert found.ngram == {"t1", "t2"}
    assert not found.exact


def test_an_exact_one_is_counted_once():
    same = question("a", LONG)
    found = HeldOut([same]).overlap([same])
    assert (found.exact, found.ngram) == ({"a"}, frozenset())


ICE = "When water freezes in a river in winter, which property of the ice lets it float on top?"
FLOATS = ("its density", "its colour", "its hardness", "its taste")


def test_a_question_that_is_held_out_is_found_nearly_the_same():
    out = HeldOut([question("t1", ICE, FLOATS), question("t2", "Why?", ("a", "b")), question("t3", LONG, ("p", "q"))])
    assert out.meets(question("m", ICE.upper() + " ", FLOATS[::-1])) == SAME
    assert out.meets(question("m", ICE.replace("river", "lake"), FLOATS)) == f"nearly {SAME}"  # one word of 22
    assert out.meets(question("m", ICE.replace("?", ""), (*FLOATS[:3], "its flavour"))) == f"nearly {SAME}"
    assert out.meets(question("m", f"Begin {LONG} end", ("x", "y"))) == f"nearly {SAME}"
    assert out.meets(question("m", "Which property of a river makes it dangerous in winter?", FLOATS)) is None
    assert out.meets(question("m", "Why not?", ("c", "d"))) is None


def test_every_near_question_is_found_as_by_comparing_all():
    draw = random.Random(0)
    words = [f"w{i}" for i in range(60)]
    held = [question(f"t{i}", " ".join(draw.choices(words, k=draw.randrange(2, 12)))) for i in range(150)]
    out, near = HeldOut(held), 0
    for number in range(300):
        text = held[draw.randrange(150)].question.split()
        for _ in range(draw.randrange(3)):
            text[draw.randrange(len(text))] = draw.choice(words)
        asked = question(f"m{number}", " ".join(text))
        sets = [(set(q.question.split()), set(text)) for q in held]  # all have the choices, so these do not count
        expected = any(len(a & b) / len(a | b) >= 0.85 for a, b in sets)
        assert (out.meets(asked) is not None) == expected
        near += out.meets(asked) == f"nearly {SAME}"
    assert near > 5


def test_words_that_all_questions_have_in_common_are_not_held_against_one():
    shown = "Read the following sentence with care and then say which of the classes it belongs to:"
    words = ["stone", "river", "cloud", "house", "horse", "table", "grass", "smoke", "apple", "chair", "night", "bread"]
    held = [question(f"t{i}", f"{shown} {w} {w}ish {w}ly {w}y", (f"{w}s", f"{w}er")) for i, w in enumerate(words)]
    assert HeldOut(held).meets(question("m", f"{shown} a bee and its long way home today", ("bees", "ants"))) is None
    assert HeldOut(held[:3]).meets(question("m", f"{shown} a bee and its long way home", ("bees", "ants"))) is not None


def test_short_texts_of_the_same_classes_are_not_nearly_the_same():
    classes = ("billing and payments", "shipping and returns", "technical support", "sales and offers", "other topics")
    texts = ["no sound", "where is it", "charged twice", "want it cheaper", "will not start", "lost in the post"]
    texts += [f"{text} {more}" for text in texts for more in ("again", "today", "please", "sadly")]
    held = [question(f"t{i}", "Which team should answer this?", classes, text) for i, text in enumerate(texts)]
    out = HeldOut(held)
    assert out.meets(question("a", "Which team should answer this?", classes, "screen stays black")) is None
    assert out.meets(question("b", "Which team should answer this?", classes, "Charged twice!")) is not None


def test_each_held_out_question_that_is_met_is_named_with_the_first_that_meets_it():
    held = [question("t1", ICE, FLOATS), question("t2", "Why?", ("a", "b")), question("t3", LONG, ("p", "q"))]
    near = question("n", ICE.replace("?", ""), FLOATS)
    asked = [question("m", f"Begin {LONG} end", ("x", "y")), near, question("s", ICE, FLOATS[::-1])]
    assert list(HeldOut(held).met(asked).items()) == [("t1", "n"), ("t3", "m")]
    assert HeldOut(held).met([question("a", "Why not?", ("c", "d"))]) == {}


def test_chinese_questions_that_are_nearly_the_same_are_found():
    choices = ("铁", "水银", "黄金", "铜")
    held_out = HeldOut([question("t", "在常温常压下，下列哪一种金属是液体而不是固体？", choices)])
    assert held_out.meets(question("a", "在常温常压下，下列哪一种金属是液体，而不是固体?", choices)) is not None
    assert held_out.meets(question("b", "在常温常压下，哪一种气体比空气轻？", choices)) is None
