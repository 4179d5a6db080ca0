"""What is at the provider of a batch endpoint, on the disk: another process can go on where this one was killed.

One file a batch, in a folder of its own for each service and model. A file is written before the batch is created
and gets the batch's id after it; it holds keys of requests, no prompts, and nothing of the account.
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
        token: ours; the provider keeps it with the batch, so that the batch can be found without its id.
        keys: `reply_key`s of the requests in it whose replies may still be fetched from there.
        file: the provider's id of the uploaded requests.
        created: seconds since 1970, UTC, by the provider's clock where it tells the time.
        batch: the provider's id of the batch; None until it has been told.
    """

    token: str
    keys: tuple[str, ...]
    file: str
    created: float
    batch: str | None = None


class Journal:
    """The batches of one service and model.

    Every change is made under `locked`, which one process holds at a time, and a key stands in one entry at most.
    So an entry that has no batch id although the lock is free was left by a process that died.

    Args:
        folder: of all journals that belong to one store.
        identity: the teacher's.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self._identity = dict(identity)
        said = json.dumps(self._identity, sort_keys=True)
        self.folder = folder / hashlib.sha256(said.encode()).hexdigest()[:16]

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            TeacherError: it cannot be made, or not be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".lock").touch()
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise TeacherError(
                f"The folder {self.folder}, which tells what was sent to a batch endpoint, cannot be written: "
                f"{error.strerror}: {error.filename}"
            ) from None

    def path(self, token: str) -> Path:
        """Where an entry stands."""
        return self.folder / f"{token}.json"

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep every other process from changing the journal. A process that is killed gives the lock back."""
        with (self.folder / ".lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:  # waited for like this, it can be cancelled
                    await asyncio.sleep(_LOCK_S)
            yield

    def read(self, known: Collection[str] = ()) -> list[JournalEntry]:
        """Return the entries but those whose tokens are known, oldest first.

        None is forgotten for its age: this machine's clock may be wrong, and what the provider still has is paid.

        Raises:
            TeacherError: an entry is damaged.
        """
        entries = [self.get(p.stem) for p in self.folder.glob("*.json") if p.stem not in known]
        return sorted((e for e in entries if e is not None), key=lambda e: e.created)

    def get(self, token: str) -> JournalEntry | None:
        """Return one entry as it stands now; None if there is none."""
        path = self.path(token)
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            return JournalEntry(token, tuple(row["keys"]), str(row["file"]), float(row["created"]), row["batch"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise TeacherError(
                f"{path}, which tells what was sent to a batch endpoint, is damaged ({type(error).__name__}: {error}). "
                "Move it away; the requests of that batch are then sent, and paid, anew."
            ) from None

    def write(self, entry: JournalEntry) -> None:
        """Put an entry on the disk; once this returns it outlives a loss of power."""
        row = {
            "batch": entry.batch,
            "file": entry.file,
            "created": entry.created,
            "teacher": self._identity,
            "keys": list(entry.keys),
        }
        atomic.write_json(self.path(entry.token), row)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the file's name is in the folder, not in the file
        finally:
            os.close(folder)

    def forget(self, token: str, keys: Collection[str]) -> None:
        """Take keys out of an entry, and the entry out of the journal once it has none left."""
        entry = self.get(token)
        if entry is None:
            return
        left = tuple(key for key in entry.keys if key not in keys)
        if not left:
            self.path(token).unlink(missing_ok=True)
        elif len(left) < len(entry.keys):
            self.write(replace(entry, keys=left))
