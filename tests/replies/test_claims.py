"""Claims exclude all other users, and the operating system releases those of a dead process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import key
from tinyllm.errors import RunFolderError
from tinyllm.replies._claims import Claims
from tinyllm.replies._store import Store

KEYS = [key(n) for n in range(6)]


@contextmanager
def claiming(path: Path, *keys: str) -> Iterator[subprocess.Popen]:
    """A process that holds claims until its input ends."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom tinyllm.replies._claims import Claims\n"
        "claims = Claims(Path(sys.argv[1]))\nprint(all([claims.take(k) for k in sys.argv[2:]]), flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, str(path), *keys], **pipes) as process:
        assert process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(30)


def test_a_claim_is_taken_once_until_it_is_given_back(tmp_path):
    one, other = Claims(tmp_path / "c"), Claims(tmp_path / "c")
    assert one.take(KEYS[0])
    assert not one.take(KEYS[0])
    assert not other.take(KEYS[0])
    assert other.take(KEYS[1])
    other.release(KEYS[0])  # not its own
    assert not other.take(KEYS[0])
    one.release(KEYS[0])
    assert other.take(KEYS[0])
    assert not one.take(KEYS[0])
    one.close()
    other.close()


def test_closing_releases_only_own_claims(tmp_path):
    one, other, third = (Claims(tmp_path / "c") for _ in range(3))
    assert one.take(KEYS[0])
    assert other.take(KEYS[1])
    one.close()
    assert third.take(KEYS[0])
    assert not third.take(KEYS[1])
    other.close()
    third.close()


def test_closing_twice_does_not_close_another_file(tmp_path):
    claims = Claims(tmp_path / "c")
    claims.close()
    with (tmp_path / "other").open("w") as other:  # gets the number that is free
        claims.close()
        other.write("whole")
    assert (tmp_path / "other").read_text() == "whole"


def test_a_claim_of_another_process_ends_with_that_process(tmp_path):
    claims = Claims(tmp_path / "c")
    with claiming(tmp_path / "c", KEYS[0], KEYS[1]) as process:
        assert not claims.take(KEYS[0])
        assert claims.take(KEYS[2])
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        assert claims.take(KEYS[0])
        assert claims.take(KEYS[1])
    claims.close()


def test_a_child_program_does_not_inherit_a_claim(tmp_path):
    """A server that a teacher starts may live on."""
    claims = Claims(tmp_path / "c")
    assert claims.take(KEYS[0])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as process:
        claims.close()
        other = Claims(tmp_path / "c")
        deadline = time.monotonic() + 10
        while not other.take(KEYS[0]):  # the starting itself holds it, for an instant
            assert time.monotonic() < deadline
        other.close()
        process.communicate(b"\n", timeout=30)


def test_the_file_of_claims_stays_empty(tmp_path):
    claims = Claims(tmp_path / "c")
    assert all(claims.take(k) for k in KEYS)
    assert (tmp_path / "c").stat().st_size == 0
    claims.close()
    assert (tmp_path / "c").stat().st_size == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(KEYS), st.booleans()), max_size=30))
def test_two_users_never_hold_the_same_claim(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("claims") / "c"
    users = [Claims(path) for _ in range(3)]
    holder: dict[str, int] = {}
    for user, wanted, takes in steps:
        if takes:
            assert users[user].take(wanted) == (wanted not in holder)
            holder.setdefault(wanted, user)
        else:
            users[user].release(wanted)
            if holder.get(wanted) == user:
                del holder[wanted]
    for one in users:
        one.close()


def test_processes_that_share_a_store_ask_each_request_once(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom stores import Store, entry, key\n"
        "folder, todo = Path(sys.argv[1]), {key(n): n for n in range(60)}\n"
        "with Store(folder / 's') as store, (folder / 'asked').open('a') as asked:\n"
        "    while todo:\n"
        "        for k, n in list(todo.items()):\n"
        "            if not store.get(k):\n"
        "                if not store.claims.take(k):\n"
        "                    continue\n"
        "                if not store.get(k):\n"
        "                    print(k, file=asked, flush=True)\n"
        "                    store.put(entry(n))\n"
        "                store.claims.release(k)\n"
        "            del todo[k]\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *(p for p in sys.path if p)])
    command = [sys.executable, "-c", code, str(tmp_path)]
    askers = [subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}) for _ in range(3)]
    assert [asker.wait(60) for asker in askers] == [0, 0, 0]
    asked = Counter((tmp_path / "asked").read_text().split())
    assert asked == dict.fromkeys((key(n) for n in range(60)), 1)


def test_a_lock_file_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "s.claims").mkdir()
    with pytest.raises(RunFolderError, match=r"cannot be made: Is a directory: .*s\.claims"):
        Store(tmp_path / "s")
