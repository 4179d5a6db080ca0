"""The time of a training and its evaluation: more work takes longer, and what is not done takes none."""

import pytest

from tinyllm.config import build_config
from tinyllm.questions import Question, Splits
from tinyllm.stages.effort import _START_S, Effort

SPLITS = Splits(
    *(tuple(Question(f"{s}{i}", f"Why {i}?", ("x", "y"), 0) for i in range(n)) for s, n in (("a", 40), ("v", 8)))
)
TESTED = Splits(SPLITS.train, SPLITS.valid, tuple(Question(f"t{i}", f"Who {i}?", ("x", "y"), 0) for i in range(30)))


def seconds(splits=TESTED, peak=1e6, reads=1, writes=1, trains=True, **sections):
    tree = {"data": {"train": "q.csv"}, "student": {"model": "tiny-untrained"}, "train": {"method": "fine-tuning"}}
    tree |= {name: {**tree.get(name, {}), **of} if isinstance(of, dict) else of for name, of in sections.items()}
    effort = Effort.of(build_config(tree, source="test"), splits, trains=trains)
    return effort.seconds(lambda _: peak, reads=reads, writes=writes) - _START_S


def test_more_work_takes_longer():
    usual = seconds()
    assert seconds(train={"epochs": 6}) > usual
    assert seconds(peak=2e6) == pytest.approx(usual / 2)
    assert seconds(reads=2) > usual
    assert seconds(writes=2) > usual
    assert seconds(train={"max_steps": 1}) < usual
    assert seconds(student={"adapter": "lora"}) < usual
    assert seconds(trains=False) < usual
    assert seconds(evaluate={"scorers": ["likelihood"]}) < usual
    assert seconds(SPLITS, evaluate={"scorers": ["likelihood"]}) < seconds(evaluate={"scorers": ["likelihood"]})


def test_rationales_that_are_still_to_be_written_count_by_how_long_they_may_be():
    ada = [{"name": "ada", "kind": "scripted"}]
    usual = {"teachers": ada, "evaluate": {"rationales": 0}}
    alone = seconds(**usual)
    both = seconds(train={"method": "tinyllm"}, **usual)
    assert both > alone
    assert seconds(train={"method": "tinyllm"}, rationales={"max_tokens": 8}, **usual) < both
    assert seconds(train={"method": "tinyllm"}, teachers=ada, evaluate={"rationales": 8}) > both, "the report's"


def test_nothing_is_done_in_no_time():
    assert seconds(Splits(SPLITS.train), trains=False) == pytest.approx(0)
