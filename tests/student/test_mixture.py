"""Mixtures: each method is a pure choice of targets and weights."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import TEACHERS, some_questions, some_rationales, tiny_tokenizer
from tinyllm.questions import Question
from tinyllm.rationales.types import Rationale
from tinyllm.student.mixture import MixtureSettings, mix
from tinyllm.student.model import StudentCard
from tinyllm.student.plan import _weighted
from tinyllm.student.train import tokenise

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


# --- controls and routers -------------------------------------------------------------------------------------------


def mixed(method, questions, rationales, alpha=None, **more):
    return mix(method, questions, rationales, MixtureSettings(PREFIXES, alpha or dict.fromkeys(TEACHERS, 1.0), **more))


def texts(targets, task):
    return {t.question_id: t.text for t in targets if t.task == task}


def own_words(questions):
    """Rationales that can be told apart."""
    return [Rationale(q.id, t, f"{t} explains {q.id}") for q in questions for t in TEACHERS]


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_shuffled_gives_each_question_anothers_rationale_of_the_same_teacher_and_uses_each_once(count, seed):
    questions = some_questions(count)
    targets = mixed("shuffled", questions, own_words(questions), seed=seed)
    assert texts(targets, "answer") == {q.id: q.answer_text for q in questions}
    for teacher in TEACHERS:
        found = texts(targets, teacher)
        assert sorted(found.values()) == sorted(f"{teacher} explains {q.id}" for q in questions)
        assert all(text != f"{teacher} explains {name}" for name, text in found.items())
    assert targets == mixed("shuffled", questions, own_words(questions), seed=seed)


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 100))
def test_shuffled_gives_no_question_one_of_its_several_rationales(count, several, seed):
    questions = some_questions(count)
    own = [Rationale(q.id, "ada", f"{q.id}, {n}") for q in questions for n in range(several)]
    found = [t for t in mixed("shuffled", questions, own, {"ada": 1.0}, seed=seed) if t.task == "ada"]
    assert sorted(t.text for t in found) == sorted(r.text for r in own)
    assert all(not t.text.startswith(t.question_id) for t in found)


def test_shuffled_keeps_to_the_questions_that_have_one():
    questions = some_questions(4)
    rationales = [r for r in own_words(questions) if (r.question_id, r.teacher) != ("q2", "bob")]
    assert texts(mixed("shuffled", questions, rationales), "bob").keys() == {"q0", "q1", "q3"}


def test_keywords_keeps_the_content_words_alone():
    questions = some_questions(2)
    rationales = [
        Rationale("q0", "ada", "It is the ice, because water doesn't stay liquid when it's cold."),
        Rationale("q1", "ada", "So it is."),
    ]
    assert texts(mixed("keywords", questions, rationales), "ada") == {"q0": "ice water stay liquid cold"}


ROUTERS = ("one-random", "shortest", "similarity", "student-likelihood")


@settings(max_examples=30)
@given(st.sampled_from(ROUTERS), st.sets(st.sampled_from([(f"q{i}", t) for i in range(5) for t in TEACHERS])))
def test_a_router_takes_one_rationale_of_each_question_that_has_any(method, missing):
    questions = some_questions(5)
    rationales = some_rationales(questions, missing)
    likelihoods = {(r.question_id, r.teacher): -float(len(r.text)) for r in rationales}
    targets = mixed(method, questions, rationales, likelihoods=likelihoods)
    given_by = {r.question_id for r in rationales}
    routed = [t for t in targets if t.task != "answer"]
    assert [t.question_id for t in routed] == [q.id for q in questions if q.id in given_by]
    assert all(t.prefix == PREFIXES[t.task] for t in targets)
    assert {(t.question_id, t.task, t.text) for t in routed} <= {(r.question_id, r.teacher, r.text) for r in rationales}


def test_routers_choose_what_they_say():
    questions = [Question("q0", "What freezes?", ("water", "iron"), 0)]
    rationales = [
        Rationale("q0", "ada", "Because that is how it is."),
        Rationale("q0", "bob", "Water freezes to ice in the cold."),
    ]
    assert texts(mixed("shortest", questions, rationales), "ada")
    assert texts(mixed("similarity", questions, rationales), "bob")
    for best in TEACHERS:
        likelihoods = {("q0", t): float(t == best) for t in TEACHERS}
        assert texts(mixed("student-likelihood", questions, rationales, likelihoods=likelihoods), best)
    drawn = {t.task for seed in range(20) for t in mixed("one-random", questions, rationales, seed=seed)}
    assert drawn == {"answer", *TEACHERS}


@settings(max_examples=25)
@given(st.sampled_from(["tokens", "examples"]), st.lists(st.sampled_from(TEACHERS), min_size=2, max_size=8))
def test_each_routed_rationale_weighs_the_same_whoever_wrote_it(normalisation, chosen):
    questions = some_questions(len(chosen))
    rationales = [Rationale(q.id, t, "It is so.") for q, t in zip(questions, chosen, strict=True)]
    encoder = StudentCard(PREFIXES).encoder(tiny_tokenizer(), is_encoder_decoder=False)
    rows = [r for rows in tokenise(encoder, questions, mixed("shortest", questions, rationales)) for r in rows]
    weights = [w for row, of in zip(rows, _weighted(rows, normalisation)[1], strict=True)
               for b, w in zip(row.branches, of, strict=True) if b.task != "answer"]  # fmt: skip
    length = len(encoder.target("It is so."))
    assert weights == pytest.approx([1 / (length * len(chosen))] * len(chosen))


def test_a_router_leaves_a_teacher_of_weight_zero_out():
    questions = some_questions(3)
    for method in ("one-random", "shortest"):
        targets = mixed(method, questions, some_rationales(questions), alpha={"ada": 1.0, "bob": 0.0})
        assert {t.task for t in targets} == {"answer", "ada"}
