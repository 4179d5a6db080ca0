"""The store of replies: each reply is stored once, unchanged, and counts only after it is on the disk.

The key of a reply covers everything that could change it: the model, the prompt, the sampling parameters, and the
number of the sample. So a question that was asked before in the same way is answered from the store, in any run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from tinyllm.config import BudgetSection, PriceSection
from tinyllm.errors import RunFolderError
from tinyllm.replies import _ledger
from tinyllm.replies._claims import Claims
from tinyllm.replies._errors import code_of, explained
from tinyllm.replies._place import resolved
from tinyllm.spending.charges import Bill, Charge, Spent
from tinyllm.system.files import well_formed
from tinyllm.teachers.base import Reply
from tinyllm.teachers.manners import Manners

SCHEMA_VERSION = 3
_APPLICATION_ID = 0x544C4C4D  # "TLLM", in the header of the file
PAGE_BYTES = 4096
_COLUMNS_OF_VERSION_2 = 9  # so many columns does the checksum cover
_SMALLEST_BYTES = 512  # a database that is not empty has at least so many
_BUSY_S = 60.0  # the longest wait for another process's commit
_BREAK_S = 90.0  # nothing comes for longer: between two commands, not in one
_ENOUGH_FOR_A_PACE = 20  # replies
_AT_ONCE = 500  # keys in one query; older versions of SQLite allow 999
# Replies are appended, and a small index finds them by key. If the key were the primary key, each commit would write
# to pages all over a file of gigabytes.
_MANNERS = """CREATE TABLE manners (           -- which forms of request an endpoint accepts
        identity TEXT PRIMARY KEY,         -- JSON
        manners TEXT NOT NULL              -- JSON
    ) WITHOUT ROWID"""
_SCHEMA = (
    """CREATE TABLE replies (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,          -- key_of(request), 32 bytes
        teacher TEXT NOT NULL,             -- its name in the configuration
        question_id TEXT NOT NULL,
        request TEXT NOT NULL,             -- JSON: identity, prompt, sampling, sample; the key is its SHA-256
        text TEXT NOT NULL,
        finish_reason TEXT NOT NULL,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        cached_tokens INTEGER,
        latency_s REAL NOT NULL,
        created REAL NOT NULL,             -- seconds since 1970, UTC
        crc INTEGER NOT NULL,              -- crc_of(all but the request): proves a salvaged row
        thinking_tokens INTEGER,
        message TEXT                       -- JSON, where the reply holds more than a text
    )""",
    """CREATE TABLE failures (               -- requests whose last attempt got no reply
        key BLOB PRIMARY KEY,
        teacher TEXT NOT NULL,
        question_id TEXT NOT NULL,
        reason TEXT NOT NULL,
        words TEXT NOT NULL,
        created REAL NOT NULL
    ) WITHOUT ROWID""",
    _MANNERS,
    *_ledger.SCHEMA,
)
OLD_VERSION = 2
SHOWN_AS_NEW = (
    "PRAGMA temp_store = MEMORY",
    "CREATE TEMP VIEW replies AS SELECT *, NULL AS thinking_tokens, NULL AS message FROM main.replies",
    _MANNERS.replace("CREATE TABLE", "CREATE TEMP TABLE"),
    *_ledger.SHOWN_AS_NEW,
)
"""Makes a read-only store of version 2 look like the current version."""

_UPGRADE = (  # from version 2
    "ALTER TABLE replies ADD COLUMN thinking_tokens INTEGER",
    "ALTER TABLE replies ADD COLUMN message TEXT",
    _MANNERS,
    *_ledger.UPGRADE,
)
_COLUMNS = "text, finish_reason, prompt_tokens, completion_tokens, latency_s, cached_tokens, thinking_tokens, message"
_INSERT = (
    "INSERT OR IGNORE INTO replies (key, teacher, question_id, request, text, finish_reason, prompt_tokens, "
    "completion_tokens, cached_tokens, latency_s, created, crc, thinking_tokens, message) "
    "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)

Row = tuple[
    bytes, str, str, str, str, str, int | None, int | None, int | None, float, float, int, int | None, str | None
]
"""A row of the table `replies`, without the id."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A reply to be stored. `asked` is the request as JSON (`base.canonical`), and the key is its checksum."""

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


