"""Scoring: likelihoods are those of the plain model, generated answers are matched as stated."""

from __future__ import annotations

import pytest
import torch

from support import TEACHERS, some_questions, some_rationales, tiny_student
from tinyllm.errors import StudentError
from tinyllm.evaluation.scoring import (
    OptionScores,
    arithmetic,
    generate_texts,
    match_choice,
    normalise,
    score_options,
    score_targets,
)
from tinyllm.questions import Question
from tinyllm.student.mixture import MixtureSettings, tinyllm

PREFIXES = {"answer": "predict: ", "ada": "explain as ada: ", "bob": "explain as bob: "}
SETTINGS = MixtureSettings(PREFIXES, dict.fromkeys(TEACHERS, 1.0))


@pytest.mark.parametrize("family", ["t5", "llama", "gemma3"])
@pytest.mark.parametrize("batch_tokens", [16, 10_000])
def test_option_scores_are_sums_of_the_plain_models_log_probabilities(family, batch_tokens):
    student = tiny_student(family)
    questions = [*some_questions(5), Question("q0", "Same id, other choices?", ("x", "y y y"), 0)]
    told = []
    scores = score_options(
        student, student.learner(), questions, batch_tokens=batch_tokens, progress=lambda *a: told.append(a)
    )
    assert told[-1][:2] == (6, 6)
    encoder = student.encoder()
    for question, found in zip(questions, scores, strict=True):
        assert len(found.total) == len(question.choices)
        prompt = encoder.generation_prompt(question, student.card.prefixes["answer"])
        for i, choice in enumerate(question.choices):
            target = encoder.target(choice)[:-1]
            with torch.no_grad():
                if student.is_encoder_decoder:
                    labels = torch.tensor([target])
                    logits = student.model(input_ids=torch.tensor([prompt]), labels=labels).logits[0]
                else:
                    logits = student.model(input_ids=torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
            by_token = logits.log_softmax(-1)[range(len(target)), list(target)]
            assert found.total[i] == pytest.approx(by_token.sum().item(), rel=1e-4)
            assert found.mean[i] == pytest.approx(by_token.mean().item(), rel=1e-4)


def test_scores_that_are_no_numbers_are_an_error_and_no_answer():
    student = tiny_student("llama")
    with torch.no_grad():
        next(student.model.parameters()).fill_(torch.nan)
    with pytest.raises(StudentError, match="scores of question 'q0' are not a number"):
        score_options(student, student.learner(), some_questions(2))


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_in_bf16_scores_are_nearly_the_same_and_weights_stay_as_they_are(family):
    student = tiny_student(family)
    learner, questions = student.learner(), some_questions(5)
    exact = score_options(student, learner, questions)
    with arithmetic(learner, "bf16"):
        rough = score_options(student, learner, questions)
    assert rough != exact
    for one, other in zip(rough, exact, strict=True):
        assert one.mean == pytest.approx(other.mean, abs=0.05)
    with arithmetic(learner, "fp32"):
        assert score_options(student, learner, questions) == exact


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_generation_in_batches_is_generation_alone(family):
    student = tiny_student(family)
    questions = some_questions(5)
    together = generate_texts(student, questions, max_new_tokens=6)
    alone = [generate_texts(student, [q], max_new_tokens=6)[0] for q in questions]
    assert together == alone
    assert generate_texts(student, questions, max_new_tokens=6, batch_tokens=16) == alone


def test_the_best_choice_by_total_and_by_token():
    scores = OptionScores(total=(-4.0, -3.0, -6.0), mean=(-2.0, -3.0, -0.5))
    assert (scores.best, scores.best_normalised) == (1, 2)


CHOICES = ("Ice", "ice cream", "A thermometer", "yes")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("ice", 0),
        (" ICE. ", 0),
        ('"ice cream"', 1),
        ("a  thermometer", 2),
        ("(b)", 1),
        ("c", 2),
        ("(a) ice", 0),
        ("b. ice cream", 1),
        ("(b) ice", None),
        ("the ice", None),
        ("z", None),
        ("", None),
        ("yes!", 3),
    ],
)
def test_generated_answers_are_matched(text, choice):
    assert match_choice(text, CHOICES).choice == choice
    assert match_choice(text, CHOICES).text == text


def test_choices_that_are_the_same_match_neither():
    assert match_choice("ice", ("ice", "Ice.")).choice is None


def test_normalise():
    assert normalise("  “The  Moon.” ") == "the moon"


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_target_scores_are_means_of_the_plain_models_log_probabilities(family):
    student, questions = tiny_student(family), some_questions(4)
    targets = [t for t in tinyllm(questions, some_rationales(questions), SETTINGS) if t.task != "answer"]
    found = score_targets(student, student.learner(), questions, targets)
    assert found.keys() == {(t.question_id, t.task) for t in targets}
    encoder = student.encoder()
    of_id = {q.id: q for q in questions}
    for t in targets:
        prompt, target = encoder.generation_prompt(of_id[t.question_id], t.prefix), encoder.target(t.text)
        with torch.no_grad():
            if student.is_encoder_decoder:
                labels = torch.tensor([target])
                logits = student.model(input_ids=torch.tensor([prompt]), labels=labels).logits[0]
            else:
                logits = student.model(input_ids=torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
        by_token = logits.log_softmax(-1)[range(len(target)), list(target)]
        assert found[t.question_id, t.task] == pytest.approx(by_token.mean().item(), rel=1e-3)
