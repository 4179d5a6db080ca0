"""Models behind an OpenAI-compatible endpoint: hosted ones, vLLM, llama.cpp, Ollama."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tinyllm import config
from tinyllm.config import Form
from tinyllm.errors import TeacherError
from tinyllm.teachers.base import Reply, Request
from tinyllm.teachers.http.endpoint import Endpoint, Patience, public_url
from tinyllm.teachers.http.limits import START, Limits


class OpenAITeacher:
    """Asks a model over HTTP. The key is read from the environment when the teacher is entered."""

    stored = True
    local = False

    def __init__(self, spec: config.OpenAITeacher, *, patience: Patience | None = None) -> None:
        self._spec = spec
        self._patience = patience or Patience.of(spec)
        self._endpoint: Endpoint | None = None  # kept when it is left: its counts are asked for afterwards
        self.name = spec.name
        self.form: Form = spec.form
        self.stop = spec.stop

    def __repr__(self) -> str:
        return f"OpenAITeacher({self.name!r}, model={self._spec.model!r})"

    def check(self) -> None:
        """Raise `TeacherError` if the key is not in the environment."""
        api_key(self._spec)

    @property
    def identity(self) -> Mapping[str, str]:
        """Endpoint and model. What a server does with a model's name is its own affair, so its address counts.

        Of several replicas the first names the service: they serve the same model, and may come and go.
        """
        return {"kind": "openai", "base_url": public_url(self._spec.base_url[0]), "model": self._spec.model}

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

    async def ask(self, request: Request) -> Reply | None:
        """Return the model's reply; see `Endpoint.complete`."""
        assert self._endpoint is not None, "ask inside `async with`"  # noqa: S101
        return await self._endpoint.complete(request)

    async def __aenter__(self) -> Self:
        spec = self._spec
        endpoint = Endpoint(
            spec.name, spec.base_url, spec.model, form=spec.form, concurrency=spec.concurrency,
            limits=Limits.of(spec), patience=self._patience, key=api_key(spec),
        )  # fmt: skip
        self._endpoint = await endpoint.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._endpoint is not None:
            await self._endpoint.__aexit__()


def api_key(spec: config.OpenAITeacher | config.OpenAIBatchTeacher) -> str | None:
    """Return the key that the environment holds, or None if the endpoint asks for none.

    Raises:
        TeacherError: there is none in it, or something else.
    """
    if spec.api_key_env is None:
        return None
    key = os.environ.get(spec.api_key_env, "").strip()
    if not key:
        raise TeacherError(
            f"Teacher '{spec.name}' needs a key and the environment variable {spec.api_key_env} holds none. "
            f"Set it (export {spec.api_key_env}=…), or write `api_key_env: null` if the endpoint asks for no key."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise TeacherError(
            f"Teacher '{spec.name}': the environment variable {spec.api_key_env} holds something that is no key: "
            "there are spaces, or characters other than printable ASCII, in it."
        )
    return key
