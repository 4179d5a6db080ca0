"""Dynamic batching: what waits is computed together, in one thread, and no more waits than the queue holds.

Nothing waits for company. While one batch is computed, requests gather, and they are the next batch. So a single client
is answered at once, and many clients share batches that grow with the load.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from tinyllm.inference import Chosen, LoadedStudent
from tinyllm.questions.types import Question
from tinyllm.serving._limits import Limits

_MEMORY = 0.8  # of what was measured before, in the moving average of the rate


class QueueFullError(Exception):
    """No room is left in the queue.

    Attributes:
        retry_after_s: in which what waits will be computed, at the rate of late.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Watch(Protocol):
    """Is told what the batcher does."""

    def batch(self, questions: int, seconds: float) -> None:
        """A batch of answers, or of rationales, was computed."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question, or why it cannot be asked; with rationales by teacher."""

    chosen: Chosen | str
    rationales: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Job:
    questions: Sequence[Question]
    teachers: tuple[str, ...]
    max_tokens: int
    done: asyncio.Future[list[Answer]]
    answers: list[Chosen | str] = field(default_factory=list)


class Batcher:
    """Computes the questions of all requests. Made and used in one event loop."""

    def __init__(self, student: LoadedStudent, limits: Limits, watch: Watch) -> None:
        self._student, self._limits, self._watch = student, limits, watch
        self._answering: deque[_Job] = deque()
        self._writing: deque[_Job] = deque()
        self._woken = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "tinyllm-student")
        self._rate = 10.0  # questions a second, until something is measured
        self._under_way = 0

    @property
    def waiting(self) -> int:
        """Questions that are not computed yet."""
        jobs = (*self._answering, *self._writing)
        return sum(len(job.questions) for job in jobs if not job.done.done()) + self._under_way

    async def ask(self, questions: Sequence[Question], teachers: tuple[str, ...], max_tokens: int) -> list[Answer]:
        """Return the answers, in order. A caller that is cancelled takes its questions out of the queue.

        Raises:
            QueueFullError: there is no room for these questions.
        """
        waiting = self.waiting
        if waiting and waiting + len(questions) > self._limits.queue:
            raise QueueFullError(max(1, math.ceil(waiting / self._rate)))
        job = _Job(questions, teachers, max_tokens, asyncio.get_running_loop().create_future())
        self._answering.append(job)
        self._woken.set()
        return await job.done

    async def run(self) -> None:
        """Compute what comes, until cancelled. Answers and rationales take turns, since rationales take long."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._answering or self._writing:
                if jobs := self._taken(self._answering):
                    await self._compute(jobs, self._answered)
                if jobs := self._taken(self._writing):
                    await self._compute(jobs, self._written)

    def close(self) -> None:
        """Give the thread back; what still waits is cancelled."""
        for job in (*self._answering, *self._writing):
            job.done.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _taken(self, queue: deque[_Job]) -> list[_Job]:
        """Take the next batch; requests that nobody waits for any more are left out."""
        jobs: list[_Job] = []
        room = self._limits.batch
        while queue and (not jobs or len(queue[0].questions) <= room):
            job = queue.popleft()
            if job.done.done():
                continue
            same = not jobs or queue is self._answering or _manner(job) == _manner(jobs[0])
            if not same:
                queue.appendleft(job)
                break
            jobs.append(job)
            room -= len(job.questions)
        return jobs

    async def _compute(self, jobs: list[_Job], work: Callable[[list[_Job]], list[list[Answer] | None]]) -> None:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        self._under_way = count = sum(len(job.questions) for job in jobs)
        try:
            try:
                found = await loop.run_in_executor(self._thread, work, jobs)
            except Exception as error:  # noqa: BLE001 - whatever it is, the request that it belongs to is told
                if len(jobs) == 1:
                    if not jobs[0].done.done():
                        jobs[0].done.set_exception(error)
                    return
                for job in jobs:  # one of them is at fault; the others are not to suffer for it
                    await self._compute([job], work)
                return
        finally:
            self._under_way = 0
        seconds = time.monotonic() - began
        self._rate = _MEMORY * self._rate + (1 - _MEMORY) * count / max(seconds, 1e-6)
        self._watch.batch(count, seconds)
        for job, answers in zip(jobs, found, strict=True):
            if job.done.done():
                continue
            if answers is None:
                self._writing.append(job)
            else:
                job.done.set_result(answers)

    def _answered(self, jobs: list[_Job]) -> list[list[Answer] | None]:
        """Answer the questions of all jobs; None for a job that wants rationales, too."""
        answers = iter(self._student.answers([q for job in jobs for q in job.questions]))
        found: list[list[Answer] | None] = []
        for job in jobs:
            job.answers = [next(answers) for _ in job.questions]
            found.append(None if job.teachers else [Answer(a) for a in job.answers])
        return found

    def _written(self, jobs: list[_Job]) -> list[list[Answer] | None]:
        """Write the rationales of the questions that were answered."""
        sound = [q for job in jobs for q, a in zip(job.questions, job.answers, strict=True) if isinstance(a, Chosen)]
        texts = iter(self._student.rationales(sound, jobs[0].teachers, jobs[0].max_tokens))
        return [[Answer(a, next(texts) if isinstance(a, Chosen) else {}) for a in job.answers] for job in jobs]


def _manner(job: _Job) -> tuple[tuple[str, ...], int]:
    return job.teachers, job.max_tokens
