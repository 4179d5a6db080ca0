"""Dynamic batching: waiting questions of several requests are computed in one batch, in one thread.

No request waits for others to fill a batch. Requests that arrive while a batch is computed form the next batch. So a
single client is answered at once, and the batch size grows with the load. The queue has a limit.
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

_MEMORY = 0.8  # weight of earlier batches in the moving average of the rate


class QueueFullError(Exception):
    """The queue has no room for the questions of a request.

    Attributes:
        retry_after_s: seconds until the waiting questions are computed, at the recent rate.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Watch(Protocol):
    """Counts the batches."""

    def batch(self, questions: int, seconds: float) -> None:
        """Count a batch of answers or of rationales that was computed."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question, with rationales by teacher.

    Attributes:
        chosen: the answer, or the reason why the student cannot be asked this question.
    """

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
    """Computes the questions of all requests. It must be made and used in the same event loop."""

    def __init__(self, student: LoadedStudent, limits: Limits, watch: Watch) -> None:
        self._student, self._limits, self._watch = student, limits, watch
        self._answering: deque[_Job] = deque()
        self._writing: deque[_Job] = deque()
        self._woken = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "tinyllm-student")
        self._rate = 10.0  # questions per second; a guess until the first batch is measured
        self._under_way = 0

    @property
    def waiting(self) -> int:
        """The number of questions that are not computed yet."""
        jobs = (*self._answering, *self._writing)
        return sum(len(job.questions) for job in jobs if not job.done.done()) + self._under_way

    async def ask(self, questions: Sequence[Question], teachers: tuple[str, ...], max_tokens: int) -> list[Answer]:
        """Return the answers, in order. If the caller is cancelled, its questions leave the queue.

        Raises:
            QueueFullError: the queue has no room for these questions.
        """
        waiting = self.waiting
        if waiting and waiting + len(questions) > self._limits.queue:
            raise QueueFullError(max(1, math.ceil(waiting / self._rate)))
        job = _Job(questions, teachers, max_tokens, asyncio.get_running_loop().create_future())
        self._answering.append(job)
        self._woken.set()
        return await job.done

    async def run(self) -> None:
        """Compute batches until cancelled.

        Batches of answers and of rationales take turns, so that answers do not wait for all rationales.
        """
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._answering or self._writing:
                if jobs := self._taken(self._answering):
                    await self._compute(jobs, self._answered)
                if jobs := self._taken(self._writing):
                    await self._compute(jobs, self._written)

    def close(self) -> None:
        """Cancel the waiting requests, and end the thread."""
        for job in (*self._answering, *self._writing):
            job.done.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _taken(self, queue: deque[_Job]) -> list[_Job]:
        """Take the requests of the next batch from the queue. Cancelled requests are left out."""
        jobs: list[_Job] = []
        room = self._limits.batch
        while queue and (not jobs or len(queue[0].questions) <= room):
            job = queue.popleft()
            if job.done.done():
                continue
            alike = not jobs or (job.teachers, job.max_tokens) == (jobs[0].teachers, jobs[0].max_tokens)
            if queue is self._writing and not alike:  # one call of the student writes with one setting
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
            except Exception as error:  # noqa: BLE001 - the request that caused it gets the error, whatever it is
                if len(jobs) == 1:
                    if not jobs[0].done.done():
                        jobs[0].done.set_exception(error)
                    return
                for job in jobs:  # one request caused it; the others are computed alone
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
        """Answer the questions of all jobs. None stands for a job that also needs rationales."""
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
