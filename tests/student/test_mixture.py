"""Mixtures: each method is a pure choice of targets and weights."""

from __future__ import annotations

from support import TEACHERS, some_questions, some_rationales
from tinyllm.student.mixture import MixtureSettings, mix

PREFIXES = {"answer": "p: ", "ada": "a: ", "bob": "b: "}


def tasks(method, alpha, missing=()):
    questions = some_questions(3)
    targets = mix(method, questions, some_rationales(questions, missing), MixtureSettings(PREFIXES, alpha))
    assert all(t.prefix == PREFIXES[t.task] for t in targets)
    return [(t.question_id, t.task, t.weight) for t in targets]


def test_fine_tuning_learns_answers_only():
    assert tasks("fine-tuning", dict.fromkeys(TEACHERS, 1.0)) == [(f"q{i}", "answer", 1.0) for i in range(3)]


def test_step_by_step_learns_from_one_teacher():
    found = tasks("step-by-step", {"ada": 0.3})
    assert found == [(f"q{i}", t, w) for i in range(3) for t, w in (("answer", 1.0), ("ada", 0.3))]
    assert {t for _, t, _ in tasks("step-by-step", {"bob": 1.0})} == {"answer", "bob"}


def test_tinyllm_learns_from_all_and_leaves_out_those_of_weight_zero():
    found = tasks("tinyllm", {"ada": 2.0, "bob": 0.5}, missing=[("q1", "bob")])
    assert found == [
        ("q0", "answer", 1.0), ("q0", "ada", 2.0), ("q0", "bob", 0.5),
        ("q1", "answer", 1.0), ("q1", "ada", 2.0),
        ("q2", "answer", 1.0), ("q2", "ada", 2.0), ("q2", "bob", 0.5),
    ]  # fmt: skip
    assert {t for _, t, _ in tasks("tinyllm", {"ada": 1.0, "bob": 0.0})} == {"answer", "ada"}
