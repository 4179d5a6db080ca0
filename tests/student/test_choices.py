"""The loss of choosing is the cross-entropy of the softmax over the choices' scores, however the step is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from support import FAMILIES, TEACHERS, some_questions, some_rationales, tiny_student
from tinyllm.config import ANSWER_TASK, CHOICES_TASK, compares_by_token, task_prefixes
from tinyllm.config._student import PrefixesSection
from tinyllm.questions import Question
from tinyllm.scoring.score import score_options
from tinyllm.student._choices import Choices
from tinyllm.student._loss import Head, step_loss, sums_by_task, weighted_cross_entropy
from tinyllm.student._rows import Choice
from tinyllm.student._ways import ALONE, Way
from tinyllm.student.encode import Encoder, Row
from tinyllm.student.learner import Learner
from tinyllm.student.mixture import MixtureSettings, Target, mix
from tinyllm.student.model import Student
from tinyllm.student.plan import Shape, StepPlan, cut
from tinyllm.student.train import fingerprint, tokenise

TASKS = (ANSWER_TASK, *TEACHERS, CHOICES_TASK)
WAYS = [
    Way(),
    Way(whole_forward=True),
    Way(packed=False),
    Way(packed=False, share_prompt=False),
    ALONE,
]
VOCABULARY, WIDTH = 97, 6


# --- the reference ------------------------------------------------------------------------------------------------


def log_likelihoods(student: Student, encoder: Encoder, question: Question, target: Target, text: str, *, cuts: bool):
    """Log-likelihood of each token of a text, by the model's own forward of this text alone."""
    labels = encoder.target(text) if cuts else (*encoder._answer(text), encoder.end)
    prompt = encoder.generation_prompt(question, target.prefix, target.reading)
    if student.is_encoder_decoder:
        logits = student.model(input_ids=torch.tensor([prompt]), labels=torch.tensor([labels])).logits[0]
    else:
        logits = student.model(input_ids=torch.tensor([[*prompt, *labels]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(labels)), torch.tensor(labels)]


def plain_loss(student: Student, questions: Sequence[Question], targets: Sequence[Target], normalisation: str):
    """Σ over the tasks of α times the task's mean loss; a question whose choices are compared counts as one."""
    encoder, by_id = student.encoder(), {q.id: q for q in questions}
    total = torch.zeros(())
    for _, group in groupby(sorted(targets, key=lambda t: t.learnt), key=lambda t: t.learnt):
        losses, tokens = [], []
        for target in (of := list(group)):
            question = by_id[target.question_id]
            if target.shares:
                found = [log_likelihoods(student, encoder, question, target, c, cuts=False) for c in question.choices]
                by_token = compares_by_token(student.card.layout)
                scores = torch.stack([f.mean() if by_token else f.sum() for f in found])
                losses.append(-(torch.tensor(target.shares) * scores.log_softmax(0)).sum())
                tokens.append(1)
            else:
                found = log_likelihoods(student, encoder, question, target, target.text, cuts=True)
                losses.append(-found.sum() if normalisation == "tokens" else -found.mean())
                tokens.append(len(found) if normalisation == "tokens" else 1)
        total = total + of[0].weight * sum(losses) / sum(tokens)
    return total


# --- ours ---------------------------------------------------------------------------------------------------------


def planned_loss(learner: Learner, student: Student, questions, targets, normalisation, tokens: int, processes: int):
    """The same over the micro-batches of all processes, with its gradients added up in the student; and by task."""
    plan = StepPlan(
        tokenise(student.encoder(share_prompt=learner.share_prompt), questions, targets),
        batch_size=len(questions),
        normalisation=normalisation,
        shape=learner.shape(tokens),
        processes=processes,
    )
    (step,) = plan
    total, sums = torch.zeros(()), torch.zeros(2, len(TASKS))
    for micro in (micro for rank in range(processes) for micro in step.share(rank, processes)):
        batch = learner.collate(micro, TASKS)
        loss, each = learner(batch)
        loss.backward()
        total = total + loss.detach()
        sums += sums_by_task(each, batch["weights"], batch["task_ids"], len(TASKS), batch.get("choices"))
    return total, sums


def gradients(student: Student) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in student.model.named_parameters() if p.grad is not None}


