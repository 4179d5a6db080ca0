"""The store's writer: replies that gather while one commit runs go into the next, so durability costs little."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tinyllm.rationales.store import Entry, Failure, Store
from tinyllm.teachers.base import Reply


@dataclass
class Writer:
    """Commits in groups, in a thread, and lets each waiter go only when its reply is on the disk.

    Args:
        run: whose account the replies go on.
    """

    store: Store
    run: str | None = None
    _replies: list[tuple[Entry, asyncio.Future[Reply]]] = field(default_factory=list)
    _failures: list[Failure] = field(default_factory=list)
    _flushing: asyncio.Task[None] | None = None
    _billed_until: float = field(default_factory=time.monotonic)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, store: Store, run: str | None = None) -> AsyncIterator[Writer]:
        """Make a writer; at the end everything it was given is committed, also when its users were cancelled."""
        writer = cls(store, run)
        try:
            yield writer
        finally:
            if writer._flushing is not None:
                await asyncio.shield(writer._flushing)

    async def keep(self, entry: Entry) -> Reply:
        """Return the stored reply once it is durable. Whoever stops waiting has it stored all the same."""
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies.append((entry, done))
        self._wake()
        return await done

    def note(self, failure: Failure) -> None:
        """Remember, in one of the next commits, a request that got no reply."""
        self._failures.append(failure)
        self._wake()

    def _wake(self) -> None:
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while self._replies or self._failures:
            replies, self._replies = self._replies, []
            failures, self._failures = self._failures, []
            try:
                kept = await asyncio.to_thread(self._commit, [entry for entry, _ in replies], failures)
            except Exception as error:
                for _, done in replies:  # raised again in everyone who waits
                    if not done.done():
                        done.set_exception(error)
                if not replies:
                    raise
                continue
            for (_, done), reply in zip(replies, kept, strict=True):
                if not done.done():
                    done.set_result(reply)

    def _commit(self, entries: list[Entry], failures: list[Failure]) -> list[Reply]:
        if failures:
            self.store.put_failures(failures)
        if not entries:
            return []
        now = time.monotonic()
        kept = self.store.put_many(entries, run=self.run, seconds=now - self._billed_until)
        self._billed_until = now
        return kept
