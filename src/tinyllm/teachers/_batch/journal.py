"""The journal: which batches are at a provider. If this process is killed, another one can continue.

Each service and model has a folder with one file per batch. The file is written before the batch is created, and gets
the batch's id afterwards. It contains keys of requests, but no prompts and no credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tinyllm.errors import TeacherError
from tinyllm.system import files as atomic

_LOCK_S = 0.1


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One batch.

    Attributes:
        token: our own id, which is sent along, so that the batch can be found without the provider's id.
        keys: keys of the requests whose replies were not fetched yet.
        file: the provider's id of the uploaded requests.
        created: seconds since 1970, UTC, by the provider's clock if known.
        batch: the provider's id of the batch; None until it is known.
    """

    token: str
    keys: tuple[str, ...]
    file: str
    created: float
    batch: str | None = None


class Journal:
    """The batches of one service and model.

    Changes are made only under `locked`, which one process holds at a time. A key is in at most one entry. So if the
    lock is free and an entry has no batch id, the process that wrote it has died.

    Args:
        folder: of all journals of one store.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self._identity = dict(identity)
        said = json.dumps(self._identity, sort_keys=True)
        self.folder = folder / hashlib.sha256(said.encode()).hexdigest()[:16]

    def prepare(self) -> None:
        """Create the folder.

        Raises:
            TeacherError: it cannot be created or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".lock").touch()
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise TeacherError(
                f"The folder {self.folder}, which records batches at a provider, cannot be written: "
                f"{error.strerror}: {error.filename}. Make it writable, or give `rationales.store` another path."
            ) from None

    def path(self, token: str) -> Path:
        """Return the path of an entry."""
        return self.folder / f"{token}.json"

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Lock the journal against other processes. If the process is killed, the lock is released."""
        with (self.folder / ".lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:  # polled, so that it can be cancelled
                    await asyncio.sleep(_LOCK_S)
            yield

    def read(self, known: Collection[str] = ()) -> list[JournalEntry]:
        """Return the entries whose tokens are not known yet, oldest first.

        Old entries are never ignored, because this machine's clock may be wrong, and their replies are paid.

        Raises:
            TeacherError: an entry is damaged.
        """
        entries = [self.get(p.stem) for p in self.folder.glob("*.json") if p.stem not in known]
        return sorted((e for e in entries if e is not None), key=lambda e: e.created)

    def get(self, token: str) -> JournalEntry | None:
        """Read one entry; None if there is none."""
        path = self.path(token)
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            return JournalEntry(token, tuple(row["keys"]), str(row["file"]), float(row["created"]), row["batch"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise TeacherError(
                f"{path}, which records a batch at a provider, is damaged ({type(error).__name__}: {error}). "
                "Move it away; then the requests of that batch are sent and paid again."
            ) from None

    def write(self, entry: JournalEntry) -> None:
        """Write an entry. When this returns, it survives a power failure."""
        row = {
            "batch": entry.batch, "file": entry.file, "created": entry.created, "teacher": self._identity,
            "keys": list(entry.keys),
        }  # fmt: skip
        atomic.write_json(self.path(entry.token), row)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the folder contains the file's name
        finally:
            os.close(folder)

    def forget(self, token: str, keys: Collection[str]) -> None:
        """Remove keys from an entry. An entry without keys is deleted."""
        entry = self.get(token)
        if entry is None:
            return
        left = tuple(key for key in entry.keys if key not in keys)
        if not left:
            self.path(token).unlink(missing_ok=True)
        elif len(left) < len(entry.keys):
            self.write(replace(entry, keys=left))
