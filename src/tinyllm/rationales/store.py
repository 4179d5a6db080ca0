"""The store of replies: what a teacher said is kept raw, once, and is durable before it counts.

A reply is keyed by exactly what could change it: who was asked, what was shown, how it was sampled, and which of
several samples it is. So the same question put the same way is answered from here, in any run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tinyllm.errors import RunFolderError
from tinyllm.rationales.checks import well_formed
from tinyllm.rationales.claims import Claims
from tinyllm.rationales.store_errors import code_of, explained
from tinyllm.rationales.store_place import resolved
from tinyllm.teachers.base import Reply

SCHEMA_VERSION = 2
APPLICATION_ID = 0x544C4C4D  # "TLLM", in the header of the file
PAGE_BYTES = 4096
_SMALLEST_BYTES = 512  # of a database that is not empty
_BUSY_S = 60.0  # another process's commit is waited for so long
_AT_ONCE = 500  # keys in one query; SQLite allows 999 in its older versions
# Rows of replies are appended, and found by a small index of keys: with the key as the place, each commit would touch
# pages all over a file of gigabytes.
_SCHEMA = (
    """CREATE TABLE replies (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,          -- reply_key(identity, request), 32 bytes
        teacher TEXT NOT NULL,             -- its name in the configuration that asked
        question_id TEXT NOT NULL,
        request TEXT NOT NULL,             -- JSON: identity, prompt, sampling, sample; the key is its SHA-256
        text TEXT NOT NULL,
        finish_reason TEXT NOT NULL,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        cached_tokens INTEGER,
        latency_s REAL NOT NULL,
        created REAL NOT NULL,             -- seconds since 1970, UTC
        crc INTEGER NOT NULL               -- crc_of(all but the request), so that a salvaged row can be trusted
    )""",
    """CREATE TABLE failures (               -- requests that got no reply the last time they were asked
        key BLOB PRIMARY KEY,
        teacher TEXT NOT NULL,
        question_id TEXT NOT NULL,
        reason TEXT NOT NULL,
        words TEXT NOT NULL,
        created REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE spent (                  -- what each run has paid for, whatever became of the run since
        run TEXT NOT NULL,
        teacher TEXT NOT NULL,
        replies INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        seconds REAL NOT NULL,
        PRIMARY KEY (run, teacher)
    ) WITHOUT ROWID""",
)
_COLUMNS = "text, finish_reason, prompt_tokens, completion_tokens, latency_s, cached_tokens"
_INSERT = (
    "INSERT OR IGNORE INTO replies (key, teacher, question_id, request, text, finish_reason, prompt_tokens, "
    "completion_tokens, cached_tokens, latency_s, created, crc) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)
_SPEND = (
    "INSERT INTO spent VALUES (?,?,?,?,?,?,?) ON CONFLICT (run, teacher) DO UPDATE SET replies = replies + "
    "excluded.replies, prompt_tokens = prompt_tokens + excluded.prompt_tokens, completion_tokens = completion_tokens + "
    "excluded.completion_tokens, cached_tokens = cached_tokens + excluded.cached_tokens, "
    "seconds = seconds + excluded.seconds"
)

Row = tuple[bytes, str, str, str, str, str, int | None, int | None, int | None, float, float, int]
"""A stored reply as it is in the database: the columns of `replies` but its id, in their order."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A reply on its way into the store.

    Attributes:
        asked: the request as JSON (`base.canonical`); the key is its checksum.
    """

    teacher: str
    question_id: str
    key: str
    asked: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no reply, and why."""

    key: str
    teacher: str
    question_id: str
    reason: str
    words: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has got from one teacher, and paid for. `seconds`: of asking, by the clock."""

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0


class Store:
    """A SQLite database of replies. May be used by several threads, and by several processes at once.

    Args:
        path: the database; made, with its folder, if it is not there.

    Attributes:
        path: resolved, so that what stands beside it is the same however the store is spelt.
        claims: which requests are being asked now, by this process or another.

    Raises:
        RunFolderError: the file is damaged, belongs to another program or a newer TinyLLM, or cannot be written.
        OSError: the disk is full (`errno.ENOSPC`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path = resolved(path)
        self._lock = threading.Lock()  # one connection, one statement at a time
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite would make it readable for all and writable for its owner alone, whatever the umask allows.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
                self.claims = Claims(path.with_name(path.name + ".claims"))
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        version = version_of(self._db, self.path)
        if version == 0:
            self._db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        self._use_wal()
        self._db.execute("PRAGMA synchronous=FULL")  # in WAL mode: a commit is on the disk before it returns
        if version < SCHEMA_VERSION:
            with self._transaction():
                self._make_tables()
        else:
            self._try_to_write()

    def _make_tables(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]  # another process may have been faster
        if version == SCHEMA_VERSION:
            return
        if version == 1:
            self._db.execute("ALTER TABLE replies RENAME TO replies_1")
        for table in _SCHEMA:
            self._db.execute(table)
        if version == 1:
            self._db.create_function("key_of", 1, bytes.fromhex, deterministic=True)
            self._db.create_function("crc_of", -1, crc_of, deterministic=True)
            self._db.execute(
                "INSERT INTO replies SELECT NULL, key_of(key), teacher, question_id, request, text, finish_reason, "
                "prompt_tokens, completion_tokens, NULL, latency_s, created, crc_of(key_of(key), teacher, question_id, "
                "text, finish_reason, prompt_tokens, completion_tokens, NULL, latency_s, created) FROM replies_1 "
                "ORDER BY created"
            )
            self._db.execute("DROP TABLE replies_1")
        self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _try_to_write(self) -> None:
        """Raise if the store is read-only: that has to be known before a teacher is asked."""
        self._db.execute("BEGIN IMMEDIATE")  # which alone lets a read-only store pass
        try:
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        finally:
            self._db.execute("ROLLBACK")

    def _use_wal(self) -> None:
        # SQLite does not wait here while another process does the same.
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def get(self, key: str) -> Reply | None:
        """Return the reply stored under a key, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Collection[str]) -> dict[str, Reply]:
        """Return the stored replies of those keys that have one."""
        rows = self._select(f"SELECT key, {_COLUMNS} FROM replies WHERE key IN", keys)  # noqa: S608 - a constant
        return {key.hex(): Reply(*columns) for key, *columns in rows}

    def failures(self, keys: Collection[str]) -> dict[str, Failure]:
        """Return what became of those requests that got no reply when they were asked last."""
        rows = self._select("SELECT key, teacher, question_id, reason, words FROM failures WHERE key IN", keys)
        return {key.hex(): Failure(key.hex(), *columns) for key, *columns in rows}

    def _select(self, query: str, keys: Collection[str]) -> list[tuple[Any, ...]]:
        wanted = [bytes.fromhex(key) for key in keys]
        found: list[tuple[Any, ...]] = []
        with self._lock, explained(self.path):
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                found += self._db.execute(f"{query} ({','.join('?' * len(some))})", some)
        return found

    def put(self, entry: Entry) -> Reply:
        """Store one reply; see `put_many`."""
        return self.put_many([entry])[0]

    def put_many(self, entries: Sequence[Entry], *, run: str | None = None, seconds: float = 0.0) -> list[Reply]:
        """Store replies in one commit, and return what is stored once it is on the disk.

        The first writer wins: where a key has a reply already, that one stays, and is returned.

        Args:
            run: whose account the replies go on.
            seconds: of asking, since this run's last commit.
        """
        now = time.time()
        rows = [_row(entry, now) for entry in entries]
        kept: list[Reply] = []
        with self._lock, explained(self.path), self._transaction():
            for row, entry in zip(rows, entries, strict=True):
                if self._db.execute(_INSERT, row).rowcount:
                    kept.append(entry.reply if row[4] == entry.reply.text else replace(entry.reply, text=row[4]))
                else:
                    query = f"SELECT {_COLUMNS} FROM replies WHERE key = ?"  # noqa: S608 - a constant
                    kept.append(Reply(*self._db.execute(query, row[:1]).fetchone()))
            self._db.executemany("DELETE FROM failures WHERE key = ?", [row[:1] for row in rows])
            if run is not None:
                self._db.executemany(_SPEND, _bill(run, entries, seconds))
        return kept

    def adopt(self, rows: Sequence[Row]) -> int:
        """Store rows of another store as they are, in one commit; return how many were new. The first writer wins."""
        with self._lock, explained(self.path), self._transaction():
            return sum(self._db.execute(_INSERT, row).rowcount for row in rows)

    def put_failures(self, failures: Sequence[Failure]) -> None:
        """Remember requests that got no reply."""
        now = time.time()
        rows = [
            (bytes.fromhex(f.key), f.teacher, well_formed(f.question_id), f.reason, well_formed(f.words), now)
            for f in failures
        ]
        with self._lock, explained(self.path), self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO failures VALUES (?,?,?,?,?,?)", rows)

    def spent(self, run: str) -> dict[str, Spent]:
        """Return what a run has paid for, by teacher."""
        query = (
            "SELECT teacher, replies, prompt_tokens, completion_tokens, cached_tokens, seconds FROM spent WHERE run = ?"
        )
        with self._lock, explained(self.path):
            return {teacher: Spent(*columns) for teacher, *columns in self._db.execute(query, (run,))}

    def last(self, teacher: str, count: int) -> list[Reply]:
        """Return the newest replies of a teacher, by its name: what it is like to ask it."""
        query = f"SELECT {_COLUMNS} FROM (SELECT * FROM replies ORDER BY id DESC LIMIT ?) WHERE teacher = ? LIMIT ?"  # noqa: S608 - a constant
        with self._lock, explained(self.path):
            return [Reply(*columns) for columns in self._db.execute(query, (100 * count, teacher, count))]

    def __len__(self) -> int:
        with self._lock, explained(self.path):
            return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Close the database; everything that was put is in it."""
        with self._lock, explained(self.path):
            self._db.close()
        self.claims.close()

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


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of a store's schema; 0 for a file with nothing in it.

    Raises:
        RunFolderError: it is another program's database, or a newer TinyLLM's.
    """
    if 0 < path.stat().st_size < _SMALLEST_BYTES:  # SQLite would take it for an empty database, and write over it
        raise RunFolderError(f"{path} is no database; give `rationales.store` another path.")
    # In one statement, so of one moment: another process may be making the same store.
    application, version, tables = db.execute(
        "SELECT (SELECT application_id FROM pragma_application_id), "
        "(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)"
    ).fetchone()
    if application != APPLICATION_ID and (application or tables):
        raise RunFolderError(f"{path} is a database of another program; give `rationales.store` another path.")
    if version > SCHEMA_VERSION:
        raise RunFolderError(
            f"{path} was written by a newer TinyLLM (version {version} of the store; this one reads up to "
            f"{SCHEMA_VERSION}). Update TinyLLM, or give `rationales.store` another path."
        )
    return int(version) if tables else 0


def crc_of(key: bytes, *columns: str | float | None) -> int:
    """Return the checksum of a row, as it is stored in its last column.

    Args:
        columns: all others in their order, but the request, of which the key is the checksum.
    """
    return zlib.crc32(json.dumps([key.hex(), *columns]).encode("ascii"))


def _row(entry: Entry, now: float) -> Row:
    reply, key = entry.reply, bytes.fromhex(entry.key)
    who = (entry.teacher, well_formed(entry.question_id))
    said = (
        well_formed(reply.text),
        reply.finish_reason,
        reply.prompt_tokens,
        reply.completion_tokens,
        reply.cached_tokens,
        float(reply.latency_s),
        now,
    )
    return (key, *who, entry.asked, *said, crc_of(key, *who, *said))


def _bill(run: str, entries: Sequence[Entry], seconds: float) -> list[tuple[Any, ...]]:
    """One row of `spent` a teacher; the seconds, which all teachers share, go to the first."""
    bills: dict[str, list[int]] = {}
    for entry in entries:
        bill = bills.setdefault(entry.teacher, [0, 0, 0, 0])
        reply = entry.reply
        for place, amount in enumerate((1, reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens)):
            bill[place] += amount or 0
    return [(run, name, *bill, 0.0 if place else seconds) for place, (name, bill) in enumerate(bills.items())]
