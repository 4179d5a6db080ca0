"""A store that can be read and not written: on a read-only file system, or without the right to write."""

from __future__ import annotations

import sqlite3
import threading
from functools import partial
from pathlib import Path
from urllib.parse import quote

from tinyllm.errors import RunFolderError
from tinyllm.replies._errors import code_of, explained
from tinyllm.replies._place import resolved
from tinyllm.replies._store import OLD_VERSION, SCHEMA_VERSION, SHOWN_AS_NEW, Store, version_of

_WAIT_S = 60.0


def open_store(path: Path) -> Store:
    """Open a store for reading and writing. If it exists and cannot be written, open it for reading only.

    Raises:
        RunFolderError, OSError: neither is possible; the message says why it cannot be written.
    """
    try:
        return Store(path)
    except (RunFolderError, OSError) as error:
        if not path.is_file():
            raise
        try:
            return ReadOnlyStore(path, str(error))
        except (RunFolderError, OSError):
            raise error from None


class ReadOnlyStore(Store):
    """A store that cannot be written, and `why`. Methods that write raise `RunFolderError`."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path = resolved(path)
        self.why = why
        self._lock = threading.Lock()
        with explained(path):
            self._db = read_only(path)
            version = version_of(self._db, path)
            if version == OLD_VERSION:
                for statement in SHOWN_AS_NEW:
                    self._db.execute(statement)
            elif version < SCHEMA_VERSION:
                self._db.close()
                raise RunFolderError(
                    f"The store {path} has an older format, which must be converted before it can be read. "
                    "Open it once where it can be written."
                )

    def close(self) -> None:
        """Close the database."""
        with self._lock, explained(self.path):
            self._db.close()


def read_only(path: Path) -> sqlite3.Connection:
    """Connect for reading only. Other processes may go on writing. Any thread may use the connection."""
    address = f"file:{quote(str(path))}?mode=ro"
    connect = partial(sqlite3.connect, uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
    db = connect(address)
    try:
        version_of(db, path)
    except sqlite3.OperationalError as error:
        db.close()
        log = path.with_name(path.name + "-wal")
        if code_of(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        if log.exists() and log.stat().st_size:
            raise RunFolderError(
                f"The store {path} has replies in its log {log.name}. SQLite can read the log only where it can write "
                "files. Copy both files to such a folder and read the copy."
            ) from None
        # SQLite cannot detect writers in a folder that it cannot write to. Nobody can write there, so none are missed.
        return connect(address + "&immutable=1")
    except BaseException:
        db.close()
        raise
    return db
