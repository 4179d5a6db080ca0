"""The scheduler: asks every teacher every question until a reply passes, and stores each reply before it counts.

Questions and replies are streamed, so memory depends on the requests in flight and not on the number of questions.
Afterwards `collect` reads the replies from the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tinyllm.errors import MissingDependencyError, TeacherError, TinyLLMError
from tinyllm.rationales._meter import RequestMeter, StoppedError
from tinyllm.rationales.requests import Ask, Requests, answered
from tinyllm.rationales.types import Rejection, Verdict
from tinyllm.replies import Failure, Store, Writer
from tinyllm.spending.budget import Budget
from tinyllm.system.files import well_formed
from tinyllm.system.gate import Gate
from tinyllm.teachers.base import AtHand, ParameterRefused, Reply, RequestFailed, Resumable

StopReason = Literal["interrupted", "budget"]

_CHUNK = 256  # questions whose requests are made and looked up at once
_ELSEWHERE = 4 * _CHUNK  # if other processes are asking more questions than this, wait for them
_LOOK_AGAIN_S = 0.2
_MOST_REFUSALS = 20  # of one request; it has fewer parts that can be left out


@dataclass(slots=True)
class Standing:
    """The progress of one teacher: `done` of `total` questions.

    Attributes:
        stored: questions that were answered from the store.
        replies: replies in this run, including those that failed a check.
    """

    teacher: str
    total: int
    done: int = 0
    stored: int = 0
    kept: int = 0
    rejected: int = 0
    failed: int = 0
    replies: int = 0
    resampled: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0


class Progress(Protocol):
    """Receives all events, immediately and in the thread of the event loop."""

    def advance(self, standing: Standing) -> None:
        """A teacher has made progress."""

    def gave_up(self, teacher: str, error: TinyLLMError) -> None:
        """A teacher can answer nothing more. The others go on."""

    def learnt(self, words: str) -> None:
        """An endpoint refused a part of a request. The store remembers this, so it is reported once."""


@dataclass(slots=True)
class Stop:
    """A request to stop: nothing new is sent, and requests in flight are finished."""

    reason: StopReason | None = None
    _heard: list[Callable[[], None]] = field(default_factory=list)

    def wish(self, reason: StopReason) -> None:
        """Send nothing new from now on. Only the first reason is kept."""
        if self.reason is None:
            self.reason = reason
            for hear in self._heard:
                hear()

    def when_wished(self, hear: Callable[[], None]) -> None:
        """Register a function that is called when stopping is requested."""
        self._heard.append(hear)


@dataclass(frozen=True, slots=True)
class Ended:
    """How asking ended: why it was stopped early (None: it was not), and the errors of teachers that gave up."""

    stopped: StopReason | None
    errors: tuple[TinyLLMError, ...]


@dataclass(frozen=True, slots=True)
class _Shared:
    store: Store
    writer: Writer
    budget: Budget
    stop: Stop
    progress: Progress


async def generate(
    teachers: Sequence[Requests],
    store: Store,
    progress: Progress,
    *,
    budget: Budget,
    stop: Stop,
    first: int | None = None,
) -> Ended:
    """Ask every teacher every question that the store cannot answer.

    Remote teachers are asked at the same time, local teachers one after another. A teacher whose replies are all stored
    is not started. If this is cancelled, every reply that has arrived is stored.

    Args:
        first: ask only this many questions.

    Raises:
        RunFolderError: the store cannot be used.
        OSError: the disk is full; earlier replies are kept.
    """
    async with Writer.opened(store, budget.cap) as writer:
        shared = _Shared(store, writer, budget, stop, progress)
        flows = [_Flow(requests, shared, first) for requests in teachers if not isinstance(requests.teacher, AtHand)]

        async def ask_local_teachers() -> None:
            for flow in flows:
                if flow.teacher.local:
                    await flow.run()

        try:
            async with asyncio.TaskGroup() as group:
                for flow in flows:
                    if not flow.teacher.local:
                        group.create_task(flow.run())
                group.create_task(ask_local_teachers())
        except BaseExceptionGroup as several:
            raise _first(several) from None
    return Ended(stop.reason, tuple(flow.error for flow in flows if flow.error is not None))


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first of several errors. A full disk fails every request in flight, and one message is enough."""
    first = several.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


