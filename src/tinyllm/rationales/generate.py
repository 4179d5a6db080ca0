"""The scheduler: every question to every teacher until a reply passes; each reply stored before it counts.

Questions stream through, replies stream into the store: what is held is bounded by what is in flight, whatever the
number of questions. What comes of it all is read from the store afterwards (`collect`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from tinyllm.errors import MissingDependencyError, TeacherError, TinyLLMError
from tinyllm.rationales.requests import Ask, Requests, answered
from tinyllm.rationales.types import Rejection, Verdict
from tinyllm.replies import Failure, Store, Writer
from tinyllm.spending.budget import Budget
from tinyllm.spending.charges import Bill, Charge, Lost
from tinyllm.system.files import well_formed
from tinyllm.system.gate import Gate
from tinyllm.teachers.base import AtHand, ParameterRefused, Reply, RequestFailed, Resumable

StopReason = Literal["interrupted", "budget"]

_CHUNK = 256  # questions whose prompts are made, and looked up in the store, at a time
_ELSEWHERE = 4 * _CHUNK  # questions of which another process may be asked before this one waits for it
_LOOK_AGAIN_S = 0.2
_MOST_REFUSALS = 20  # of one request, for parts of it; there are not as many that can be left out


@dataclass(slots=True)
class Standing:
    """How far one teacher is. Of `total` questions `done` are done with.

    Attributes:
        stored: of those done, the ones that the store could answer at once.
        replies: got in this run, failing ones among them.
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
    """Hears of everything that happens, at once and in the event loop's thread."""

    def advance(self, standing: Standing) -> None:
        """A teacher's standing has changed."""
        ...

    def gave_up(self, teacher: str, error: TinyLLMError) -> None:
        """A teacher can answer nothing more; the others go on."""
        ...

    def learnt(self, words: str) -> None:
        """It was found out how an endpoint wants to be asked; this is remembered, so it is said once."""
        ...


@dataclass(slots=True)
class Stop:
    """A wish to begin nothing new; what is in flight is finished."""

    reason: StopReason | None = None
    _heard: list[Callable[[], None]] = field(default_factory=list)

    def wish(self, reason: StopReason) -> None:
        """Begin nothing new from now on; the first reason counts."""
        if self.reason is None:
            self.reason = reason
            for hear in self._heard:
                hear()

    def when_wished(self, hear: Callable[[], None]) -> None:
        """Call back at the wish."""
        self._heard.append(hear)


@dataclass(frozen=True, slots=True)
class Ended:
    """How asking ended: at the wish of someone or the end of the budget, or None; and which teachers gave up."""

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
    """Ask every teacher about every question that the store cannot answer.

    Remote teachers are asked side by side, local ones one after the other; a teacher whose replies are all stored
    is not even started. Cancelled, it keeps every reply that has come.

    Args:
        first: ask about the first so many questions only.

    Raises:
        RunFolderError: the store cannot be used.
        OSError: the disk is full; what was stored before is kept.
    """
    async with Writer.opened(store, budget.cap) as writer:
        shared = _Shared(store, writer, budget, stop, progress)
        flows = [_Flow(requests, shared, first) for requests in teachers if not isinstance(requests.teacher, AtHand)]
        try:
            async with asyncio.TaskGroup() as group:
                for flow in flows:
                    if not flow.teacher.local:
                        group.create_task(flow.run())
                group.create_task(_one_after_the_other([f for f in flows if f.teacher.local]))
        except BaseExceptionGroup as several:
            raise _first(several) from None
    return Ended(stop.reason, tuple(flow.error for flow in flows if flow.error is not None))


