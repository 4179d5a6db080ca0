"""The generation loop: every question to every teacher, each reply stored before it counts, nothing asked twice.

What is in flight is bounded by the teacher's concurrency, whatever the number of questions. Replies are committed
in groups: those that gather while one commit runs go into the next, so durability costs little.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tinyllm.config import RationalesSection
from tinyllm.errors import TeacherError, TinyLLMError
from tinyllm.prompts import ExampleGenerator, Prompt, teacher_prompt
from tinyllm.questions import Question
from tinyllm.rationales.checks import to_rationale, well_formed
from tinyllm.rationales.store import Entry, Store, reply_key
from tinyllm.rationales.types import Rationale, Rejection, TeacherYield
from tinyllm.teachers import Prompted, Teacher
from tinyllm.teachers.base import Reply, Request, RequestFailed, Sampling

FAILED = "failed"
"""Reason of a rejection that is no check: the request got no reply."""

_CHUNK = 256  # questions whose prompts are made, and looked up in the store, at a time


class Progress(Protocol):
    """Hears of every question that is done with, at once and in the event loop's thread."""

    def advance(self, teacher: str, done: int, total: int, kept: int, rejected: int) -> None:
        """Of a teacher's `total` questions `done` are done: `kept` and `rejected` ones, and ones it has nothing for."""
        ...


@dataclass(frozen=True, slots=True)
class Generated:
    """What the teachers gave, by question and then by teacher, in the order they were given in.

    Attributes:
        yields: by the teacher's name.
    """

    rationales: tuple[Rationale, ...]
    rejections: tuple[Rejection, ...]
    yields: dict[str, TeacherYield]


async def generate(
    questions: Sequence[Question],
    pool: Sequence[Question],
    teachers: Sequence[Teacher],
    section: RationalesSection,
    store: Store,
    progress: Progress,
) -> Generated:
    """Get a rationale for every question from every teacher, from the store where it is there.

    Remote teachers are asked side by side, local ones one after the other; a teacher whose replies are all stored
    is not even started. Cancelled, it keeps every reply that has come.

    Args:
        questions: those to explain.
        pool: the training split, for the in-context examples.

    Raises:
        TeacherError: a teacher can answer nothing more. What was in flight, of all teachers, is stored by then.
        RunFolderError: the store cannot be used.
        OSError: the disk is full; what was stored before is kept.
    """
    examples = ExampleGenerator(pool, section.examples)
    halt = _Halt()
    async with _Writer.opened(store) as writer:
        tasks = {t.name: _Task(t, questions, examples, section, store, writer, halt, progress) for t in teachers}
        try:
            async with asyncio.TaskGroup() as group:
                for teacher in teachers:
                    if not teacher.local:
                        group.create_task(tasks[teacher.name].run())
                group.create_task(_one_after_the_other([tasks[t.name] for t in teachers if t.local]))
        except BaseExceptionGroup as several:
            raise _first(several) from None
    if halt.error is not None:
        raise halt.error
    return _collect(questions, [tasks[t.name] for t in teachers])


