"""A teacher that follows a script: a template, or in tests a function that may fail or take its time."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

from tinyllm.config import Form
from tinyllm.questions import ById, Question
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request

Script = Callable[[Question, Request], str | Reply | Awaitable[str | Reply | None] | None]
"""Returns a text or a whole reply. It may be asynchronous, and may raise `RequestFailed` or `TeacherError`."""


class ScriptedTeacher:
    """Fills in a template (`{question}`, `{answer}`), or calls a function."""

    form: Form = "completion"
    stop: tuple[str, ...] = ()
    stored = True

    def __init__(
        self,
        name: str,
        questions: Sequence[Question],
        script: str | Script,
        *,
        concurrency: int = 16,
        local: bool = False,
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.local = local
        self._questions = ById(questions)
        self._script = script

    def check(self) -> None:
        """Check nothing: nothing can be missing."""

    @property
    def identity(self) -> Mapping[str, str]:
        """The template's checksum; a function has none."""
        if isinstance(self._script, str):
            return {"kind": "scripted", "template": hashlib.sha256(self._script.encode()).hexdigest()}
        return {"kind": "scripted", "name": self.name, "version": "1"}

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return what the script says about the question."""
        question = self._questions.get(request.question_id)
        if question is None:
            raise KeyError(request.question_id)
        await meter.begin()
        if isinstance(self._script, str):
            # In one pass, so that braces in the texts stay unchanged.
            values = {"question": question.question, "answer": question.answer_text}
            filled = re.sub(r"\{(question|answer)\}", lambda match: values[match[1]], self._script)
            said: str | Reply | None = filled
        else:
            result = self._script(question, request)
            said = await result if inspect.isawaitable(result) else result
        if isinstance(said, str):
            return Reply(said, "stop", len(request.prompt.text.split()), len(said.split()))
        return said

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None
