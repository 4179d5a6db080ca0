"""The requests for opinions, and how replies are read: pure, no model."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from tinyllm.config import OpinionsSection
from tinyllm.opinions._reading import NO_CHOICE, NO_LOGPROBS
from tinyllm.opinions.requests import OpinionRequests
from tinyllm.questions import Question
from tinyllm.rationales.types import Rejection, Scored
from tinyllm.teachers._scripted import ScriptedTeacher
from tinyllm.teachers.base import Reply

ASKED = [Question(f"q{n}", f"What is {n}?", ("ice", "water", "iron", "the moon"), n % 4) for n in range(6)]


def requests(way="letters", asked=ASKED, **settings) -> OpinionRequests:
    return OpinionRequests(ScriptedTeacher("t", asked, "It is {answer}."), asked, OpinionsSection(**settings), way)


def test_the_requests_do_not_depend_on_the_answer():
    others = [replace(q, answer=(q.answer + 1) % 4) for q in ASKED]
    for way in ("letters", "texts", "votes"):
        one, other = requests(way), requests(way, others)
        assert [a.key for a in one.between(0, 6)] == [a.key for a in other.between(0, 6)]


def test_with_as_many_orders_as_choices_each_choice_is_at_each_position_once():
    one = requests(orders=4)
    assert len(one.questions) == 24
    for start in range(0, 24, 4):
        orders = [q.choices for q in one.questions[start : start + 4]]
        assert [sorted(place) for place in zip(*orders, strict=True)] == [sorted(ASKED[0].choices)] * 4
    assert {q.choices for q in one.questions[::4]} != {one.questions[0].choices}  # the first order differs by question
    assert [q.choices for q in one.questions] == [q.choices for q in requests(orders=4).questions[0:24]]
    assert [q.answer_text for q in one.questions[8:12]] == [ASKED[2].answer_text] * 4


def test_the_prompt_lists_the_choices_by_letter_and_asks_for_one_token():
    ask = requests().between(0, 1)[0]
    lines = ask.request.prompt.text.splitlines()
    assert lines[2:] == [
        "Question: What is 0?",
        *(f"{a}. {c}" for a, c in zip("ABCD", ask.question.choices, strict=True)),
        "Answer:",
    ]
    assert ask.request.options == (" A", " B", " C", " D")
    assert (ask.request.sampling.max_tokens, ask.request.sampling.temperature) == (1, 0.0)


def test_the_way_texts_asks_once_without_a_list_of_choices():
    one = requests("texts", orders=4)
    (ask,) = one.between(0, 1)
    assert one.repeats == 1
    assert ask.request.options == (" ice", " water", " iron", " the moon")
    assert "ice" not in ask.request.prompt.text


def test_each_vote_is_a_sample_with_its_own_key():
    one = requests("votes", votes=6, orders=2)
    asks = one.between(0, 6)
    assert [a.request.sample for a in asks] == [0, 0, 1, 1, 2, 2]
    assert len({a.key for a in asks}) == 6
    assert asks[0].request.options == ()


def letters(*top: tuple[str, float]) -> Scored | Rejection:
    message = json.dumps({"top_logprobs": [(token, math.log(p)) for token, p in top]})
    return requests().verdict(ASKED[0], Reply("", "length", message=message))


def test_the_probability_of_a_letter_is_the_sum_over_its_tokens():
    scored = letters(("B", 0.4), (" B", 0.2), ("(C", 0.1), ("A.", 0.1), ("D", 0.1), ("Because", 0.05), ("E", 0.05))
    assert scored.probabilities == pytest.approx((1 / 9, 6 / 9, 1 / 9, 1 / 9))
    assert scored.mass == pytest.approx(0.9)


def test_a_letter_without_a_probability_gets_at_most_the_rest():
    scored = letters(("B", 0.6), ("A", 0.39))
    assert scored.probabilities[2] == scored.probabilities[3] == pytest.approx(0.005)
    assert letters(("Well", 0.9)).reason == NO_CHOICE
    assert requests().verdict(ASKED[0], Reply("B", "length")).reason == NO_LOGPROBS


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", 1),
        ("(C)", 2),
        ("b", 1),
        ("b.", 1),
        ("**D.** the moon", 3),
        ("B) water", 1),
        ("The answer is C.", 2),
        ("It is water.", 1),
        ("The correct choice: B, since option A is wrong", 1),
        ("C. It is denser than A.", 2),
        ("The answer may be A. But steam rises, so the answer is option D.", 3),
        ("Option C", 2),
        (r"\boxed{C}", 2),
        (r"The answer is $\boxed{\text{D}}$.", 3),
    ],
)
def test_a_vote_is_read_by_letter_or_by_text(text, choice):
    scored = requests("votes").verdict(ASKED[0], Reply(text, "stop"))
    assert scored.probabilities.index(1.0) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [("Answer: A nurse", 1), ("The answer is A", 0), ("The answer is A because it is so", 0), ("Answer: B", 1),
     ("The answer is I think a doctor", 0)],
)  # fmt: skip
def test_the_article_of_a_choice_is_no_letter(text, choice):
    asked = replace(ASKED[0], choices=("a doctor", "A nurse", "somebody else"))
    assert requests("votes").verdict(asked, Reply(text, "stop")).probabilities.index(1.0) == choice


@pytest.mark.parametrize(
    "text",
    [
        "A good question",
        "ice or water",
        "none of them",
        "E",
        "Not water",
        "It isn't water.",
        "A: no. B: yes",
        "Option A or option B",
    ],
)
def test_a_reply_that_names_no_choice_is_rejected(text):
    assert requests("votes").verdict(ASKED[0], Reply(text, "stop")).reason == NO_CHOICE


def test_likelihoods_are_compared_per_token():
    message = json.dumps({"option_logprobs": [(-4.0, 2), (-3.0, 1), (-9.0, 3), (-2.0, 1)]})
    scored = requests("texts").verdict(ASKED[0], Reply("", "stop", message=message))
    assert scored.probabilities[0] == scored.probabilities[3] == max(scored.probabilities)
    assert scored.probabilities[1] / scored.probabilities[0] == pytest.approx(math.exp(-1))
