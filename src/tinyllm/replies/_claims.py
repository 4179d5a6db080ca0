"""Claims: which requests some process is asking right now, so that no other process asks them too.

A claim is a lock that the operating system holds on one byte of an otherwise empty file beside the store, at a place
that the request's key tells. It ends with the process that took it, however that ends: nothing can be left behind, and
there is no clock to be wrong.
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
_ONE_BYTE = 1
# Locks of the open file rather than of the process, where there are such: two stores in one process then see each
# other's claims, and closing one of them does not drop the other's. (The layout is that of Linux.)
_OF_OPEN_FILE: int | None = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform.startswith("linux") else None


class Claims:
    """The claims of one user of a store; several users, in one process or in many, exclude each other.

    Args:
        path: the file of locks; made if it is not there. It stays empty.

    Raises:
        OSError: the file cannot be made or locked.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._held: set[str] = set()

    def take(self, key: str) -> bool:
        """Claim a request; False if someone, this user included, holds the claim already."""
        if key in self._held or not self._lock(key, fcntl.F_WRLCK):
            return False
        self._held.add(key)
        return True

    def release(self, key: str) -> None:
        """Give a claim back; its reply is in the store by now, or there is none."""
        if key in self._held:
            self._held.remove(key)
            self._lock(key, fcntl.F_UNLCK)

    def close(self) -> None:
        """Give all claims back."""
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1  # the number may soon be another file's
        self._held.clear()

    def _lock(self, key: str, kind: int) -> bool:
        place = int(key[:16], 16) >> 2  # a file is at most 2^63 bytes long
        try:
            if _OF_OPEN_FILE is None:
                how = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.lockf(self._file, how, _ONE_BYTE, place)
            else:
                fcntl.fcntl(self._file, _OF_OPEN_FILE, struct.pack("hhqqi4x", kind, os.SEEK_SET, place, _ONE_BYTE, 0))
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True
