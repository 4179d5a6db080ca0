"""Pooling: weights learned from answers or from agreement, the limit `trust`, and the control."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.config import SoftSection
from tinyllm.opinions import _weights as pool
from tinyllm.opinions.pool import Pooled, pool_opinions
from tinyllm.opinions.types import Opinion
from tinyllm.questions import Question


def opinion(draw: random.Random, answer: int, right: float, sure: float, choices: int = 4) -> pool.Shares:
    """An opinion whose first choice is right with probability `right` and has the confidence `sure`."""
    other = draw.choice([c for c in range(choices) if c != answer])
    best = answer if draw.random() < right else other
    return tuple(sure if c == best else (1 - sure) / (choices - 1) for c in range(choices))


def asked(number: int, teachers: dict[str, tuple[float, float]], seed: int = 0) -> list[tuple[pool.Opinions, int]]:
    """Opinions of teachers, each with an accuracy and a confidence."""
    draw = random.Random(seed)
    made = []
    for _ in range(number):
        answer = draw.randrange(4)
        made.append(({name: opinion(draw, answer, *how) for name, how in teachers.items()}, answer))
    return made


def test_a_pooled_opinion_is_the_product_of_powers():
    two = {"a": (0.6, 0.3, 0.1), "b": (0.2, 0.5, 0.3), "c": (1.0, 0.0, 0.0)}
    found = pool.pool(two, {"a": 1.0, "b": 0.5, "c": 0.0})
    raw = [a * math.sqrt(b) for a, b in zip(two["a"], two["b"], strict=True)]
    assert found == pytest.approx([r / sum(raw) for r in raw], abs=1e-5)
    sharp = [r**2 for r in raw]
    assert pool.pool(two, {"a": 1.0, "b": 0.5}, 0.5) == pytest.approx([r / sum(sharp) for r in sharp], abs=1e-5)
    assert pool.pool(two, {"d": 1.0, "c": 0.0}) is None
    assert sum(pool.pool(two, {"c": 1.0})) == pytest.approx(1)


def test_learned_weights_have_the_highest_likelihood_and_correct_overconfidence():
    known = asked(600, {"knows": (0.8, 0.8), "boasts": (0.5, 0.99), "guesses": (0.25, 0.7)})
    names = ["knows", "boasts", "guesses"]
    weights = pool.weights_by_answers(known, names)
    assert weights["knows"] > 0.8 > 0.4 > weights["boasts"] > 0.05
    assert weights["guesses"] < 0.1

    def loss(these) -> float:
        pooled = ((pool.pool(opinions, these), answer) for opinions, answer in known)
        likely = sum(math.log(shares[answer]) for shares, answer in pooled)
        return -likely + sum((w - 1 / 3) ** 2 for w in these.values()) / 2

    best = loss(weights)
    for name in names:
        for step in (-0.05, 0.05):
            moved = weights | {name: max(1e-9, weights[name] + step)}
            assert loss(moved) >= best - 1e-3, (name, step)


def test_few_answers_change_the_weights_little():
    known = asked(10, {"a": (1.0, 0.5), "b": (0.0, 0.5)})
    few, many = pool.weights_by_answers(known[:1], ["a", "b"]), pool.weights_by_answers(known * 20, ["a", "b"])
    assert 0.2 < few["b"] <= few["a"] < 1.2
    assert (many["b"], many["a"] > 3) == (0.0, True)


def test_the_weight_of_a_teacher_depends_only_on_questions_it_was_asked():
    known = asked(200, {"a": (0.9, 0.8), "b": (0.9, 0.8)})
    known = [({"a": o["a"]}, answer) if i % 2 else (o, answer) for i, (o, answer) in enumerate(known)]
    assert pool.weights_by_answers(known, ["a", "b"])["b"] > 0.5


def test_the_agreement_of_three_teachers_gives_their_accuracies():
    teachers = {"good": (0.85, 0.99), "fair": (0.6, 0.5), "poor": (0.4, 0.9)}
    opinions = [found for found, _ in asked(3000, teachers)]
    votes = [{name: (int(np.argmax(s)), len(s)) for name, s in one.items()} for one in opinions]
    right = pool._accuracies(votes, list(teachers))
    assert right == pytest.approx({name: how[0] for name, how in teachers.items()}, abs=0.06)
    weights = pool.weights_by_agreement(opinions, list(teachers))
    answers = [answer for _, answer in asked(3000, teachers)]
    for name, found in right.items():  # the confidence of each equals its accuracy
        alone = [pool.pool(one, {name: 3 * weights[name]}) for one in opinions]
        assert np.mean([max(p) for p in alone]) == pytest.approx(found, abs=0.01)
    pooled = [pool.pool(one, weights) for one in opinions]
    assert np.mean([np.argmax(p) == a for p, a in zip(pooled, answers, strict=True)]) > 0.84


def test_teachers_without_an_opinion_do_not_seem_to_agree():
    """Two that find all choices alike are no majority against one that knows the answers."""
    opinions = [
        found | {"one": (0.25,) * 4, "other": (0.25,) * 4} for found, _ in asked(300, {"good": (0.9, 0.9)})
    ]  # fmt: skip
    alone = pool.weights_by_agreement([{"good": o["good"]} for o in opinions], ["good", "one", "other"])
    assert pool.weights_by_agreement(opinions, ["good", "one", "other"])["good"] == alone["good"]


def test_two_teachers_have_equal_weights_without_answers():
    opinions = [found for found, _ in asked(50, {"a": (0.9, 0.9), "b": (0.3, 0.9)})]
    assert pool.weights_by_agreement(opinions, ["a", "b"]) == {"a": 0.5, "b": 0.5}
    assert pool.weights_by_agreement([], ["a", "b", "c"]) is not None


def test_opinions_as_good_as_guessing_are_not_used():
    draw = random.Random(1)
    sure = [(opinion(draw, a, 0.95, 0.9), a) for a in (draw.randrange(4) for _ in range(100))]
    unsure = [(opinion(draw, a, 0.25, 0.4), a) for a in (draw.randrange(4) for _ in range(100))]
    assert pool.trusted_from([*unsure, *sure]) == pytest.approx(0.9)
    assert pool.trusted_from(sure) == 0.0
    assert pool.trusted_from(sure[: pool.FEW - 1]) == 0.0
    assert pool.trusted_from([]) == 0.0


def test_an_opinion_that_ties_is_right_only_by_chance():
    draw = random.Random(2)
    sure = [(opinion(draw, a, 0.95, 0.9), a) for a in (draw.randrange(4) for _ in range(100))]
    unsure = [((0.25,) * 4, draw.randrange(4)) for _ in range(100)]
    assert pool.trusted_from([*unsure, *sure]) == pytest.approx(0.9)


def test_opinions_that_are_never_better_than_guessing_are_all_left_out():
    assert pool.trusted_from([((0.25,) * 4, n % 4) for n in range(100)]) == 1.0
    assert pool.trusted_from([((0.7, 0.1, 0.1, 0.1), n % 4) for n in range(100)]) == 1.0
    questions = [Question(f"q{n}", f"Which of {n}?", ("a", "b"), None) for n in range(4)]
    opinions = [Opinion(q.id, "one", (1.0, 0.0), "given", 1, 1.0) for q in questions]
    found = pool_opinions(SoftSection(teachers={"one": 5.0}, trust=1), ["one"], (questions, opinions), ((), ()))
    assert (dict(found.shares), found.untrusted) == ({}, 4)


@given(st.lists(st.integers(2, 5), min_size=1, max_size=30), st.integers(0, 5))
def test_the_control_moves_each_opinion_to_another_question_with_the_same_number_of_choices(counts, seed):
    pooled = {f"q{i}": (i / 100, *([(1 - i / 100) / (n - 1)] * (n - 1))) for i, n in enumerate(counts)}
    made = Pooled(pooled, {}, "", 0.0, 0, ())
    moved = made.shuffled(seed)
    assert Counter(moved.values()) == Counter(pooled.values())
    alone = Counter(counts)
    for i, n in enumerate(counts):
        assert len(moved[f"q{i}"]) == n
        assert (moved[f"q{i}"] != pooled[f"q{i}"]) == (alone[n] > 1)
    assert made.shuffled(seed) == moved


def test_opinions_on_questions_that_are_not_learnt_are_not_used():
    questions = [Question(f"q{n}", f"Which of {n}?", ("a", "b"), None) for n in range(4)]
    opinions = [Opinion(q.id, "one", (0.5 + n / 10, 0.5 - n / 10), "given", 1, 1.0) for n, q in enumerate(questions)]
    section = SoftSection(teachers={"one": 1.0}, trust=0)
    found = pool_opinions(section, ["one"], (questions[:2], opinions), ((), ()))
    assert set(found.shares) == {"q0", "q1"}
    assert set(found.shuffled(0).values()) == set(found.shares.values())


def test_the_opinions_that_set_the_limit_reach_it():
    """Pooled opinions are rounded, so that the rounded shares of a unanimous vote sum to 0.999999."""
    unanimous = pool.pool({"one": (8.2 / 9, *(0.2 / 9,) * 4)}, {"one": 1.0})
    limit = pool.trusted_from([(unanimous, 0)] * 20 + [((0.2,) * 5, n % 5) for n in range(20)])
    assert 0.9 < limit <= max(unanimous)


def test_certain_opinions_that_are_right_are_used():
    """1 would mean that no opinion is used."""
    questions = [Question(f"q{n}", f"Which of {n}?", ("a", "b"), None) for n in range(4)]
    opinions = [Opinion(q.id, "one", (1.0, 0.0), "given", 1, 1.0) for q in questions]
    valid = [Question(f"v{n}", f"And of {n}?", ("a", "b"), 0 if n < 12 else n % 2) for n in range(20)]
    known = [Opinion(q.id, "one", (1.0, 0.0) if n < 12 else (0.5, 0.5), "given", 1, 1.0) for n, q in enumerate(valid)]
    found = pool_opinions(SoftSection(teachers={"one": 5.0}), ["one"], (questions, opinions), (valid, known))
    assert (len(found.shares), found.untrusted) == (4, 0)
    assert 0.9 < found.trust < 1
