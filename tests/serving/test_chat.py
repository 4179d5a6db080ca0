"""How a question is read from a chat: pure, no server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tinyllm.prompts import teacher_prompt
from tinyllm.questions import Question
from tinyllm.serving._chat import Message, question_in


def read(text: str) -> tuple[Question, tuple[str, ...]] | str:
    return question_in([Message(role="user", content=text)])


@pytest.mark.parametrize(
    "text",
    [
        "Which is cold?\nA. ice\nB. fire\nC. steam",
        "Which is cold?\n\nA. ice\n\nB. fire\n\nC. steam\n\nAnswer with one letter.",
        "Question: Which is cold?\nChoices:\n(A) ice\n(B) fire\n(C) steam\n",
        "Which is cold?\n1) ice\n2) fire\n3) steam\nSay the number.",
        "Which is cold?\nChoices: ice | fire | steam",
    ],
)
def test_all_choices_are_read(text):
    question, labels = read(text)
    assert question.question == "Which is cold?"
    assert question.choices == ("ice", "fire", "steam")
    assert labels in (("A", "B", "C"), ("1", "2", "3"), ())


def test_a_choice_on_two_lines_is_refused():
    assert "stands between choice B and choice C" in read("Which?\nA. ice\nB. fire\nand smoke\nC. steam")
    assert "holds no choices" in read("Which?\nA. ice\nand snow\nB. fire")


FIRST = Question("1", "Which is cold?", ("ice", "fire"), 0, "Of matter.", {"t": "Ice is frozen water.\nIt is cold."})
SECOND = Question("2", "Which sea is in the north?", ("the Baltic", "the Red Sea"), 0, None, {"t": "It is by Sweden."})
ASKED = Question("3", "Which city is in Japan?", ("Tokyo", "Lima", "Oslo"), 0)


@pytest.mark.parametrize("asked", [ASKED, replace(ASKED, context="A text about cities.")])
@pytest.mark.parametrize("worked", ["t", None])
@pytest.mark.parametrize("forcing", [True, False])
@pytest.mark.parametrize("form", ["chat", "completion"])
def test_of_tinyllms_own_prompt_the_last_question_is_read(form, forcing, worked, asked):
    prompt = teacher_prompt(asked, [FIRST, SECOND], form=form, teacher_forcing=forcing, worked=worked)
    messages = [Message(role=m.role, content=m.content) for m in prompt.messages]
    found, labels = question_in(messages or [Message(role="user", content=prompt.text)])
    assert (found.question, found.choices, found.context) == (asked.question, asked.choices, asked.context)
    assert labels == ()


@pytest.mark.parametrize(
    "text",
    [
        "Which is cold?\nA. ice\nB. fire\nAnswer: A\n\nWhich is hot?\nA. snow\nB. lava",
        "Which is cold?\nA. ice\nB. fire\nAnswer: A\nWhich is hot?\nA. snow\nB. lava",
        "Which is cold?\n\nA. ice\n\nB. fire\n\nAnswer: A\nRationale: It is.\n\nNow you:\n\nWhich is hot?\n\nA. snow\nB. lava",
        "Which is cold?\nChoices: ice | fire\n\nWhich is hot?\nChoices: snow | lava\nAnswer:",
        "Q: Which is cold?\nA. ice\nB. fire\nA: ice\n\nQ: Which is hot?\nA. snow\nB. lava\nA:",
        "Rules:\n1. Think.\n2. Choose.\n\nQuestion: Which is hot?\nChoices: snow | lava",
        "Question: Who made it?\nAnswer: Ann.\n\nQuestion: Which is hot?\nChoices:\nA. snow\nB. lava",
        "Question: Which is cold?\nChoices: ice | fire\nReason: So\n1. it\n2. is.\n\nQuestion: Which is hot?\nChoices: snow | lava\nRationale:",
    ],
)
def test_of_several_questions_the_last_is_read(text):
    question, _ = read(text)
    assert (question.question, question.choices) == ("Which is hot?", ("snow", "lava"))


@pytest.mark.parametrize(
    "text",
    [
        "Two statements:\n1. Ice is hot.\n2. Lava is.\nWhich is true?\nA. the first\nB. the second",
        "Which is cold?\nA. ice\nB. fire\n\nIce melts.\n\nWhich is hot?\nA. snow\nB. lava",
        "Which is cold?\nA. ice\nB. fire\nAnswer: A\nIt melts.\nWhich is hot?\nA. snow\nB. lava",
        "Which is cold?\nChoices: ice | fire\n\n1. Think.\n2. Choose.",
        "Who made it?\nAnswer: Ann.\nIt was her.\nWhich is hot?\nChoices: snow | lava",
    ],
)
def test_where_the_last_question_begins_must_be_certain(text):
    assert "several questions" in read(text)


@pytest.mark.parametrize(
    "last",
    [
        "Question: Which is hot?",
        "Which is hot?\nChoices: snow, lava",
        "Which is hot?\nA. snow\nor ice\nB. lava",
        "Which is hot?",
    ],
)
def test_an_example_is_not_answered_where_the_last_question_has_no_choices(last):
    said = read(f"Question: Which is cold?\nChoices: ice | fire\nAnswer: ice\n\n{last}")
    assert isinstance(said, str)
    assert "another question or list" in said


def test_a_long_message_is_read_at_once():
    """In the thread of the server: as many steps as lines. With their square this test would not end."""
    assert isinstance(read("\n" * 300_000), str)
    question, _ = read("Which is cold?" + "\n" * 300_000 + "A. ice\nB. fire")
    assert question.question == "Which is cold?"
