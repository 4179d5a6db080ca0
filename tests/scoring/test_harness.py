"""lm-evaluation-harness gives the same accuracy and log-likelihoods as our scores, on tiny models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support import some_questions, tiny_student
from tinyllm.comparison.metrics import metrics
from tinyllm.config import Config
from tinyllm.questions import Question, Splits
from tinyllm.scoring import harness
from tinyllm.scoring.predictions import Prediction, leaders
from tinyllm.scoring.score import score_options

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (the extra lm-eval)")
pytestmark = pytest.mark.filterwarnings("ignore")


def evaluated(model: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Evaluate by the harness, which need not read all its own tasks."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(model, tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_both_give_the_same_accuracy(family):
    student = tiny_student(family)
    questions = some_questions(12)
    scores = score_options(student, student.learner(), questions)
    found = harness.score(student, {"made-up": questions})["made-up"]
    for name in ("acc", "acc_norm"):
        ours = sum(getattr(s, name) == q.answer for s, q in zip(scores, questions, strict=True)) / len(questions)
        assert found[f"{name},none"] == pytest.approx(ours)


def asked() -> list[Question]:
    """Questions with choices that continue others, of very different lengths, and of the same text."""
    lists = [
        ("ice", "ice cream", "ice cream cone"),
        ("yes", "no"),
        ("a", "a long choice " * 3, "b"),
        ("no", "no", "yes"),
    ]
    return [replace(q, choices=lists[i % 4], answer=i % 2) for i, q in enumerate(some_questions(24))]


@pytest.mark.parametrize("family", ["t5", "llama", "bart"])
def test_acc_and_acc_norm_agree_question_by_question(family):
    """Choices of the same text tie, and the first one wins, as in the harness."""
    student, questions = tiny_student(family), asked()
    scores = score_options(student, student.learner(), questions)
    task = harness._harness_task("made-up", questions, student.card)
    found = evaluated(harness._HarnessStudent(student), task)
    samples = sorted(found["samples"]["tinyllm_made-up"], key=lambda s: s["doc_id"])
    assert len(samples) == len(questions)
    for sample, score, question in zip(samples, scores, questions, strict=True):
        assert [r[0] for r in sample["filtered_resps"]] == list(score.unended)
        assert sample["acc"] == (score.acc == question.answer)
        assert sample["acc_norm"] == (score.acc_norm == question.answer)
    made = [Prediction("after", "test", q, s) for q, s in zip(questions, scores, strict=True)]
    config = Config.model_validate({"name": "mine", "data": {"dataset": "starter"}, "evaluate": {"before": False}})
    figures = metrics(config, Splits((), (), tuple(questions)), made, {}, {})["lm_eval"]["after"]
    results = found["results"]["tinyllm_made-up"]
    for name in ("acc", "acc_norm"):
        assert figures[name]["value"] == pytest.approx(results[f"{name},none"])
    tied = [i for i, s in enumerate(scores) if len(leaders(s.unended)) > 1]
    assert {i % 4 for i in tied} <= {3}, "only choices of the same text tie"


@pytest.mark.parametrize("family", ["llama"])
def test_the_harness_own_model_finds_the_same_acc_and_acc_norm(family):
    """The harness's `hf` model has its own encoding and batches. Choices differ only within rounding."""
    from lm_eval.models.huggingface import HFLM

    student, questions = tiny_student(family), asked()
    task = harness._harness_task("made-up", questions, student.card)
    theirs = HFLM(pretrained=student.model, tokenizer=student.tokenizer, batch_size=4, device="cpu")
    found = evaluated(theirs, task)
    samples = sorted(found["samples"]["tinyllm_made-up"], key=lambda s: s["doc_id"])
    scores = score_options(student, student.learner(), questions)
    for sample, score, question in zip(samples, scores, questions, strict=True):
        assert [float(r[0]) for r in sample["filtered_resps"]] == pytest.approx(list(score.unended), rel=1e-5)
        by_character = [t / n for t, n in zip(score.unended, score.characters, strict=True)]
        for name, values in {"acc": score.unended, "acc_norm": by_character}.items():
            first, second = sorted(set(values), reverse=True)[:2]
            if first - second > 1e-5 * abs(first):
                assert sample[name] == (getattr(score, name) == question.answer)


