"""Shared by the tests of generation: questions, teachers that count, and one call that asks and collects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.config import RationalesSection
from tinyllm.errors import TinyLLMError
from tinyllm.prompts import ExampleGenerator
from tinyllm.questions import Question
from tinyllm.rationales.collect import Collection
from tinyllm.rationales.generate import Ended, Standing, Stop, generate
from tinyllm.rationales.requests import Requests
from tinyllm.rationales.types import Rationale, Rejection, TeacherYield
from tinyllm.replies._store import Store
from tinyllm.spending.budget import Budget
from tinyllm.teachers._scripted import ScriptedTeacher
from tinyllm.teachers.base import UNMETERED

SECTION = RationalesSection()
GOOD = "It is {answer}, because nothing else fits the question."
REASON = "It is right for a reason."


def questions(count: int) -> list[Question]:
    return [Question(f"q{n}", f"What is number {n}?", (f"one {n}", f"two {n}"), n % 2) for n in range(count)]


class Recorder:
    """Remembers what progress was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int, int, int]] = []
        self.standings: dict[str, Standing] = {}
        self.gone: list[tuple[str, TinyLLMError]] = []
        self.words: list[str] = []

    def advance(self, standing: Standing) -> None:
        self.standings[standing.teacher] = standing
        self.calls.append((standing.teacher, standing.done, standing.total, standing.kept, standing.rejected))

    def gave_up(self, teacher: str, error: TinyLLMError) -> None:
        self.gone.append((teacher, error))

    def learnt(self, words: str) -> None:
        self.words.append(words)


class Counting(ScriptedTeacher):
    """A scripted teacher that counts: asks, entries, and how many are in flight."""

    def __init__(self, name: str, asked: Sequence[Question], script: Any = GOOD, *, delay: float = 0.0, **other: Any):
        self.asked: list[str] = []
        self.samples: list[int] = []
        self.entered = 0
        self.most = 0
        self.now = 0
        self._delay = delay
        super().__init__(name, asked, script, **other)

    async def __aenter__(self):
        self.entered += 1
        return await super().__aenter__()

    async def ask(self, request, meter=UNMETERED):
        await meter.begin()
        self.asked.append(request.question_id)
        self.samples.append(request.sample)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self._delay)
            return await super().ask(request)
        finally:
            self.now -= 1


@dataclass(frozen=True)
class Made:
    """Everything that came of a run, in memory."""

    rationales: tuple[Rationale, ...]
    rejections: tuple[Rejection, ...]
    yields: dict[str, TeacherYield]
    ended: Ended


def requests_of(teachers: Sequence[Any], asked: Sequence[Question], section: RationalesSection) -> list[Requests]:
    examples = ExampleGenerator(asked, section.examples)
    return [Requests(teacher, asked, examples, section) for teacher in teachers]


async def ask(
    store: Store,
    asked: Sequence[Question],
    teachers: Sequence[Any],
    section: RationalesSection = SECTION,
    progress: Any = None,
    *,
    stop: Stop | None = None,
    budget: Budget | None = None,
    **other: Any,
) -> Ended:
    """Ask, as the pipeline does."""
    return await generate(
        requests_of(teachers, asked, section),
        store,
        progress or Recorder(),
        budget=budget or Budget(section.budget, {}),
        stop=stop or Stop(),
        **other,
    )


def collect(store: Store, asked: Sequence[Question], teachers: Sequence[Any], section: RationalesSection, ended: Ended):
    collection = Collection(requests_of(teachers, asked, section), store)
    outcomes = list(collection)
    return Made(
        tuple(o for o in outcomes if isinstance(o, Rationale)),
        tuple(o for o in outcomes if isinstance(o, Rejection)),
        collection.yields,
        ended,
    )


def run(path: Path, asked, teachers, section: RationalesSection = SECTION, progress: Any = None, **other: Any) -> Made:
    """Ask and collect; a teacher that gave up is raised, as the pipeline does at the end."""
    with Store(path) as store:
        ended = asyncio.run(ask(store, asked, teachers, section, progress, **other))
        if ended.errors:
            raise ended.errors[0]
        return collect(store, asked, teachers, section, ended)
