"""The store's writer: what gathers while one commit runs goes into the next, so durability costs little."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tinyllm.replies._store import Done, Entry, Failure, Store, Work
from tinyllm.spending.charges import Bill, Cap, Charge, Lost
from tinyllm.teachers.base import Reply


@dataclass(slots=True)
class _Waiting:
    """What is to go into the next commit."""

    entries: list[tuple[Entry, asyncio.Future[Reply]]] = field(default_factory=list)
    charges: list[tuple[Charge, asyncio.Future[int | None]]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    bills: list[Bill] = field(default_factory=list)
    freed: list[int] = field(default_factory=list)
    freed_resumed: list[tuple[str, str]] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    def is_empty(self) -> bool:
        return not any(getattr(self, name) for name in self.__slots__)

    def futures(self) -> list[asyncio.Future[Reply] | asyncio.Future[int | None]]:
        return [done for _, done in self.entries] + [done for _, done in self.charges]


@dataclass
class Writer:
    """Commits in groups, in a thread, and lets each waiter go only when what it waits for is on the disk.

    Args:
        cap: on what is set aside.
    """

    store: Store
    cap: Cap = Cap()
    _waiting: _Waiting = field(default_factory=_Waiting)
    _flushing: asyncio.Task[None] | None = None
    _billed_until: float = field(default_factory=time.monotonic)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, store: Store, cap: Cap = Cap()) -> AsyncIterator[Writer]:
        """Make a writer; at the end everything it was given is committed, also when its users were cancelled."""
        writer = cls(store, cap)
        try:
            yield writer
        finally:
            if writer._flushing is not None:
                await asyncio.shield(writer._flushing)

    async def keep(self, entry: Entry, bill: Bill | None = None) -> Reply:
        """Return the stored reply once it is durable. Whoever stops waiting has it stored all the same."""
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.entries.append((entry, done))
        if bill is not None:
            self._waiting.bills.append(bill)
        self._wake()
        return await done

    async def set_aside(self, charge: Charge) -> int | None:
        """Set aside what an attempt can cost; return its id once it is durable, None if the cap leaves no room."""
        done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.charges.append((charge, done))
        self._wake()
        try:
            return await done
        except asyncio.CancelledError:  # perhaps at the very moment at which it was set aside
            if not done.cancelled() and done.exception() is None and (charge_id := done.result()) is not None:
                self.free(charge_id)
            raise

    def free(self, charge: int) -> None:
        """Give back, in one of the next commits, what was set aside for an attempt that has cost nothing."""
        self._waiting.freed.append(charge)
        self._wake()

    def free_resumed(self, run: str, key: str) -> None:
        """The same for an attempt that an earlier process has made."""
        self._waiting.freed_resumed.append((run, key))
        self._wake()

    def lose(self, attempt: Lost) -> None:
        """Keep for ever what was set aside for an attempt whose cost nobody will know."""
        self._waiting.lost.append(attempt)
        self._wake()

    def note(self, failure: Failure) -> None:
        """Remember, in one of the next commits, a request that got no reply."""
        self._waiting.failures.append(failure)
        self._wake()

    def _wake(self) -> None:
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while not self._waiting.is_empty():
            group, self._waiting = self._waiting, _Waiting()
            try:
                done = await asyncio.to_thread(self._commit, group)
            except Exception as error:
                waiting = group.futures()
                for future in waiting:  # raised again in everyone who waits
                    if not future.done():
                        future.set_exception(error)
                if not waiting:
                    raise
                continue
            for (_, kept), reply in zip(group.entries, done.replies, strict=True):
                if not kept.done():
                    kept.set_result(reply)
            for (_, held), charge in zip(group.charges, done.charges, strict=True):
                if not held.done():
                    held.set_result(charge)
                elif charge is not None:  # who asked for it has gone, and sends nothing
                    self._waiting.freed.append(charge)

    def _commit(self, group: _Waiting) -> Done:
        now = time.monotonic()
        done = self.store.commit(
            Work(
                entries=[entry for entry, _ in group.entries],
                failures=group.failures,
                bills=group.bills,
                freed=group.freed,
                freed_resumed=group.freed_resumed,
                lost=group.lost,
                charges=[charge for charge, _ in group.charges],
                cap=self.cap,
                seconds=now - self._billed_until if group.bills else 0.0,
            )
        )
        if group.bills:
            self._billed_until = now
        return done