async def _one_after_the_other(flows: Sequence[_Flow]) -> None:
    for flow in flows:
        await flow.run()


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of several errors: a full disk fails every request in flight, and one message is enough."""
    first = several.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


class _StoppedError(Exception):
    """This request is not asked, because nothing new is to begin."""


class _Flow:
    """One teacher's way through the questions."""

    def __init__(self, requests: Requests, shared: _Shared, first: int | None) -> None:
        self.teacher = requests.teacher
        self.error: TinyLLMError | None = None
        self._requests = requests
        self._shared = shared
        total = len(requests.questions)
        self._standing = Standing(requests.teacher.name, total if first is None else min(first, total))
        # Questions that wait for a request's reply: the same prompt twice is asked once.
        self._waiting: dict[str, list[Ask]] = {}
        self._claims = shared.store.claims
        self._gate = Gate(lambda: max(1, self.teacher.concurrency))
        # Those whose replies are being committed need no place at the teacher, but they too must be bounded.
        self._places = Gate(lambda: 2 * self.teacher.concurrency + _CHUNK)
        self._started = False
        self._is_resumable = isinstance(requests.teacher, Resumable) and requests.teacher.resumable
        self._asking: dict[asyncio.Task[Any], _Meter] = {}

    async def run(self) -> None:
        """Ask for everything that the store does not hold."""
        self._shared.stop.when_wished(self._let_go)
        try:
            async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                async for ask in self._missing():
                    if not await self._start(stack):
                        return
                    await self._places.__aenter__()
                    group.create_task(self._pursue(ask))
        finally:
            for root in self._waiting:
                self._claims.release(root)

    def _stopped(self) -> bool:
        return self.error is not None or self._shared.stop.reason is not None

    def _let_go(self) -> None:
        """At the wish to stop: begin nothing new, and do not wait for what can be collected later."""
        self._shared.budget.wake()
        for task, meter in self._asking.items():
            if self._is_resumable or not meter.is_under_way:
                task.cancel()

    async def _start(self, stack: contextlib.AsyncExitStack) -> bool:
        """Start the teacher when it is needed for the first time; False if it cannot be, or need not be any more."""
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
        """Yield, claimed, what the store cannot answer; wait for what another process is asking."""
        elsewhere: list[Ask] = []
        for start in range(0, self._standing.total, _CHUNK):
            made = await asyncio.to_thread(self._requests.between, start, min(start + _CHUNK, self._standing.total))
            missing, taken = await self._sift([ask for ask in made if self._is_first(ask)])
            elsewhere += taken
            for ask in missing:
                yield ask
            while len(elsewhere) > _ELSEWHERE and not self._stopped():
                missing, elsewhere = await self._look_again(elsewhere)
                for ask in missing:
                    yield ask
            if self._stopped():
                return
        while elsewhere and not self._stopped():
            missing, elsewhere = await self._look_again(elsewhere)
            for ask in missing:
                yield ask

    def _is_first(self, ask: Ask) -> bool:
        """Join those who wait for a reply; True for the first, who has to look for it."""
        waiting = self._waiting.setdefault(ask.root, [])
        waiting.append(ask)
        return len(waiting) == 1

    async def _look_again(self, elsewhere: Sequence[Ask]) -> tuple[list[Ask], list[Ask]]:
        await asyncio.sleep(_LOOK_AGAIN_S)
        return await self._sift(elsewhere)

    async def _sift(self, asks: Sequence[Ask]) -> tuple[list[Ask], list[Ask]]:
        """Deliver what is stored; return what is claimed to be asked, and what another process is asking."""
        settled, missing = await asyncio.to_thread(self._answered, asks)
        claimed: list[Ask] = []
        elsewhere: list[Ask] = []
        for ask in missing:
            (claimed if self._claims.take(ask.root) else elsewhere).append(ask)
        # It may have been stored between the look into the store and the claim.
        settled_since, missing = await asyncio.to_thread(self._answered, claimed)
        for ask, outcome in (*settled, *settled_since):
            self._claims.release(ask.root)
            self._deliver(ask.root, outcome, stored=True)
        return missing, elsewhere

    def _answered(self, asks: Sequence[Ask]) -> tuple[list[tuple[Ask, Verdict]], list[Ask]]:
        return answered(self._requests, self._shared.store, asks)

    # --- asking -----------------------------------------------------------------------------------------------------

    async def _pursue(self, ask: Ask) -> None:
        """Ask until a reply passes the checks, or as often as is allowed."""
        self._standing.in_flight += 1
        try:
            self._deliver(ask.root, await self._settled(ask))
        except RequestFailed as error:
            self._fail(ask, error)
        except (TeacherError, MissingDependencyError) as error:
            self._give_up(error)
        except _StoppedError:
            pass
        finally:
            self._standing.in_flight -= 1
            self._claims.release(ask.root)
            await self._places.__aexit__(None, None, None)

    async def _settled(self, ask: Ask) -> Verdict:
        refusals = 0
        while True:
            try:
                ask, reply = await self._reply(ask)
            except ParameterRefused as refused:
                refusals += 1
                if refusals > _MOST_REFUSALS:
                    raise TeacherError(
                        f"Teacher '{self.teacher.name}': whatever is sent is refused: {refused}"
                    ) from None
                await self._learn(refused)
            else:
                outcome = self._requests.verdict(ask.question, reply)
                if self._requests.saw(outcome):
                    await self._remember()
                again = self._requests.again(ask, outcome) if isinstance(outcome, Rejection) else None
                if again is None:
                    return outcome
                if self._stopped():
                    raise _StoppedError
                self._standing.resampled += 1
                ask = again
            settled, missing = self._answered([ask])  # another run may have asked that often, or in that way
            if settled:
                return settled[0][1]
            ask = missing[0]

    async def _learn(self, refused: ParameterRefused) -> None:
        """Ask in another way from now on. Who was refused for what others have learnt meanwhile only asks again."""
        known = self._requests.manners
        if refused.form == known.form and refused.manners in (None, known):
            self._shared.progress.learnt(self._requests.learn(refused))
            await self._remember()

    async def _remember(self) -> None:
        if self.teacher.stored:
            store, requests = self._shared.store, self._requests
            await asyncio.to_thread(store.remember, self.teacher.identity, requests.manners)

    async def _reply(self, ask: Ask) -> tuple[Ask, Reply]:
        """Ask for a reply, store it and pay for it; return it with the request in the form in which it was sent."""
        async with self._gate:
            if self._stopped():
                raise _StoppedError
            ask = self._requests.variants(ask)[-1]  # others may have learnt since it was made
            meter = _Meter(self._shared, self._stopped, ask, self.teacher.name, resumes=self._is_resumable)
            reply = await self._asked(ask, meter)
        if reply is None:
            raise RequestFailed("the teacher has nothing for this question")
        self._standing.replies += 1
        self._standing.prompt_tokens += reply.prompt_tokens or 0
        self._standing.completion_tokens += reply.completion_tokens or 0
        self._standing.thinking_tokens += reply.thinking_tokens or 0
        return ask, await meter.paid(reply)

    async def _asked(self, ask: Ask, meter: _Meter) -> Reply | None:
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
        return reply

    # --- what comes of it -------------------------------------------------------------------------------------------

    def _deliver(self, root: str, outcome: Verdict, *, stored: bool = False) -> None:
        standing = self._standing
        count = len(self._waiting.pop(root))
        standing.done += count
        standing.stored += count if stored else 0
        if isinstance(outcome, Rejection):
            standing.rejected += count
        else:
            standing.kept += count
        self._shared.progress.advance(standing)

    def _fail(self, ask: Ask, error: RequestFailed) -> None:
        self._shared.writer.note(
            Failure(ask.key, self.teacher.name, ask.question.id, error.reason, well_formed(str(error)))
        )
        count = len(self._waiting.pop(ask.root))
        self._standing.done += count
        self._standing.failed += count
        self._shared.progress.advance(self._standing)


