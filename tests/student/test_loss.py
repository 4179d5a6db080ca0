"""The loss of a step is L = L_A + Σ α_m L_m, however the step is computed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BloomConfig, BloomForCausalLM

from support import FAMILIES, TEACHERS, some_questions, some_rationales, tiny_student, tiny_tokenizer
from tinyllm.config import ANSWER_TASK
from tinyllm.questions import Question
from tinyllm.student._ways import Way
from tinyllm.student.learner import Learner
from tinyllm.student.mixture import MixtureSettings, Target, mix
from tinyllm.student.model import Student, StudentCard
from tinyllm.student.plan import StepPlan
from tinyllm.student.train import tokenise

TASKS = (ANSWER_TASK, *TEACHERS)


def plain_loss(student: Student, questions: Sequence[Question], targets: Sequence[Target], normalisation: str):
    """L_A + Σ α_m L_m by the model's own forward, called once for each task and question."""
    encoder = student.encoder()
    questions_by_id = {q.id: q for q in questions}
    total = torch.zeros(())
    for task in TASKS:
        of_task = [t for t in targets if t.task == task]
        sums, counts = [], []
        for target in of_task:
            question = questions_by_id[target.question_id]
            labels = encoder.target(target.text)
            prompt = encoder.generation_prompt(question, target.prefix)
            if student.is_encoder_decoder:
                output = student.model(input_ids=torch.tensor([prompt]), labels=torch.tensor([labels]))
                sums.append(output.loss * len(labels))
            else:
                tokens = torch.tensor([[*prompt, *labels]])
                logits = student.model(input_ids=tokens).logits[0, len(prompt) - 1 : -1]
                sums.append(torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="sum"))
            counts.append(len(labels))
        if not of_task:
            continue
        if normalisation == "tokens":
            mean = sum(sums) / sum(counts)
        else:
            mean = sum(s / n for s, n in zip(sums, counts, strict=True)) / len(sums)
        total = total + of_task[0].weight * mean
    return total


def planned_loss(
    learner: Learner,
    student: Student,
    questions,
    targets,
    normalisation: str,
    micro_batch_tokens: int,
    processes: int = 1,
):
    """L over the micro-batches of all processes, with its gradients added up in the student."""
    encoder = student.encoder(share_prompt=learner.share_prompt)
    plan = StepPlan(
        tokenise(encoder, questions, targets),
        batch_size=len(questions),
        normalisation=normalisation,
        shape=learner.shape(micro_batch_tokens),
        processes=processes,
    )
    (step,) = plan
    total = torch.zeros(())
    for micro in (micro for rank in range(processes) for micro in step.share(rank, processes)):
        loss, _ = learner(learner.collate(micro, TASKS))
        loss.backward()
        total = total + loss.detach()
    return total


def gradients(student: Student) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in student.model.named_parameters() if p.grad is not None}


def mixture(questions, missing, alpha, lengths=(3, 2, 1, 0)) -> tuple[Target, ...]:
    settings = MixtureSettings(tiny_prefixes(), alpha)
    return mix("tinyllm", questions, some_rationales(questions, missing, lengths), settings)


def tiny_prefixes() -> dict[str, str]:
    return {ANSWER_TASK: "predict: ", **{t: f"explain as {t}: " for t in TEACHERS}}


@pytest.fixture(scope="module", params=FAMILIES)
def student(request) -> Student:
    return tiny_student(request.param)


