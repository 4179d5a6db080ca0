"""Rationales that come with the questions, as a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tinyllm import config
from tinyllm.errors import TeacherError, did_you_mean
from tinyllm.questions import ById, Question
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request


class GivenTeacher:
    """Answers with what the questions carry under one key, and with None where they carry nothing."""

    stored = False
    local = False
    concurrency = 64  # nothing waits here; enough to keep the loop busy

    def __init__(self, spec: config.GivenTeacher, questions: Sequence[Question]) -> None:
        self.name = spec.name
        self._source = spec.source or spec.name
        self._questions = questions
        self._by_id = ById(questions)

    def check(self) -> None:
        """Raise `TeacherError` if no question carries a rationale under the key, and name the keys there are."""
        keys: set[str] = set()
        for question in self._questions:
            if self._source in question.rationales:
                return
            keys.update(question.rationales)
        known = ", ".join(sorted(keys)) or "none"
        raise TeacherError(
            f"Teacher '{self.name}': no question carries a rationale under '{self._source}'."
            f"{did_you_mean(self._source, sorted(keys))} Keys in the questions' `rationales`: {known}. "
            "Mend `source` or the data, or take this teacher out."
        )

    @property
    def identity(self) -> Mapping[str, str]:
        """What the rationales are: a key of the data."""
        return {"kind": "given", "source": self._source}

    def reply(self, question: Question) -> Reply | None:
        """Return the given rationale, its end unknown: the data does not say why its author stopped."""
        text = question.rationales.get(self._source, "")
        return Reply(text, "unknown") if text.strip() else None

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:  # noqa: ARG002 - it costs nothing
        """Return the rationale of the question with the request's id."""
        question = self._by_id.get(request.question_id)
        return self.reply(question) if question is not None else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