def test_the_harness_own_model_agrees_on_our_task(tmp_path):
    from lm_eval.models.huggingface import HFLM

    student = tiny_student("llama")
    questions = some_questions(12)
    task = harness._harness_task("made-up", questions, student.card)
    theirs = HFLM(pretrained=student.model, tokenizer=student.tokenizer, batch_size=4, device="cpu")
    of_theirs = evaluated(theirs, task)
    of_ours = score_options(student, student.learner(), questions)
    samples = sorted(of_theirs["samples"]["tinyllm_made-up"], key=lambda s: s["doc_id"])
    for sample, score in zip(samples, of_ours, strict=True):
        assert [float(r[0]) for r in sample["filtered_resps"]] == pytest.approx(list(score.unended), rel=1e-4)


def test_a_task_that_is_written_out_is_scored_the_same_by_the_harness_alone(tmp_path):
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    student, questions = tiny_student("llama"), some_questions(12)
    harness.write_task(tmp_path, "made-up", questions, student.card)
    theirs = HFLM(pretrained=student.model, tokenizer=student.tokenizer, batch_size=4, device="cpu")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(theirs, tasks=["tinyllm_made-up"], task_manager=manager, bootstrap_iters=0)
    ours = harness.score(student, {"made-up": questions})
    assert found["results"]["tinyllm_made-up"]["acc,none"] == ours["made-up"]["acc,none"]


def test_any_other_task_is_asked_as_the_harness_writes_it():
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    student = tiny_student("llama")
    pairs = [("Ice is", " cold"), ("Ice is", " hot"), ("Iron", " is a metal"), ("", " x")]
    requests = [Instance("loglikelihood", {}, pair, i, ("other", i, 1)) for i, pair in enumerate(pairs[:3])]
    theirs = HFLM(pretrained=student.model, tokenizer=student.tokenizer, batch_size=1, device="cpu")
    ours = harness._HarnessStudent(student).loglikelihood(requests)
    for (value, greedy), (their_value, their_greedy) in zip(ours, theirs.loglikelihood(requests), strict=True):
        assert value == pytest.approx(their_value, rel=1e-4)
        assert greedy == their_greedy


def test_tasks_bear_names_of_their_own_and_keep_prompt_and_prefix():
    student = tiny_student("llama")
    (question,) = some_questions(1)
    task = harness._harness_task("arc", [question], student.card)
    assert task["task"] == "tinyllm_arc"
    doc = task["custom_dataset"]()["test"][0]
    assert task["doc_to_text"](doc).endswith("predict:")
    assert question.question in task["doc_to_text"](doc)
    assert task["doc_to_choice"](doc)[task["doc_to_target"](doc)] == question.answer_text


def test_texts_that_are_cut_are_counted_and_said(caplog):
    from lm_eval.api.instance import Instance

    student = tiny_student("llama")
    student.card = replace(student.card, max_input_tokens=20)
    texts = ["short", "a text of more than twenty tokens", "x" * 20]
    requests = [Instance("loglikelihood", {}, (t, " " + "y" * 300), i, ("other", i, 1)) for i, t in enumerate(texts)]
    found = harness._HarnessStudent(student).loglikelihood(requests)
    assert "1 of 3 texts are longer than 20 tokens" in caplog.text
    (last,) = harness._HarnessStudent(student).loglikelihood(
        [Instance("loglikelihood", {}, (texts[1][-20:], " " + "y" * 300), 0, ("other", 0, 1))]
    )
    assert found[1][0] == pytest.approx(last[0], rel=1e-5)