WAYS = [
    Way(),
    Way(whole_forward=True),
    Way(packed=False),
    Way(packed=False, whole_forward=True),
    Way(packed=False, share_prompt=False),
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    normalisation=st.sampled_from(["tokens", "examples"]),
    missing=st.sets(st.tuples(st.sampled_from([f"q{i}" for i in range(5)]), st.sampled_from(TEACHERS)), max_size=8),
    alpha=st.tuples(*[st.sampled_from([0.0, 0.1, 1.0, 3.0])] * 2),
    micro_batch_tokens=st.sampled_from([16, 300, 900, 100_000]),
    order=st.permutations(range(5)),
    processes=st.sampled_from([1, 2, 3]),
    way=st.sampled_from(WAYS),
    lengths=st.lists(st.integers(0, 9), min_size=10, max_size=10),
)
def test_loss_and_gradients_are_those_of_one_plain_forward_a_task(
    student, normalisation, missing, alpha, micro_batch_tokens, order, processes, way, lengths
):
    questions = some_questions(5, lengths)
    targets = mixture(questions, missing, dict(zip(TEACHERS, alpha, strict=True)), lengths)
    learner = student.learner()
    learner.take(way)

    student.model.zero_grad()
    expected = plain_loss(student, questions, targets, normalisation)
    expected.backward()
    expected_gradients = gradients(student)

    student.model.zero_grad()
    in_other_order = [questions[i] for i in order]
    ours = planned_loss(learner, student, in_other_order, targets, normalisation, micro_batch_tokens, processes)

    torch.testing.assert_close(ours, expected.detach(), rtol=1e-5, atol=0)
    found = gradients(student)
    assert found.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        difference, size = (found[name] - gradient).norm(), gradient.norm()
        assert difference <= 1e-5 * size + 1e-9, (name, difference / size)


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen2"])
def test_a_shared_prompt_row_gives_the_logits_of_separate_rows(family):
    student = tiny_student(family)
    learner = student.learner()
    assert learner.way == Way(), "the probe refused the fastest way for a family that supports it"
    questions = some_questions(5)
    targets = mixture(questions, (), dict.fromkeys(TEACHERS, 1.0))
    encoder = student.encoder()
    rows = [row for group in tokenise(encoder, questions, targets) for row in group]
    assert all(len(row.branches) == 3 for row in rows)
    batch = learner.collate(_one_batch(rows), TASKS)
    with torch.no_grad():
        shared = learner.target_logits(batch)
        separate = []
        for row in rows:
            for branch in row.branches:
                tokens = torch.tensor([[*row.prompt, *branch.prefix, *branch.target]])
                separate.append(student.model(input_ids=tokens).logits[0, -len(branch.target) - 1 : -1])
    torch.testing.assert_close(shared, torch.cat(separate), rtol=1e-5, atol=1e-5)


def test_t5_takes_the_fastest_way():
    assert tiny_student("t5").learner().way == Way()


def test_the_probe_falls_back_to_plain_rows_where_attention_takes_no_mask():
    torch.manual_seed(0)
    model = BloomForCausalLM(
        BloomConfig(vocab_size=259, hidden_size=16, n_layer=2, n_head=2, pad_token_id=0, eos_token_id=1)
    )
    student = Student(model, tiny_tokenizer(), StudentCard(tiny_prefixes()))
    learner = student.learner()  # Bloom reckons positions from a mask of the whole row
    assert learner.way == Way(packed=False, share_prompt=False)
    assert "row of its own" in learner.notes()[0]
    questions = some_questions(3)
    targets = mixture(questions, (), dict.fromkeys(TEACHERS, 1.0))
    expected = plain_loss(student, questions, targets, "tokens")
    ours = planned_loss(learner, student, questions, targets, "tokens", 500)
    torch.testing.assert_close(ours, expected.detach(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_generates_as_before_once_it_has_learnt_packed(family):
    student, other = tiny_student(family), tiny_student(family)
    student.learner()
    tokens = torch.arange(3, 15)[None]
    made = [s.model.generate(input_ids=tokens, max_new_tokens=6, do_sample=False) for s in (student, other)]
    assert torch.equal(*made)


def test_a_missing_rationale_is_masked_not_trained_as_an_empty_target():
    questions = some_questions(2)
    targets = mixture(questions, [("q0", "ada")], dict.fromkeys(TEACHERS, 1.0))
    assert ("q0", "ada") not in {(t.question_id, t.task) for t in targets}
    assert len(targets) == 5


def _one_batch(rows):
    from tinyllm.student._steps import MicroBatch

    return MicroBatch(tuple(rows), tuple(tuple(1.0 for _ in row.branches) for row in rows))