class _Meter:
    """Accounts for the attempts of one request; see `teachers.base.Meter`.

    Args:
        stopped: tells whether nothing new may begin.
        resumes: an attempt may have been made by an earlier process.
    """

    def __init__(self, shared: _Shared, stopped: Callable[[], bool], ask: Ask, teacher: str, *, resumes: bool) -> None:
        self._shared = shared
        self._stopped = stopped
        self._ask = ask
        self._resumes = resumes
        self._teacher = teacher
        self._is_kept = shared.budget.is_kept_for(teacher)
        self._charge: int | None = None
        self.is_under_way = False

    @cached_property
    def _most(self) -> Charge:
        """The most that an attempt can cost; worked out where it is needed, since prompts may be long."""
        return self._shared.budget.most(self._teacher, self._ask.key, self._ask.request)

    async def begin(self) -> None:
        self.lost()
        if self._stopped():
            raise _StoppedError
        if self._is_kept:
            self._charge = await self._shared.budget.set_aside(self._most, self._shared.writer)
            if self._charge is None:
                self._shared.stop.wish("budget")
                raise _StoppedError
        self.is_under_way = True
        if self._stopped():
            self.free()
            raise _StoppedError

    def free(self) -> None:
        if self.is_under_way:
            if self._charge is not None:
                self._shared.writer.free(self._charge)
            self._ended(0.0, 0)
        elif self._resumes:
            self._shared.writer.free_resumed(self._shared.budget.run, self._ask.key)

    def lost(self, _words: str = "") -> None:
        if self.is_under_way:
            self._shared.writer.lose(Lost(self._most, self._charge))
            self._ended(self._most.usd, self._most.tokens)

    def leave(self) -> None:
        """The attempt goes on by itself, and its cost is known to whoever collects it; see `Bill.resumed`."""
        if self.is_under_way:
            self._ended(self._most.usd, self._most.tokens)

    async def paid(self, reply: Reply) -> Reply:
        """Store a reply with what it has cost; return it once both are durable."""
        resumed = self._resumes and not self.is_under_way
        bill = self._bill(reply, resumed=resumed)
        entry = self._ask.entry(self._teacher, reply)
        kept = await self._shared.writer.keep(entry, bill)
        self._ended(bill.usd, bill.prompt_tokens + bill.completion_tokens)
        return kept

    def _bill(self, reply: Reply, *, resumed: bool) -> Bill:
        """What a reply did cost. What the server does not tell is taken to be the most that it can be."""
        prompt = self._most.prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens
        said = self._most.completion_tokens if reply.completion_tokens is None else reply.completion_tokens
        key = self._ask.key if resumed else None
        return self._shared.budget.bill(self._teacher, prompt, said, reply.cached_tokens or 0, self._charge, key)

    def _ended(self, usd: float, tokens: int) -> None:
        budget = self._shared.budget
        if self._charge is None:
            budget.spend(usd, tokens)
        else:
            budget.settle(self._most, usd, tokens)
        self._charge, self.is_under_way = None, False
