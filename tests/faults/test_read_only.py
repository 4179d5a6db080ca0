"""Read-only file systems: a complete store is enough for a run, and no traceback appears."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinyllm.rationales.files import read_rationales
from tinyllm.replies._store import Failure, Store, Work


@contextlib.contextmanager
def read_only(folder: Path, *filled_from: Path) -> Iterator[Path]:
    """A file system with copies of some files, which then cannot be written."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        for file in filled_from:
            (shutil.copytree if file.is_dir() else shutil.copy)(file, folder / file.name)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (folder / "x").touch()
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def refused(said, *words: str) -> None:
    assert said.code == 2, said.err
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


def test_a_complete_store_is_read_where_it_cannot_be_written(project, cli):
    assert cli("generate", project.config).code == 0
    store = project.folder / "runs" / "replies.sqlite"
    with read_only(project.folder / "disk", store) as disk:
        project.change("rationales.store", str(disk / "replies.sqlite"))
        said = cli("generate", project.config, "--run-dir", "other")
        assert said.code == 0, said.err
        assert "is only read, since every reply is in it" in said.err
        assert read_rationales(project.folder / "other") == read_rationales(project.run)
        assert cli("run", project.config, "--run-dir", "other").code == 0
        assert cli("check", project.config, "--run-dir", "other").code == 0
        assert cli("store", "ls", disk).code == 0
        refused(cli("store", "prune", disk, "--teacher", "ada", "--yes"), "check its rights")
        refused(cli("store", "import", project.folder / "x.jsonl", disk / "replies.sqlite"))


def test_a_store_that_lacks_something_is_told_before_anything_is_asked(project, cli):
    project.change("data.limit", 5)
    assert cli("generate", project.config).code == 0
    project.change("data.limit", None)
    with read_only(project.folder / "disk", project.folder / "runs" / "replies.sqlite") as disk:
        project.change("rationales.store", str(disk / "replies.sqlite"))
        said = cli("generate", project.config, "--run-dir", "other")
        refused(said, "cannot be opened for reading and writing", "not all replies of ada, bob are in it")
        assert not (project.folder / "other" / "rationales.parquet").exists()
        assert cli("check", project.config, "--run-dir", "other").code == 0


def test_a_request_that_failed_when_it_was_asked_is_not_in_the_way(project, cli):
    assert cli("generate", project.config).code == 0
    store = project.folder / "runs" / "replies.sqlite"
    with Store(store) as opened:
        ((key, question),) = opened._db.execute("SELECT key, question_id FROM replies WHERE teacher = 'ada' LIMIT 1")
        opened._db.execute("DELETE FROM replies WHERE key = ?", (key,))
        opened.commit(Work(failures=[Failure(key.hex(), "ada", question, "too_long", "the prompt is too long")]))
    with read_only(project.folder / "disk", store) as disk:
        project.change("rationales.store", str(disk / "replies.sqlite"))
        said = cli("generate", project.config, "--run-dir", "other")
        assert said.code == 3, said.err
        assert "1 of ada (too_long)" in said.err


def test_a_log_that_cannot_be_read_is_told(project, cli):
    assert cli("generate", project.config).code == 0
    store = project.folder / "runs" / "replies.sqlite"
    with Store(store) as opened:
        opened._db.execute("PRAGMA wal_autocheckpoint=0")
        opened.commit(Work(failures=[Failure("ab" * 32, "ada", "q", "failed", "x")]))
        copy = shutil.copytree(
            store.parent, project.folder / "killed", ignore=lambda *_: ["mine", "replies.sqlite-shm"]
        )
    with read_only(project.folder / "disk", copy) as disk:
        project.change("rationales.store", str(disk / "killed" / "replies.sqlite"))
        refused(cli("generate", project.config, "--run-dir", "other"))
        refused(cli("store", "ls", disk / "killed"), "Copy both files to such a folder")


@pytest.mark.parametrize("command", ["generate", "train", "evaluate", "report", "run", "check", "store", "init", "ask"])
def test_a_run_folder_that_cannot_be_written(project, cli, command):
    assert cli("run", project.config).code == 0
    with read_only(project.folder / "disk", project.folder / "runs") as disk:
        run = disk / "runs" / "mine"
        if command == "check":
            assert cli("check", run).code == 0
        elif command == "store":
            assert cli("store", "ls", run).code == 0
        elif command == "ask":
            assert cli("ask", run, "Which?", "-c", "ice", "-c", "water").code == 0
        elif command == "init":
            refused(cli("init", disk / "new.yaml"), "Read-only file system")
        else:
            refused(cli(command, run), "Read-only file system")
