"""Tools for a person who has a store: look at its contents, select replies, delete replies."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tinyllm.errors import RunFolderError, TinyLLMError, did_you_mean
from tinyllm.replies import _ledger
from tinyllm.replies._errors import code_of, explained
from tinyllm.replies._place import STORE, resolved, store_of
from tinyllm.replies._read_only import read_only
from tinyllm.replies._store import SCHEMA_VERSION, Store, version_of
from tinyllm.spending.charges import Spent

Tell = Callable[[int, int], None]
"""Receives progress: how much is done, and how much there is."""

_AT_ONCE = 1000  # rows in one query; while a long query runs, SQLite cannot empty the writers' log
_SHORT_S = 0.5  # the longest wait for another process that has the store open
# A request is canonical JSON, so it begins with the identity. Parsing all of the JSON would take ten times as long.
# The letters of the choices follow it in a request for an opinion, else the prompt does.
_IDENTITY = """
    substr(
        request, length('{"identity":') + 1,
        coalesce(nullif(instr(request, '},"options":['), 0), instr(request, '},"prompt":')) - length('{"identity":')
    )"""


def silent(_done: int, _total: int) -> None:
    """Ignore progress."""


def find_store(path: Path) -> Path:
    """Return the store that a path means: the file itself, the store in that folder, or the store of that run folder.

    Raises:
        RunFolderError: there is none.
    """
    place = path
    if (path / "config.yaml").is_file():
        from tinyllm.config import load_config

        place = store_of(path, load_config(path / "config.yaml").rationales.store)
    elif path.is_dir():
        place = path / STORE
    if not place.is_file():
        raise RunFolderError(
            f"There is no store {place}. `tinyllm generate` makes one: {STORE} beside the run folder, unless "
            "`rationales.store` gives another path."
        )
    return place


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects replies by teacher and by the time at which they were stored. None: no condition."""

    teacher: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    def sql(self) -> tuple[str, dict[str, Any]]:
        """Return a condition for WHERE, and its values."""
        conditions = {"teacher": "teacher = :teacher", "since": "created >= :since", "before": "created < :before"}
        since, before = (None if at is None else at.timestamp() for at in (self.since, self.before))
        values = {"teacher": self.teacher, "since": since, "before": before}
        given = {name: value for name, value in values.items() if value is not None}
        return " AND ".join(conditions[name] for name in given) or "TRUE", given


EVERYTHING = Selection()

# --- contents -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What one teacher answered, with one model.

    Attributes:
        identity: the model; see `Teacher.identity`.
        prompt_tokens, completion_tokens, cached_tokens: None if the teacher never reported them.
        first, last: when replies were stored; ISO 8601, UTC.
    """

    teacher: str
    identity: Mapping[str, str]
    replies: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class _Failed:
    """How many requests to a teacher got no reply at the last attempt."""

    teacher: str
    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class _Paid:
    """What a run got from a teacher and paid, including replies that were deleted later."""

    run: str
    teacher: str
    spent: Spent


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a store. `bytes` is the size of the file and its log."""

    store: str
    bytes: int
    teachers: tuple[Asked, ...]
    failures: tuple[_Failed, ...]
    spent: tuple[_Paid, ...]


def contents(path: Path, tell: Tell = silent) -> Contents:
    """Return what is in a store. Other processes may write to it meanwhile.

    Raises:
        RunFolderError: it cannot be read.
    """
    query = (
        f"SELECT teacher, {_IDENTITY}, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), "  # noqa: S608 - constants
        "min(created), max(created) FROM replies WHERE id > :after AND id <= :upto GROUP BY 1, 2"
    )
    store = resolved(path)
    teachers: dict[tuple[str, str], list[Any]] = {}
    with reading(path) as db:
        for after, upto in _id_ranges(db, tell):
            for teacher, identity, *figures in db.execute(query, {"after": after, "upto": upto}):
                known = teachers.setdefault((teacher, identity), figures)
                if known is not figures:  # sums (None: unknown), the first and the last time
                    known[:-2] = [b if a is None else a + (b or 0) for a, b in zip(known[:-2], figures, strict=False)]
                    known[-2:] = min(known[-2], figures[-2]), max(known[-1], figures[-1])
        failures = db.execute("SELECT teacher, reason, count(*) FROM failures GROUP BY 1, 2 ORDER BY 1, 2").fetchall()
        spent = _ledger.spent(db)
    return Contents(
        store=str(path),
        bytes=sum(file.stat().st_size for file in (store, store.with_name(store.name + "-wal")) if file.exists()),
        teachers=tuple(
            Asked(teacher, json.loads(identity), replies, prompt, completion, cached, moment(first), moment(last))
            for (teacher, identity), (replies, prompt, completion, cached, first, last) in sorted(teachers.items())
        ),
        failures=tuple(_Failed(*row) for row in failures),
        spent=tuple(_Paid(run, teacher, found) for (run, teacher), found in spent.items()),
    )


