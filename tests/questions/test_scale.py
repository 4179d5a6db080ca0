"""Many questions: read as a stream, kept on disk, and the same as ever."""

import csv
import hashlib
import json
import re
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from questions.made import NO_CUT, load
from tinyllm.errors import DataError
from tinyllm.questions._files import read_file
from tinyllm.questions._spool import _Spool
from tinyllm.stages.init import write_config


def rows(count: int) -> Iterator[dict[str, object]]:
    for i in range(count):
        text = " ".join(hashlib.sha256(f"{i} {k}".encode()).hexdigest() for k in range(4))  # nothing to compress
        yield {"id": f"q{i}", "question": f"{text}?", "choices": [f"{i}", "y", "z"], "answer": i % 3}


def write_jsonl(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(count))


def write_csv(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "question", "choices", "answer"])
        writer.writerows([r["id"], r["question"], json.dumps(r["choices"]), r["answer"]] for r in rows(count))


def write_parquet(path: Path, count: int) -> None:
    # One row group, as most have; its pages are small beside the whole, as in a file of a million rows.
    pq.write_table(pa.Table.from_pylist(list(rows(count))), path, data_page_size=1 << 14, use_dictionary=False)


WRITERS: dict[str, Callable[[Path, int], None]] = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


# --- memory ---


def peak(path: Path) -> int:
    """Bytes that Python holds at most while a file is read and its questions are gone through."""
    tracemalloc.start()
    try:
        splits = load(in_memory=100, train=path)
        assert sum(1 for _ in splits.train) == len(splits.train)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", WRITERS)
def test_ten_times_the_questions_take_some_bytes_a_question_not_kilobytes(tmp_path: Path, form: str) -> None:
    few, many = tmp_path / f"few.{form}", tmp_path / f"many.{form}"
    WRITERS[form](few, 600)
    WRITERS[form](many, 6000)
    load(in_memory=100, train=few)  # what is made once is not counted: imports, caches
    assert peak(many) - peak(few) < 5400 * 100  # as objects, each would take some 1,500


def test_a_parquet_file_is_read_page_by_page(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(path, 15_000)
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() for _ in read_file(path).items)
    assert most - before < path.stat().st_size / 2


# --- the same as ever ---

ROW = st.fixed_dictionaries(
    {
        "id": st.none() | st.sampled_from(["a", "b", "c", "train-2"]),
        "question": st.sampled_from(["one?", "two?", "three  ?", ""]),
        "choices": st.sampled_from([["x", "y"], ["x", "y", "y"], ["x"]]),
        "answer": st.integers(0, 1),
    }
)
LINE = ROW.map(json.dumps) | ROW.map(json.dumps) | st.sampled_from(["", "[1]", '{"id": '])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LINE, min_size=1, max_size=12), st.sampled_from(["error", "drop"]), st.none() | st.integers(1, 5))
def test_questions_on_disk_are_read_cut_and_found_wrong_as_those_in_memory(
    lines: list[str], on_invalid: str, limit: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        said = []
        for in_memory in (0, 1000):
            try:
                splits = load(in_memory=in_memory, train=path, on_invalid=on_invalid, limit=limit)
            except DataError as error:
                said.append(str(error))
            else:
                parts = [tuple(p) for p in (splits.train, splits.valid, splits.test)]
                said.append(repr((parts, splits.dropped, splits.warnings)))
        assert said[0] == said[1]


def test_only_splits_of_many_questions_are_on_disk(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", 40)
    splits = load(in_memory=10, train=tmp_path / "t.jsonl")
    assert [type(p) for p in (splits.train, splits.valid, splits.test)] == [_Spool, tuple, tuple]
    assert splits == load(train=tmp_path / "t.jsonl")
    assert type(load(in_memory=10, train=tmp_path / "t.jsonl", limit=10).train) is tuple


def test_of_thousands_of_problems_the_first_twenty_are_told_and_all_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"question": "", "choices": ["x", "y"], "answer": 0}\n' * 3000)
    with pytest.raises(DataError) as caught:
        load(train=path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "questions: 3000 problems"
    assert lines[20].startswith(f"  - {path}, line 20: empty question")
    assert lines[21] == "  and 2980 more"


def test_repeated_ids_among_many_are_left_out_and_not_counted_as_odd(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    odd = {"id": "q3", "question": "?", "choices": ["x", "y", "y"], "answer": 0}
    write_jsonl(path, 50)
    path.write_text(path.read_text() + "\n" + json.dumps(odd) + "\n" + json.dumps(odd | {"id": "odd"}) + "\n")
    splits = load(in_memory=10, train=path, cut=NO_CUT, on_invalid="drop")
    assert len(splits.train) == 51
    assert [(d.where, d.reason) for d in splits.dropped] == [
        (f"{path}, line 52", "the id 'q3' is also that of line 4; give each question its own id")
    ]
    assert splits.warnings == {"choice twice": 1}


# --- no more than needed ---


def test_a_limit_ends_the_reading_where_nothing_is_cut_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_jsonl(path, 5)
    path.write_text(path.read_text() + "this is no JSON\n" * 3)
    assert len(load(train=path, cut=NO_CUT, limit=5).train) == 5
    with pytest.raises(DataError, match=re.escape(f"{path}, line 6")):
        load(train=path, cut=NO_CUT, limit=6)
    with pytest.raises(DataError, match=re.escape(f"{path}, line 6")):
        load(train=path, limit=2)  # what is tested on depends on all of it


def test_a_limit_counts_questions_not_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    good = [json.dumps(r) for r in rows(4)]
    path.write_text("\n".join([good[0], good[0], "{", good[1], good[2], good[3]]))
    splits = load(train=path, cut=NO_CUT, limit=3, on_invalid="drop")
    assert [q.id for q in splits.train] == ["q0", "q1", "q2"]


# --- what stands late in a file ---


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_byte_that_is_not_utf8_far_into_a_file_is_named(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"t.{form}"
    WRITERS[form](path, 2000)
    whole = path.read_bytes()
    path.write_bytes(whole + b"caf\xe9\n")
    with pytest.raises(DataError) as caught:
        load(train=path)
    line = whole.count(b"\n") + 1
    assert str(caught.value).splitlines() == [
        "questions: 1 problem",
        f"  - {path}, line {line}: not UTF-8: byte {len(whole) + 3} is 0xe9; save the file as UTF-8",
    ]


def test_a_parquet_file_that_is_damaged_in_its_middle_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(path, 3000)
    whole = bytearray(path.read_bytes())
    whole[200:20_000] = b"\xff" * 19_800
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"1 problem\n.*t\.parquet: not a readable Parquet file"):
        load(train=path)


def test_a_column_that_comes_late_is_no_missing_column(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    late = [json.dumps({k: v for k, v in r.items() if k != "choices"}) for r in rows(30)]
    path.write_text("\n".join([*late, *(json.dumps(r) for r in list(rows(61))[30:])]))
    with pytest.raises(DataError, match=r"^questions: 30 problems\n.*line 1: no choices \(column 'choices'\)"):
        load(train=path)


def test_init_holds_no_file_in_memory(tmp_path: Path) -> None:
    def peak_of(count: int) -> int:
        path = tmp_path / f"{count}.ndjson"  # is converted
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
        tracemalloc.start()
        try:
            assert write_config(tmp_path / f"{path.name}.yaml", path).config.exists()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(10)  # what is imported on the way
    few, many = peak_of(1000), peak_of(4000)
    assert many < few + 0.4e6  # its texts are 1 MB more