class _Flow:
    """Asks one teacher all questions."""

    def __init__(self, requests: Requests, shared: _Shared, first: int | None) -> None:
        self.teacher = requests.teacher
        self.error: TinyLLMError | None = None
        self._requests = requests
        self._shared = shared
        total = len(requests.questions)
        self._standing = Standing(requests.teacher.name, total if first is None else min(first, total))
        # Questions by the root of their request: if several have the same prompt, it is asked once.
        self._waiting: dict[str, list[Ask]] = {}
        self._claims = shared.store.claims
        self._gate = Gate(lambda: max(1, self.teacher.concurrency))
        # Replies that are being committed do not occupy the teacher. But a crash loses them, so however slow the disk
        # is, they are no more than the requests that are in flight.
        self._places = Gate(lambda: 2 * max(1, self.teacher.concurrency))
        self._started = False
        self._is_resumable = isinstance(requests.teacher, Resumable) and requests.teacher.resumable
        self._asking: dict[asyncio.Task[Any], RequestMeter] = {}

    async def run(self) -> None:
        """Ask everything that is not in the store."""
        self._shared.stop.when_wished(self._cancel_waiting)
        try:
            async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                async for ask in self._missing():
                    if not await self._start(stack):
                        return
                    await self._places.__aenter__()
                    group.create_task(self._ask_until_accepted(ask))
        finally:
            for root in self._waiting:
                self._claims.release(root)

    def _stopped(self) -> bool:
        return self.error is not None or self._shared.stop.reason is not None

    def _cancel_waiting(self) -> None:
        """When stopping is requested: cancel requests that were not sent yet, or that can be collected later."""
        self._shared.budget.wake()
        for task, meter in self._asking.items():
            if self._is_resumable or not meter.is_under_way:
                task.cancel()

    async def _start(self, stack: contextlib.AsyncExitStack) -> bool:
        """Start the teacher when it is first needed. Return False if it cannot start, or asking was stopped."""
        if not self._started:
            self._started = True
            try:
                await stack.enter_async_context(self.teacher)
            except TinyLLMError as error:
                self._give_up(error)
        return not self._stopped()

    def _give_up(self, error: TinyLLMError) -> None:
        if self.error is None:
            self.error = error
            self._shared.progress.gave_up(self.teacher.name, error)

    # --- what must be asked -----------------------------------------------------------------------------------------

    async def _missing(self) -> AsyncIterator[Ask]:
        """Yield and claim the requests that the store cannot answer. Wait for those that another process is asking."""
        elsewhere: list[Ask] = []
        total = self._standing.total
        for start in range(0, total, _CHUNK):
            stop = min(start + _CHUNK, total)
            made = await asyncio.to_thread(self._requests.between, start, stop)
            missing, taken = await self._split([ask for ask in made if self._join(ask)])
            elsewhere += taken
            for ask in missing:
                yield ask
            most_elsewhere = _ELSEWHERE if stop < total else 0
            while len(elsewhere) > most_elsewhere and not self._stopped():
                await asyncio.sleep(_LOOK_AGAIN_S)
                missing, elsewhere = await self._split(elsewhere)
                for ask in missing:
                    yield ask
            if self._stopped():
                return

    def _join(self, ask: Ask) -> bool:
        """Add a question to those that wait for its request. Return whether it is the first of them."""
        waiting = self._waiting.setdefault(ask.root, [])
        waiting.append(ask)
        return len(waiting) == 1

    async def _split(self, asks: Sequence[Ask]) -> tuple[list[Ask], list[Ask]]:
        """Deliver what is stored. Return the requests that were claimed, and those that another process is asking."""
        settled, missing = await asyncio.to_thread(self._answered, asks)
        claimed: list[Ask] = []
        elsewhere: list[Ask] = []
        for ask in missing:
            (claimed if self._claims.take(ask.root) else elsewhere).append(ask)
        # A reply may have been stored after the first look and before the claim.
        settled_since, missing = await asyncio.to_thread(self._answered, claimed)
        for ask, outcome in (*settled, *settled_since):
            self._claims.release(ask.root)
            self._deliver(ask.root, outcome, stored=True)
        return missing, elsewhere

    def _answered(self, asks: Sequence[Ask]) -> tuple[list[tuple[Ask, Verdict]], list[Ask]]:
        return answered(self._requests, self._shared.store, asks)

    # --- asking -----------------------------------------------------------------------------------------------------

    async def _ask_until_accepted(self, ask: Ask) -> None:
        """Ask until a reply passes the checks, or no further sample is allowed."""
        self._standing.in_flight += 1
        try:
            self._deliver(ask.root, await self._verdict(ask))
        except RequestFailed:
            self._standing.failed += self._done(ask.root)
            self._shared.progress.advance(self._standing)
        except (TeacherError, MissingDependencyError) as error:
            self._give_up(error)
        except StoppedError:
            pass
        finally:
            self._standing.in_flight -= 1
            self._claims.release(ask.root)
            await self._places.__aexit__(None, None, None)

    async def _verdict(self, ask: Ask) -> Verdict:
        refusals = 0
        while True:
            try:
                ask, reply = await self._reply(ask)
            except ParameterRefused as refused:
                refusals += 1
                if refusals > _MOST_REFUSALS:
                    raise TeacherError(
                        f"Teacher '{self.teacher.name}': the endpoint refuses every form of the request: {refused}\n"
                        "  To do: ask another model or endpoint."
                    ) from None
                known = self._requests.manners
                if refused.form == known.form and refused.manners in (
                    None,
                    known,
                ):  # no other request has led to a change
                    self._shared.progress.learnt(self._requests.learn(refused))
                    await self._remember()
            else:
                outcome = self._requests.verdict(ask.question, reply)
                if self._requests.saw(outcome):
                    await self._remember()
                again = self._requests.again(ask, outcome) if isinstance(outcome, Rejection) else None
                if again is None:
                    return outcome
                if self._stopped():
                    raise StoppedError
                self._standing.resampled += 1
                ask = again
            settled, missing = self._answered([ask])  # another run may have stored this sample
            if settled:
                return settled[0][1]
            ask = missing[0]

    async def _remember(self) -> None:
        if self.teacher.stored:
            store, requests = self._shared.store, self._requests
            await asyncio.to_thread(store.remember, self.teacher.identity, requests.manners)

    async def _reply(self, ask: Ask) -> tuple[Ask, Reply]:
        """Get a reply, store it and pay for it. Return it with the request as it was sent."""
        async with self._gate:
            if self._stopped():
                raise StoppedError
            ask = self._requests.variants(ask)[-1]  # the form may have changed since the request was made
            meter = RequestMeter(
                self._shared.writer, self._shared.budget, ask, self.teacher.name,
                may_send=lambda: not self._stopped(), over_budget=lambda: self._shared.stop.wish("budget"),
                resumes=self._is_resumable,
            )  # fmt: skip
            try:
                reply = await self._asked(ask, meter)
            except RequestFailed as error:
                words = well_formed(str(error))
                self._shared.writer.note(Failure(ask.key, self.teacher.name, ask.question.id, error.reason, words))
                raise
        self._standing.replies += 1
        self._standing.prompt_tokens += reply.prompt_tokens or 0
        self._standing.completion_tokens += reply.completion_tokens or 0
        self._standing.thinking_tokens += reply.thinking_tokens or 0
        return ask, await meter.paid(reply)

    async def _asked(self, ask: Ask, meter: RequestMeter) -> Reply:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._asking[task] = meter
        try:
            reply = await self.teacher.ask(ask.request, meter)
        except ParameterRefused as refused:
            refused.form = ask.form
            raise
        except BaseException:
            (meter.leave if self._is_resumable else meter.lost)()
            raise
        finally:
            del self._asking[task]
        if reply is None:
            meter.free()
            raise RequestFailed("the teacher has nothing for this question")
        return reply

    # --- results ----------------------------------------------------------------------------------------------------

    def _deliver(self, root: str, outcome: Verdict, *, stored: bool = False) -> None:
        count = self._done(root)
        self._standing.stored += count if stored else 0
        if isinstance(outcome, Rejection):
            self._standing.rejected += count
        else:
            self._standing.kept += count
        self._shared.progress.advance(self._standing)

    def _done(self, root: str) -> int:
        """Count the questions that waited for a request as done. Return their number."""
        count = len(self._waiting.pop(root))
        self._standing.done += count
        return count
