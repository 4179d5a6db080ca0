"""What the student of a run is picked by while it trains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support import some_questions, tiny_student
from tinyllm.config import build_config
from tinyllm.questions.types import Question, Splits
from tinyllm.rationales.types import Rationale
from tinyllm.scoring.score import score_options
from tinyllm.stages._prepare import _rationale_likelihoods, validation, validation_fingerprint
from tinyllm.stages.folder import RunFolder
from tinyllm.system.news import News


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


def test_likelihoods_are_measured_anew_for_other_prompts(tmp_path):
    """The same rationales under another question, context or choice are not as likely as they were."""
    given = {"data": {"train": "q.csv"}, "train": {"method": "student-likelihood"}, "student": {"model": "tiny"}}
    given |= {"teachers": [{"name": "ada", "kind": "given"}]}
    config, student = build_config(given, source="test"), tiny_student("llama", seed=2)
    learner, asked = student.learner(), some_questions(3)
    told = [Rationale(q.id, "ada", "It is so.") for q in asked]
    run = RunFolder(tmp_path)

    def measured(questions):
        news = News(quiet=True)
        found = _rationale_likelihoods(config, run, news, student, learner, questions, told)
        return found, RunFolder(tmp_path).likelihoods.stat().st_mtime_ns

    first, written = measured(asked)
    assert measured(asked) == (first, written)
    for change in (
        {"question": "Why is that so?"},
        {"context": "Once upon a time."},
        {"choices": ("x", "y", "z", "w")},
    ):
        other, _ = measured([replace(asked[0], **change), *asked[1:]])
        assert other[asked[0].id, "ada"] != first[asked[0].id, "ada"], change
        assert other[asked[1].id, "ada"] == pytest.approx(first[asked[1].id, "ada"], abs=1e-4)
    measured(asked)
    config = build_config(given | {"student": {"model": "tiny", "layout": "cloze"}}, source="test")
    student = replace(student, card=replace(student.card, layout="cloze"))
    assert measured(asked)[0] != first, "the choices are not shown"


def test_the_validation_questions_that_a_student_is_picked_by_and_calibrated_with_have_a_hash():
    given = {"data": {"train": "q.csv"}, "student": {"model": "tiny"}}
    config = build_config(given | {"train": {"method": "fine-tuning", "validate_questions": 4}}, source="test")
    asked = some_questions(12)
    changed = [replace(asked[0], answer=(asked[0].answer + 1) % 4), *asked[1:]]
    unread = [asked[0], replace(asked[1], answer=(asked[1].answer + 1) % 4), *asked[2:]]  # four are spread over twelve
    first, second, third = (
        validation_fingerprint(config, Splits(train=(), valid=valid)) for valid in (asked, changed, unread)
    )
    assert first == third != second
