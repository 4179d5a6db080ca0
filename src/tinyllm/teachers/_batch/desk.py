"""Decides which request is in which batch: what is sent, what is waited for, and who gets which reply.

Requests are collected until a batch is full or no new request arrives. Then they are uploaded and recorded in the
journal, and the batch is started. Every `ask` waits for the batch that contains its request, even if another process
has sent it. So nothing is sent or paid twice, and a process may be killed at any time.

    validating, in_progress, …       poll again later
    completed, expired, cancelled    return the replies; send the rest in another batch, `max_attempts` in all
    failed, too much is enqueued     send it again later, in halves if no other batch of ours is there
    failed                           TeacherError
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Self

from tinyllm import config
from tinyllm.errors import TeacherError
from tinyllm.teachers._batch.carrier import Carrier, Over
from tinyllm.teachers._batch.client import KEPT, BatchClient, BatchPace
from tinyllm.teachers._batch.journal import Journal, JournalEntry
from tinyllm.teachers._batch.rows import Missed, read_rows
from tinyllm.teachers._http.endpoint import request_body
from tinyllm.teachers.base import Reply, Request, RequestFailed, canonical, key_of
from tinyllm.teachers.manners import Manners

_PAUSE_S = 600.0  # the longest pause if too much is enqueued
_FULL = ("token_limit_exceeded", "enqueued", "in_progress batches")
_NO_RESULT = Missed("the batch has ended without a result for this request", "again")


@dataclass(slots=True)
class _Asked:
    """A request for which someone waits. `batches` have ended without a reply for it, and may be repeated."""

    request: Request
    reply: asyncio.Future[Reply]
    askers: int = 0
    batches: int = 0


@dataclass(slots=True, eq=False)
class _Batch:
    """A batch that was sent, by this process or another.

    Attributes:
        manners: the form of its requests; None: another process sent it.
        following: task that waits for its end; None if no one has asked for its requests.
        replies: replies that no one has asked for yet.
        given: keys whose replies `ask` has returned.
    """

    entry: JournalEntry
    manners: Manners | None = None
    following: asyncio.Task[None] | None = None
    replies: dict[str, Reply] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    done: int = 0

    def tell(self, done: int) -> None:
        self.done = done

    @property
    def awaited(self) -> bool:
        return self.following is not None and not self.following.done()


class BatchDesk:
    """Takes requests and returns replies. `async with` reads the journal; leaving it drops requests that were not sent.

    Args:
        client: it must be entered already.
        manners: returns which forms of request the endpoint accepts now.
    """

    def __init__(
        self,
        spec: config.OpenAIBatchTeacher,
        identity: Mapping[str, str],
        client: BatchClient,
        journal: Journal,
        pace: BatchPace,
        manners: Callable[[], Manners],
    ) -> None:
        self._spec = spec
        self._identity = identity
        self._client = client
        self._journal = journal
        self._pace = pace
        self._carrier = Carrier(spec, client, journal, pace)
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: Exception | None = None
        self._asked: dict[str, _Asked] = {}
        self._gathered: dict[str, None] = {}  # keys that are in no batch yet, in order of arrival
        self._batches: dict[str, _Batch] = {}  # by token
        self._holder: dict[str, _Batch] = {}  # by key
        self._manners = manners
        self._being_sent: set[str] = set()
        self._wake = asyncio.Event()
        self._most = spec.requests_per_batch
        self._refusals = 0
        self._full_since: float | None = None  # this and the next two: time.monotonic()
        self._pause_until = 0.0
        self._last_asked = 0.0

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._journal.prepare)
        self._add_batches(*map(_Batch, await asyncio.to_thread(self._journal.read)))
        self._start(self._send_all())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if kind is None:
            for batch in self._batches.values():
                await self._forget(batch, batch.given)

    async def ask(self, request: Request) -> Reply:
        """Return the reply to a request, from an earlier batch if one contains it.

        Raises:
            RequestFailed: no batch had a reply for it.
            TeacherError: the provider accepts no batches.
            OSError: the journal cannot be written.
        """
        if self._error is not None:
            raise self._error
        key = key_of(canonical(self._identity, request))
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = _Asked(request, asyncio.get_running_loop().create_future())
            self._assign(key, asked)
        asked.askers += 1
        try:
            reply = await asyncio.shield(asked.reply)
        finally:
            asked.askers -= 1
            if not asked.askers:
                del self._asked[key]
                self._gathered.pop(key, None)
        if key in self._holder:
            self._holder[key].given.add(key)
        return reply

    def holds(self, request: Request) -> bool:
        """Return whether a request is at the provider, or is being sent."""
        key = key_of(canonical(self._identity, request))
        return key in self._holder or key in self._being_sent

    def note(self) -> str:
        """Return the provider's progress as text."""
        there = [batch for batch in self._batches.values() if batch.awaited and batch.entry.batch is not None]
        if not there:
            return ""
        done, total = sum(batch.done for batch in there), sum(len(batch.entry.keys) for batch in there)
        full = ", no room for more" if self._pause_until > time.monotonic() else ""
        return f"{len(there)} batch{'es' * (len(there) != 1)} at the provider, {done:,} of {total:,} done{full}"

    def _assign(self, key: str, asked: _Asked) -> None:
        """Give a request its reply, or let it wait for the batch that contains it, or for the next batch."""
        batch = self._holder.get(key)
        if batch is None:
            self._gathered[key] = None
            self._last_asked = time.monotonic()
            self._wake.set()
        elif key in batch.replies:
            asked.reply.set_result(batch.replies.pop(key))
        elif not batch.awaited:
            batch.following = self._start(self._follow(batch))

    def _add_batches(self, *batches: _Batch) -> None:
        """Add batches. Their requests are not sent again."""
        for batch in batches:
            self._batches[batch.entry.token] = batch
            for key in batch.entry.keys:
                self._holder[key] = batch
                if key in self._asked:
                    self._gathered.pop(key, None)
                    self._assign(key, self._asked[key])

    def _release(self, batch: _Batch, key: str) -> None:
        """Remove a request from a batch that has no reply for it. If someone waits, put it into another batch."""
        if self._holder.get(key) is batch:
            del self._holder[key]
        asked = self._asked.get(key)
        if asked is not None and not asked.reply.done():
            self._assign(key, asked)

    async def _forget(self, batch: _Batch, keys: Collection[str]) -> None:
        """Remove keys from the journal: their replies are stored, or the batch has none for them."""
        if keys:
            async with self._journal.locked():
                await asyncio.to_thread(self._journal.forget, batch.entry.token, keys)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._with_errors(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _with_errors(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - raised again in every waiting `ask`
            self._error = self._error or error
            self._gathered.clear()
            for asked in self._asked.values():
                if not asked.reply.done():
                    asked.reply.set_exception(self._error)

    async def _send_all(self) -> None:
        while True:
            await self._wait_until_due()
            async with self._journal.locked():  # no other process sends meanwhile
                self._add_batches(*map(_Batch, await asyncio.to_thread(self._journal.read, self._batches)))
                keys = list(islice(self._gathered, self._most))
                manners, entry = self._manners(), None
                self._being_sent = set(keys)
                try:
                    if keys:
                        asked = [(key, self._asked[key].request) for key in keys]
                        entry = await self._carrier.send(asked, manners, self._asked.__contains__)
                finally:
                    self._being_sent = set()
            if entry is not None:
                self._add_batches(_Batch(entry, manners))

    async def _wait_until_due(self) -> None:
        """Wait until a batch should be sent: it is full, or no new request has arrived for a while."""
        while True:
            self._wake.clear()
            now, wait_s = time.monotonic(), None
            if self._gathered and now < self._pause_until:
                wait_s = self._pause_until - now
            elif self._gathered:
                full = len(self._gathered) >= self._most
                wait_s = 0.0 if full else self._last_asked + self._pace.gather_s - now
                if wait_s <= 0:
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _follow(self, batch: _Batch) -> None:
        entry = await self._carrier.identified(batch.entry)
        if entry is None:
            for key in batch.entry.keys:
                self._release(batch, key)
            return
        batch.entry = entry
        over = await self._carrier.until_over(entry, batch.tell)
        if over.rows is None:
            await self._refused(batch, over)
        else:
            await self._collect(batch, over, over.rows)

    async def _refused(self, batch: _Batch, over: Over) -> None:
        """Handle a batch that the provider refused as a whole."""
        words = over.words
        await self._forget(batch, batch.entry.keys)
        if not any(sign in words.casefold() for sign in _FULL):
            raise TeacherError(
                f"Teacher '{self._spec.name}': {self._client.url} refuses batch {batch.entry.batch}: {words}\n"
                f"  To do: correct what it names. Nothing of this batch was executed. {KEPT}"
            )
        now = time.monotonic()
        self._full_since = self._full_since or now
        if now - self._full_since > self._pace.full_s:
            raise TeacherError(
                f"Teacher '{self._spec.name}': {self._client.url} has had no room for a batch for "
                f"{(now - self._full_since) / 3600:.0f} h: {words}\n  To do: run again later. {KEPT}"
            )
        if not any(other.awaited for other in self._batches.values() if other is not batch):
            self._most = max(1, len(batch.entry.keys) // 2)  # no other batch is there, so this one is too large
        self._refusals += 1
        pause_s = min(_PAUSE_S, self._pace.poll_s * 2.0 ** min(self._refusals, 10))
        self._pause_until = now + pause_s * random.uniform(0.8, 1.2)
        for key in batch.entry.keys:
            self._release(batch, key)

    async def _collect(self, batch: _Batch, over: Over, rows: Sequence[Mapping[str, Any]]) -> None:
        def body_of(key: str) -> Mapping[str, Any]:
            asked = self._asked.get(key)
            manners = batch.manners or self._manners()
            return {} if asked is None else request_body(asked.request, self._spec.model, self._spec.form, manners)

        results = await asyncio.to_thread(read_rows, rows, self._spec.form, over.took_s, body_of, self._client.secrets)
        outcomes = {key: results.get(key, _NO_RESULT) for key in batch.entry.keys}
        missed = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Missed)}
        await self._forget(batch, missed)
        if missed and all(m.kind == "refused" for m in missed.values()) and len(missed) == len(outcomes):
            words = next(iter(missed.values())).words
            raise TeacherError(
                f"Teacher '{self._spec.name}': {self._client.url} refuses all requests of batch {batch.entry.batch}: "
                f"{words}\n  To do: correct what it names. {KEPT}"
            )
        self._full_since, self._pause_until, self._refusals = None, 0.0, 0
        self._wake.set()
        batch.entry = replace(batch.entry, keys=tuple(key for key in outcomes if key not in missed))
        # No `await` from here on, so that a concurrent `ask` sees either all results or none.
        for key, outcome in outcomes.items():
            asked = self._asked.get(key)
            if isinstance(outcome, Missed):
                if asked is not None and not asked.reply.done():
                    again = outcome.kind == "again" and not over.cancelled
                    asked.batches += again
                    if outcome.parameter is not None:
                        outcome.parameter.manners = batch.manners
                        asked.reply.set_exception(outcome.parameter)
                    elif not again or asked.batches >= self._spec.max_attempts:
                        asked.reply.set_exception(RequestFailed(outcome.words, outcome.reason))
                self._release(batch, key)
            elif asked is not None and not asked.reply.done():
                asked.reply.set_result(outcome)
            elif asked is None and key not in batch.given:
                batch.replies[key] = outcome