async def _one_after_the_other(tasks: Sequence[_Task]) -> None:
    for task in tasks:
        await task.run()


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of several errors: a full disk fails every request in flight, and one message is enough."""
    first = several.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _collect(questions: Sequence[Question], tasks: Sequence[_Task]) -> Generated:
    outcomes = [task.outcomes[i] for i in range(len(questions)) for task in tasks]
    return Generated(
        tuple(o for o in outcomes if isinstance(o, Rationale)),
        tuple(o for o in outcomes if isinstance(o, Rejection)),
        {task.teacher.name: task.result() for task in tasks},
    )


# --- one teacher --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Halt:
    """Set by the first teacher that can answer nothing more; nobody begins anything new after that."""

    error: TinyLLMError | None = None

    def stop(self, error: TinyLLMError) -> None:
        """Remember why; the first reason counts."""
        self.error = self.error or error

    def stopped(self) -> bool:
        """Tell whether to begin nothing new."""
        return self.error is not None


class _Task:
    """One teacher's way through the questions."""

    def __init__(
        self,
        teacher: Teacher,
        questions: Sequence[Question],
        examples: ExampleGenerator,
        section: RationalesSection,
        store: Store,
        writer: _Writer,
        halt: _Halt,
        progress: Progress,
    ) -> None:
        self.teacher = teacher
        self.outcomes: list[Rationale | Rejection | None] = [None] * len(questions)
        self._questions = questions
        self._examples = examples
        self._section = section
        self._store = store
        self._writer = writer
        self._halt = halt
        self._progress = progress
        self._identity = teacher.identity
        self._done = 0
        self._kinds: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._repaired: Counter[str] = Counter()
        self._prompt_tokens = 0
        self._completion_tokens = 0
        # Places of the questions that wait for a key's reply: the same prompt twice is asked once.
        self._waiting: dict[str, list[int]] = {}
        self._asking = asyncio.Semaphore(teacher.concurrency)
        # Those whose replies are being committed need no place at the teacher, but they too must be bounded.
        self._in_flight = asyncio.Semaphore(2 * teacher.concurrency + _CHUNK)
        self._started = False

    async def run(self) -> None:
        """Ask for everything that the store does not hold."""
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for start in range(0, len(self._questions), _CHUNK):
                if self._halt.stopped():
                    return
                for place, request, key in await self._missing(start):
                    if not await self._start(stack):
                        return
                    await self._in_flight.acquire()
                    if self._halt.stopped():
                        return
                    group.create_task(self._ask(place, request, key))

    def result(self) -> TeacherYield:
        """What the teacher gave."""
        return TeacherYield(
            rationales=self._kinds["kept"],
            missing=self._kinds["missing"],
            rejected=dict(sorted(self._rejected.items())),
            repaired=dict(sorted(self._repaired.items())),
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
        )

    async def _missing(self, start: int) -> list[tuple[int, Request, str | None]]:
        """Return the requests of one chunk that must be asked; deliver the replies that are stored."""
        places = range(start, min(start + _CHUNK, len(self._questions)))
        if not self.teacher.stored:
            return [(place, self._request(self._questions[place]), None) for place in places]
        made = await asyncio.to_thread(self._requests, places)
        first = [(place, request, key) for place, request, key in made if self._is_first(key, place)]
        found = await asyncio.to_thread(self._store.get_many, [key for _, _, key in first])
        for key, reply in found.items():
            self._deliver_all(key, reply)
        return [(place, request, key) for place, request, key in first if key not in found]

    def _is_first(self, key: str, place: int) -> bool:
        """Join those who wait for a key's reply; True for the first, who has to look for it."""
        waiting = self._waiting.setdefault(key, [])
        waiting.append(place)
        return len(waiting) == 1

    async def _start(self, stack: contextlib.AsyncExitStack) -> bool:
        """Start the teacher when it is needed for the first time; False if it cannot be started."""
        if not self._started:
            self._started = True
            try:
                await stack.enter_async_context(self.teacher)
            except TinyLLMError as error:
                self._halt.stop(error)
                return False
        return True

    async def _ask(self, place: int, request: Request, key: str | None) -> None:
        try:
            async with self._asking:
                if self._halt.stopped():
                    return
                reply = await self.teacher.ask(request)
            if key is None:
                self._deliver(place, reply)
            elif reply is None:
                self._deliver_all(key, None)
            else:
                entry = Entry(self.teacher.name, self._identity, request, reply)
                self._deliver_all(key, await self._writer.keep(entry))
        except RequestFailed as error:
            self._fail(place, key, str(error))
        except TeacherError as error:
            self._halt.stop(error)
        finally:
            self._in_flight.release()

    # --- what is asked ------------------------------------------------------------------------------------------

    def _requests(self, places: Sequence[int]) -> list[tuple[int, Request, str]]:
        requests = [(place, self._request(self._questions[place])) for place in places]
        return [(place, request, reply_key(self._identity, request)) for place, request in requests]

    def _request(self, question: Question) -> Request:
        section = self._section
        form = self.teacher.form if isinstance(self.teacher, Prompted) else None
        stop = self.teacher.stop if isinstance(self.teacher, Prompted) and form == "completion" else ()
        sampling = Sampling(section.max_tokens, section.temperature, section.top_p, section.seed, stop)
        if form is None:
            return Request(question.id, Prompt(), sampling)
        prompt = teacher_prompt(
            question,
            self._examples.pick(question),
            form=form,
            teacher_forcing=section.teacher_forcing,
            worked=self._examples.worked,
        )
        return Request(question.id, prompt, sampling)

    # --- what comes of it ---------------------------------------------------------------------------------------

    def _deliver_all(self, key: str, reply: Reply | None) -> None:
        if reply is not None:  # paid for once, however many questions share it
            self._prompt_tokens += reply.prompt_tokens or 0
            self._completion_tokens += reply.completion_tokens or 0
        for place in self._waiting.pop(key):
            self._deliver(place, reply)

    def _deliver(self, place: int, reply: Reply | None) -> None:
        if reply is None:
            self._count(place, None)
            return
        section, name = self._section, self.teacher.name
        self._count(
            place,
            to_rationale(self._questions[place], name, reply, checks=section.checks, repair=section.repair),
        )

    def _fail(self, place: int, key: str | None, words: str) -> None:
        for waiting in [place] if key is None else self._waiting.pop(key):
            question = self._questions[waiting]
            self._count(waiting, Rejection(question.id, self.teacher.name, FAILED, well_formed(words)))

    def _count(self, place: int, outcome: Rationale | Rejection | None) -> None:
        self.outcomes[place] = outcome
        self._done += 1
        if isinstance(outcome, Rationale):
            self._kinds["kept"] += 1
            self._repaired.update(outcome.repaired)
        elif isinstance(outcome, Rejection):
            self._rejected[outcome.reason] += 1
        else:
            self._kinds["missing"] += 1
        total, rejected = len(self._questions), self._rejected.total()
        self._progress.advance(self.teacher.name, self._done, total, self._kinds["kept"], rejected)


# --- the store's writer -------------------------------------------------------------------------------------------


@dataclass
class _Writer:
    """Commits replies in groups, in a thread, and lets each waiter go only when its reply is on the disk."""

    store: Store
    _waiting: list[tuple[Entry, asyncio.Future[Reply]]] = field(default_factory=list)
    _flushing: asyncio.Task[None] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, store: Store) -> AsyncIterator[_Writer]:
        """Make a writer; at the end everything it was given is committed, also when its users were cancelled."""
        writer = cls(store)
        try:
            yield writer
        finally:
            if writer._flushing is not None:
                await asyncio.shield(writer._flushing)

    async def keep(self, entry: Entry) -> Reply:
        """Return the stored reply once it is durable. Whoever stops waiting has it stored all the same."""
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return await done

    async def _flush(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                kept = await asyncio.to_thread(self.store.put_many, [entry for entry, _ in group])
            except Exception as error:  # noqa: BLE001 - raised again in everyone who waits
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), reply in zip(group, kept, strict=True):
                if not done.done():
                    done.set_result(reply)
