"""The store: durable, the first reply to a request stays, processes share it, damage is reported."""

import contextlib
import errno
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import (
    IDENTITY,
    billed,
    contents,
    entry,
    filled,
    key,
    open_folder,
    reply_key,
    request,
    small_disk,
    without_rights,
)
from tinyllm.errors import RunFolderError
from tinyllm.prompts import Message, Prompt
from tinyllm.replies._store import SCHEMA_VERSION, Failure, Spent, Store, Work, crc_of
from tinyllm.teachers.base import Reply


def test_a_reply_comes_back_as_it_went_in(tmp_path):
    with Store(tmp_path / "new" / "replies.sqlite") as store:
        assert store.get(key()) is None
        assert store.put(entry(text="Be\x00cause 😀\n")) == Reply("Be\x00cause 😀\n", "stop", 3, None, 0.25)
        assert len(store) == 1
    with Store(tmp_path / "new" / "replies.sqlite") as store:
        assert store.get(key()) == Reply("Be\x00cause 😀\n", "stop", 3, None, 0.25)


def test_the_first_writer_wins(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put(entry(text="first"))
        assert [r.text for r in store.put_many([entry(text="second"), entry(1, "other"), entry(1, "late")])] == [
            "first", "other", "other",
        ]  # fmt: skip
        assert len(store) == 2


def test_many_keys_at_once(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put_many([entry(n, f"reply {n}") for n in range(0, 1500, 2)])
        found = store.get_many([key(n) for n in range(1500)])
        assert {k: r.text for k, r in found.items()} == {key(n): f"reply {n}" for n in range(0, 1500, 2)}
        assert store.get_many([]) == {}


def test_what_was_asked_is_kept_beside_the_reply(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put(entry(3))
    with closing(sqlite3.connect(tmp_path / "s", isolation_level=None)) as db:
        teacher, question_id, asked, created = db.execute(
            "SELECT teacher, question_id, request, created FROM replies"
        ).fetchone()
    db.close()
    assert (teacher, question_id) == ("ada", "q3")
    assert "Why 3?" in asked
    assert created > 1.6e9


@pytest.mark.parametrize(
    "change",
    [{"max_tokens": 17}, {"temperature": 0.8}, {"top_p": 0.8}, {"seed": 2}, {"stop": ()}, {"stop": ("\n",)}],
)
def test_each_setting_that_can_change_a_reply_changes_the_key(change):
    assert key(**change) != key()


def test_the_key_depends_on_the_request_and_not_on_the_question_id():
    base = request()
    assert key(0) == reply_key(dict(reversed(IDENTITY.items())), base)
    assert reply_key(IDENTITY, replace(base, question_id="another")) == key()
    different = [
        reply_key({**IDENTITY, "model": "n"}, base),
        reply_key(IDENTITY, replace(base, sample=1)),
        reply_key(IDENTITY, replace(base, prompt=Prompt(text="Why 0? "))),
        reply_key(IDENTITY, replace(base, prompt=Prompt(messages=(Message("user", "Why 0?"),)))),
        reply_key(IDENTITY, replace(base, prompt=Prompt(messages=(Message("system", "Why 0?"),)))),
        key(),
    ]
    assert len(set(different)) == len(different)


def test_a_greedy_reply_does_not_depend_on_seed_and_top_p():
    assert key(temperature=0, seed=1, top_p=0.5) == key(temperature=0.0, seed=2, top_p=0.9)


def test_the_key_is_pinned():
    """Changing how keys are made throws away every stored reply; then SCHEMA_VERSION must change too."""
    assert (SCHEMA_VERSION, key()) == (3, "6939eeea1008226995393f28f8884649cb8ae71ffa6ac96265d6486dea37a9bd")


# --- several users ------------------------------------------------------------------------------------------------


def _write(path: Path, worker: int, barrier) -> None:
    barrier.wait()
    with Store(path) as store:
        for n in range(60):
            store.put(entry(n, f"by {worker}"))


def test_two_processes_write_one_store(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_write, args=(tmp_path / "s", w, barrier)) for w in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0]
    with Store(tmp_path / "s") as store:
        assert len(store) == 60
        assert {store.get(key(n)).text for n in range(60)} <= {"by 0", "by 1"}


def test_threads_share_a_store(tmp_path):
    with Store(tmp_path / "s") as store:
        threads = [
            threading.Thread(target=lambda s=s: [store.put(entry(n + 20 * s)) for n in range(20)]) for s in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store) == 80


def test_a_stored_reply_survives_a_kill(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom stores import Store, billed, entry\n"
        "store = Store(Path(sys.argv[1]))\nfor n in range(50): store.put(entry(n))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *(p for p in sys.path if p)])
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "s"], env=os.environ | {"PYTHONPATH": path}, check=False
    )
    assert done.returncode == -9
    with Store(tmp_path / "s") as store:
        assert len(store) == 50


texts = st.text(st.characters(), max_size=20)
writes = st.lists(st.tuples(st.integers(0, 8), texts), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(writes, max_size=6), st.sets(st.integers(0, 5)))
def test_the_store_keeps_every_reply_once(tmp_path_factory, batches, reopen_after):
    path = tmp_path_factory.mktemp("store") / "s"
    expected: dict[int, str] = {}
    store = Store(path)
    for number, batch in enumerate(batches):
        kept = store.put_many([entry(n, text) for n, text in batch])
        for (n, _), reply in zip(batch, kept, strict=True):
            assert expected.setdefault(n, reply.text) == reply.text
        if number in reopen_after:
            store.close()
            store = Store(path)
        assert len(store) == len(expected)
        assert {n: store.get(key(n)).text for n in expected} == expected
    store.close()


# --- damage -------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path):
    (tmp_path / "s").write_text("notes\n" * 200)
    with pytest.raises(RunFolderError, match=rf"{tmp_path}/s is damaged, or no database"):
        Store(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "notes\n" * 200


def test_a_damaged_page_is_named(tmp_path):
    path = filled(tmp_path / "s")
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(RunFolderError, match=r"damaged"), Store(path) as store:
        store.get_many([key(n) for n in range(300)])


def test_a_truncated_store_is_named(tmp_path):
    path = filled(tmp_path / "s")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunFolderError, match="damaged"), Store(path) as store:
        store.get_many([key(n) for n in range(300)])


def test_another_programs_database_is_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "s", isolation_level=None)) as db:
        db.execute("CREATE TABLE photos (name TEXT)")
    db.close()
    before = (tmp_path / "s").read_bytes()
    with pytest.raises(RunFolderError, match=r"another program.*rationales\.store"):
        Store(tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_a_newer_store_is_left_alone(tmp_path):
    with closing(sqlite3.connect(filled(tmp_path / "s", 1), isolation_level=None)) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(RunFolderError, match="newer TinyLLM"):
        Store(tmp_path / "s")


def test_a_full_disk_is_reported_and_stored_replies_are_intact(tmp_path):
    path = filled(tmp_path / "s", 50)
    store = Store(path)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(OSError) as caught:
        store.put_many([entry(n, "long " * 500) for n in range(50, 150)])
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert len(store) == 50
    store.put(entry(50, "short"))
    store.close()
    with Store(path) as again:
        assert len(again) == 51


def test_a_small_disk_keeps_every_reply_that_counted(tmp_path):
    with small_disk(tmp_path / "disk", 600) as disk:
        (disk / "ballast").write_bytes(b"x" * 200_000)
        counted = set()

        def fill(store: Store) -> None:
            for n in range(1000):
                store.put(entry(n, "long " * 500))
                counted.add(key(n))

        with Store(disk / "s") as store, pytest.raises(OSError) as caught:
            fill(store)
        assert caught.value.errno == errno.ENOSPC
        assert counted
        (disk / "ballast").unlink()
        with Store(disk / "s") as store:
            assert store.get_many([key(n) for n in range(1000)]).keys() == counted
            store.put(entry(1001, "long " * 500))


def test_a_full_disk_is_reported_when_a_store_is_opened(tmp_path):
    with small_disk(tmp_path / "disk", 300) as disk:
        filled(disk / "s", 10)
        with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        with pytest.raises(OSError) as caught:
            Store(disk / "s")
        assert caught.value.errno == errno.ENOSPC
        (disk / "ballast").unlink()
        with Store(disk / "s") as store:
            assert len(store) == 10


@pytest.mark.parametrize("modes", [(0o444, 0o777), (0o666, 0o555), (0o444, 0o555)])
def test_a_store_without_write_permission_is_reported_at_once(modes):
    with open_folder() as folder:
        path = filled(folder / "s", 5)
        path.with_name("s.claims").chmod(0o666)
        path.chmod(modes[0])
        folder.chmod(modes[1])
        with without_rights(), pytest.raises(RunFolderError, match=rf"{path} cannot be opened.*check its rights"):
            Store(path)
        path.chmod(0o600)
        folder.chmod(0o700)
        assert len(contents(path)) == 5


def test_a_read_only_file_system_is_reported(tmp_path):
    with small_disk(tmp_path / "disk", 300) as disk:
        filled(disk / "s", 5)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(RunFolderError, match=r"cannot be opened for reading and writing"):
            Store(disk / "s")
        with pytest.raises(RunFolderError, match=r"cannot be made: Read-only file system"):
            Store(disk / "new" / "s")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert len(contents(disk / "s")) == 5


def test_invalid_utf8_is_reported_as_damage(tmp_path):
    path = filled(tmp_path / "s", 3)
    path.write_bytes(path.read_bytes().replace(b"reply 1", b"reply \xff"))
    with pytest.raises(RunFolderError, match=r"damaged.*store salvage"), Store(path) as store:
        store.get_many([key(n) for n in range(3)])


def test_a_folder_that_cannot_be_made_and_a_path_that_is_a_folder_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot be made"):
        Store(tmp_path / "file" / "s")
    with pytest.raises(RunFolderError, match=str(tmp_path)):
        Store(tmp_path)


def test_a_store_made_by_several_at_the_same_moment_is_one_store(tmp_path):
    def make(path, barrier):
        barrier.wait()
        Store(path).close()

    for attempt in range(40):
        barrier = threading.Barrier(4)
        with ThreadPoolExecutor(4) as several:
            made = [several.submit(make, tmp_path / f"s{attempt}", barrier) for _ in range(4)]
        assert [m.exception() for m in made] == [None] * 4


# --- what is kept beside the replies ------------------------------------------------------------------------------


def test_what_a_run_has_paid_for_is_added_up_by_teacher(tmp_path):
    with Store(tmp_path / "s") as store:
        billed(store, [entry(0), entry(1)], "first", 2.0)
        billed(store, [entry(2), entry(3, teacher="bob")], "first", 3.0)
        billed(store, [entry(0)], "second", 1.0)  # asked by two at once: both have paid
        store.put(entry(4))
    with Store(tmp_path / "s") as store:
        assert store.spent("first") == {"ada": Spent(3, 9, 0, 0, 5.0), "bob": Spent(1, 3, 0, 0, 0.0)}
        assert store.spent("second") == {"ada": Spent(1, 3, 0, 0, 1.0)}
        assert store.spent("third") == {}


def test_a_failure_is_remembered_until_there_is_a_reply(tmp_path):
    failed = [Failure(key(n), "ada", f"q{n}", "failed", "no \ud83d luck") for n in range(2)]
    with Store(tmp_path / "s") as store:
        store.commit(Work(failures=failed))
        store.commit(Work(failures=[replace(failed[0], reason="too_long")]))
        found = store.failures([key(n) for n in range(3)])
        assert {k: f.reason for k, f in found.items()} == {key(0): "too_long", key(1): "failed"}
        assert found[key(1)] == replace(failed[1], words="no \ufffd luck")
        store.put(entry(0))
        assert store.failures([key(0), key(1)]).keys() == {key(1)}


def test_the_newest_replies_of_a_model_whatever_the_name_of_the_teacher(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put_many([entry(n, f"{n}", teacher="ada" if n % 2 else "bob") for n in range(20)])
        store.put(replace(entry(20, "20"), teacher="bob"))
        assert [reply.text for reply in store.last(IDENTITY, 3)] == ["20", "19", "17"]
        assert store.last(IDENTITY | {"model": "model"}, 3) == []
        store.put(entry(21, "21", max_tokens=160))
        assert [reply.text for reply in store.last(IDENTITY, 3, max_tokens=160)] == ["21"]
        assert [reply.text for reply in store.last(IDENTITY, 3, max_tokens=16)] == ["20", "19", "17"]
        assert store.pace(IDENTITY, 3, rated=False, max_tokens=16) is None


# --- version 1 ----------------------------------------------------------------------------------------------------


def version_1(path: Path, count: int, text: str = "Because of {n} ✓ ") -> list[Reply]:
    """Make a store as version 1 made them, and return what is in it."""
    replies = [Reply(text.format(n=n), "length", 3, None, n) for n in range(count)]
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(
        "CREATE TABLE replies (key TEXT PRIMARY KEY, teacher TEXT NOT NULL, question_id TEXT NOT NULL, "
        "request TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER, "
        "completion_tokens INTEGER, latency_s REAL NOT NULL, created REAL NOT NULL) WITHOUT ROWID"
    )
    for n, reply in enumerate(replies):
        said = (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens, reply.latency_s)
        row = (key(n), "ada", f"q{n}", entry(n).asked, *said, 1.7e9 - n)
        db.execute("INSERT INTO replies VALUES (?,?,?,?,?,?,?,?,?,?)", row)
    db.execute(f"PRAGMA application_id={0x544C4C4D}")
    db.execute("PRAGMA user_version=1")
    db.commit()
    db.close()
    return replies


def test_a_store_of_version_1_is_converted(tmp_path):
    replies = version_1(tmp_path / "s", 700)
    with Store(tmp_path / "s") as store:
        assert [store.get(key(n)) for n in range(700)] == replies
        assert [reply.text for reply in store.last(IDENTITY, 2)] == [replies[0].text, replies[1].text]  # by age
        assert store.put(entry(0, "late")) == replies[0]
        store.put(entry(700))
        assert len(store) == 701
    with closing(sqlite3.connect(tmp_path / "s", isolation_level=None)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")} == {
            "replies", "failures", "spent", "charges", "manners",
        }  # fmt: skip
        rows = db.execute("SELECT * FROM replies WHERE question_id != 'q700'").fetchall()
    db.close()
    for _, checked, teacher, question_id, _, *said, crc, thinking_tokens, message in rows:
        assert crc == crc_of(checked, teacher, question_id, *said, thinking_tokens, message)


def test_several_processes_can_convert_a_store_at_once(tmp_path):
    replies = version_1(tmp_path / "s", 50)

    def look() -> list[Reply | None]:
        with Store(tmp_path / "s") as store:
            return [store.get(key(n)) for n in range(50)]

    with ThreadPoolExecutor(4) as several:
        looks = [several.submit(look) for _ in range(4)]
    assert [look.result() for look in looks] == [replies] * 4


def test_a_full_disk_leaves_a_store_of_version_1_as_it_was(tmp_path):
    with small_disk(tmp_path / "disk", 1000) as disk:
        replies = version_1(disk / "s", 100, "Because of {n}, " + "as I said, " * 250)
        with pytest.raises(OSError) as caught:
            Store(disk / "s")
        assert caught.value.errno == errno.ENOSPC
        assert [file.name for file in disk.iterdir()] == ["s"]
        (tmp_path / "s").write_bytes((disk / "s").read_bytes())
    with Store(tmp_path / "s") as store:
        assert [store.get(key(n)) for n in range(100)] == replies
