"""Models served on this machine by `vllm serve`, which is started, asked over a loopback address, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import aiohttp

from tinyllm import config
from tinyllm.config.vllm_arguments import without_speed
from tinyllm.errors import MissingDependencyError, TeacherError
from tinyllm.system.packaged import folder_checksum
from tinyllm.teachers._http.endpoint import Endpoint
from tinyllm.teachers._http.envelope import Envelope
from tinyllm.teachers._http.limits import START, Pace
from tinyllm.teachers._http.teacher import EndpointTeacher
from tinyllm.teachers._http.transport import Patience
from tinyllm.teachers._process import ServerProcess
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request, RequestFailed

_HOST = "127.0.0.1"
_LOOK_S = 0.2
_ENDING_S = 2.0

_CODE = "it would run code from a model or from a place that a configuration names"
_ADDRESS = f"the server must listen only on a free port of {_HOST}"
_KEY = (
    "every user of this machine can read a command line, and configurations are stored. Set a token of the hub in the "
    "environment (HF_TOKEN)"
)
_USER_IN_URL = re.compile(r"://[^/\s]*@")
_FIELD = "the teacher has a field for it"
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys((
        "trust-remote-code", "middleware", "tool-parser-plugin", "reasoning-parser-plugin", "io-processor-plugin",
        "logits-processors", "worker-cls", "worker-extension-cls", "scheduler-cls", "model-class-overrides",
    ), _CODE),
    **dict.fromkeys(("host", "port", "uds"), _ADDRESS),
    **dict.fromkeys(("api-key", "hf-token"), _KEY),
    **dict.fromkeys(("model", "revision", "dtype", "max-model-len", "served-model-name"), _FIELD),
    "config": "the options must be part of this configuration; write them into `arguments`",
}  # fmt: skip
_WHOLE = frozenset({"reasoning-parser"})  # valid options, although a refused one begins like this


class VllmTeacher(EndpointTeacher):
    """Serves a model while it is entered. The server never outlives this process, even after `kill -9`.

    Raises:
        TeacherError: `arguments` contain options for code, addresses or keys, which a configuration must not set.
    """

    def __init__(self, spec: config.VllmTeacher) -> None:
        _refuse(spec)
        super().__init__(spec, spec.concurrency or START)
        self._spec = spec
        self._weights = folder_checksum(Path(spec.model).expanduser())
        self._server: ServerProcess | None = None

    def check(self) -> None:
        """Raise `MissingDependencyError` if the command is missing. The model is checked when it is loaded."""
        _executable(self._spec)

    @property
    def identity(self) -> Mapping[str, str]:
        """Model (a folder's checksum), revision, dtype, and the arguments that can change a reply."""
        spec = self._spec
        how = {"kind": "vllm", "dtype": spec.dtype}
        if arguments := without_speed(spec.arguments):
            how["arguments"] = " ".join(arguments)
        if self._weights is not None:
            return {**how, "sha256": self._weights}
        return {**how, "model": spec.model, "revision": spec.revision or "main"}

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply. If the server has died, raise a `TeacherError` with the end of its log."""
        assert self._server is not None, "ask inside `async with`"  # noqa: S101
        try:
            return await super().ask(request, meter)
        except (TeacherError, RequestFailed) as failure:
            # The exit code is known only after the server's child processes have ended.
            code = await self._server.ended(_ENDING_S if isinstance(failure, TeacherError) else 0.0)
            if code is None:
                raise
            raise self._failed(f"ended with exit code {code} while it was asked") from None

    def _make_endpoint(self) -> Endpoint:
        spec = self._spec
        return Endpoint(
            spec.name, Envelope((f"http://{_HOST}:{self._port}/v1",)), spec.model, form=spec.form,
            concurrency=spec.concurrency, pace=Pace.of(spec), patience=Patience.of(spec), manners=lambda: self.manners,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        with socket.socket() as free:  # the server opens it seconds later; the system does not reuse ports that quickly
            free.bind((_HOST, 0))
            self._port = int(free.getsockname()[1])
        self._server = ServerProcess(_command(self._spec, self._port), _environment(), label="vllm")
        try:
            await self._healthy(f"http://{_HOST}:{self._port}/health")
        except BaseException as error:  # including cancellation
            await self._end(keep_log=isinstance(error, TeacherError))
            raise
        return await super().__aenter__()

    async def __aexit__(self, *_: object) -> None:
        try:
            await super().__aexit__()
        finally:
            await self._end(keep_log=self._server is not None and self._server.exit_code is not None)

    async def _healthy(self, url: str) -> None:
        """Wait until the server is healthy."""
        assert self._server is not None  # noqa: S101
        deadline = time.monotonic() + self._spec.start_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session:
            while (code := self._server.exit_code) is None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return
                if time.monotonic() > deadline:
                    raise self._failed(f"was not healthy after {self._spec.start_s:g} s (`start_s`)")
                await asyncio.sleep(_LOOK_S)
        raise self._failed(f"ended with exit code {code} before it was healthy")

    async def _end(self, *, keep_log: bool) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
            if not keep_log:
                server.forget()

    def _failed(self, what: str) -> TeacherError:
        assert self._server is not None  # noqa: S101
        return TeacherError(
            f"Teacher '{self.name}': `{self._spec.executable} serve {self._spec.model}` {what}. "
            f"The end of its log ({self._server.log}):\n{self._server.tail()}\n"
            "  To do: correct what the log says. The server gets `model`, `dtype`, `context_tokens` and `arguments`."
        )


def _refuse(spec: config.VllmTeacher) -> None:
    """Raise `TeacherError` for a forbidden argument, in any spelling that vLLM accepts."""
    if spec.model.startswith("-"):
        raise TeacherError(f"Teacher '{spec.name}': `model: {spec.model}` is no model but an option. Give a model.")
    for argument in spec.arguments:
        if _USER_IN_URL.search(argument):
            option = argument.partition("=")[0] if argument.startswith("-") else "an address"
            raise TeacherError(f"Teacher '{spec.name}': `arguments` must hold no user or password ({option}): {_KEY}.")
        if not argument.startswith("--"):
            continue
        given = argument[2:].partition("=")[0].partition(".")[0].replace("_", "-")
        for option, why in _REFUSED.items():
            # vLLM accepts `--trust-rem` for `--trust-remote-code`, like argparse.
            if given == option or (given and given not in _WHOLE and option.startswith(given)):
                raise TeacherError(f"Teacher '{spec.name}': `arguments` must not hold --{option}: {why}.")


def _executable(spec: config.VllmTeacher) -> str:
    """Return the path of the command, from PATH or from the folder of this Python."""
    name = str(Path(spec.executable).expanduser())
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise MissingDependencyError(
            f"Teacher '{spec.name}' of kind vllm needs the command '{spec.executable}', which was not found. Install "
            "it with: pip install 'tinyllm-distill[vllm]'. If vLLM has its own environment, set `executable` to the "
            "path of its command."
        )
    return found


def _command(spec: config.VllmTeacher, port: int) -> list[str]:
    folder = Path(spec.model).expanduser()
    return [
        _executable(spec), "serve", str(folder) if folder.is_dir() else spec.model,
        f"--host={_HOST}", f"--port={port}", f"--dtype={spec.dtype}", f"--served-model-name={spec.model}",
        "--load-format=safetensors", "--enable-prompt-tokens-details",
        *([f"--revision={spec.revision}"] if spec.revision else []),
        *([f"--max-model-len={spec.context_tokens}"] if spec.context_tokens else []),
        *spec.arguments,
    ]  # fmt: skip


def _environment() -> Mapping[str, str]:
    """Return this process's environment without API keys. With VLLM_API_KEY, the server would require that key."""
    passed = {name: value for name, value in os.environ.items() if not name.upper().endswith("API_KEY")}
    return {"VLLM_NO_USAGE_STATS": "1", **passed}  # no telemetry
