"""The base of all teachers behind an `Endpoint`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

from tinyllm import config
from tinyllm.config import Form
from tinyllm.teachers._http.endpoint import Endpoint
from tinyllm.teachers._http.envelope import envelope_of, identity_of
from tinyllm.teachers._http.limits import START
from tinyllm.teachers._http.look import look_at
from tinyllm.teachers._http.transport import Patience
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request
from tinyllm.teachers.manners import Manners


class EndpointTeacher(ABC):
    """Asks a model behind an endpoint, which is opened when the teacher is entered.

    Args:
        concurrency: requests in flight, until the endpoint is open.
    """

    stored = True
    local = True

    def __init__(self, spec: config.EndpointTeacher | config.LlamaCppTeacher, concurrency: int) -> None:
        self._concurrency = concurrency
        self._endpoint: Endpoint | None = None  # stays set after the teacher is left, because of its counts
        self.manners = Manners()
        self.name = spec.name
        self.form: Form = spec.form
        self.stop = spec.stop

    @abstractmethod
    def _make_endpoint(self) -> Endpoint:
        """Return the endpoint to open."""

    @property
    def concurrency(self) -> int:
        """Requests in flight at once: as configured, or as many as the endpoint can handle."""
        return self._concurrency if self._endpoint is None else self._endpoint.concurrency

    @property
    def faults(self) -> Mapping[str, int]:
        """How often each kind of failure occurred; see `Endpoint`."""
        return {} if self._endpoint is None else self._endpoint.faults

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply; see `Endpoint.complete`."""
        assert self._endpoint is not None, "ask inside `async with`"  # noqa: S101
        return await self._endpoint.complete(request, meter)

    async def __aenter__(self) -> Self:
        self._endpoint = await self._make_endpoint().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._endpoint is not None:
            await self._endpoint.__aexit__()


class RemoteTeacher(EndpointTeacher):
    """Asks a model on other machines. Keys are read from the environment when the teacher is entered.

    Args:
        replicas: number of servers that share the work.
    """

    local = False

    def __init__(self, spec: config.EndpointTeacher, patience: Patience | None, replicas: int = 1) -> None:
        super().__init__(spec, spec.concurrency or START * replicas)
        self._patience = patience or Patience.of(spec)


class HostedTeacher:
    """What `kind: openai` and `kind: openai-batch` have in common: the endpoint, the model and the key."""

    name: str
    _spec: config.OpenAITeacher | config.OpenAIBatchTeacher

    def check(self) -> None:
        """Raise `TeacherError` if an environment variable is missing, such as the API key."""
        envelope_of(self._spec)

    async def look(self) -> list[str]:
        """Return what each server answers; see `look_at`."""
        return await look_at(self.name, envelope_of(self._spec), self._spec.model)

    @property
    def identity(self) -> Mapping[str, str]:
        """Endpoint, model, and the user's own fields. Both kinds share stored replies; see `identity_of`."""
        return identity_of(self._spec)
