"""Who may read and write what TinyLLM leaves is what the umask says, no more and no less."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from stores import entry
from tinyllm.replies._store import Store
from tinyllm.system import files as atomic
from tinyllm.teachers._batch.journal import Journal, JournalEntry

MASKS = [0o000, 0o002, 0o022, 0o027, 0o077]


@pytest.fixture(params=MASKS, ids=oct)
def umask(request) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def wrong(folder: Path, umask: int) -> dict[str, str]:
    """Files and folders with other rights than a new one has."""
    found = {}
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != (0o777 if path.is_dir() else 0o666) & ~umask:
            found[str(path.relative_to(folder))] = oct(mode)
    return found


def test_a_file_that_is_whole_or_not_there(tmp_path, umask):
    for _ in range(2):  # new, and in the place of another
        atomic.write_json(tmp_path / "new" / "file.json", {})
    assert wrong(tmp_path, umask) == {}


def test_a_file_that_a_library_writes_by_way_of_a_private_one(tmp_path, umask):
    with atomic.replacing(tmp_path / "weights") as draft:
        private = tmp_path / "private"
        private.touch(mode=0o600)
        private.write_text("weights")
        private.replace(draft)
    assert wrong(tmp_path, umask) == {}
    assert (tmp_path / "weights").read_text() == "weights"


def test_a_store_with_its_log_its_claims_and_its_journal(tmp_path, umask):
    async def journalled() -> None:
        journal = Journal(tmp_path / "made" / "s.sqlite.batches", {"kind": "x"})
        journal.prepare()
        async with journal.locked():
            journal.write(JournalEntry("token", ("ab",), "file", 0.0))

    asyncio.run(journalled())
    with Store(tmp_path / "made" / "s.sqlite") as store:
        store.put(entry(1, "x"))
        assert {p.name for p in (tmp_path / "made").glob("s.sqlite-*")} == {"s.sqlite-wal", "s.sqlite-shm"}
        assert wrong(tmp_path, umask) == {}
    assert wrong(tmp_path, umask) == {}


def test_a_store_that_is_there_keeps_its_rights(tmp_path):
    path = tmp_path / "s.sqlite"
    Store(path).close()
    path.chmod(0o600)
    with Store(path) as store:
        store.put(entry(1, "x"))
        assert {oct(stat.S_IMODE(p.stat().st_mode)) for p in tmp_path.glob("s.sqlite*") if "claims" not in p.name} == {
            "0o600"
        }


def test_a_whole_run(project, cli):
    before = os.umask(0o027)
    try:
        said = cli("run", project.config)
    finally:
        os.umask(before)
    assert said.code == 0, said.err
    assert wrong(project.folder / "runs", 0o027) == {}
