"""Shared by the tests of the store: numbered entries, and places that are hard to write to."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tinyllm.prompts import Prompt
from tinyllm.replies._store import Entry, Store, Work
from tinyllm.spending.charges import Bill
from tinyllm.teachers.base import Reply, Request, Sampling, canonical, key_of

IDENTITY = {"kind": "scripted", "model": "m"}
SAMPLING = Sampling(16, 0.7, 0.9, 1, ("\n\n",))
_NOBODY = 65534


def request(n: int = 0, **other) -> Request:
    return Request(f"q{n}", Prompt(text=f"Why {n}?"), replace(SAMPLING, **other))


def entry(n: int = 0, text: str = "Because.", teacher: str = "ada", **other) -> Entry:
    asked = canonical(
        IDENTITY | {"model": f"model of {teacher}"} if teacher != "ada" else IDENTITY, request(n, **other)
    )
    return Entry(teacher, f"q{n}", key_of(asked), asked, Reply(text, "stop", 3, None, 0.25))


def billed(store: Store, entries: list[Entry], run: str, seconds: float = 0.0) -> None:
    """Store replies on an account, with what they say that they have cost."""
    bills = [
        Bill(run, e.teacher, None, e.reply.prompt_tokens or 0, e.reply.completion_tokens or 0, 0, 0.0) for e in entries
    ]
    store.commit(Work(entries, bills=bills, seconds=seconds))


def reply_key(identity: Mapping[str, str], asked: Request) -> str:
    return key_of(canonical(identity, asked))


def key(n: int = 0, **other) -> str:
    return reply_key(IDENTITY, request(n, **other))


def filled(path: Path, count: int = 300) -> Path:
    with Store(path) as store:
        store.put_many([entry(n, f"reply {n} " * 10) for n in range(count)])
    return path


def contents(path: Path) -> set[tuple]:
    """All replies of a store with all that is stored of them, but the order in which they came."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {row[1:] for row in db.execute("SELECT * FROM replies")}


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everyone can get to; those of pytest are their owner's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Do the block as someone to whom the rights of files apply: root may do everything."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of a few kilobytes, where one may be made."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