def asked(count: int, choices: Sequence[int]) -> list[Question]:
    """Questions with different numbers of choices of different lengths."""
    return [
        replace(q, choices=q.choices[: choices[i % len(choices)]], answer=i % choices[i % len(choices)])
        for i, q in enumerate(some_questions(count))
    ]


def soft_shares(questions: Sequence[Question]) -> dict[str, tuple[float, ...]]:
    """Shares that no choice has alone, of one question none for its first choice; one question has its answer alone."""
    soft = {}
    for i, question in enumerate(questions):
        raw = [float((i + 3 * k) % 5) for k in range(len(question.choices))]
        raw = raw if sum(raw) else [1.0, *raw[1:]]
        if i != 2:
            soft[question.id] = tuple(r / sum(raw) for r in raw)
    return soft


@pytest.fixture(scope="module", params=FAMILIES)
def student(request) -> Student:
    return tiny_student(request.param)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answer=st.sampled_from(["text", "choices", "both"]),
    use=st.sampled_from(["target", "before", "input"]),
    soft=st.booleans(),
    layout=st.sampled_from(["cloze", "labelled"]),
    normalisation=st.sampled_from(["tokens", "examples"]),
    alpha=st.tuples(*[st.sampled_from([0.0, 0.5, 3.0])] * 2),
    choices=st.lists(st.integers(2, 4), min_size=1, max_size=4),
    tokens=st.sampled_from([16, 300, 900, 100_000]),
    processes=st.sampled_from([1, 2, 3]),
    order=st.permutations(range(4)),
    way=st.sampled_from(WAYS),
)
def test_loss_and_gradients_are_those_of_one_plain_forward_a_choice(
    student, answer, use, soft, layout, normalisation, alpha, choices, tokens, processes, order, way
):
    student.card = replace(student.card, layout=layout)
    questions = asked(4, choices)
    weights = dict(zip(TEACHERS, alpha, strict=True))
    shares = soft_shares(questions) if soft else {}
    of_run = MixtureSettings(task_prefixes(PrefixesSection(), TEACHERS), weights, answer, use, shares=shares)
    told = some_rationales(
        questions, [("q1", "ada")], lengths=(3, 1, 2, 0)
    )  # teachers differ, so there are two to read
    targets = mix("tinyllm", questions, told, of_run)
    learnt_softly = {t.question_id: t.shares for t in targets if t.shares and max(t.shares) < 1}
    assert learnt_softly == {name: s for name, s in shares.items() if answer != "text" and max(s) < 1}
    learner = student.learner()
    learner.take(ALONE)

    student.model.zero_grad()
    expected = plain_loss(student, questions, targets, normalisation)
    expected.backward()
    expected_gradients = gradients(student)

    learner.take(way)
    student.model.zero_grad()
    in_other_order = [questions[i] for i in order]
    ours, sums = planned_loss(learner, student, in_other_order, targets, normalisation, tokens, processes)

    # A choice's score is a sum of some hundred, so where the loss is near 0 its last digits are those of the scores.
    torch.testing.assert_close(ours, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums[0].sum(), ours, rtol=1e-5, atol=0)
    learnt = {t.learnt for t in targets}
    assert {task for task, weight in zip(TASKS, sums[1].tolist(), strict=True) if weight > 0} == learnt
    found = gradients(student)
    whole = torch.stack([g.norm() for g in expected_gradients.values()]).norm()  # of which each has the rounding
    for name, gradient in expected_gradients.items():
        difference, size = (found[name] - gradient).norm(), gradient.norm()
        assert difference <= 1e-5 * (size + whole.clamp_min(1.0)), (name, difference, size, whole)


