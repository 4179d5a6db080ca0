"""How a question is read from a chat: pure, no server."""

from __future__ import annotations

import pytest

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
