"""Rationales that come with the questions, as a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from tinyllm import config
from tinyllm.errors import TeacherError, did_you_mean
from tinyllm.questions import ById, Question
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request


class GivenTeacher:
    """Returns the rationale that a question has under one key; None if it has none."""

    stored = False
    local = False
    concurrency = 64  # it never waits, so any number is enough

    def __init__(self, spec: config.GivenTeacher, questions: Sequence[Question]) -> None:
        self.name = spec.name
        self._source = spec.source or spec.name
        self._questions = questions
        self._by_id = ById(questions)

    def check(self) -> None:
        """Raise `TeacherError` if no question has a rationale under the key; list the keys that exist."""
        if any(self._source in question.rationales for question in self._questions):
            return
        keys = sorted({key for question in self._questions for key in question.rationales})
        raise TeacherError(
            f"Teacher '{self.name}': no question carries a rationale under '{self._source}'."
            f"{did_you_mean(self._source, keys)} Keys in the questions' `rationales`: {', '.join(keys) or 'none'}. "
            "Correct `source` or the data, or remove this teacher.",
            page="questions.md#your-own-rationales-and-opinions",
        )

    @property
    def identity(self) -> Mapping[str, str]:
        """The key in the data."""
        return {"kind": "given", "source": self._source}

    def reply(self, question: Question) -> Reply | None:
        """Return the question's rationale. Its finish reason is unknown."""
        text = question.rationales.get(self._source, "")
        return Reply(text, "unknown") if text.strip() else None

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:  # noqa: ARG002 - it costs nothing
        """Return the rationale of the request's question."""
        question = self._by_id.get(request.question_id)
        return self.reply(question) if question is not None else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None