@dataclass(slots=True)
class Work:
    """What one commit writes.

    Attributes:
        bills, changes, charges: of one run; see `_ledger`. Charges come last, so that they see what was freed.
        cap: on `charges`.
        seconds: time spent asking since this run's last commit.
    """

    entries: list[Entry] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    bills: list[Bill] = field(default_factory=list)
    changes: list[Callable[[sqlite3.Connection], None]] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    cap: BudgetSection | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a commit: the stored reply of each entry; the id of each charge, None where there was no room."""

    replies: list[Reply]
    charges: list[int | None]


class Store:
    """A SQLite database of replies. Several threads and several processes may use it at once.

    Args:
        path: the database; it and its folder are created if missing.

    Attributes:
        path: without symbolic links, so that all processes agree on the files beside it.
        claims: which requests are being asked now, by this process or another.

    Raises:
        RunFolderError: the file is damaged, belongs to another program or a newer TinyLLM, or cannot be written.
        OSError: the disk is full (`errno.ENOSPC`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path = resolved(path)
        self._lock = threading.Lock()  # the connection runs one statement at a time
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite would ignore the umask.
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
        self._db.execute("PRAGMA synchronous=FULL")  # in WAL mode, a commit is on the disk when it returns
        if version < SCHEMA_VERSION:
            with self._transaction():
                self._make_tables()
            return
        # A read-only store must fail here, before a teacher is asked. It would let BEGIN IMMEDIATE pass.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        finally:
            self._db.execute("ROLLBACK")

    def _make_tables(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]  # another process may have done it
        if version == SCHEMA_VERSION:
            return
        if version == 1:
            self._db.execute("ALTER TABLE replies RENAME TO replies_1")
        for statement in _UPGRADE if version == OLD_VERSION else _SCHEMA:
            self._db.execute(statement)
        if version == 1:
            self._db.create_function("key_of", 1, bytes.fromhex, deterministic=True)
            self._db.create_function("crc_of", -1, crc_of, deterministic=True)
            self._db.execute(
                "INSERT INTO replies SELECT NULL, key_of(key), teacher, question_id, request, text, finish_reason, "
                "prompt_tokens, completion_tokens, NULL, latency_s, created, crc_of(key_of(key), teacher, question_id, "
                "text, finish_reason, prompt_tokens, completion_tokens, NULL, latency_s, created), NULL, NULL "
                "FROM replies_1 ORDER BY created"
            )
            self._db.execute("DROP TABLE replies_1")
        self._db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _use_wal(self) -> None:
        # SQLite does not wait by itself if another process does the same at this moment.
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
        """Return why those requests failed whose last attempt got no reply."""
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
        """Store one reply; see `commit`."""
        return self.put_many([entry])[0]

    def put_many(self, entries: Sequence[Entry]) -> list[Reply]:
        """Store replies in one commit, without charging a run."""
        return self.commit(Work(list(entries))).replies

    def commit(self, work: Work) -> Done:
        """Write replies, failures and charges in one commit. They are on the disk when this returns.

        If a key has a reply already, that reply stays and is returned.
        """
        now = time.time()
        rows = [_row(entry, now) for entry in work.entries]
        notes = [
            (bytes.fromhex(f.key), f.teacher, well_formed(f.question_id), f.reason, well_formed(f.words), now)
            for f in work.failures
        ]
        kept: list[Reply] = []
        with self._lock, explained(self.path), self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO failures VALUES (?,?,?,?,?,?)", notes)
            for row, entry in zip(rows, work.entries, strict=True):
                if self._db.execute(_INSERT, row).rowcount:
                    kept.append(entry.reply if row[4] == entry.reply.text else replace(entry.reply, text=row[4]))
                else:
                    query = f"SELECT {_COLUMNS} FROM replies WHERE key = ?"  # noqa: S608 - a constant
                    kept.append(Reply(*self._db.execute(query, row[:1]).fetchone()))
            self._db.executemany("DELETE FROM failures WHERE key = ?", [row[:1] for row in rows])
            _ledger.settle(self._db, work.bills, work.seconds)
            for change in work.changes:
                change(self._db)
            charges = _ledger.set_aside(self._db, work.charges, work.cap)
        return Done(kept, charges)

    def adopt(self, rows: Sequence[Row]) -> int:
        """Store rows of another store in one commit. Keys that have a reply keep it. Return how many were new."""
        with self._lock, explained(self.path), self._transaction():
            return sum(self._db.execute(_INSERT, row).rowcount for row in rows)

    def spent(self, run: str, prices: Mapping[str, PriceSection | None] | None = None) -> dict[str, Spent]:
        """Return what a run has paid, by teacher.

        Args:
            prices: used to compute dollars for what an earlier version counted in tokens only.
        """
        with self._lock, explained(self.path):
            if prices is not None:
                with self._transaction():
                    _ledger.price_tokens(self._db, run, prices)
            return {teacher: found for (_, teacher), found in _ledger.spent(self._db, run).items()}

    def lapse(self, run: str, teacher: str) -> int:
        """Write off the attempts of a process that ended without their outcome. Return how many there were."""
        with self._lock, explained(self.path), self._transaction():
            return _ledger.lapse(self._db, run, teacher)

    def manners(self, identity: Mapping[str, str]) -> Manners:
        """Return what is known about the requests that a model accepts."""
        with self._lock, explained(self.path):
            query = "SELECT manners FROM manners WHERE identity = ?"
            row = self._db.execute(query, (_identity(identity),)).fetchone()
        return Manners() if row is None else Manners.load(row[0])

    def remember(self, identity: Mapping[str, str], manners: Manners) -> None:
        """Store what is known about the requests that a model accepts."""
        with self._lock, explained(self.path), self._transaction():
            self._db.execute("INSERT OR REPLACE INTO manners VALUES (?, ?)", (_identity(identity), manners.dump()))

    def last(
        self, identity: Mapping[str, str], count: int, *, rated: bool = False, max_tokens: int | None = None
    ) -> list[Reply]:
        """Return the newest replies of a model, whatever the name of the teacher was.

        Args:
            identity: of the model; see `Teacher.identity`.
            rated: only replies to requests with options, which take another time than the rest.
            max_tokens: only replies that could be this long: a vote is shorter than a rationale.
        """
        return [Reply(*row[:-1]) for row in self._newest(identity, count, rated, max_tokens)]

    def pace(self, identity: Mapping[str, str], count: int, *, rated: bool, max_tokens: int) -> float | None:
        """Return how many replies a second came lately, with all waits for rate limits; None if there are few.

        Args:
            identity, count, rated, max_tokens: which replies; see `last`.
        """
        times = sorted(row[-1] for row in self._newest(identity, count, rated, max_tokens))
        gaps = [later - earlier for earlier, later in pairwise(times) if later - earlier < _BREAK_S]
        return len(gaps) / sum(gaps) if len(gaps) >= _ENOUGH_FOR_A_PACE and sum(gaps) else None

    def _newest(
        self, identity: Mapping[str, str], count: int, rated: bool, max_tokens: int | None
    ) -> list[tuple[Any, ...]]:
        newest = f"SELECT {_COLUMNS}, created FROM (SELECT * FROM replies ORDER BY id DESC LIMIT ?)"  # noqa: S608 - a constant
        query = f"""{newest} WHERE instr(request, ?) = 1 AND (instr(request, '"options":[') > 0) = ?
            AND (? OR instr(request, ?) OR instr(request, ?)) LIMIT ?"""
        # A request is canonical JSON, so it begins with the identity. A quote in a text has a backslash before it.
        begins = json.dumps({"identity": dict(identity)}, sort_keys=True, separators=(",", ":"))[:-1] + ","
        lengths = [f'"max_tokens":{max_tokens}{end}' for end in ",}"]
        with self._lock, explained(self.path):
            return list(self._db.execute(query, (100 * count, begins, rated, max_tokens is None, *lengths, count)))

    def __len__(self) -> int:
        with self._lock, explained(self.path):
            return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Close the database."""
        with self._lock, explained(self.path):
            self._db.close()
        self.claims.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # if the disk is full, SQLite has rolled back already
                self._db.execute("ROLLBACK")
            raise


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of a store's schema; 0 for an empty file.

    Raises:
        RunFolderError: the database belongs to another program or to a newer TinyLLM.
    """
    if 0 < path.stat().st_size < _SMALLEST_BYTES:  # SQLite would treat it as empty and overwrite it
        raise RunFolderError(f"{path} is no database; give `rationales.store` another path.")
    # One statement, so one moment: another process may be creating the same store.
    application, version, tables = db.execute(
        "SELECT (SELECT application_id FROM pragma_application_id), "
        "(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)"
    ).fetchone()
    if application != _APPLICATION_ID and (application or tables):
        raise RunFolderError(f"{path} is a database of another program; give `rationales.store` another path.")
    if version > SCHEMA_VERSION:
        raise RunFolderError(
            f"{path} was written by a newer TinyLLM (version {version} of the store; this one reads up to "
            f"{SCHEMA_VERSION}). Update TinyLLM, or give `rationales.store` another path."
        )
    return int(version) if tables else 0


def crc_of(key: bytes, *columns: str | float | None) -> int:
    """Return the checksum of a row.

    Args:
        columns: all columns in order, except the request, which the key covers. The last two columns, which version 2
            did not have, count only if they are not NULL.
    """
    while len(columns) > _COLUMNS_OF_VERSION_2 and columns[-1] is None:
        columns = columns[:-1]
    return zlib.crc32(json.dumps([key.hex(), *columns]).encode("ascii"))


def _identity(identity: Mapping[str, str]) -> str:
    return json.dumps(dict(identity), sort_keys=True)


def _row(entry: Entry, now: float) -> Row:
    reply, key = entry.reply, bytes.fromhex(entry.key)
    who = (entry.teacher, well_formed(entry.question_id))
    usage = (reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens, float(reply.latency_s))
    said = (well_formed(reply.text), reply.finish_reason, *usage, now)
    more = (reply.thinking_tokens, None if reply.message is None else well_formed(reply.message))
    return (key, *who, entry.asked, *said, crc_of(key, *who, *said, *more), *more)
