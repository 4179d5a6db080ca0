"""GGUF models served in this process by llama.cpp, and asked over a loopback address like any endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tinyllm import config
from tinyllm.config import Form
from tinyllm.errors import MissingDependencyError, TeacherError, did_you_mean
from tinyllm.system import packaged
from tinyllm.system.machine import spin_shortly
from tinyllm.teachers._gguf_header import cache_bytes_per_token
from tinyllm.teachers._http.endpoint import Endpoint, Patience
from tinyllm.teachers._http.envelope import Envelope
from tinyllm.teachers._http.teacher import AdaptingTeacher
from tinyllm.teachers.base import UNMETERED, Meter, Reply, Request

_PATIENCE = Patience(attempts=3, timeout_s=3600.0, stall_s=3600.0)  # a slow machine is no failure
_FEWEST_SLOTS, _MOST_SLOTS = 4, 16
_IN_RESERVE = 2  # requests that wait at the server, so that a slot that is done begins the next at once
_MEMORY_SHARE = 0.5  # of the memory that is free, for what the slots hold


class LlamaCppTeacher(AdaptingTeacher):
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
        self._slots = spec.slots or _slots(spec, self._file)
        self._server: Any = None
        self.name = spec.name
        self.concurrency = self._slots + _IN_RESERVE
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

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the model's reply; a prompt that does not fit a slot is `RequestFailed`."""
        assert self._endpoint is not None, "ask inside `async with`"  # noqa: S101
        return await self._endpoint.complete(request, meter)

    @property
    def url(self) -> str:
        """Where the model is served, up to and with /v1, while it is."""
        return f"{self._server.listening_address}/v1"

    async def tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the lengths of texts in the model's tokens, while it is served."""
        lengths = []
        async with aiohttp.ClientSession(f"{self._server.listening_address}/") as session:
            for text in texts:
                async with session.post("tokenize", json={"content": text, "add_special": True}) as answer:
                    lengths.append(len((await answer.json())["tokens"]))
        return lengths

    async def __aenter__(self) -> Self:
        # Loading takes seconds to minutes; in a thread, so that others are served meanwhile.
        self._server = await asyncio.to_thread(_serve, self._spec, self._file, self._slots)
        endpoint = Endpoint(
            self.name, Envelope((self.url,)), self._spec.model,
            form=self.form, concurrency=self.concurrency, patience=_PATIENCE, manners=self._manners,
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


def _serve(spec: config.LlamaCppTeacher, file: Path, slots: int) -> Any:
    xllamacpp = _xllamacpp(spec.name)
    threads = spec.threads or _cores()
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel = slots
    params.n_ctx = slots * spec.context_tokens
    params.n_gpu_layers = spec.gpu_layers
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.swa_full = True  # without it, models with a sliding window find nothing that prompts share
    params.cache_ram_mib = 0  # each slot keeps its last prompt; copies of older ones take up to 8 GiB, and gain nothing
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
            f"or lower `slots` ({slots}) or `context_tokens` ({spec.context_tokens}) if memory is short."
        ) from None


def _xllamacpp(name: str) -> Any:
    spin_shortly()  # no effect where torch has loaded the library already; the command line does it before
    try:
        import xllamacpp
    except ImportError:
        raise _missing(name) from None
    return xllamacpp


# --- what suits the machine ---------------------------------------------------------------------------------------


def _slots(spec: config.LlamaCppTeacher, file: Path) -> int:
    """Return as many slots as keep the cores busy and have room in memory.

    From four or so on a step's cost grows with the requests in it (docs/log.md), and each slot works out by itself what
    the prompts of a block have in common: more slots find less in their caches.
    """
    wanted = min(_MOST_SLOTS, max(_FEWEST_SLOTS, 2 * _cores()))
    per_token = cache_bytes_per_token(file)
    if not per_token or spec.gpu_layers != 0:
        return wanted
    room = _MEMORY_SHARE * (_free_bytes() - file.stat().st_size)
    return max(1, min(wanted, int(room / (per_token * spec.context_tokens))))


def _cores() -> int:
    """Return the number of processors that this process may use; a container may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_bytes() -> int:
    """Return the memory that can be had without swapping, at most what a container may use; else half of all."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):  # no such file, or `max`
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free
