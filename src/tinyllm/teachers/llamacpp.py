"""GGUF models served in this process by llama.cpp, and asked over a loopback address like any endpoint."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tinyllm import config, packaged
from tinyllm.config import Form
from tinyllm.errors import MissingDependencyError, TeacherError, did_you_mean
from tinyllm.teachers.base import Reply, Request
from tinyllm.teachers.http.endpoint import Endpoint, Patience

_PATIENCE = Patience(attempts=3, timeout_s=3600.0)  # a slow machine is no failure


class LlamaCppTeacher:
    """Serves a GGUF file, named or packaged, from the moment it is entered until it is left.

    Raises:
        TeacherError: no such file, or not a GGUF file.
        MissingDependencyError: the packaged model's wheels are not installed.
    """

    stored = True
    local = True

    def __init__(self, spec: config.LlamaCppTeacher) -> None:
        self._spec = spec
        self._file = _find(spec)
        self._sha256 = packaged.file_checksum(self._file)
        self._server: Any = None
        self._endpoint: Endpoint | None = None
        self.name = spec.name
        self.concurrency = spec.slots or 16
        self.form: Form = spec.form
        self.stop = spec.stop

    def check(self) -> None:
        """Raise `MissingDependencyError` if xllamacpp is not installed; the file was looked for already."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise _missing(self.name)

    @property
    def identity(self) -> Mapping[str, str]:
        """The file's name and checksum. Slots, threads and layers on the GPU are matters of speed."""
        model = self._spec.model if packaged.is_packaged(self._spec.model) else self._file.name
        return {"kind": "llamacpp", "model": model, "sha256": self._sha256}

    async def ask(self, request: Request) -> Reply | None:
        """Return the model's reply; a prompt that does not fit a slot is `RequestFailed`."""
        assert self._endpoint is not None, "ask inside `async with`"  # noqa: S101
        return await self._endpoint.complete(request)

    async def __aenter__(self) -> Self:
        # Loading takes seconds to minutes; in a thread, so that others are served meanwhile.
        self._server = await asyncio.to_thread(_serve, self._spec, self._file)
        endpoint = Endpoint(
            self.name, f"{self._server.listening_address}/v1", self._spec.model,
            form=self.form, concurrency=self.concurrency, patience=_PATIENCE, key=None,
        )  # fmt: skip
        self._endpoint = await endpoint.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.__aexit__()
        held, self._server = [self._server], None
        await asyncio.to_thread(held.clear)  # dropping the last reference stops the server, and waits for it


def _find(spec: config.LlamaCppTeacher) -> Path:
    if packaged.is_packaged(spec.model):
        return packaged.model_file(spec.model)
    file = Path(spec.model).expanduser()
    known = packaged.known_models()
    if not file.is_file():
        raise TeacherError(
            f"Teacher '{spec.name}': no model '{spec.model}'.{did_you_mean(spec.model, known)} "
            f"Give the path of a .gguf file, or one of: {', '.join(known)}."
        )
    with file.open("rb") as head:
        if head.read(4) != b"GGUF":
            raise TeacherError(f"Teacher '{spec.name}': {file} is not a GGUF file; llama.cpp reads nothing else.")
    return file


def _missing(name: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"Teacher '{name}' of kind llamacpp needs xllamacpp. Install it with: pip install 'tinyllm-distill[llamacpp]'"
    )


def _serve(spec: config.LlamaCppTeacher, file: Path) -> Any:
    try:
        import xllamacpp
    except ImportError:
        raise _missing(spec.name) from None
    threads = spec.threads or os.cpu_count() or 1
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel = spec.slots or 16
    params.n_ctx = (spec.slots or 16) * spec.context_tokens
    params.n_gpu_layers = spec.gpu_layers
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free one
    params.ui = False
    params.warmup = False
    params.verbosity = -1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise TeacherError(
            f"Teacher '{spec.name}': llama.cpp cannot serve {file}: {error}\n  To do: check that the file is whole, "
            f"or lower `slots` ({spec.slots}) or `context_tokens` ({spec.context_tokens}) if memory is short."
        ) from None
