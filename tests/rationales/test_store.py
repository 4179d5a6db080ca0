"""The store: durable, the first writer wins, shared by processes, and plain about damage."""

import errno
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.errors import RunFolderError
from tinyllm.prompts import Message, Prompt
from tinyllm.rationales.store import SCHEMA_VERSION, Entry, Store, reply_key
from tinyllm.teachers.base import Reply, Request, Sampling

IDENTITY = {"kind": "scripted", "model": "m"}
SAMPLING = Sampling(16, 0.7, 0.9, 1, ("\n\n",))


def request(n: int = 0, **other) -> Request:
    return Request(f"q{n}", Prompt(text=f"Why {n}?"), replace(SAMPLING, **other))


def entry(n: int = 0, text: str = "Because.", **other) -> Entry:
    return Entry("ada", IDENTITY, request(n, **other), Reply(text, "stop", 3, None, 0.25))


def key(n: int = 0, **other) -> str:
    return reply_key(IDENTITY, request(n, **other))


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
    with sqlite3.connect(tmp_path / "s") as db:
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


def test_what_is_asked_changes_the_key_and_who_asks_it_about_what_does_not():
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
    assert (SCHEMA_VERSION, key()) == (1, "6939eeea1008226995393f28f8884649cb8ae71ffa6ac96265d6486dea37a9bd")


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


def test_what_was_put_survives_a_kill(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom test_store import Store, entry\n"
        "store = Store(Path(sys.argv[1]))\nfor n in range(50): store.put(entry(n))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)])
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
def test_the_store_never_loses_and_never_doubles(tmp_path_factory, batches, reopen_after):
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


def filled(path: Path, count: int = 300) -> Path:
    with Store(path) as store:
        store.put_many([entry(n, f"reply {n} " * 10) for n in range(count)])
    return path


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
    with sqlite3.connect(tmp_path / "s") as db:
        db.execute("CREATE TABLE photos (name TEXT)")
    db.close()
    before = (tmp_path / "s").read_bytes()
    with pytest.raises(RunFolderError, match=r"another program.*rationales\.store"):
        Store(tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == before


def test_a_newer_store_is_left_alone(tmp_path):
    with sqlite3.connect(filled(tmp_path / "s", 1)) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(RunFolderError, match="newer TinyLLM"):
        Store(tmp_path / "s")


def test_a_full_disk_is_told_and_what_was_stored_is_intact(tmp_path):
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
