"""The teacher: it turns single calls of `ask` into batches of thousands of requests."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Self

from tinyllm import config
from tinyllm.config import Form
from tinyllm.teachers._batch.client import BatchClient, BatchPace
from tinyllm.teachers._batch.desk import BatchDesk
from tinyllm.teachers._batch.journal import Journal
from tinyllm.teachers._http.envelope import envelope_of
from tinyllm.teachers._http.teacher import HostedTeacher
from tinyllm.teachers.base import UNMETERED, Meter, ParameterRefused, Reply, Request, RequestFailed
from tinyllm.teachers.manners import Manners

_BATCHES_AT_ONCE = 4


class OpenAIBatchTeacher(HostedTeacher):
    """Asks a model in batches. The API key is read from the environment when the teacher is entered.

    If a caller stops waiting, the batch goes on at the provider. The journal records it, and the next process that asks
    the same collects it. So Ctrl-C ends a run at once.

    If the teacher is left without an exception, it deletes the replies that `ask` returned from the journal, so they
    must be stored by then. After an exception it deletes nothing, and lost replies are fetched again for free.

    Args:
        journal: folder for the records of batches; it belongs to the store of replies. Several processes may use it:
            only one at a time decides what to send, and it sees what the others have sent.
    """

    stored = True
    local = False
    resumable = True
    _spec: config.OpenAIBatchTeacher

    def __init__(self, spec: config.OpenAIBatchTeacher, journal: Path, *, pace: BatchPace | None = None) -> None:
        self._spec = spec
        self._journal = journal
        self._pace = pace or BatchPace(attempts=spec.max_attempts, poll_s=spec.poll_s)
        self.manners = Manners()
        self._desk: BatchDesk | None = None
        self._exit = contextlib.AsyncExitStack()
        self.name = spec.name
        self.concurrency = spec.requests_per_batch * _BATCHES_AT_ONCE
        self.form: Form = spec.form
        self.stop = spec.stop

    def note(self) -> str:
        """Return the provider's progress as text; empty if it has no batch."""
        return self._desk.note() if self._desk is not None else ""

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply after its batch has ended; see `BatchDesk.ask`.

        One charge is enough if a request is in several batches, because a batch without a reply bills nothing.
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
                BatchDesk(self._spec, self.identity, client, journal, self._pace, lambda: self.manners)
            )
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._desk = None
        await self._exit.__aexit__(*error)
