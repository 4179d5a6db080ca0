"""What all teachers behind one `Endpoint` share: it is opened and closed with them, and told how to ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tinyllm import config
from tinyllm.config import Form
from tinyllm.teachers._http.endpoint import Endpoint, Patience
from tinyllm.teachers._http.limits import START
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request
from tinyllm.teachers.manners import Manners


class AdaptingTeacher:
    """A teacher with an `Endpoint`, which is told how to ask also while it is open."""

    _endpoint: Endpoint | None = None  # kept when it is left: its counts are asked for afterwards
    _manners = Manners()

    @property
    def manners(self) -> Manners:
        """How the endpoint is asked."""
        return self._manners

    @manners.setter
    def manners(self, manners: Manners) -> None:
        self._manners = manners
        if self._endpoint is not None:
            self._endpoint.manners = manners


class RemoteTeacher(AdaptingTeacher, ABC):
    """Asks a model behind an endpoint. Keys are read from the environment when the teacher is entered.

    Args:
        replicas: servers that share the work.
    """

    stored = True
    local = False

    def __init__(self, spec: config.EndpointTeacher, patience: Patience | None, replicas: int = 1) -> None:
        self._patience = patience or Patience.of(spec)
        self._concurrency = spec.concurrency or START * replicas
        self.name = spec.name
        self.form: Form = spec.form
        self.stop = spec.stop

    @abstractmethod
    def _make_endpoint(self) -> Endpoint:
        """Return what is opened when the teacher is entered; the environment is read here."""

    @property
    def concurrency(self) -> int:
        """Requests in flight at once: as configured, else what the endpoint is found to bear."""
        return self._concurrency if self._endpoint is None else self._endpoint.concurrency

    @property
    def faults(self) -> Mapping[str, int]:
        """How often which failure was met since the teacher was entered; see `Endpoint`."""
        return {} if self._endpoint is None else self._endpoint.faults

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply; see `Endpoint.complete`."""
        assert self._endpoint is not None, "ask inside `async with`"  # noqa: S101
        return await self._endpoint.complete(request, meter)

    async def __aenter__(self) -> Self:
        self._endpoint = await self._make_endpoint().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._endpoint is not None:
            await self._endpoint.__aexit__()
