"""The cut is the one that its description says, whether the questions are in memory or on disk."""

import hashlib
import re
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.questions import Question
from tinyllm.questions._cut import cut
from tinyllm.questions._spool import gather


def without_punctuation(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def rank(q: Question, seed: int) -> str:
    texts = [str(seed), q.question, q.context or "", *sorted(q.choices)]
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()


def as_described(
    questions: Sequence[Question], counts: Mapping[str, int], seed: int, answered: bool = False
) -> dict[str, list[Question]]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, q in enumerate(questions):
        texts = (q.context or "", q.question, *sorted(q.choices, key=without_punctuation))
        groups.setdefault(tuple(map(without_punctuation, texts)), []).append(place)
    waiting = sorted(groups.values(), key=lambda group: min(rank(questions[place], seed) for place in group))
    stay = [group for group in waiting if answered and all(questions[place].answer is None for place in group)]
    waiting = [group for group in waiting if group not in stay]
    parts: dict[str, list[int]] = {}
    for split, count in counts.items():
        parts[split] = []
        while waiting and len(parts[split]) < count:
            parts[split] += waiting.pop(0)
    parts["train"] = [place for group in waiting + stay for place in group]
    return {split: [questions[place] for place in sorted(places)] for split, places in parts.items()}


TEXT = st.sampled_from(["a", "b", "ü", "a b", "A, b!", "?", "!"])
QUESTION = st.builds(
    Question,
    st.text("xyz"),
    TEXT,
    st.permutations(["x", "y", "z"]).map(tuple) | st.permutations(["X.", "y", "z"]).map(tuple),
    st.none() | st.just(0),
    st.none() | TEXT,
)


@settings(deadline=None)
@given(
    st.lists(QUESTION, max_size=30),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
)
def test_a_cut_takes_groups_of_repeated_questions_by_their_hash(
    questions: list[Question], test: int, valid: int, seed: int, answered: bool, on_disk: bool
) -> None:
    made, counts = gather(questions, in_memory=0 if on_disk else 99), {"test": test, "valid": valid}
    parts = cut(made, counts, seed, answered=answered)
    assert {name: list(part) for name, part in parts.items()} == as_described(questions, counts, seed, answered)


def test_a_question_with_other_punctuation_is_in_the_same_split() -> None:
    texts = [f"What is the capital of country {i}?" for i in range(40)]
    twins = [f"what is,  the capital of country {i} ?!" for i in range(40)]
    made = [Question(t, t, ("Lima", "Quito"), 0) for t in texts]
    made += [Question(t, t, ("quito.", "Lima"), 0) for t in twins]
    parts = cut(made, {"test": 20, "valid": 10}, seed=0)
    numbers = {split: {q.id.strip(" ?!").split()[-1] for q in part} for split, part in parts.items()}
    assert sum(map(len, numbers.values())) == 40, "each number is in one split"
    assert [len(parts["test"]), len(parts["valid"])] == [20, 10]


@pytest.mark.parametrize("order", [(1762, 121735), (121735, 1762)])
def test_questions_whose_hashes_begin_alike_do_not_count_as_repetitions(order: tuple[int, int]) -> None:
    alike = [Question(f"q{i}", f"q {i}?", ("x", "y"), 0) for i in order]  # f232f7a6…, both
    parts = cut(alike, {"test": 1}, seed=0)
    assert {name: list(part) for name, part in parts.items()} == as_described(alike, {"test": 1}, 0)
    assert len(parts["test"]) == 1
