"""Questions on disk are what they would be in memory."""

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.errors import DataError
from tinyllm.questions import Question
from tinyllm.questions._spool import _Spool, gather, leave_out, pick

TEXT = st.text(st.characters(), max_size=20)  # lone surrogates too
QUESTIONS = st.lists(
    st.builds(
        Question,
        TEXT,
        TEXT,
        st.lists(TEXT, max_size=4).map(tuple),
        st.integers(),
        st.none() | TEXT,
        st.dictionaries(TEXT, TEXT, max_size=2),
    ),
    max_size=8,
).map(tuple)
SLICES = st.slices(8)


def spooled(questions: Sequence[Question]) -> Sequence[Question]:
    found = gather(questions, in_memory=0)
    assert isinstance(found, _Spool) == bool(questions)
    return found


def many(count: int, length: int = 1) -> tuple[Question, ...]:
    return tuple(Question(f"q{i}", f"{i}?" * length, ("x", "y"), i % 2) for i in range(count))


@settings(deadline=None)
@given(QUESTIONS, SLICES, SLICES)
def test_a_spool_is_the_tuple_of_the_same_questions(made: tuple[Question, ...], cut: slice, again: slice) -> None:
    for there, here in (
        (spooled(made), made),
        (spooled(made)[cut], made[cut]),
        (spooled(made)[cut][again], made[cut][again]),
    ):
        assert len(there) == len(here)
        assert tuple(there) == here
        assert there == here
        assert here == there
        assert [there[i] for i in range(-len(here), len(here))] == [*here, *here]
        assert list(reversed(there)) == list(reversed(here))
        assert all(q in there for q in here)
        for beyond in (len(here), -len(here) - 1):
            with pytest.raises(IndexError):
                there[beyond]


@settings(deadline=None)
@given(st.data())
def test_what_is_picked_or_left_out_of_a_spool_is_what_it_would_be_of_a_tuple(data: st.DataObject) -> None:
    made = many(7)[data.draw(SLICES)]
    places = data.draw(st.lists(st.integers(0, len(made) - 1), max_size=9)) if made else []
    for there, here in ((spooled(made), made), (spooled(many(15))[13:0:-2], many(15)[13:0:-2])):
        those = [p for p in places if p < len(here)]
        picked = tuple(here[p] for p in those)
        assert pick(there, np.array(those, int)) == pick(here, np.array(those, int)) == picked
        left = tuple(q for place, q in enumerate(here) if place not in those)
        assert leave_out(there, those) == leave_out(here, those) == left
        again = [k for k in range(len(picked)) if k % 2]
        assert pick(pick(there, np.array(those, int)), np.array(again, int)) == picked[1::2]


def test_two_with_other_questions_are_not_equal() -> None:
    made = many(4)
    assert spooled(made) != made[:3]
    assert spooled(made) != (*made[:3], Question("other", "?", ("x", "y"), 0))
    assert spooled(made) != list(made)
    assert spooled(made) == spooled(made)


def test_few_questions_stay_in_a_tuple() -> None:
    made = many(11)
    assert type(gather(iter(made), in_memory=11)) is tuple
    assert type(gather(iter(made), in_memory=10)) is _Spool


def test_rows_far_apart_and_blocks_of_many_are_read_in_order() -> None:
    made = many(2500, length=1500)  # 13 MB: more than is written, or read, at once
    there = spooled(made)
    assert all(a == b for a, b in zip(there, made, strict=True))
    assert all(a == b for a, b in zip(there[::-1], made[::-1], strict=True))
    tracemalloc.start()
    equal = there[::50] == made[::50]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert equal
    assert most < 2_000_000, "rows far apart are not read with all that lies between them"


def test_several_threads_may_read_at_once() -> None:
    made = many(3000)
    there = spooled(made)
    equal: list[bool] = []

    def read(offset: int) -> None:
        equal.append(all(there[i] == made[i] for i in range(offset, 3000, 7)) and tuple(there) == made)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == [True] * 4


def test_the_file_has_no_name_and_is_closed_with_the_last_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    there = spooled(many(5))
    assert list(tmp_path.iterdir()) == []
    (mine,) = [fd for fd in os.listdir("/proc/self/fd") if _is_in(fd, tmp_path)]
    part = there[1:3]
    del there
    gc.collect()
    assert len(part) == 2
    assert _is_in(mine, tmp_path)
    del part
    gc.collect()
    assert not _is_in(mine, tmp_path)


def _is_in(descriptor: str, folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return str(folder) in str(Path(f"/proc/self/fd/{descriptor}").readlink())
    return False


def test_a_temporary_folder_that_is_gone_or_full_is_told_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(
        DataError, match=r"gone: the questions cannot be stored .*No such file.*in the environment variable TMPDIR"
    ):
        spooled(many(5))
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from tinyllm.questions import Question\nfrom tinyllm.questions._spool import gather\n"
        "gather([Question('q', 'x' * 2000, ('x', 'y'), 0)], in_memory=0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DataError" in done.stderr
    assert "(File too large); make room" in done.stderr
