"""The step plan: who is in a step, in what shapes, with what weights."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.student.encode import Branch, Row
from tinyllm.student.plan import StepPlan, cut, padded_tokens, token_weights

TASKS = ("answer", "ada", "bob")


def row(question: str, prompt: int, lengths: dict[str, int], shared: bool) -> list[Row]:
    prefix = (5, 6) if shared else ()
    branches = [Branch(task, prefix, tuple(range(n)), 0.5 if task != "answer" else 1.0) for task, n in lengths.items()]
    whole = Row(question, tuple(range(prompt)), tuple(branches))
    return [whole] if shared else whole.apart()


@st.composite
def questions(draw):
    shared = draw(st.booleans())
    tasks = st.dictionaries(st.sampled_from(TASKS[1:]), st.integers(1, 60), max_size=2)
    sizes = draw(st.lists(st.tuples(st.integers(1, 80), st.integers(1, 9), tasks), min_size=1, max_size=20))
    return [row(f"q{i}", p, {"answer": a, **t}, shared) for i, (p, a, t) in enumerate(sizes)]


@given(questions(), st.integers(1, 7), st.integers(1, 3), st.sampled_from([16, 100, 5000]), st.integers(0, 3))
def test_each_pass_sees_each_question_once_whatever_the_budget(rows, batch_size, epochs, budget, seed):
    plan = StepPlan(rows, batch_size=batch_size, epochs=epochs, micro_batch_tokens=budget, seed=seed)
    other = StepPlan(rows, batch_size=batch_size, epochs=epochs, micro_batch_tokens=64, seed=seed)
    assert len(plan) == epochs * -(-len(rows) // batch_size)
    for epoch in range(epochs):
        steps = [s for s in plan if s.epoch == epoch]
        seen = Counter(q for s in steps for q in s.question_ids)
        assert seen == Counter({f"q{i}": 1 for i in range(len(rows))})
    for step, same in zip(plan, other, strict=True):
        assert set(step.question_ids) == set(same.question_ids)
        computed = Counter(r for micro in step.micro_batches for r in micro.rows)
        assert computed == Counter(r for micro in same.micro_batches for r in micro.rows)
        for micro in step.micro_batches:
            assert len(micro.rows) == 1 or padded_tokens(micro.rows) <= budget


@given(questions(), st.sampled_from(["tokens", "examples"]))
def test_the_weights_of_a_task_add_up_to_its_alpha(rows, normalisation):
    flat = [r for group in rows for r in group]
    sums: Counter[str] = Counter()
    alpha = {}
    for r, weights in zip(flat, token_weights(flat, normalisation), strict=True):
        for branch, weight in zip(r.branches, weights, strict=True):
            sums[branch.task] += weight * len(branch.target)
            alpha[branch.task] = branch.weight
    assert dict(sums) == pytest.approx(alpha)


@given(questions(), st.integers(1, 5))
def test_processes_share_a_step_evenly_and_completely(rows, processes):
    (step,) = StepPlan(rows, batch_size=len(rows), micro_batch_tokens=120)
    shares = [step.share(rank, processes) for rank in range(processes)]
    assert len({len(s) for s in shares}) == 1
    real = Counter(r for share in shares for micro in share if any(any(w) for w in micro.weights) for r in micro.rows)
    assert real == Counter(r for micro in step.micro_batches for r in micro.rows)


def test_the_order_is_seeded_and_differs_between_passes():
    rows = [row(f"q{i}", 3, {"answer": 2}, True) for i in range(40)]
    orders = [[s.question_ids for s in StepPlan(rows, batch_size=1, epochs=2, seed=seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:40] != orders[0][40:]


def test_a_step_is_the_same_whether_reached_in_order_or_at_once():
    rows = [row(f"q{i}", 3 + i, {"answer": 2, "ada": i + 1}, True) for i in range(11)]
    plan = StepPlan(rows, batch_size=3, epochs=3, seed=5)
    in_order = list(plan)
    places = list(range(len(plan)))
    random.Random(0).shuffle(places)
    assert [StepPlan(rows, batch_size=3, epochs=3, seed=5)[i] for i in places] == [in_order[i] for i in places]
    with pytest.raises(IndexError):
        plan[len(plan)]


def test_max_steps_ends_early_and_never_adds():
    rows = [row(f"q{i}", 3, {"answer": 2}, True) for i in range(6)]
    assert len(StepPlan(rows, batch_size=2, epochs=5, max_steps=4)) == 4
    assert len(StepPlan(rows, batch_size=2, epochs=1, max_steps=40)) == 3


def test_sorting_by_length_saves_padding():
    lengths = [1, 50, 2, 49, 3, 48, 4, 47]
    rows = [r for i, n in enumerate(lengths) for r in row(f"q{i}", 10, {"answer": n}, False)]
    weights = token_weights(rows, "tokens")
    ours = sum(padded_tokens(m.rows) for m in cut(rows, weights, 240))
    assert ours < sum(padded_tokens(rows[i : i + 2]) for i in range(0, 8, 2))
    lengths_in_order = [max(r.target_length for r in m.rows) for m in cut(rows, weights, 240)]
    assert lengths_in_order == sorted(lengths_in_order, reverse=True), "the longest come first"
