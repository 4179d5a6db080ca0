"""`data.more`: further questions for training, which are no validation or test questions and clash with no id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyllm.config import DataSection
from tinyllm.errors import DataError
from tinyllm.questions import Splits, load_splits

ANIMALS = ["heron", "otter", "badger", "trout", "falcon", "beetle", "viper", "toad", "moth", "lynx"]


def rows(words: list[str], **more: object) -> list[dict]:
    return [
        {"id": f"q{k}", "question": f"Where does the {w} {w}ing build its {w}hood?", "choices": [w, f"not {w}"]}
        | {"answer": k % 2}
        | more
        for k, w in enumerate(words)
    ]


def write(path: Path, lines: list[dict]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def load(folder: Path, *more: object, in_memory: int = 10_000, **other: object) -> Splits:
    train = write(folder / "train.jsonl", rows(ANIMALS[:4]))
    test = write(folder / "test.jsonl", rows(ANIMALS[4:6]))
    data = {"train": train, "test": test, "cut": {"valid": 0.25}, "more": list(more), **other}
    return load_splits(DataSection.model_validate(data), in_memory=in_memory)


@pytest.mark.parametrize("in_memory", [10_000, 1])
def test_questions_of_more_are_for_training_only_and_have_ids_of_their_own(tmp_path, in_memory):
    one, two = (
        write(tmp_path / name, rows(words))
        for name, words in {"extra.jsonl": ANIMALS[6:8], "own.jsonl": ANIMALS[8:]}.items()
    )
    splits = load(tmp_path, one, {"train": two, "name": "extra", "limit": 1}, in_memory=in_memory)
    assert [q.id for q in splits.more] == ["extra/q0", "extra/q1", "extra-2/q0"]
    assert [q.answer for q in splits.more] == [0, 1, 0]
    assert (len(splits.train), len(splits.valid), len(splits.test), splits.overlaps) == (3, 1, 2, {})


def test_an_id_that_looks_like_one_of_more_is_no_clash(tmp_path):
    train = write(tmp_path / "t.jsonl", [row | {"id": f"extra/{row['id']}"} for row in rows(ANIMALS[:4])])
    extra = write(tmp_path / "extra.jsonl", rows(ANIMALS[6:8]))
    splits = load_splits(DataSection.model_validate({"train": train, "more": [extra], "cut": {"test": 0}}))
    assert [q.id for q in splits.more] == ["+extra/q0", "+extra/q1"]


@pytest.mark.parametrize("in_memory", [10_000, 1])
def test_validation_and_test_questions_are_left_out_and_counted(tmp_path, in_memory):
    alone = load(tmp_path)
    (held,) = (ANIMALS.index(q.choices[0]) for q in alone.valid)
    again = rows(ANIMALS)
    again[held]["question"] = again[held]["question"].upper()  # of the validation questions
    again[4]["choices"] = again[4]["choices"][::-1]  # of the test questions
    again[5]["question"] += " Tell!"  # the same as another one, but for a word of many
    again[5]["context"] = tests = "A long text that stands before the question " + " ".join(ANIMALS)
    told = rows(ANIMALS[4:6])
    told[1]["context"] = tests
    (tmp_path / "sub").mkdir()
    extra, test = write(tmp_path / "extra.jsonl", again), write(tmp_path / "sub" / "test.jsonl", told)
    splits = load(tmp_path, extra, in_memory=in_memory, test=test)
    assert splits.overlaps == {
        "the same as a validation or test question": 2,
        "nearly the same as a validation or test question": 1,
        "the same as another training question": 3,
    }
    assert {q.id for q in splits.more} == {f"extra/q{k}" for k in range(6, 10)}
    assert {d.where for d in splits.dropped} == {f"question 'extra/q{k}'" for k in range(6)}
    assert {d.reason for d in splits.dropped} == set(splits.overlaps)


def test_a_question_is_learnt_once_and_with_its_answer(tmp_path):
    """The labelled questions may stand in the file of unlabelled ones, too."""
    everything = {"train": write(tmp_path / "all.jsonl", rows(ANIMALS)), "answers": False}
    train = write(tmp_path / "labelled.jsonl", rows(ANIMALS[:3]))
    data = {"train": train, "cut": {"valid": 0, "test": 0}, "more": [everything, {**everything, "name": "again"}]}
    splits = load_splits(DataSection.model_validate(data))
    assert [q.answer for q in splits.train] == [0, 1, 0]
    assert [q.choices[0] for q in splits.more] == ANIMALS[3:]
    assert splits.overlaps == {"the same as another training question": 3 + len(ANIMALS)}


def test_answers_may_be_thrown_away_and_a_dataset_may_be_named(tmp_path):
    splits = load(tmp_path, {"dataset": "starter", "answers": False, "limit": 5})
    assert [q.id.partition("/")[0] for q in splits.more] == ["starter"] * 5
    assert {q.answer for q in splits.more} == {None}
    assert splits.warnings == {"no answer": 5}
    plain = tmp_path / "plain.jsonl"
    write(plain, [{k: v for k, v in row.items() if k != "answer"} for row in rows(ANIMALS[6:])])
    assert len(load(tmp_path, {"train": str(plain), "answers": False}).more) == 4
    with pytest.raises(DataError, match=r"data.more, 'plain': (.|\n)*no column 'answer'"):
        load(tmp_path, str(plain))


def test_the_form_of_a_file_is_that_of_the_data_unless_it_has_its_own(tmp_path):
    extra = write(tmp_path / "extra.jsonl", [{"text": f"It is {a}.", "label": "bad"} for a in ANIMALS])
    fields = {"question": "text", "answer": "label", "answer_as": "text"}
    own = {"train": extra, "fields": fields, "choices": ["good", "bad"]}
    assert load(tmp_path, own).more[0].choices == ("good", "bad")
    with pytest.raises(DataError, match=r"data\.more, 'extra'"):
        load(tmp_path, extra)
    splits = load_splits(
        DataSection.model_validate({"train": extra, "more": [extra], **{k: own[k] for k in ("fields", "choices")}})
    )
    # What was cut for validation and test is not learnt by another door.
    assert splits.overlaps["the same as a validation or test question"] == 3
    assert not splits.more


def test_nothing_is_cut_from_questions_without_answers(tmp_path):
    train = write(tmp_path / "t.jsonl", rows(ANIMALS, answer=None))
    splits = load_splits(DataSection.model_validate({"train": train}))
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (10, 0, 0)
