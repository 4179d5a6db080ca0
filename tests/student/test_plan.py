"""The step plan: who is in a step, in what shapes, with what weights."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyllm.student._steps import Schedule
from tinyllm.student.encode import Branch, Row
from tinyllm.student.plan import Shape, StepPlan, _weighted, cut

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


SHAPES = st.builds(Shape, st.sampled_from([16, 100, 5000]), st.booleans(), st.booleans())


def flat(rows) -> list[Row]:
    return [r for group in rows for r in group]


@given(questions(), st.integers(1, 7), st.integers(1, 3), SHAPES, st.integers(0, 3), st.integers(1, 3))
@example([row("q0", 43, {"answer": 1, "ada": 13}, False)], 1, 1, Shape(100), 0, 1)  # half a token's scores each
def test_each_pass_sees_each_question_once_whatever_the_shape(rows, batch_size, epochs, shape, seed, processes):
    plan = StepPlan(rows, batch_size=batch_size, epochs=epochs, shape=shape, seed=seed, processes=processes)
    other = StepPlan(rows, batch_size=batch_size, epochs=epochs, shape=Shape(64), seed=seed)
    assert len(plan) == epochs * -(-len(rows) // batch_size)
    for epoch in range(epochs):
        steps = [s for s in plan if s.epoch == epoch]
        seen = Counter(q for s in steps for q in s.question_ids)
        assert seen == Counter({f"q{i}": 1 for i in range(len(rows))})
    for step, same in zip(plan, other, strict=True):
        assert set(step.question_ids) == set(same.question_ids)
        computed = Counter(r for micro in step.micro_batches for r in micro.rows)
        assert computed == Counter(r for micro in same.micro_batches for r in micro.rows)
        apart = all(len({r.prompt for r in m.rows}) == 1 for m in step.micro_batches)
        assert len(step.micro_batches) % processes == 0 or apart
        costs = [shape.size(micro.rows).cost for micro in step.micro_batches]
        assert costs == sorted(costs, reverse=True), "the dearest come first"
        assert all(len(m.rows) == 1 or cost <= shape.tokens for m, cost in zip(step.micro_batches, costs, strict=True))


@given(questions(), SHAPES)
def test_totals_are_those_of_all_steps(rows, shape):
    plan = StepPlan(rows, batch_size=3, shape=shape)
    totals = plan.totals()
    assert totals.questions == len(rows)
    assert totals.target_tokens == sum(len(b.target) for r in flat(rows) for b in r.branches)
    assert (totals.padding_fraction == 0) if shape.packed else (0 <= totals.padding_fraction < 1)
    assert plan.totals(1).questions == min(3, len(rows))
    as_json = plan.as_json()
    assert [q for step in as_json["plan"] for q in step["questions"]] == [q for s in plan for q in s.question_ids]
    assert sum(m["tokens"] for step in as_json["plan"] for m in step["micro_batches"]) == totals.real


def test_packed_rows_are_dealt_into_few_groups_of_about_the_same_cost():
    rows = flat(row(f"q{i}", 50 + 7 * i, {"answer": 3}, True) for i in range(12))
    groups = cut(rows, _weighted(rows, "tokens")[1], Shape(400))
    costs = [Shape(400).size(g.rows).cost for g in groups]
    assert len(groups) == -(-sum(costs) // 400)
    assert max(costs) - min(costs) < 60


def test_the_cost_of_attention_counts():
    long = flat(row(f"q{i}", 4000, {"answer": 3}, True) for i in range(2))
    assert Shape().size(long).cost > Shape().size(long).computed + 2 * 4000 * 4000 // 5000
    assert len(cut(long, _weighted(long, "tokens")[1], Shape(9000))) == 2


def test_rows_with_one_prompt_are_encoded_once_and_together():
    one = row("q0", 30, {"answer": 2, "ada": 9, "bob": 4}, False)
    other = row("q1", 20, {"answer": 5}, False)
    shape = Shape(1000, encoder_decoder=True)
    assert shape.size([*one, *other]).real == 30 + 2 + 9 + 4 + 20 + 5
    groups = cut([one[0], *other, *one[1:]], [(1.0,)] * 4, Shape(60, encoder_decoder=True))
    assert {frozenset(r.question_id for r in g.rows) for g in groups} == {frozenset({"q0"}), frozenset({"q1"})}


def test_weights_fall_to_zero_and_then_only_answers_are_learnt_and_computed():
    rows = [row(f"q{i}", 5, {"answer": 2, "ada": 9, "bob": 4}, True) for i in range(10)]
    schedule = Schedule({"ada": "linear"}, answers_only=0.2)
    steps = StepPlan(rows, batch_size=1, schedule=schedule).as_json()["plan"]
    assert [step["alpha"].get("ada") for step in steps] == pytest.approx(
        [0.5 * (1 - i / 8) for i in range(8)] + [None] * 2
    )
    assert [step["alpha"].get("bob") for step in steps] == [0.5] * 8 + [None] * 2
    assert [step["alpha"]["answer"] for step in steps] == [1.0] * 10
    assert steps[-1]["micro_batches"][0]["target_tokens"] == 2
    apart = [row(f"q{i}", 5, {"answer": 2, "ada": 9}, False) for i in range(2)]
    last = StepPlan(apart, batch_size=2, schedule=Schedule(answers_only=0.9))[0]
    assert [r.branches[0].task for m in last.micro_batches for r in m.rows] == ["answer", "answer"]


@given(questions(), st.sampled_from(["tokens", "examples"]))
def test_the_weights_of_a_task_add_up_to_its_alpha(rows, normalisation):
    every = flat(rows)
    sums: Counter[str] = Counter()
    alpha = {}
    for r, weights in zip(every, _weighted(every, normalisation)[1], strict=True):
        for branch, weight in zip(r.branches, weights, strict=True):
            sums[branch.task] += weight * len(branch.target)
            alpha[branch.task] = branch.weight
    assert dict(sums) == pytest.approx(alpha)


@given(questions(), st.integers(1, 5), st.booleans())
def test_processes_share_a_step_evenly_and_completely(rows, processes, packed):
    (step,) = StepPlan(rows, batch_size=len(rows), shape=Shape(120, packed), processes=processes)
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
    shape = Shape(240, packed=False, encoder_decoder=True)
    ours = sum(shape.size(m.rows).computed for m in cut(rows, _weighted(rows, "tokens")[1], shape))
    assert ours < sum(shape.size(rows[i : i + 2]).computed for i in range(0, 8, 2))
