"""What SQLite says about a store, turned into what the person can do about it."""

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
    """Explain what goes wrong with the store `path` inside the block.

    Raises:
        RunFolderError: the store is damaged, in use, no store, or cannot be opened or written.
        OSError: the disk is full (`errno.ENOSPC`).
    """
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a bug of ours: a closed database, a wrong statement
    except sqlite3.DatabaseError as error:
        raise _explanation(path, error) from error
    except OSError as error:
        if error.errno not in _NO_SUCH_PLACE:
            raise
        raise RunFolderError(f"The store {path} cannot be made: {error.strerror}: {error.filename}") from None


def code_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code; the rest of its bits are details. 0 for an error of Python's own."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _explanation(path: Path, error: sqlite3.DatabaseError) -> Exception:
    code = code_of(error)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _free_bytes(path) < _LITTLE_SPACE_BYTES):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "Could not decode" in str(error):
        return RunFolderError(
            f"The store of replies {path} is damaged, or no database ({error}). It was not touched. "
            f"`tinyllm store salvage {path} --out NEW` saves what can be read of it; or put back a copy."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunFolderError(f"Another process has kept the store {path} locked for too long; wait until it is done.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return RunFolderError(f"The store {path} cannot be opened for reading and writing ({error}); check its rights.")
    if isinstance(error, sqlite3.OperationalError) and "no such" in str(error):
        return RunFolderError(f"The store {path} has not the tables of a store ({error}); move it away.")
    return RunFolderError(f"The store {path} cannot be used: {error}")


def _free_bytes(path: Path) -> int:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path.parent).free
    return _LITTLE_SPACE_BYTES
