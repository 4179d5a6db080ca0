"""The files of generation can be read back, and appear complete or not at all."""

import json
import os
from typing import ClassVar

import pytest

from tinyllm.errors import RunFolderError
from tinyllm.rationales.files import read_rationales, read_yields, write_rationales, writing_rejections
from tinyllm.rationales.types import Rationale, Rejection, TeacherYield

YIELDS = {
    "ada": TeacherYield(1, 0, {"cut_off": 1, "failed": 1}, {"cut_off": 1}, {"empty": 2}, 30, 9, cached_tokens=4),
    "bob": TeacherYield(1, 2),
}


class Collected(list):
    """What a collection gives, without a store."""

    yields = YIELDS


RATIONALES = (Rationale("q1", "ada", "So it is.\nÄ😀", ("cut_off", "runs_on")), Rationale("q2", "bob", "Because."))
REJECTIONS = (Rejection("q2", "ada", "cut_off", 'It "is\n'), Rejection("q3", "ada", "failed", "HTTP 500"))
MADE = Collected([RATIONALES[0], REJECTIONS[0], RATIONALES[1], REJECTIONS[1]])


class Nothing(list):
    """What no teacher gives."""

    yields: ClassVar = {}


def test_written_files_can_be_read(tmp_path):
    write_rationales(tmp_path / "run", MADE)
    assert read_rationales(tmp_path / "run") == RATIONALES
    assert read_yields(tmp_path / "run") == YIELDS
    rejected = [json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()]
    first = {"question_id": "q2", "teacher": "ada", "reason": "cut_off", "text": 'It "is\n', "kind": "rationale"}
    assert rejected[0] == first
    assert len(rejected) == 2
    assert sorted(os.listdir(tmp_path / "run")) == ["rationales.parquet", "rejected.jsonl", "yields.json"]


def test_rejected_rationales_and_opinions_are_in_one_file_and_each_kind_is_written_anew(tmp_path):
    def lines():
        found = map(json.loads, (tmp_path / "rejected.jsonl").read_text("utf-8").split("\n")[:-1])
        return [(row["question_id"], row.get("kind")) for row in found]

    def reject(*names):
        with writing_rejections(tmp_path, "opinion") as add:
            for name in names:
                add(Rejection(name, "ada", "no_choice", "Well\u2028 …"))

    (tmp_path / "rejected.jsonl").write_text('{"question_id": "old", "teacher": "ada", "reason": "empty"}\n{"quest')
    reject("q7", "q8")
    assert lines() == [("old", None), ("q7", "opinion"), ("q8", "opinion")]
    write_rationales(tmp_path, MADE)
    assert lines() == [("q7", "opinion"), ("q8", "opinion"), ("q2", "rationale"), ("q3", "rationale")]
    reject("q9")
    assert lines() == [("q2", "rationale"), ("q3", "rationale"), ("q9", "opinion")]


def test_empty_files_are_written(tmp_path):
    write_rationales(tmp_path, Nothing())
    assert read_rationales(tmp_path) == ()
    assert read_yields(tmp_path) == {}
    assert (tmp_path / "rejected.jsonl").read_text() == ""


def test_a_column_and_a_key_from_the_future_are_ignored(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_rationales(tmp_path, MADE)
    table = pq.read_table(tmp_path / "rationales.parquet")
    pq.write_table(table.append_column("score", pa.array([1.0, 2.0])), tmp_path / "rationales.parquet")
    (tmp_path / "yields.json").write_text(json.dumps({"ada": {"rationales": 3, "usd": 0.1}}))
    assert read_rationales(tmp_path) == RATIONALES
    assert read_yields(tmp_path) == {"ada": TeacherYield(3)}


@pytest.mark.parametrize(("name", "read"), [("rationales.parquet", read_rationales), ("yields.json", read_yields)])
def test_a_missing_or_damaged_file_is_named(tmp_path, name, read):
    with pytest.raises(RunFolderError, match=rf"No {name} in .*tinyllm generate"):
        read(tmp_path)
    write_rationales(tmp_path, MADE)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(RunFolderError, match=rf"{name} is damaged"):
        read(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(RunFolderError, match=rf"{name} is damaged"):
        read(tmp_path)


def test_a_file_that_cannot_be_written_leaves_the_old_ones(tmp_path, monkeypatch):
    write_rationales(tmp_path, MADE)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_rationales(tmp_path, Nothing())
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_many_rationales_are_written_group_by_group_and_in_order(tmp_path, monkeypatch):
    from tinyllm.rationales import files

    monkeypatch.setattr(files, "_ROWS_AT_ONCE", 3)
    many = Nothing(Rationale(f"q{n}", "ada", f"It is {n}.") for n in range(11))
    write_rationales(tmp_path, many)
    assert read_rationales(tmp_path) == tuple(many)
