"""Claims: which requests a process is asking now, so that no other process asks them too.

A claim is an operating-system lock on one byte of an empty file beside the store. The request's key gives the position
of the byte. The system releases the lock when the process ends, however it ends. So no stale claim can remain, and no
clock is needed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import sys
from pathlib import Path

_TAKEN = (errno.EAGAIN, errno.EACCES)
# Linux has locks that belong to the open file, not to the process. With them, two stores in one process see each
# other's claims, and closing one store does not drop the claims of the other.
_OF_OPEN_FILE: int | None = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform.startswith("linux") else None


class Claims:
    """The claims of one user of a store. Users exclude each other, within one process and between processes.

    Args:
        path: the lock file; it is created if missing, and stays empty.

    Raises:
        OSError: the file cannot be created or locked.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._held: set[str] = set()

    def take(self, key: str) -> bool:
        """Claim a request. Return False if anyone, including this user, holds the claim already."""
        if key in self._held or not self._lock(key, fcntl.F_WRLCK):
            return False
        self._held.add(key)
        return True

    def release(self, key: str) -> None:
        """Release a claim. Call it after the reply is in the store, or after the request failed."""
        if key in self._held:
            self._held.remove(key)
            self._lock(key, fcntl.F_UNLCK)

    def close(self) -> None:
        """Release all claims."""
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1  # the system may soon give the same number to another file
        self._held.clear()

    def _lock(self, key: str, kind: int) -> bool:
        place = int(key[:16], 16) >> 2  # positions in a file end at 2^63
        try:
            if _OF_OPEN_FILE is None:
                how = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.lockf(self._file, how, 1, place)
            else:
                fcntl.fcntl(self._file, _OF_OPEN_FILE, struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0))
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True
