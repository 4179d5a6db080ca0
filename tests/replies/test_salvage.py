"""Salvage: damage never invents replies, and only replies on damaged pages are lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import billed, contents, entry, filled, key
from tinyllm.errors import RunFolderError
from tinyllm.replies._salvage import Salvaged, salvage
from tinyllm.replies._store import PAGE_BYTES, Failure, Store, Work

SHORT, LONG = range(60), range(60, 65)


def mark(n: int) -> str:
    return f"«{n:05d}» "


@dataclass(frozen=True)
class Sample:
    """A store's bytes, all that is in it, and on which pages each reply lies."""

    data: bytes
    rows: set[tuple]
    pages: dict[str, set[int]]

    def pages_of(self, n: int) -> set[int]:
        return self.pages[key(n)]


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Sample:
    path = tmp_path_factory.mktemp("sample") / "s"
    with Store(path) as store:
        billed(store, [entry(n, mark(n) * 20) for n in SHORT], "a", 1.5)
        store.put_many([entry(n, mark(n) * 2000) for n in LONG])
        store.commit(Work(failures=[Failure(key(900), "ada", "q900", "failed", "no luck")]))
        store._db.execute("VACUUM")  # so that no page holds the traces of another
    data = path.read_bytes()
    return Sample(data, contents(path), {key(n): _pages_with(data, mark(n).encode()) for n in (*SHORT, *LONG)})


