"""What teachers that run a model in this process share: requests wait until there is a batch of them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tinyllm.errors import TeacherError
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request, RequestFailed

_GATHER_S = 0.01  # the first request waits so long for others to fill its batch

Answer = Callable[[Sequence[Request]], Sequence[Reply | RequestFailed]]
"""Answers requests that share their sampling, and of which all or none have options."""


class BatchingTeacher(ABC):
    """Loads a model when entered. `ask` joins a queue; one worker takes batches from it and runs them in a thread."""

    stored = True
    local = True

    def __init__(self, name: str, batch_size: int) -> None:
        self.name = name
        self.concurrency = 2 * batch_size  # while one batch runs, the next one gathers
        self._batch_size = batch_size
        self._answer: Answer | None = None
        self._queue: deque[tuple[Request, asyncio.Future[Reply]]] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @abstractmethod
    def _load(self) -> Answer:
        """Load the model; runs in a thread."""

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply; what the model cannot take is `RequestFailed`."""
        if self._worker is None or self._worker.done():
            raise TeacherError(f"Teacher '{self.name}' is not running: ask inside `async with`.")
        await meter.begin()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queue.append((request, reply))
        self._arrived.set()
        return await reply

    async def __aenter__(self) -> Self:
        self._answer = await asyncio.to_thread(self._load)
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        while self._queue:
            self._queue.popleft()[1].cancel()
        self._answer = None

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if len(self._queue) < self._batch_size:
                await asyncio.sleep(_GATHER_S)
            batch = self._take()
            if not batch:
                self._arrived.clear()
                continue
            await self._settle(batch)

    def _take(self) -> list[tuple[Request, asyncio.Future[Reply]]]:
        """Take the oldest requests that nobody has given up on, as long as they can be answered together."""
        batch: list[tuple[Request, asyncio.Future[Reply]]] = []
        while self._queue and len(batch) < self._batch_size:
            if batch and not _go_together(self._queue[0][0], batch[0][0]):
                break
            item = self._queue.popleft()
            if not item[1].done():
                batch.append(item)
        return batch

    async def _settle(self, batch: list[tuple[Request, asyncio.Future[Reply]]]) -> None:
        assert self._answer is not None  # noqa: S101 - set before the worker starts
        answers: list[Reply | RequestFailed | Exception]
        try:
            answers = list(await asyncio.to_thread(self._answer, [request for request, _ in batch]))
        except Exception as error:  # noqa: BLE001 - handed to everyone who waits for this batch
            answers = [error] * len(batch)
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)


def _go_together(one: Request, other: Request) -> bool:
    return one.sampling == other.sampling and bool(one.options) == bool(other.options)
