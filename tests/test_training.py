"""What the student of a run is picked by while it trains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support import some_questions, tiny_student
from tinyllm.config import build_config
from tinyllm.evaluation.scoring import score_options
from tinyllm.questions.types import Question, Splits
from tinyllm.training import validation


@pytest.mark.parametrize(("layout", "by_mean"), [("cloze", True), ("labelled", False)])
def test_a_student_that_is_not_shown_the_choices_is_picked_by_the_mean_a_token(layout, by_mean):
    given = {"data": {"train": "q.csv"}, "train": {"method": "fine-tuning"}}
    config = build_config(given | {"student": {"model": "tiny", "layout": layout}}, source="test")
    student = tiny_student("llama", seed=2)
    student = replace(student, card=replace(student.card, layout=layout))
    learner = student.learner()
    of_many_lengths = ("ice", "iron", "the moon", "a green leaf in the sun", "the moon and all of the stars in the sky")
    asked = [replace(q, choices=of_many_lengths) for q in some_questions(12)]
    scores = score_options(student, learner, asked)
    assert any(s.best != s.best_normalised for s in scores)

    def answered(by_mean: bool) -> list[Question]:
        best = [s.best_normalised if by_mean else s.best for s in scores]
        return [replace(q, answer=b) for q, b in zip(asked, best, strict=True)]

    right = validation(config, student, learner, Splits(train=(), valid=answered(by_mean)))
    other = validation(config, student, learner, Splits(train=(), valid=answered(not by_mean)))
    assert right is not None
    assert other is not None
    assert right() == 1.0 > other()


def test_of_many_validation_questions_some_are_asked_from_the_first_to_the_last():
    given = {"data": {"train": "q.csv"}, "train": {"method": "fine-tuning", "validate_questions": 4}}
    config = build_config(given | {"student": {"model": "tiny"}}, source="test")
    student = tiny_student("llama", seed=2)
    learner, asked = student.learner(), some_questions(12)
    best = [s.best for s in score_options(student, learner, asked)]
    only = [replace(q, answer=best[i] if i % 3 == 0 else (best[i] + 1) % 4) for i, q in enumerate(asked)]
    accuracy = validation(config, student, learner, Splits(train=(), valid=only))
    assert accuracy is not None
    assert accuracy() == 1.0


def test_without_validation_questions_there_is_nothing_to_pick_by():
    config = build_config(
        {"data": {"train": "q.csv"}, "train": {"method": "fine-tuning"}, "student": {"model": "tiny"}}, source="test"
    )
    student = tiny_student("t5")
    assert validation(config, student, student.learner(), Splits(train=())) is None
