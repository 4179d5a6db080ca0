"""The base of teachers that run a model in this process: requests are collected into batches."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

from tinyllm.errors import TeacherError
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request, RequestFailed

_GATHER_S = 0.01  # how long the first request waits for others to join its batch

Answer = Callable[[Sequence[Request]], Sequence[Reply | RequestFailed]]
"""Answers requests with the same sampling parameters. Either all of them have options, or none has."""

_Item = tuple[Request, asyncio.Future[Reply]]


class BatchingTeacher(ABC):
    """Loads a model when entered. `ask` puts requests into a queue; a worker answers them in batches."""

    stored = True
    local = True

    def __init__(self, name: str, batch_size: int) -> None:
        self.name = name
        self.concurrency = 2 * batch_size  # while one batch runs, the next one is collected
        self._batch_size = batch_size
        self._answer: Answer | None = None
        self._queue: deque[_Item] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @abstractmethod
    def _load(self) -> Answer:
        """Load the model. This runs in a thread."""

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply. Raise `RequestFailed` if the prompt is too long for the model."""
        if self._worker is None or self._worker.done():
            raise TeacherError(f"Teacher '{self.name}' is not running: ask inside `async with`.")
        await meter.begin()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queue.append((request, reply))
        self._arrived.set()
        return await reply

    async def __aenter__(self) -> Self:
        self._answer = await asyncio.to_thread(self._load)
        self._worker = asyncio.create_task(self._work(self._answer))
        return self

    async def __aexit__(self, *_: object) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        while self._queue:
            self._queue.popleft()[1].cancel()
        self._answer = None

    async def _work(self, answer: Answer) -> None:
        while True:
            await self._arrived.wait()
            if len(self._queue) < self._batch_size:
                await asyncio.sleep(_GATHER_S)
            batch = self._take()
            if not batch:
                self._arrived.clear()
                continue
            outcomes: Sequence[Reply | Exception]
            try:
                outcomes = await asyncio.to_thread(answer, [request for request, _ in batch])
            except Exception as error:  # noqa: BLE001 - raised again in every waiting `ask`
                outcomes = [error] * len(batch)
            for (_, waiting), outcome in zip(batch, outcomes, strict=True):
                if waiting.done():
                    continue
                if isinstance(outcome, Exception):
                    waiting.set_exception(outcome)
                else:
                    waiting.set_result(outcome)

    def _take(self) -> list[_Item]:
        """Take the oldest requests that can be answered together, without cancelled ones."""
        batch: list[_Item] = []
        while self._queue and len(batch) < self._batch_size:
            request, waiting = self._queue[0]
            first = batch[0][0] if batch else request
            if request.sampling != first.sampling or bool(request.options) != bool(first.options):
                break
            self._queue.popleft()
            if not waiting.done():
                batch.append((request, waiting))
        return batch
