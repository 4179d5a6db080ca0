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
from tinyllm.teachers.endpoint import Endpoint, Patience, public_url


class OpenAITeacher:
    """Asks a model over HTTP. The key is read from the environment when the teacher is entered."""

    stored = True
    local = False

    def __init__(self, spec: config.OpenAITeacher, *, patience: Patience | None = None) -> None:
        self._spec = spec
        self._patience = patience or Patience(attempts=spec.max_attempts, timeout_s=spec.timeout_s)
        self._endpoint: Endpoint | None = None
        self.name = spec.name
        self.concurrency = spec.concurrency
        self.form: Form = spec.form
        self.stop = spec.stop

    def __repr__(self) -> str:
        return f"OpenAITeacher({self.name!r}, model={self._spec.model!r})"

    def check(self) -> None:
        """Raise `TeacherError` if the key is not in the environment."""
        _key(self._spec)

    @property
    def identity(self) -> Mapping[str, str]:
        """Endpoint and model. What a server does with a model's name is its own affair, so its address counts."""
        return {"kind": "openai", "base_url": public_url(self._spec.base_url), "model": self._spec.model}

    async def ask(self, request: Request) -> Reply | None:
        """Return the model's reply; see `Endpoint.complete`."""
        assert self._endpoint is not None, "ask inside `async with`"  # noqa: S101
        return await self._endpoint.complete(request)

    async def __aenter__(self) -> Self:
        spec = self._spec
        endpoint = Endpoint(
            spec.name, spec.base_url, spec.model,
            form=spec.form, concurrency=spec.concurrency, patience=self._patience, key=_key(spec),
        )  # fmt: skip
        self._endpoint = await endpoint.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.__aexit__()


def _key(spec: config.OpenAITeacher) -> str | None:
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
