"""Models served on this machine by `vllm serve`: started when needed, asked over a loopback address, stopped again."""

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
from types import TracebackType
from typing import Self

import aiohttp

from tinyllm import config
from tinyllm.config import Form
from tinyllm.config.vllm_arguments import without_speed
from tinyllm.errors import MissingDependencyError, TeacherError
from tinyllm.system.packaged import folder_checksum
from tinyllm.teachers._http.endpoint import Endpoint, Patience
from tinyllm.teachers._http.envelope import Envelope
from tinyllm.teachers._http.limits import START, Limits
from tinyllm.teachers._http.teacher import AdaptingTeacher
from tinyllm.teachers._process import ServerProcess
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request, RequestFailed

_HOST = "127.0.0.1"
_LOOK_S = 0.2
_ENDING_S = 2.0

_CODE = "it would run code that comes with a model or is named in a configuration"
_ADDRESS = f"the server listens on a free port of {_HOST}, and nowhere else"
_KEY = "everyone on this machine can read a command line, and configurations are written down; a token of the hub is \
taken from the environment (HF_TOKEN)"
_USER_IN_URL = re.compile(r"://[^/\s]*@")
_FIELD = "the teacher has a field for that"
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys((
        "trust-remote-code", "middleware", "tool-parser-plugin", "reasoning-parser-plugin", "io-processor-plugin",
        "logits-processors", "worker-cls", "worker-extension-cls", "scheduler-cls", "model-class-overrides",
    ), _CODE),
    **dict.fromkeys(("host", "port", "uds"), _ADDRESS),
    **dict.fromkeys(("api-key", "hf-token"), _KEY),
    **dict.fromkeys(("model", "revision", "dtype", "max-model-len", "served-model-name"), _FIELD),
    "config": "what stands in another file is not part of this configuration; write its options into `arguments`",
}  # fmt: skip
_WHOLE = frozenset({"reasoning-parser"})  # options of their own, although a refused one begins like that


class VllmTeacher(AdaptingTeacher):
    """Serves a model from the moment it is entered until it is left; nothing is left running, even by `kill -9`.

    Raises:
        TeacherError: `arguments` open a door: code, addresses or keys that are not to be in a configuration.
    """

    stored = True
    local = True

    def __init__(self, spec: config.VllmTeacher) -> None:
        _refuse(spec)
        self._spec = spec
        self._weights = folder_checksum(Path(spec.model).expanduser())
        self._server: ServerProcess | None = None
        self.name = spec.name
        self.form: Form = spec.form
        self.stop = spec.stop

    def check(self) -> None:
        """Raise `MissingDependencyError` if the executable is not there; the model is looked for when it is loaded."""
        _executable(self._spec)

    @property
    def identity(self) -> Mapping[str, str]:
        """Model (of a folder the checksum), revision, type of weights, and the arguments that can change a reply."""
        spec = self._spec
        how = {"kind": "vllm", "dtype": spec.dtype}
        if arguments := without_speed(spec.arguments):
            how["arguments"] = " ".join(arguments)
        if self._weights is not None:
            return {**how, "sha256": self._weights}
        return {**how, "model": spec.model, "revision": spec.revision or "main"}

    @property
    def concurrency(self) -> int:
        """Requests in flight at once: as configured, else what the server is found to bear."""
        return self._spec.concurrency or (START if self._endpoint is None else self._endpoint.concurrency)

    @property
    def faults(self) -> Mapping[str, int]:
        """How often which failure was met since the teacher was entered; see `Endpoint`."""
        return {} if self._endpoint is None else self._endpoint.faults

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply; see `Endpoint.complete`. A server that has died is `TeacherError`, with its log."""
        assert self._endpoint is not None, "ask inside `async with`"  # noqa: S101
        assert self._server is not None  # noqa: S101
        try:
            return await self._endpoint.complete(request, meter)
        except (TeacherError, RequestFailed) as failure:
            # What a dead server started is ended first; only then is its exit code known.
            code = await self._server.ended(_ENDING_S if isinstance(failure, TeacherError) else 0.0)
            if code is None:
                raise
            raise self._failed(f"ended with exit code {code} while it was asked") from None

    async def __aenter__(self) -> Self:
        spec = self._spec
        port = _free_port()
        self._server = ServerProcess(_command(spec, port), _environment(), label="vllm")
        try:
            await self._healthy(f"http://{_HOST}:{port}/health")
        except BaseException as error:  # cancelled, too
            await self._end(keep_log=isinstance(error, TeacherError))
            raise
        endpoint = Endpoint(
            spec.name, Envelope((f"http://{_HOST}:{port}/v1",)), spec.model, form=spec.form,
            concurrency=spec.concurrency, limits=Limits.of(spec), patience=Patience.of(spec), manners=self._manners,
        )  # fmt: skip
        self._endpoint = await endpoint.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._endpoint is not None:
                await self._endpoint.__aexit__()
        finally:
            await self._end(keep_log=self._server is not None and self._server.exit_code is not None)

    async def _healthy(self, url: str) -> None:
        """Wait until the server says that it is well, or it is told that it never will."""
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
            "  To do: mend what it says there; `model`, `dtype`, `context_tokens` and `arguments` are handed to it."
        )


def _refuse(spec: config.VllmTeacher) -> None:
    """Raise `TeacherError` for an argument that opens a door, in any of the spellings that vLLM takes."""
    if spec.model.startswith("-"):
        raise TeacherError(f"Teacher '{spec.name}': `model: {spec.model}` is no model but an option.")
    for argument in spec.arguments:
        if _USER_IN_URL.search(argument):
            option = argument.partition("=")[0] if argument.startswith("-") else "an address"
            raise TeacherError(f"Teacher '{spec.name}': `arguments` must hold no user or password ({option}): {_KEY}.")
        if not argument.startswith("--"):
            continue
        given = argument[2:].partition("=")[0].partition(".")[0].replace("_", "-")
        for option, why in _REFUSED.items():
            # vLLM takes `--trust-rem` for `--trust-remote-code`, as argparse does.
            if given == option or (given and given not in _WHOLE and option.startswith(given)):
                raise TeacherError(f"Teacher '{spec.name}': `arguments` must not hold --{option}: {why}.")


def _executable(spec: config.VllmTeacher) -> str:
    """Return the path of the command: from the search path, else from beside this Python."""
    name = str(Path(spec.executable).expanduser())
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise MissingDependencyError(
            f"Teacher '{spec.name}' of kind vllm needs the command '{spec.executable}', which is not there. Install it "
            "with: pip install 'tinyllm-distill[vllm]'; where vLLM has an environment of its own, give the path of its "
            "command in `executable`."
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
    """This process's environment without other services' keys; VLLM_API_KEY would even be asked of us."""
    passed = {name: value for name, value in os.environ.items() if not name.upper().endswith("API_KEY")}
    return {"VLLM_NO_USAGE_STATS": "1", **passed}  # it reports to its makers unless told otherwise


def _free_port() -> int:
    """Return a port that is free now. The server takes it seconds later; nothing hands ports out twice so soon."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
