"""What a person does with a store by hand: look into it, take replies out and in, and throw replies away."""

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
"""Hears how much is done, of how much."""

_AT_ONCE = 1000  # rows in one query: reading for long would keep the writers' log from being emptied
_SHORT_S = 0.5  # another process's look into the store is waited for so long
# A request is canonical JSON, so it begins with whom it was put to; parsing all of it would take ten times as long.
_IDENTITY = """substr(request, length('{"identity":') + 1, instr(request, '},"prompt":') - length('{"identity":'))"""


def silent(_done: int, _total: int) -> None:
    """Tell nobody."""


def find_store(path: Path) -> Path:
    """Return the store that a path means: a file, the one in a folder of runs, or the one that a run uses.

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
            f"There is no store {place}. A store is made when teachers are asked (`tinyllm generate`): {STORE} beside "
            "the run's folder, if `rationales.store` gives no other path."
        )
    return place


@dataclass(frozen=True, slots=True)
class Selection:
    """Which replies are meant: those for which everything that is given holds.

    Attributes:
        since, before: of the moment at which the reply was stored.
    """

    teacher: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    def sql(self) -> tuple[str, dict[str, Any]]:
        """Return a condition, and the values in it."""
        values: dict[str, Any] = {
            "teacher": self.teacher,
            "since": None if self.since is None else self.since.timestamp(),
            "before": None if self.before is None else self.before.timestamp(),
        }
        conditions = {"teacher": "teacher = :teacher", "since": "created >= :since", "before": "created < :before"}
        given = {name: value for name, value in values.items() if value is not None}
        return " AND ".join([conditions[name] for name in given] or ["TRUE"]), given


EVERYTHING = Selection()

# --- looking ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What one teacher gave, with one model.

    Attributes:
        identity: of the model; see `Teacher.identity`.
        prompt_tokens, completion_tokens, cached_tokens: None where the teacher never told.
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

    def plus(self, other: Asked) -> Asked:
        """Add up two parts of the store."""
        return Asked(
            self.teacher,
            self.identity,
            self.replies + other.replies,
            _sum(self.prompt_tokens, other.prompt_tokens),
            _sum(self.completion_tokens, other.completion_tokens),
            _sum(self.cached_tokens, other.cached_tokens),
            min(self.first, other.first),
            max(self.last, other.last),
        )


@dataclass(frozen=True, slots=True)
class Failed:
    """How many requests to a teacher got no reply when they were put last."""

    teacher: str
    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class Paid:
    """What a run has got from a teacher, and paid for, whatever became of the replies."""

    run: str
    teacher: str
    spent: Spent


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a store. `bytes`: of its file and of the log beside it."""

    store: str
    bytes: int
    teachers: tuple[Asked, ...]
    failures: tuple[Failed, ...]
    spent: tuple[Paid, ...]


def contents(path: Path, tell: Tell = silent) -> Contents:
    """Look through a store, which others may be writing to.

    Raises:
        RunFolderError: it cannot be read.
    """
    query = (
        f"SELECT teacher, {_IDENTITY}, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), "  # noqa: S608 - constants
        "min(created), max(created) FROM replies WHERE id > :after AND id <= :upto GROUP BY 1, 2"
    )
    store = resolved(path)
    teachers: dict[tuple[str, str], Asked] = {}
    with reading(path) as db:
        for after, upto in _stretches(db, tell):
            for row in db.execute(query, {"after": after, "upto": upto}):
                teacher, identity, replies, prompt, completion, cached, first, last = row
                model = json.loads(identity)
                part = Asked(teacher, model, replies, prompt, completion, cached, moment(first), moment(last))
                before = teachers.get((teacher, identity))
                teachers[teacher, identity] = before.plus(part) if before else part
        failures = db.execute("SELECT teacher, reason, count(*) FROM failures GROUP BY 1, 2 ORDER BY 1, 2").fetchall()
        spent = _ledger.spent(db)
    return Contents(
        store=str(path),
        bytes=sum(file.stat().st_size for file in (store, store.with_name(store.name + "-wal")) if file.exists()),
        teachers=tuple(teachers[name] for name in sorted(teachers)),
        failures=tuple(Failed(*row) for row in failures),
        spent=tuple(Paid(run, teacher, found) for (run, teacher), found in spent.items()),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


def moment(created: float) -> str:
    """Return a moment as text: ISO 8601, UTC, to the microsecond."""
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="microseconds")


def rows(db: sqlite3.Connection, columns: str, selection: Selection, tell: Tell) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the replies selected, in the order in which they were stored, a thousand or fewer at a time."""
    condition, values = selection.sql()
    query = f"SELECT {columns} FROM replies WHERE id > :after AND id <= :upto AND {condition} ORDER BY id"  # noqa: S608 - constants
    for after, upto in _stretches(db, tell):
        yield db.execute(query, values | {"after": after, "upto": upto}).fetchall()


def _stretches(db: sqlite3.Connection, tell: Tell) -> Iterator[tuple[int, int]]:
    first, last = db.execute("SELECT (SELECT min(id) FROM replies), (SELECT max(id) FROM replies)").fetchone()
    if first is None:
        return
    for after in range(first - 1, last, _AT_ONCE):
        yield after, after + _AT_ONCE
        tell(min(after + _AT_ONCE, last) - first + 1, last - first + 1)


def must_know(db: sqlite3.Connection, teacher: str | None) -> None:
    """Refuse a teacher of whom a store holds nothing.

    Raises:
        TinyLLMError: it holds nothing of this one; names those that it knows.
    """
    query = "SELECT 1 FROM replies WHERE teacher = :t UNION ALL SELECT 1 FROM failures WHERE teacher = :t LIMIT 1"
    if teacher is None or db.execute(query, {"t": teacher}).fetchone():
        return
    known = [
        name for (name,) in db.execute("SELECT teacher FROM replies UNION SELECT teacher FROM failures ORDER BY 1")
    ]
    raise TinyLLMError(
        f"The store holds nothing of a teacher '{teacher}'.{did_you_mean(teacher, known)} "
        f"It holds replies of: {', '.join(known) or 'nobody'}."
    )


# --- throwing away ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selected:
    """How much a selection is, and what it has cost."""

    replies: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def would_prune(path: Path, selection: Selection, *, failures: bool = False) -> Selected:
    """Return what `prune` would delete; the arguments and the errors are the same."""
    with _alone(path) as db:
        return _count(db, selection, failures)


def prune(path: Path, selection: Selection, *, failures: bool = False) -> Selected:
    """Delete replies for good, and give their room in the file back to the disk.

    What runs have spent stays in the accounts.

    Args:
        failures: delete the notes of requests that got no reply, and no replies.

    Raises:
        TinyLLMError: nothing is said about what to delete, or the teacher is unknown.
        RunFolderError: a process has the store open, so that it may rely on what is in it; or it is damaged.
    """
    with _alone(path) as db:
        selected = _count(db, selection, failures)
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
    """Open a store for reading only; others may go on writing. One of an older version is brought up to date first.

    Raises:
        RunFolderError: it is damaged, no store, or cannot be read.
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
def _alone(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store, in a transaction, when nobody else has it open; whoever wants to has to wait.

    Every process that asks has it open all the while, so nobody holds a claim either.
    """
    Store(path).close()  # it is one, of this version, and can be written
    with explained(path), contextlib.closing(sqlite3.connect(path, timeout=_SHORT_S, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_BUSY:
                raise
            raise RunFolderError(
                f"Another process has the store {path} open. Wait until it is done, then run this again."
            ) from None
        yield db
