"""Several rationales of a question from each teacher (`rationales.several`)."""

from __future__ import annotations

import pytest

import generation
from tinyllm.config import GivenTeacher, RationalesSection, build_config
from tinyllm.errors import ConfigError
from tinyllm.questions import Question
from tinyllm.rationales.collect import Collection
from tinyllm.rationales.files import read_rationales, write_rationales
from tinyllm.replies._store import Store
from tinyllm.teachers._given import GivenTeacher as Given
from tinyllm.teachers.base import Request

ASKED = generation.questions(5)


def numbered(question: Question, request: Request) -> str:
    """A text that is told apart; the fourth sample is no good."""
    sample = request.sample
    return "no" if sample == 3 else f"It is {question.answer_text} for the reason that has the number {sample}."


def texts(made, name="q0"):
    return [r.text.removesuffix(".").rsplit(" ", 1)[1] for r in made.rationales if r.question_id == name]


def test_each_is_asked_for_with_tries_of_its_own_and_what_is_stored_is_not_asked_again(tmp_path):
    store = tmp_path / "replies.sqlite"
    teacher = generation.Counting("ada", ASKED, numbered)
    one = generation.run(store, ASKED, [teacher], RationalesSection(samples=3))
    assert texts(one) == ["0"]
    assert set(teacher.samples) == {0}
    teacher = generation.Counting("ada", ASKED, numbered)
    three = generation.run(store, ASKED, [teacher], RationalesSection(samples=3, several=3))
    assert [texts(three, q.id) for q in ASKED] == [["0", "4", "6"]] * 5
    assert sorted(teacher.samples) == [3] * 5 + [4] * 5 + [6] * 5, "sample 0 was stored"
    found = three.yields["ada"]
    assert (found.rationales, found.resampled, sum(found.rejected.values())) == (15, {"empty": 5}, 0)


def test_those_that_come_with_the_questions_are_one(tmp_path):
    carried = [Question(q.id, q.question, q.choices, q.answer, None, {"pro": generation.REASON}) for q in ASKED]
    given = Given(GivenTeacher(name="pro", kind="given"), carried)
    asked = generation.Counting("ada", carried, numbered)
    section = RationalesSection(several=2)
    made = generation.run(tmp_path / "replies.sqlite", carried, [given, asked], section)
    told = [(r.question_id, r.teacher) for r in made.rationales]
    assert told == [(q.id, teacher) for q in carried for teacher in ("pro", "ada", "ada")]
    with Store(tmp_path / "replies.sqlite") as store:
        write_rationales(tmp_path, Collection(generation.requests_of([given, asked], carried, section), store))
    assert read_rationales(tmp_path) == made.rationales


def test_what_would_make_no_difference_is_refused():
    tree = {"data": {"train": "q.csv"}, "teachers": [{"name": "ada", "kind": "given"}]}
    with pytest.raises(ConfigError, match=r"rationales\.several: at temperature 0 all rationales would be the same"):
        build_config(tree | {"rationales": {"several": 2, "temperature": 0}}, source="test")
    with pytest.raises(ConfigError, match="compares one rationale per teacher"):
        build_config(tree | {"rationales": {"several": 2}, "train": {"method": "student-likelihood"}}, source="test")
