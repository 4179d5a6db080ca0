"""Errors of SQLite, turned into messages that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tinyllm.errors import RunFolderError

_LITTLE_SPACE_BYTES = 1 << 20
_NO_SUCH_PLACE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the store `path` inside the block into messages for the user.

    Raises:
        RunFolderError: the store is damaged, in use, not a store, or cannot be opened or written.
        OSError: the disk is full (`errno.ENOSPC`).
    """
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a bug in TinyLLM: a closed database, a wrong statement
    except sqlite3.DatabaseError as error:
        raise _explanation(path, error) from error
    except OSError as error:
        if error.errno not in _NO_SUCH_PLACE:
            raise
        raise RunFolderError(f"The store {path} cannot be made: {error.strerror}: {error.filename}") from None


def code_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code (the low byte); 0 for an error that Python raised itself."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _explanation(path: Path, error: sqlite3.DatabaseError) -> Exception:
    code = code_of(error)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _has_little_space(path)):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "Could not decode" in str(error):
        return RunFolderError(
            f"The store of replies {path} is damaged, or no database ({error}). It was not changed. "
            f"`tinyllm store salvage {path} --out NEW` saves the replies that can still be read. Or restore a backup.",
            page="costs.md#the-store",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunFolderError(f"Another process has locked the store {path} for too long. Wait until it has finished.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return RunFolderError(f"The store {path} cannot be opened for reading and writing ({error}); check its rights.")
    if isinstance(error, sqlite3.OperationalError) and "no such" in str(error):
        return RunFolderError(f"The file {path} lacks the tables of a store ({error}). Move it away.")
    return RunFolderError(f"The store {path} cannot be used: {error}")


def _has_little_space(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _LITTLE_SPACE_BYTES
    except OSError:
        return False
