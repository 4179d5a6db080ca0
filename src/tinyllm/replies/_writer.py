"""The writer of a store. While one commit runs, new work gathers for the next, so that durable commits cost little."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tinyllm.config import BudgetSection
from tinyllm.replies import _ledger
from tinyllm.replies._store import Done, Entry, Failure, Store, Work
from tinyllm.spending.charges import Bill, Charge
from tinyllm.teachers.base import Reply


@dataclass(slots=True)
class _Next(Work):
    """The work of the next commit, with a future for each entry and for each charge."""

    stored: list[asyncio.Future[Reply]] = field(default_factory=list)
    charged: list[asyncio.Future[int | None]] = field(default_factory=list)


class Writer:
    """Commits in groups, in a thread. A caller continues when its part is on the disk.

    Args:
        cap: on what a run may be charged; None: no cap.
    """

    def __init__(self, store: Store, cap: BudgetSection | None = None) -> None:
        self._store = store
        self._cap = cap
        self._next: _Next | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._billed_until = time.monotonic()

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, store: Store, cap: BudgetSection | None = None) -> AsyncIterator[Writer]:
        """Make a writer. At the end all work is committed, even if the callers were cancelled."""
        writer = cls(store, cap)
        try:
            yield writer
        finally:
            if writer._flushing is not None:
                await asyncio.shield(writer._flushing)

    async def keep(self, entry: Entry, bill: Bill | None = None) -> Reply:
        """Return the stored reply once it is on the disk. A caller that is cancelled does not stop the commit."""
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        work = self._work()
        work.entries.append(entry)
        work.stored.append(done)
        if bill is not None:
            work.bills.append(bill)
        return await done

    async def set_aside(self, charge: Charge) -> int | None:
        """Charge what an attempt can cost. Return the id once it is on the disk; None if the cap leaves no room."""
        done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        work = self._work()
        work.charges.append(charge)
        work.charged.append(done)
        try:
            return await done
        except asyncio.CancelledError:  # the charge may have been made at this very moment
            if not done.cancelled() and done.exception() is None and (charge_id := done.result()) is not None:
                self.free(charge_id)
            raise

    def free(self, charge: int) -> None:
        """Delete, in one of the next commits, the charge of an attempt that cost nothing."""
        self._work().changes.append(lambda db: _ledger.free(db, charge))

    def free_resumed(self, run: str, key: str) -> None:
        """Like `free`, for an attempt that an earlier process made."""
        self._work().changes.append(lambda db: _ledger.free_resumed(db, run, key))

    def lose(self, most: Charge, charge: int | None) -> None:
        """Keep the charge of an attempt whose cost stays unknown."""
        self._work().changes.append(lambda db: _ledger.lose(db, most, charge))

    def note(self, failure: Failure) -> None:
        """Record, in one of the next commits, a request that got no reply."""
        self._work().failures.append(failure)

    def _work(self) -> _Next:
        """Return the work of the next commit, and start committing if no commit runs."""
        if self._next is None:
            self._next = _Next(cap=self._cap)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return self._next

    async def _flush(self) -> None:
        while self._next is not None:
            work, self._next = self._next, None
            try:
                done = await asyncio.to_thread(self._commit, work)
            except Exception as error:
                waiting: list[asyncio.Future[Any]] = [*work.stored, *work.charged]
                for future in waiting:  # every waiting caller raises the error
                    if not future.done():
                        future.set_exception(error)
                if not waiting:
                    raise
                continue
            for stored, reply in zip(work.stored, done.replies, strict=True):
                if not stored.done():
                    stored.set_result(reply)
            for charged, charge in zip(work.charged, done.charges, strict=True):
                if not charged.done():
                    charged.set_result(charge)
                elif charge is not None:  # the caller was cancelled and sends nothing
                    self.free(charge)

    def _commit(self, work: _Next) -> Done:
        now = time.monotonic()
        work.seconds = now - self._billed_until if work.bills else 0.0
        done = self._store.commit(work)
        if work.bills:
            self._billed_until = now
        return done
