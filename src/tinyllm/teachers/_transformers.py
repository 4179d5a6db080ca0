"""Models run in this process by transformers, in batches: causal ones and encoder-decoders (FLAN-T5)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tinyllm import config
from tinyllm.config import Form
from tinyllm.errors import TeacherError
from tinyllm.system import packaged
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request, RequestFailed

if TYPE_CHECKING:
    from tinyllm.teachers._local_model import LocalModel

_GATHER_S = 0.01  # the first request waits so long for others to fill its batch


class TransformersTeacher:
    """Loads a model when entered. `ask` joins a queue; one worker takes batches from it and runs them in a thread."""

    stored = True
    local = True

    def __init__(self, spec: config.TransformersTeacher) -> None:
        self._spec = spec
        self._model: LocalModel | None = None
        self._queue: deque[tuple[Request, asyncio.Future[Reply]]] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self.name = spec.name
        self.concurrency = 2 * spec.batch_size  # while one batch runs, the next one gathers
        self.form: Form = spec.form
        self.stop = spec.stop
        self._weights = folder_checksum(Path(spec.model).expanduser())

    def check(self) -> None:
        """Raise `TeacherError` if the device asked for is not there; the model is looked for when it is loaded."""
        import torch

        wanted = (self._spec.device or "cpu").partition(":")[0]
        best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        there = ["cpu"] if best is None else ["cpu", best.type]
        if wanted not in there:
            raise TeacherError(
                f"Teacher '{self.name}': there is no device '{self._spec.device}' here; there is {', '.join(there)}."
            )

    @property
    def identity(self) -> Mapping[str, str]:
        """Model, revision and type of weights; for a folder the checksum of its files instead of where it lies."""
        spec = self._spec
        if self._weights is not None:
            return {"kind": "transformers", "sha256": self._weights, "dtype": spec.dtype}
        return {"kind": "transformers", "model": spec.model, "revision": spec.revision or "main", "dtype": spec.dtype}

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply; a prompt longer than the model's positions is `RequestFailed`."""
        if self._worker is None or self._worker.done():
            raise TeacherError(f"Teacher '{self.name}' is not running: ask inside `async with`.")
        await meter.begin()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queue.append((request, reply))
        self._arrived.set()
        return await reply

    async def __aenter__(self) -> Self:
        self._model = await asyncio.to_thread(_load, self._spec)
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
        self._model = None

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if len(self._queue) < self._spec.batch_size:
                await asyncio.sleep(_GATHER_S)
            batch = self._take()
            if not batch:
                self._arrived.clear()
                continue
            await self._answer(batch)

    def _take(self) -> list[tuple[Request, asyncio.Future[Reply]]]:
        """Take the oldest requests that nobody has given up on, as long as they can be answered together."""
        batch: list[tuple[Request, asyncio.Future[Reply]]] = []
        while self._queue and len(batch) < self._spec.batch_size:
            if batch and not _go_together(self._queue[0][0], batch[0][0]):
                break
            item = self._queue.popleft()
            if not item[1].done():
                batch.append(item)
        return batch

    async def _answer(self, batch: list[tuple[Request, asyncio.Future[Reply]]]) -> None:
        assert self._model is not None  # noqa: S101 - set before the worker starts
        answers: list[Reply | RequestFailed | Exception]
        try:
            answer = self._model.rate if batch[0][0].options else self._model.generate
            answers = list(await asyncio.to_thread(answer, [request for request, _ in batch]))
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


def _load(spec: config.TransformersTeacher) -> LocalModel:
    from tinyllm.teachers._local_model import LocalModel

    return LocalModel(spec)


def folder_checksum(folder: Path) -> str | None:
    """Return a checksum over the files of a model's folder; None if the model is not a folder."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".model", ".jinja", ".txt")
    ):
        digest.update(f"{file.name} {packaged.file_checksum(file)}\n".encode())
    return digest.hexdigest()
