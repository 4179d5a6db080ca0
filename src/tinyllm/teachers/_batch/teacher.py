"""The teacher itself: it stands between `ask`, one request at a time, and batches of thousands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tinyllm import config
from tinyllm.config import Form
from tinyllm.teachers._batch.client import BatchClient, BatchPace
from tinyllm.teachers._batch.desk import BatchDesk
from tinyllm.teachers._batch.journal import Journal
from tinyllm.teachers._http.envelope import envelope_of, identity_of
from tinyllm.teachers.base import UNMETERED, Meter, ParameterRefused, Reply, Request, RequestFailed
from tinyllm.teachers.manners import Manners

_BATCHES_AT_ONCE = 4


class OpenAIBatchTeacher:
    """Asks a model in batches. The key is read from the environment when the teacher is entered.

    Whoever stops waiting stops nothing at the provider: what was sent is noted in the journal, and is collected by
    the next process that asks the same. So at the first Ctrl-C there is nothing to wait for.

    Left without an exception, it forgets the batches whose replies it has given: all that `ask` returned must be
    stored by then. Left with one it forgets nothing, and replies that were lost are fetched again, at no cost.

    Args:
        journal: folder in which batches at the provider are noted; it belongs to the store of replies. Several
            processes may use it at once: one at a time decides what is sent, and sees what the others have sent.
    """

    stored = True
    local = False
    resumable = True

    def __init__(self, spec: config.OpenAIBatchTeacher, journal: Path, *, pace: BatchPace | None = None) -> None:
        self._spec = spec
        self._journal = journal
        self._pace = pace or BatchPace(attempts=spec.max_attempts, poll_s=spec.poll_s)
        self._manners = Manners()
        self._desk: BatchDesk | None = None
        self._exit = contextlib.AsyncExitStack()
        self.name = spec.name
        self.concurrency = spec.requests_per_batch * _BATCHES_AT_ONCE
        self.form: Form = spec.form
        self.stop = spec.stop

    def __repr__(self) -> str:
        return f"OpenAIBatchTeacher({self.name!r}, model={self._spec.model!r})"

    def check(self) -> None:
        """Raise `TeacherError` if the key, or another variable that is named, is not in the environment."""
        envelope_of(self._spec)

    @property
    def identity(self) -> Mapping[str, str]:
        """That of `kind: openai` with this endpoint and model: the two share their replies in the store."""
        return identity_of(self._spec)

    @property
    def manners(self) -> Manners:
        """How the endpoint is asked."""
        return self._manners

    @manners.setter
    def manners(self, manners: Manners) -> None:
        self._manners = manners
        if self._desk is not None:
            self._desk.manners = manners

    def note(self) -> str:
        """How far the provider is, in words for a progress bar; empty if nothing is there."""
        return self._desk.note() if self._desk is not None else ""

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply, once the batch that the request is in is over; see `BatchDesk.ask`.

        One charge covers all batches that a request is part of: what a batch has no reply for, it does not bill.
        """
        desk = self._desk
        assert desk is not None, "ask inside `async with`"  # noqa: S101
        if not desk.holds(request):
            await meter.begin()
        try:
            return await desk.ask(request)
        except (RequestFailed, ParameterRefused):
            meter.free()
            raise
        except asyncio.CancelledError:
            if not desk.holds(request):
                meter.free()
            raise

    async def __aenter__(self) -> Self:
        client = BatchClient(self.name, envelope_of(self._spec), pace=self._pace)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(client)
            journal = Journal(self._journal, self.identity)
            self._desk = await stack.enter_async_context(
                BatchDesk(self._spec, self.identity, client, journal, self._pace)
            )
            self._desk.manners = self._manners
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._desk = None
        await self._exit.__aexit__(kind, error, trace)