def _pages_with(data: bytes, marked: bytes) -> set[int]:
    """The pages on which a text lies, found by what it says; the last one of a chain may hold only its end."""
    found = {n for n in range(len(data) // PAGE_BYTES) if marked in data[n * PAGE_BYTES : (n + 1) * PAGE_BYTES]}
    heads = [data[n * PAGE_BYTES : n * PAGE_BYTES + 4] for n in found]
    return found | {int.from_bytes(head, "big") - 1 for head in heads if head[0] == 0 and any(head)}


def saved(folder: Path, data: bytes, log: bytes | None = None) -> tuple[Salvaged, set[tuple]]:
    """What is salvaged from these bytes; the files they are in must stay as they are."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = {folder / "s": data} | ({} if log is None else {folder / "s-wal": log})
    for file, held in files.items():
        file.write_bytes(held)
    found = salvage(folder / "s", folder / "new")
    assert {f: f.read_bytes() for f in folder.iterdir() if f.name != "new"} == files
    return found, contents(folder / "new")


def test_a_store_that_is_whole_is_saved_whole(tmp_path, sample):
    found, rows = saved(tmp_path / "x", sample.data)
    assert rows == sample.rows
    assert found == Salvaged(len(sample.rows), 0, len(sample.data) // PAGE_BYTES, 0)


@pytest.mark.parametrize(
    "head", [bytes(100), bytes(PAGE_BYTES), bytes(16) + b"\x20\x00", Random(0).randbytes(PAGE_BYTES)]
)
def test_the_first_page_is_not_needed(tmp_path, sample, head):
    assert saved(tmp_path / "x", head + sample.data[len(head) :])[1] == sample.rows


@pytest.mark.parametrize("size", [512, 1024, 8192, 65536])
def test_a_header_with_another_page_size_is_not_trusted(tmp_path, sample, size):
    data = bytearray(sample.data)
    data[16:18] = (1 if size == 65536 else size).to_bytes(2, "big")
    found, rows = saved(tmp_path / "x", bytes(data))
    assert rows == sample.rows
    assert (found.damaged, found.pages) == (0, len(data) // PAGE_BYTES)


@pytest.mark.parametrize("size", [512, 1024, 16384, 65536])
def test_a_store_that_has_another_page_size_is_saved(tmp_path, size):
    with Store(tmp_path / "s") as store:
        store.put_many([entry(n, mark(n) * n * n) for n in range(1, 40)])
        store._db.execute("PRAGMA journal_mode=DELETE")
        store._db.execute(f"PRAGMA page_size={size}")
        store._db.execute("VACUUM")
    data = (tmp_path / "s").read_bytes()
    rows = contents(tmp_path / "s")
    assert int.from_bytes(data[16:18], "big") == size % 65535
    assert saved(tmp_path / "x", data)[1] == rows


def test_replies_of_every_length_are_read(tmp_path):
    """A record that does not fit its page goes on on others, in one of three ways by its length."""
    lengths = [*range(3500, 4200), *range(7900, 8600, 5), 100_000]
    with Store(tmp_path / "s") as store:
        store.put_many([entry(n, "x" * length) for n, length in enumerate(lengths)])
    rows = contents(tmp_path / "s")
    assert saved(tmp_path / "x", (tmp_path / "s").read_bytes())[1] == rows


def test_a_store_cut_off_in_the_middle(tmp_path, sample):
    kept = len(sample.data) // PAGE_BYTES // 2
    found, rows = saved(tmp_path / "x", sample.data[: kept * PAGE_BYTES + 1000])
    whole = {row for row in sample.rows if max(sample.pages[row[0].hex()]) < kept}
    assert whole
    assert whole <= rows <= sample.rows
    assert found.pages == kept + 1


def test_an_incomplete_reply_is_counted(tmp_path, sample):
    chain = [page for page in sample.pages_of(62) if sample.data[page * PAGE_BYTES] == 0]
    data = bytearray(sample.data)
    data[chain[1] * PAGE_BYTES : (chain[1] + 1) * PAGE_BYTES] = bytes(PAGE_BYTES)
    found, rows = saved(tmp_path / "x", bytes(data))
    assert found.damaged == 1
    assert sample.rows - rows == {row for row in sample.rows if row[0].hex() == key(62)}


def test_a_damaged_text_is_left_out_and_counted(tmp_path, sample):
    data = sample.data.replace(mark(7).encode(), mark(8).encode(), 1)
    found, rows = saved(tmp_path / "x", data)
    assert sample.rows - rows == {row for row in sample.rows if row[0].hex() == key(7)}
    assert (found.damaged, found.unreadable_pages) == (1, 0)


@pytest.mark.parametrize("column", ["teacher", "question_id", "finish_reason", "prompt_tokens", "latency_s", "created"])
def test_a_change_in_any_column_is_detected(tmp_path, column):
    path = filled(tmp_path / "s", 5)
    rows = contents(path)
    db = sqlite3.connect(path)
    changed = f"CASE typeof({column}) WHEN 'text' THEN {column} || '1' ELSE {column} + 1 END"
    db.execute(f"UPDATE replies SET {column} = {changed} WHERE question_id = 'q3'")
    db.commit()
    db.close()
    found, kept = saved(tmp_path / "x", path.read_bytes())
    assert found.damaged == 1
    assert rows - kept == {row for row in rows if row[0].hex() == key(3)}


def test_a_page_of_noise_loses_only_its_own_replies(tmp_path, sample):
    page = min(sample.pages_of(7))
    data = bytearray(sample.data)
    data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = b"\xee" * PAGE_BYTES
    found, rows = saved(tmp_path / "x", bytes(data))
    lost = {row for row in sample.rows if page in sample.pages[row[0].hex()]}
    assert sample.rows - rows == lost
    assert found.unreadable_pages == 1


damages = st.one_of(
    st.tuples(st.just("bytes"), st.integers(0, 1 << 20), st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("head"), st.integers(0, 1 << 20), st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("page"), st.integers(0, 1 << 20), st.integers(0, 255)),
    st.tuples(st.just("cut"), st.integers(0, 1 << 20), st.none()),
)


def damaged(data: bytes, damage: list) -> tuple[bytes, set[int]]:
    """Bytes with damage done to them, and the pages that it hit."""
    made, hit = bytearray(data), set()
    for kind, where, what in damage:
        if not made:
            break
        at = where % len(made)
        if kind == "cut":
            del made[at:]
            continue
        at = at if kind == "bytes" else at // PAGE_BYTES * PAGE_BYTES
        noise = bytes([what]) * PAGE_BYTES if kind == "page" else what
        noise = noise[: len(made) - at]
        made[at : at + len(noise)] = noise
        hit |= set(range(at // PAGE_BYTES, (at + len(noise) - 1) // PAGE_BYTES + 1))
    return bytes(made), hit | set(range(len(made) // PAGE_BYTES, len(data) // PAGE_BYTES))


@settings(max_examples=50, deadline=None)
@given(st.lists(damages, min_size=1, max_size=12))
def test_damage_loses_only_damaged_pages_and_invents_nothing(tmp_path_factory, sample, damage):
    data, hit = damaged(sample.data, damage)
    safe = {row for row in sample.rows if not hit & sample.pages[row[0].hex()]}
    assert safe <= saved_or_nothing(tmp_path_factory.getbasetemp() / "damaged", data) <= sample.rows


def saved_or_nothing(folder: Path, data: bytes, log: bytes | None = None) -> set[tuple]:
    """What is salvaged; the empty set if that is refused because there is nothing."""
    with contextlib.suppress(RunFolderError):
        found, rows = saved(folder, data, log)
        assert found.replies == len(rows) > 0
        return rows
    assert not (folder / "new").exists()
    return set()


# --- the log beside the file --------------------------------------------------------------------------------------


def crashed(folder: Path, use: Callable[[Store], None]) -> tuple[bytes, bytes]:
    """A store's file and log as they are on the disk when the machine stops after `use`."""
    with Store(folder / "crashing") as store:
        use(store)
        return (folder / "crashing").read_bytes(), (folder / "crashing-wal").read_bytes()


def test_replies_in_the_log_of_a_killed_process_are_saved(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom stores import Store, billed, entry\n"
        "store = Store(Path(sys.argv[1]))\nfor n in range(50): store.put(entry(n, 'long ' * n * n * 4))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *(p for p in sys.path if p)])
    command = [sys.executable, "-c", code, tmp_path / "s"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert done.returncode == -signal.SIGKILL
    data, log = (tmp_path / "s").read_bytes(), (tmp_path / "s-wal").read_bytes()
    assert len(log) > 10 * len(data)
    for file in (data, bytes(len(data)), b""):
        found, rows = saved(tmp_path / "x", file, log)
        assert rows == contents(tmp_path / "s") if file == data else len(rows) == 50
        assert found.damaged == 0


def test_a_log_that_was_restarted_several_times_is_read(tmp_path):
    def use(store: Store) -> None:
        store._db.execute("PRAGMA wal_autocheckpoint=20")
        for n in range(80):
            store.put(entry(n, mark(n) * (n % 7) * 300))

    data, log = crashed(tmp_path, use)
    assert len(data) > len(log) > 20 * PAGE_BYTES
    expected = contents(tmp_path / "crashing")
    assert len(expected) == 80
    assert saved(tmp_path / "x", data, log)[1] == expected


def test_the_newest_version_of_a_page_is_read(tmp_path):
    """Three versions of the same overflow pages: in the file, at the log's head, and behind it from an earlier round."""

    def use(store: Store) -> None:
        store.put_many([entry(n, mark(n) * 2000) for n in range(4)])
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store._db.execute("DELETE FROM replies")
        store.put_many([entry(n, mark(n) * 2000) for n in range(4, 8)])
        store._db.execute("DELETE FROM replies")
        store._db.execute("PRAGMA wal_checkpoint(RESTART)")
        store.put(entry(9, mark(9) * 2000))

    data, log = crashed(tmp_path, use)
    expected = contents(tmp_path / "crashing")
    assert len(expected) == 1
    assert expected <= saved(tmp_path / "x", data, log)[1]


@pytest.mark.parametrize("at", [0, 32 + 8, 32 + 12])
def test_a_log_with_damaged_salts_is_read(tmp_path, at):
    data, log = crashed(tmp_path, lambda store: store.put_many([entry(n, mark(n) * 2000) for n in range(4)]))
    noisy = log[:at] + Random(0).randbytes(4) + log[at + 4 :]
    assert saved(tmp_path / "x", data, noisy)[1] == contents(tmp_path / "crashing")


def test_a_damaged_log_loses_nothing_in_the_file(tmp_path):
    def use(store: Store) -> None:
        store.put_many([entry(n, mark(n) * 2000) for n in range(4)])
        store._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    data, log = crashed(tmp_path, use)
    noisy = bytearray(log)
    for frame in range(len(log) // (24 + PAGE_BYTES)):
        start = 32 + 24 + frame * (24 + PAGE_BYTES)
        noisy[start : start + PAGE_BYTES] = b"\xee" * PAGE_BYTES
    assert saved(tmp_path / "x", data, bytes(noisy))[1] == contents(tmp_path / "crashing")


@settings(max_examples=20, deadline=None)
@given(st.lists(damages, max_size=6), st.lists(damages, max_size=6))
def test_damage_in_file_and_log_invents_nothing(tmp_path_factory, crash, in_file, in_log):
    data, log, rows = crash
    made = damaged(data, in_file)[0], damaged(log, in_log)[0]
    assert saved_or_nothing(tmp_path_factory.getbasetemp() / "crash", *made) <= rows


@pytest.fixture(scope="module")
def crash(tmp_path_factory) -> tuple[bytes, bytes, set[tuple]]:
    folder = tmp_path_factory.mktemp("crash")

    def use(store: Store) -> None:
        for n in range(20):
            store.put(entry(n, mark(n) * 50 * n))
            if n == 10:
                store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    data, log = crashed(folder, use)
    return data, log, contents(folder / "crashing")


# --- what cannot be salvaged --------------------------------------------------------------------------------------


def _text(path: Path) -> None:
    path.write_text("notes\n" * 2000)


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _photos(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE photos (a, b, c, d, e, f, g, h, i, j, k, l, m)")
    db.execute(f"INSERT INTO photos VALUES ({','.join('?' * 13)})", [None, b"k" * 32, *"tqrxf", 1, 2, 3, 0.5, 0.5, 7])
    db.commit()
    db.close()


def _no_replies(path: Path) -> None:
    Store(path).close()


@pytest.mark.parametrize("make", [_text, _nothing, _photos, _no_replies])
def test_a_file_without_replies_is_reported_and_leaves_no_files(tmp_path, make):
    make(tmp_path / "s")
    before = {f: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(RunFolderError, match=r"No whole reply was found in .*s \(\d+ pages.*it is no store"):
        salvage(tmp_path / "s", tmp_path / "new")
    assert {f: f.read_bytes() for f in tmp_path.iterdir()} == before


@pytest.mark.parametrize("there", ["new", "new-wal", "new-journal"])
def test_nothing_is_overwritten(tmp_path, sample, there):
    (tmp_path / "s").write_bytes(sample.data)
    (tmp_path / there).write_text("mine")
    with pytest.raises(RunFolderError, match=rf"{there} is there already"):
        salvage(tmp_path / "s", tmp_path / "new")
    assert (tmp_path / there).read_text() == "mine"


def test_a_store_that_is_not_there(tmp_path):
    with pytest.raises(RunFolderError, match="There is no store"):
        salvage(tmp_path / "s", tmp_path / "new")


def test_an_unreadable_page_is_skipped(tmp_path, sample, monkeypatch):
    page = min(sample.pages_of(7))
    read = os.pread

    def failing(file: int, count: int, at: int) -> bytes:
        if at == page * PAGE_BYTES and count == PAGE_BYTES:
            raise OSError(5, "Input/output error")
        return read(file, count, at)

    monkeypatch.setattr(os, "pread", failing)
    found, rows = saved(tmp_path / "x", sample.data)
    assert found.unreadable_pages == 1
    assert sample.rows - rows == {row for row in sample.rows if page in sample.pages[row[0].hex()]}


def test_the_command_says_what_it_saved(cli, tmp_path, sample):
    data = sample.data.replace(mark(7).encode(), mark(8).encode(), 1)
    (tmp_path / "s").write_bytes(data)
    said = cli("store", "salvage", tmp_path / "s", "--out", tmp_path / "new")
    assert said.code == 0, said.err
    assert "Saved 64 replies" in said.out
    assert "1 reply left out as damaged" in said.out
    again = cli("store", "salvage", tmp_path / "s", "--out", tmp_path / "new")
    assert (again.code, again.out) == (2, "")
    assert "there already" in again.err
    said = cli("store", "salvage", tmp_path / "s", "--out", tmp_path / "newer", "--json")
    assert '"replies": 64, "damaged": 1' in said.out