# --- parts of it --------------------------------------------------------------------------------------------------


def compared(counts: Sequence[int], lengths: Sequence[int], before: int) -> Choices:
    """Questions with so many choices of such lengths (repeated), after so many tokens of a text."""
    width, at, spans = max(counts), before, []
    places, scales = [len(counts) * width] * before, torch.zeros(len(counts), width)
    for question, count in enumerate(counts):
        start = at
        for number in range(count):
            length = lengths[(question + number) % len(lengths)]
            places += [question * width + number] * length
            scales[question, number] = 1 / length
            at += length
        spans.append((start, at))
    shares = torch.rand_like(scales) * (scales > 0)
    weights = torch.rand(len(counts))
    return Choices(torch.tensor(places), shares / shares.sum(1, keepdim=True), scales, weights, tuple(spans), 0)


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(2, 5), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    before=st.integers(0, 30),
    bias=st.booleans(),
    cap=st.sampled_from([None, 1.5]),
    chunk=st.sampled_from([1, 20, 10_000]),
)
def test_chunks_do_not_change_loss_or_gradients(counts, lengths, before, bias, cap, chunk):
    torch.manual_seed(before)
    choices = compared(counts, lengths, before)
    tokens = len(choices.places)
    layer, hidden = nn.Linear(WIDTH, VOCABULARY, bias=bias), torch.randn(tokens, WIDTH, requires_grad=True)
    labels, weights = torch.randint(VOCABULARY, (tokens,)), torch.rand(tokens)
    weights[before:] = 0
    head, leaves = Head(layer, cap), [hidden, *layer.parameters()]
    each = functional.cross_entropy(head.logits(hidden), labels, reduction="none")
    expected = step_loss(each, weights, choices)
    theirs = torch.autograd.grad(3 * expected, leaves)
    size = chunk * 4 * VOCABULARY
    ours, ours_each = weighted_cross_entropy(head, hidden, labels, weights, choices, chunk_bytes=size)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours_each, each, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(3 * ours, leaves)
    for mine, reference in zip(found, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_gradients_of_tiny_weights_survive_half_precision(precision):
    torch.manual_seed(0)
    choices = compared([4, 3, 4], [3, 5], 0)
    choices = replace(choices, weights=choices.weights * 1e-9)  # far below what half precision can hold
    tokens = len(choices.places)
    layer, hidden = nn.Linear(WIDTH, VOCABULARY, bias=False), torch.randn(tokens, WIDTH)
    labels, none = torch.randint(VOCABULARY, (tokens,)), torch.zeros(tokens)
    with torch.autocast("cpu", dtype=precision):
        ours, _ = weighted_cross_entropy(Head(layer), hidden, labels, none, choices)
    each = functional.cross_entropy(layer(hidden), labels, reduction="none")
    (gradient,) = torch.autograd.grad(ours, [layer.weight])
    (expected,) = torch.autograd.grad(step_loss(each, none, choices), [layer.weight])
    assert (gradient - expected).norm() < 0.05 * expected.norm()


@given(
    counts=st.lists(st.integers(2, 5), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    before=st.integers(0, 30),
    size=st.integers(1, 60),
)
def test_a_part_of_the_tokens_holds_whole_questions(counts, lengths, before, size):
    choices = compared(counts, lengths, before)
    parts = choices.whole_parts(size)
    assert [i for p in parts for i in range(p.start, p.stop)] == list(range(len(choices.places)))
    for start, end in choices.spans:
        assert sum(p.start < end and start < p.stop for p in parts) == 1
    assert all(p.stop - p.start <= size or (p.start, p.stop) in choices.spans for p in parts)


@given(
    st.lists(st.integers(2, 5), min_size=1, max_size=8),
    st.builds(Shape, st.sampled_from([16, 60, 400]), st.booleans(), st.booleans()),
    st.integers(1, 3),
)
def test_no_cut_goes_between_the_choices_of_a_question(counts, shape, processes):
    rows = []
    for number, count in enumerate(counts):
        prompt = tuple(range(5 + number))
        branches = [Choice(ANSWER_TASK, (), tuple(range(2 + k)), share=float(not k)) for k in range(count)]
        rows += Row(f"q{number}", prompt, tuple(branches)).apart()
    micros = cut(rows, [(1.0,)] * len(rows), shape, processes)
    homes = [{r.question_id for r in m.rows} for m in micros]
    assert all(sum(f"q{number}" in home for home in homes) == 1 for number in range(len(counts)))


@pytest.mark.parametrize("layout", ["cloze", "labelled"])
@pytest.mark.parametrize("family", ["t5", "llama"])
def test_choices_are_compared_as_evaluation_ranks_them(family, layout):
    student = tiny_student(family)
    student.card = replace(student.card, layout=layout)
    questions, learner = some_questions(3), student.learner()
    settings = MixtureSettings(task_prefixes(PrefixesSection(), TEACHERS), {}, "choices")
    targets = mix("fine-tuning", questions, (), settings)
    losses = []
    for question, target in zip(questions, targets, strict=True):
        with torch.no_grad():
            loss, _ = planned_silently(learner, student, question, target)
        losses.append(float(loss))
    scores = [s.ranking(layout) for s in score_options(student, learner, questions)]
    expected = [-torch.tensor(s).log_softmax(0)[q.answer] for s, q in zip(scores, questions, strict=True)]
    assert losses == pytest.approx([float(e) for e in expected], rel=1e-5)


def planned_silently(learner, student, question, target):
    rows = tokenise(student.encoder(share_prompt=learner.share_prompt), [question], [target])
    (micro,) = StepPlan(rows, batch_size=1, shape=learner.shape(10_000))[0].micro_batches
    return learner(learner.collate(micro, TASKS))


def test_a_shared_prefix_stands_once_before_the_choices():
    student, questions = tiny_student("llama"), some_questions(1)
    settings = MixtureSettings(task_prefixes(PrefixesSection(), TEACHERS), dict.fromkeys(TEACHERS, 1.0), "both")
    (alone,) = student.encoder().rows(questions[0], mix("fine-tuning", questions, (), settings))
    assert alone.prompt == student.encoder().generation_prompt(questions[0], "predict: ")
    assert all(not b.prefix for b in alone.branches)
    both = mix("tinyllm", questions, some_rationales(questions), settings)
    (row,) = student.encoder().rows(questions[0], both)
    assert [len(b.prefix) > 0 for b in row.branches] == [True] * 6
    assert row.prompt + row.branches[0].prefix == alone.prompt


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize(("longest", "branches"), [(256, 4), (3, 5)])
def test_the_right_choice_is_computed_once_unless_its_text_is_cut(family, longest, branches):
    student, questions = tiny_student(family), some_questions(1)
    settings = MixtureSettings(task_prefixes(PrefixesSection(), TEACHERS), {}, "both")
    encoder = student.encoder(max_target_tokens=longest)
    rows = encoder.rows(questions[0], mix("fine-tuning", questions, (), settings))
    assert sum(len(row.branches) for row in rows) == branches


def test_what_is_learnt_of_an_answer_is_part_of_the_fingerprint():
    student, questions = tiny_student("llama"), some_questions(4)
    plans = {}
    for answer in ("text", "choices", "both"):
        found = []
        for shares in ({}, soft_shares(questions)):
            settings = MixtureSettings(task_prefixes(PrefixesSection(), TEACHERS), {}, answer, shares=shares)
            targets = mix("fine-tuning", questions, (), settings)
            found.append(fingerprint(StepPlan(tokenise(student.encoder(), questions, targets), batch_size=2)))
        assert (found[0] == found[1]) == (answer == "text")
        plans[answer] = found[0]
    assert len(set(plans.values())) == 3


def test_shares_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match="'q0' are no probabilities"):
        Target("q0", ANSWER_TASK, "predict: ", "", 1.0, shares=(0.5, 0.6))
