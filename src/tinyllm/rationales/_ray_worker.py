"""A worker on a node of a Ray cluster: one teacher in its own process. It imports neither Ray nor the store."""

from __future__ import annotations

import argparse
import asyncio
import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from tinyllm import config
from tinyllm.errors import TeacherError, TinyLLMError
from tinyllm.questions import Question
from tinyllm.teachers import Teacher, make_teacher
from tinyllm.teachers.base import Adapting, FailureReason, Meter, ParameterRefused, Reply, Request, RequestFailed
from tinyllm.teachers.manners import Manners


@dataclass(frozen=True, slots=True)
class Said:
    """What a worker returns: that its teacher is ready, or the result of a request. Exceptions travel as text.

    Attributes:
        concurrency: number of requests that the worker can use at once now.
        charged: whether a request without a reply may have cost something.
        failed: message and reason of a request that failed.
        refused: what the endpoint refused: names, message, its limit, and the form of the request.
        lost: message about an attempt of unknown cost. The caller decides whether to try again.
        gave_up: why the teacher can answer nothing at all.
    """

    concurrency: int = 1
    charged: bool = False
    reply: Reply | None = None
    failed: tuple[str, FailureReason] | None = None
    refused: tuple[tuple[str, ...], str, int | None, Manners | None] | None = None
    lost: str | None = None
    gave_up: str | None = None


class _LostError(Exception):
    """A second attempt was about to begin. This process keeps no account, so it must ask the caller first."""


class _OneAttempt(Meter):
    """Allows attempts until the cost of one is unknown."""

    def __init__(self) -> None:
        self.is_under_way = False
        self._words = ""

    async def begin(self) -> None:
        if self.is_under_way:
            raise _LostError(self._words)
        self.is_under_way = True

    def free(self) -> None:
        self.is_under_way = False

    def lost(self, words: str = "") -> None:
        self._words = words


class Worker:
    """One teacher on a node of the cluster. It is a Ray actor: all calls run in one event loop.

    It reads keys from the environment of its own node. Errors travel as text, because not every exception can be
    pickled.

    Args:
        identity: the identity that the teacher must have on this node, too.
    """

    def __init__(self, spec: Mapping[str, Any], identity: Mapping[str, str]) -> None:
        self._spec: config.TeacherConfig = TypeAdapter(config.TeacherConfig).validate_python(spec)
        self._identity = identity
        self._teacher: asyncio.Future[Teacher] | None = None
        self._life: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()

    async def start(self) -> Said:
        """Start the teacher."""
        try:
            teacher = await self._started()
        except TinyLLMError as error:
            return Said(gave_up=self._here(error))
        return Said(teacher.concurrency)

    async def ask(self, request: Request, question: Question | None, manners: Manners) -> Said:
        """Ask the teacher. Start it first if Ray has restarted this process.

        Args:
            question: needed by a teacher that answers from the question itself.
            manners: the form of the request.
        """
        meter = _OneAttempt()
        try:
            teacher = await self._started()
            asked = teacher if question is None else make_teacher(self._spec, [question])
            if isinstance(asked, Adapting):
                asked.manners = manners
            return Said(teacher.concurrency, reply=await asked.ask(request, meter))
        except _LostError as error:
            return Said(teacher.concurrency, lost=str(error))
        except ParameterRefused as error:
            return Said(teacher.concurrency, refused=(error.names, str(error), error.limit, error.manners))
        except RequestFailed as error:
            return Said(teacher.concurrency, meter.is_under_way, failed=(str(error), error.reason))
        except TinyLLMError as error:
            return Said(charged=meter.is_under_way, gave_up=self._here(error))

    async def stop(self) -> None:
        """Stop the teacher."""
        self._leave.set()
        if self._life is not None:
            if self._teacher is not None and not self._teacher.done():
                self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)

    async def _started(self) -> Teacher:
        if self._teacher is None:
            self._teacher = asyncio.get_running_loop().create_future()
            self._life = asyncio.create_task(self._live(self._teacher))
        return await asyncio.shield(self._teacher)

    async def _live(self, started: asyncio.Future[Teacher]) -> None:
        # A separate task, because the task that enters a teacher must also leave it.
        try:
            teacher = await asyncio.to_thread(self._made)  # this may compute the checksum of a large file
            async with teacher:
                started.set_result(teacher)
                await self._leave.wait()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    def _made(self) -> Teacher:
        teacher = make_teacher(self._spec, ())
        teacher.check()
        if dict(teacher.identity) != self._identity:
            raise TeacherError(
                f"Teacher '{teacher.name}' is another one here: {dict(teacher.identity)}. The machine that started the "
                f"run has {self._identity}. Give all nodes the same model."
            )
        return teacher

    def _here(self, error: TinyLLMError) -> str:
        return f"{error} (On {socket.gethostname()}, a node of the Ray cluster.)"


def shared_out(spec: config.TeacherConfig, workers: int) -> tuple[int, config.TeacherConfig]:
    """Return the number of workers, and the section of each. Workers of an endpoint share its limits."""
    if not isinstance(spec, config.OpenAITeacher | config.LiteLLMTeacher):
        return workers, spec
    workers = min(workers, spec.concurrency or workers)
    part: dict[str, Any] = {"concurrency": spec.concurrency and spec.concurrency // workers}
    for name in ("requests_per_minute", "tokens_per_minute"):
        limit = getattr(spec, name)
        part[name] = limit and limit / workers
    return workers, spec.model_copy(update=part)


def gpus_of(spec: config.TeacherConfig) -> int:
    """Return how many GPUs one worker of a teacher uses, if the cluster has GPUs."""
    match spec:
        case config.VllmTeacher():
            parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            for size in ("tensor", "pipeline", "data"):
                parser.add_argument(f"--{size}-parallel-size", f"-{size[0]}p", type=int, default=1)
            return math.prod(vars(parser.parse_known_args(spec.arguments)[0]).values())
        case config.TransformersTeacher():
            return 0 if spec.device == "cpu" else 1
        case config.LlamaCppTeacher():
            return 1 if spec.gpu_layers else 0
    return 0
