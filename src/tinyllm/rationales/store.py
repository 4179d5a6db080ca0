"""The store of replies: what a teacher said is kept raw, once, and is durable before it counts.

A reply is keyed by exactly what could change it: who was asked, what was shown, how it was sampled, and which of
several samples it is. So the same question put the same way is answered from here, in any run.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tinyllm.errors import RunFolderError
from tinyllm.rationales.checks import well_formed
from tinyllm.teachers.base import Reply, Request

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x544C4C4D  # "TLLM", in the header of the file
_BUSY_S = 60.0  # another process's commit is waited for so long
_AT_ONCE = 500  # keys in one query; SQLite allows 999 in its older versions
_LITTLE_SPACE_BYTES = 1 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,              -- reply_key(identity, request)
    teacher TEXT NOT NULL,             -- its name in the configuration that asked
    question_id TEXT NOT NULL,
    request TEXT NOT NULL,             -- JSON: identity, prompt, sampling, sample
    text TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    latency_s REAL NOT NULL,
    created REAL NOT NULL              -- seconds since 1970, UTC
) WITHOUT ROWID
"""
_COLUMNS = "text, finish_reason, prompt_tokens, completion_tokens, latency_s"


@dataclass(frozen=True, slots=True)
class Entry:
    """A reply on its way into the store."""

    teacher: str
    identity: Mapping[str, str]
    request: Request
    reply: Reply


def reply_key(identity: Mapping[str, str], request: Request) -> str:
    """Return the SHA-256, in hexadecimal, of everything that could change the reply, and of nothing else."""
    return hashlib.sha256(_canonical(identity, request).encode("ascii")).hexdigest()


def _canonical(identity: Mapping[str, str], request: Request) -> str:
    sampling = request.sampling
    how: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": float(sampling.temperature),
        "stop": list(sampling.stop),
    }
    if sampling.temperature > 0:  # a greedy reply is drawn from nothing
        how |= {"top_p": float(sampling.top_p), "seed": sampling.seed}
    prompt = request.prompt
    shown: Any = [[m.role, m.content] for m in prompt.messages] if prompt.messages else prompt.text
    asked = {"identity": dict(identity), "prompt": shown, "sampling": how, "sample": request.sample}
    return json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


class Store:
    """A SQLite database of replies. May be used by several threads, and by several processes at once.

    Args:
        path: the database; made, with its folder, if it is not there.

    Raises:
        RunFolderError: the file is damaged, belongs to another program or a newer TinyLLM, or cannot be written.
        OSError: the disk is full (`errno.ENOSPC`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # one connection, one statement at a time
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            with self._explained():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        # In one statement, so of one moment: another process may be making the same store.
        application, version, tables = self._db.execute(
            "SELECT (SELECT application_id FROM pragma_application_id), "
            "(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)"
        ).fetchone()
        if application != _APPLICATION_ID and (application or tables):
            raise RunFolderError(f"{self.path} is a database of another program; give `rationales.store` another path.")
        if version > SCHEMA_VERSION:
            raise RunFolderError(
                f"{self.path} was written by a newer TinyLLM (version {version} of the store; this one reads up to "
                f"{SCHEMA_VERSION}). Update TinyLLM, or give `rationales.store` another path."
            )
        self._use_wal()
        self._db.execute("PRAGMA synchronous=FULL")  # in WAL mode: a commit is on the disk before it returns
        if version < SCHEMA_VERSION:
            with self._transaction():
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _use_wal(self) -> None:
        # SQLite does not wait here while another process does the same.
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def get(self, key: str) -> Reply | None:
        """Return the reply stored under a key, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Collection[str]) -> dict[str, Reply]:
        """Return the stored replies of those keys that have one."""
        found: dict[str, Reply] = {}
        wanted = list(keys)
        with self._lock, self._explained():
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = self._db.execute(f"SELECT key, {_COLUMNS} FROM replies WHERE key IN ({marks})", some)  # noqa: S608 - marks only
                found |= {key: Reply(*columns) for key, *columns in rows}
        return found

    def teachers(self) -> set[str]:
        """Return the names of all teachers that have replies here."""
        with self._lock, self._explained():
            return {name for (name,) in self._db.execute("SELECT DISTINCT teacher FROM replies")}

    def put(self, entry: Entry) -> Reply:
        """Store one reply; see `put_many`."""
        return self.put_many([entry])[0]

    def put_many(self, entries: Sequence[Entry]) -> list[Reply]:
        """Store replies in one commit, and return what is stored once it is on the disk.

        The first writer wins: where a key has a reply already, that one stays, and is returned.
        """
        rows = [_row(entry) for entry in entries]
        kept: list[Reply] = []
        with self._lock, self._explained(), self._transaction():
            for row, entry in zip(rows, entries, strict=True):
                new = self._db.execute("INSERT OR IGNORE INTO replies VALUES (?,?,?,?,?,?,?,?,?,?)", row).rowcount
                if new:
                    kept.append(replace(entry.reply, text=row[4]))
                else:
                    query = f"SELECT {_COLUMNS} FROM replies WHERE key = ?"  # noqa: S608 - a constant
                    kept.append(Reply(*self._db.execute(query, row[:1]).fetchone()))
        return kept

    def __len__(self) -> int:
        with self._lock, self._explained():
            return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Close the database; everything that was put is in it."""
        with self._lock, self._explained():
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk rolls back by itself
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into what the person can do about them."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a bug of ours: a closed database, a wrong statement
        except sqlite3.DatabaseError as error:
            raise self._explanation(error) from error
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise RunFolderError(f"The store {self.path} cannot be made: {error.strerror}: {error.filename}") from None

    def _explanation(self, error: sqlite3.DatabaseError) -> Exception:
        code = _code(error)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._free_bytes() < _LITTLE_SPACE_BYTES):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return RunFolderError(
                f"The store of replies {self.path} is damaged, or no database ({error}). It was not touched. "
                "Move it away to start a new one, or put back a copy."
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return RunFolderError(f"Another process has kept the store {self.path} locked for {_BUSY_S:.0f} s.")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return RunFolderError(f"The store {self.path} cannot be opened for writing ({error}); check its rights.")
        if isinstance(error, sqlite3.OperationalError) and "no such" in str(error):
            return RunFolderError(f"The store {self.path} has not the tables of a store ({error}); move it away.")
        return RunFolderError(f"The store {self.path} cannot be used: {error}")

    def _free_bytes(self) -> int:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.path.parent).free
        return _LITTLE_SPACE_BYTES


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary error code; the rest of its bits are details."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _row(entry: Entry) -> tuple[str, str, str, str, str, str, int | None, int | None, float, float]:
    request, reply = entry.request, entry.reply
    asked = _canonical(entry.identity, request)
    return (
        hashlib.sha256(asked.encode("ascii")).hexdigest(),
        entry.teacher,
        well_formed(request.question_id),
        asked,
        well_formed(reply.text),
        reply.finish_reason,
        reply.prompt_tokens,
        reply.completion_tokens,
        reply.latency_s,
        time.time(),
    )
