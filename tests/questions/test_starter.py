"""The starter questions keep what their datasheet says."""

import re
from collections import Counter
from collections.abc import Callable
from importlib import resources

import pytest

from tinyllm.config import DataSection
from tinyllm.questions import Question, Splits, load_splits

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def starter() -> Splits:
    return load_splits(DataSection(dataset="starter"))


def part(starter: Splits, split: str) -> tuple[Question, ...]:
    found: tuple[Question, ...] = getattr(starter, split)
    return found


def test_counts(starter: Splits) -> None:
    assert [len(part(starter, s)) for s in SPLITS] == [160, 40, 240]
    assert starter.warnings == {}
    assert starter.dropped == ()


def test_four_different_choices_and_no_question_twice(starter: Splits) -> None:
    questions = [q for s in SPLITS for q in part(starter, s)]
    assert all(len({c.casefold() for c in q.choices}) == 4 for q in questions)
    assert len({q.id for q in questions}) == len({q.question.casefold() for q in questions}) == 440
    assert all(re.fullmatch(r"(science|everyday)-\d{3}", q.id) for q in questions)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_spread_evenly_over_the_positions(starter: Splits, split: str) -> None:
    positions = Counter(q.answer for q in part(starter, split))
    assert max(positions.values()) - min(positions.values()) <= 1
    assert set(positions) == {0, 1, 2, 3}


@pytest.mark.parametrize("measure", [len, lambda text: len(text.split())], ids=["characters", "words"])
@pytest.mark.parametrize("rank", range(4))
@pytest.mark.parametrize("split", SPLITS)
def test_length_does_not_give_the_answer_away(
    starter: Splits, split: str, rank: int, measure: Callable[[str], int]
) -> None:
    """Pick the choice of a rank in length, at random among equally long ones: rarely right, chance is 25 %."""
    right = 0.0
    for question in part(starter, split):
        lengths = [measure(c) for c in question.choices]
        picked = [i for i, n in enumerate(lengths) if n == sorted(lengths)[rank]]
        right += (question.answer in picked) / len(picked)
    assert right / len(part(starter, split)) <= 0.35


def test_worked_rationales_are_in_train(starter: Splits) -> None:
    worked = [q.rationales["worked"] for q in starter.train if q.rationales]
    assert len(worked) == 64
    assert all(2 <= len(re.findall(r"[.!?](?=\s|$)", text)) <= 3 for text in worked)
    assert not any(q.rationales for q in starter.valid + starter.test)


def test_the_datasheet_tells_these_counts() -> None:
    sheet = (resources.files("tinyllm.questions") / "starter" / "DATASHEET.md").read_text(encoding="utf-8")
    for row in ("| train | 160 | 100 | 60 | 64 |", "| valid | 40 | 26 | 14 | 0 |", "| test | 240 | 149 | 91 | 0 |"):
        assert row in sheet


def test_the_datasheets_kinds(starter: Splits) -> None:
    kinds = {s: Counter(q.id.partition("-")[0] for q in part(starter, s)) for s in SPLITS}
    assert kinds == {
        "train": {"science": 100, "everyday": 60},
        "valid": {"science": 26, "everyday": 14},
        "test": {"science": 149, "everyday": 91},
    }
