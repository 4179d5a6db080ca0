"""What `tinyllm generate` says of teachers whose replies are all rejected."""

from __future__ import annotations

import json

from tinyllm.questions.types import Question
from tinyllm.rationales.checks import to_rationale
from tinyllm.rationales.types import Rejection
from tinyllm.report._content import CHECKS
from tinyllm.teachers.base import Reply


def test_a_teacher_without_any_rationale_is_warned_of_with_the_next_step(cli, project):
    project.tree["teachers"][0]["template"] = "{answer}"
    project.save()
    said = cli("generate", project.config)
    assert said.code == 0, said.err
    text = said.out + said.err
    assert "ada: 0 rationales" in text
    assert "rejected: 12 empty or too short" in text
    assert "warning: ada gave no rationale: all its replies failed a check" in text
    assert f"tinyllm report {project.run.relative_to(project.folder)}" in text
    assert "warning: bob" not in text
    assert cli("report", project.run).code == 0  # it works already at this stage


def test_a_short_reply_is_empty_and_the_words_say_so():
    question = Question("q", "Where is Rome?", ("Europe", "Asia"), 0)
    found = to_rationale(question, "ada", Reply("Europe", "stop"), checks=("empty",), repair=True)
    assert isinstance(found, Rejection)
    assert found.reason == "empty"
    assert "too short" in CHECKS[found.reason]


def test_a_reply_that_begins_with_a_new_question_is_called_so():
    question, reply = (
        Question("q", "Where is Rome?", ("Europe", "Asia"), 0),
        Reply("Question: What is the capital?", "stop"),
    )
    found = to_rationale(question, "ada", reply, checks=("empty", "runs_on"), repair=True)
    assert isinstance(found, Rejection)
    assert found.reason == "runs_on"


def test_a_student_does_not_write_as_a_teacher_that_gave_nothing(cli, project):
    project.tree["teachers"][0]["template"] = "{answer}"
    project.save()
    assert cli("run", project.config).code == 0
    card = json.loads((project.run / "student" / "tinyllm.json").read_text("utf-8"))
    assert list(card["prefixes"]) == ["answer", "bob"]
    written = [
        json.loads(line).get("rationales", {})
        for line in (project.run / "predictions.jsonl").read_text("utf-8").splitlines()
    ]
    assert {teacher for row in written for teacher in row} == {"bob"}
