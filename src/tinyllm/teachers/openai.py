"""Models behind an OpenAI-compatible endpoint: hosted ones, vLLM, llama.cpp, Ollama."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tinyllm import config
from tinyllm.config import Form
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request
from tinyllm.teachers.http.endpoint import Endpoint, Patience
from tinyllm.teachers.http.envelope import envelope_of, identity_of
from tinyllm.teachers.http.limits import START, Limits
from tinyllm.teachers.manners import Manners


class OpenAITeacher:
    """Asks a model over HTTP. The key is read from the environment when the teacher is entered."""

    stored = True
    local = False

    def __init__(self, spec: config.OpenAITeacher, *, patience: Patience | None = None) -> None:
        self._spec = spec
        self._patience = patience or Patience.of(spec)
        self._manners = Manners()
        self._endpoint: Endpoint | None = None  # kept when it is left: its counts are asked for afterwards
        self.name = spec.name
        self.form: Form = spec.form
        self.stop = spec.stop

    def __repr__(self) -> str:
        return f"OpenAITeacher({self.name!r}, model={self._spec.model!r})"

    def check(self) -> None:
        """Raise `TeacherError` if the key, or another variable that is named, is not in the environment."""
        envelope_of(self._spec)

    @property
    def identity(self) -> Mapping[str, str]:
        """Endpoint, model, and what else a person sends; see `identity_of`."""
        return identity_of(self._spec)

    @property
    def manners(self) -> Manners:
        """How the endpoint is asked."""
        return self._manners

    @manners.setter
    def manners(self, manners: Manners) -> None:
        self._manners = manners
        if self._endpoint is not None:
            self._endpoint.manners = manners

    @property
    def concurrency(self) -> int:
        """Requests in flight at once: as configured, else what the endpoint is found to bear."""
        if self._endpoint is not None:
            return self._endpoint.concurrency
        return self._spec.concurrency or START * len(self._spec.base_url)

    @property
    def faults(self) -> Mapping[str, int]:
        """How often which failure was met since the teacher was entered; see `Endpoint`."""
        return {} if self._endpoint is None else self._endpoint.faults

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply; see `Endpoint.complete`."""
        assert self._endpoint is not None, "ask inside `async with`"  # noqa: S101
        return await self._endpoint.complete(request, meter)

    async def __aenter__(self) -> Self:
        spec = self._spec
        endpoint = Endpoint(
            spec.name, envelope_of(spec), spec.model, form=spec.form, concurrency=spec.concurrency,
            limits=Limits.of(spec), patience=self._patience, manners=self._manners,
        )  # fmt: skip
        self._endpoint = await endpoint.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._endpoint is not None:
            await self._endpoint.__aexit__()
