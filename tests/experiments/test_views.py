"""Views of a question."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.experiments._views import unrotated, viewed
from tinyllm.questions import Question


@given(st.integers(2, 6), st.data())
def test_moved_choices_are_the_same_question_and_scores_come_back(count, data):
    answer = data.draw(st.integers(0, count - 1))
    question = Question("q", "Which?", tuple(f"c{i}" for i in range(count)), answer)
    moved = viewed(question, "rotated")
    assert moved.answer_text == question.answer_text
    assert moved.choices != question.choices
    assert unrotated(moved.choices, "rotated") == question.choices


def test_choices_only_knows_neither_question_nor_context():
    found = viewed(Question("q", "Which?", ("a", "b"), 1, "Long ago"), "choices-only")
    assert (found.question, found.context, found.choices, found.answer) == ("", None, ("a", "b"), 1)
    assert unrotated((1, 2), "choices-only") == (1, 2)