def moment(created: float) -> str:
    """Return a time as text: ISO 8601, UTC, with microseconds."""
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="microseconds")


def rows(db: sqlite3.Connection, columns: str, selection: Selection, tell: Tell) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the selected replies in the order in which they were stored, at most a thousand at a time."""
    condition, values = selection.sql()
    query = f"SELECT {columns} FROM replies WHERE id > :after AND id <= :upto AND {condition} ORDER BY id"  # noqa: S608 - constants
    for after, upto in _id_ranges(db, tell):
        yield db.execute(query, values | {"after": after, "upto": upto}).fetchall()


def _id_ranges(db: sqlite3.Connection, tell: Tell) -> Iterator[tuple[int, int]]:
    first, last = db.execute("SELECT (SELECT min(id) FROM replies), (SELECT max(id) FROM replies)").fetchone()
    if first is None:
        return
    for after in range(first - 1, last, _AT_ONCE):
        yield after, after + _AT_ONCE
        tell(min(after + _AT_ONCE, last) - first + 1, last - first + 1)


def must_know(db: sqlite3.Connection, teacher: str | None) -> None:
    """Check that a store has replies or failures of a teacher.

    Raises:
        TinyLLMError: it has none; the message lists the teachers that it has.
    """
    query = "SELECT 1 FROM replies WHERE teacher = :t UNION ALL SELECT 1 FROM failures WHERE teacher = :t LIMIT 1"
    if teacher is not None and not db.execute(query, {"t": teacher}).fetchone():
        names = db.execute("SELECT teacher FROM replies UNION SELECT teacher FROM failures ORDER BY 1")
        known = [name for (name,) in names]
        raise TinyLLMError(
            f"The store holds nothing of a teacher '{teacher}'.{did_you_mean(teacher, known)} "
            f"It holds replies of: {', '.join(known) or 'nobody'}."
        )


# --- deleting -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selected:
    """How much a selection covers, and how many tokens it took."""

    replies: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def prune(path: Path, selection: Selection, *, failures: bool = False, dry_run: bool = False) -> Selected:
    """Delete replies for good, and shrink the file. What runs have spent stays recorded.

    Args:
        failures: delete the records of failed requests instead of replies.
        dry_run: delete nothing, and return what would be deleted.

    Raises:
        TinyLLMError: nothing is selected, or the teacher is unknown.
        RunFolderError: another process has the store open and may rely on its contents; or the store is damaged.
    """
    with _exclusive(path) as db:
        selected = _count(db, selection, failures)
        if dry_run:
            return selected
        condition, values = selection.sql()
        db.execute(f"DELETE FROM {'failures' if failures else 'replies'} WHERE {condition}", values)  # noqa: S608 - constants
        db.execute("COMMIT")
        db.execute("VACUUM")
    return selected


def _count(db: sqlite3.Connection, selection: Selection, failures: bool) -> Selected:
    if selection == EVERYTHING and not failures:
        raise TinyLLMError("Say what to delete: replies by --teacher or --before, or --failures.")
    must_know(db, selection.teacher)
    condition, values = selection.sql()
    if failures:
        return Selected(failures=db.execute(f"SELECT count(*) FROM failures WHERE {condition}", values).fetchone()[0])  # noqa: S608 - constants
    query = f"SELECT count(*), total(prompt_tokens), total(completion_tokens) FROM replies WHERE {condition}"  # noqa: S608 - constants
    replies, prompt_tokens, completion_tokens = db.execute(query, values).fetchone()
    return Selected(replies, 0, int(prompt_tokens), int(completion_tokens))


# --- opening ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store for reading only. Other processes may write to it. An older format is converted first.

    Raises:
        RunFolderError: it is damaged, not a store, or cannot be read.
    """
    path = resolved(path)
    with explained(path):
        db = read_only(path)
        try:
            if version_of(db, path) < SCHEMA_VERSION:
                db.close()
                Store(path).close()
                db = read_only(path)
            yield db
        finally:
            db.close()


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store in a transaction while no other process has it open. Others who open it must wait.

    A process that asks teachers has the store open all the time, so nobody holds a claim either.
    """
    Store(path).close()  # checks that it is a store and can be written, and converts an older format
    with explained(path), contextlib.closing(sqlite3.connect(path, timeout=_SHORT_S, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_BUSY:
                raise
            raise RunFolderError(
                f"Another process has the store {path} open. Wait until it has finished, then run this again."
            ) from None
        yield db
