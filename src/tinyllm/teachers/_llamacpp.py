"""GGUF models, served in this process by llama.cpp and asked over a loopback address like any endpoint."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp

from tinyllm import config
from tinyllm.errors import MissingDependencyError, TeacherError, did_you_mean
from tinyllm.system import packaged
from tinyllm.system.machine import capacity, spin_shortly
from tinyllm.teachers._gguf_header import cache_bytes_per_token
from tinyllm.teachers._http.endpoint import Endpoint
from tinyllm.teachers._http.envelope import Envelope
from tinyllm.teachers._http.teacher import EndpointTeacher
from tinyllm.teachers._http.transport import Patience

_PATIENCE = Patience(attempts=3, timeout_s=3600.0, stall_s=3600.0)  # a slow machine is not an error
_FEWEST_SLOTS, _MOST_SLOTS = 4, 16
_IN_RESERVE = 2  # requests that wait at the server, so that a free slot starts the next one at once
_SEEN_S = 0.3  # in which a bar is drawn once
_MEMORY_SHARE = 0.5  # part of the free memory that the slots may use


class LlamaCppTeacher(EndpointTeacher):
    """Serves a packaged model or a GGUF file while it is entered.

    Raises:
        TeacherError: the file is missing, or not a GGUF file.
        MissingDependencyError: the package of the model is not installed.
    """

    def __init__(self, spec: config.LlamaCppTeacher) -> None:
        self._spec = spec
        self._file = _find(spec)
        self._sha256 = packaged.file_checksum(self._file)
        self._slots = spec.slots or _slots(spec, self._file)
        self._server: Any = None
        self._is_loading = False
        super().__init__(spec, self._slots + _IN_RESERVE)

    def check(self) -> None:
        """Raise `MissingDependencyError` if xllamacpp is not installed."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise _missing(self.name)

    @property
    def identity(self) -> Mapping[str, str]:
        """The file's name and checksum. Slots, threads and GPU layers change only the speed."""
        model = self._spec.model if self._spec.model in packaged.known_models() else self._file.name
        return {"kind": "llamacpp", "model": model, "sha256": self._sha256}

    @property
    def resumable(self) -> bool:
        """Nothing goes on without this process."""
        return False

    def note(self) -> str:
        """Return that the model is loaded, while it is."""
        return f"loading {self.name}" if self._is_loading else ""

    @property
    def url(self) -> str:
        """The address of the server while it runs, up to and including /v1."""
        return f"{self._server.listening_address}/v1"

    async def tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the lengths of texts in the model's tokens, while it is served."""
        lengths = []
        async with aiohttp.ClientSession(f"{self._server.listening_address}/") as session:
            for text in texts:
                async with session.post("tokenize", json={"content": text, "add_special": True}) as answer:
                    lengths.append(len((await answer.json())["tokens"]))
        return lengths

    def _make_endpoint(self) -> Endpoint:
        return Endpoint(
            self.name, Envelope((self.url,)), self._spec.model,
            form=self.form, concurrency=self.concurrency, patience=_PATIENCE, manners=lambda: self.manners,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        # Loading takes seconds to minutes, in which xllamacpp lets no other thread run: the bar says it before.
        self._is_loading = True
        await asyncio.sleep(_SEEN_S)
        try:
            self._server = await asyncio.to_thread(_serve, self._spec, self._file, self._slots)
        finally:
            self._is_loading = False
        # Its loop starts later than its port. A server that is stopped in between never ends, and only what goes
        # through the loop proves that it runs.
        async with aiohttp.ClientSession(f"{self._server.listening_address}/") as session, session.get("slots"):
            pass
        return await super().__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        held, self._server = [self._server], None
        await asyncio.to_thread(held.clear)  # dropping the last reference stops the server and waits for it


def _find(spec: config.LlamaCppTeacher) -> Path:
    if spec.model in packaged.known_models():
        return packaged.model_file(spec.model)
    file = Path(spec.model).expanduser()
    known = packaged.known_models()
    if not file.is_file():
        raise TeacherError(
            f"Teacher '{spec.name}': no model '{spec.model}'.{did_you_mean(spec.model, known)} "
            f"Give the path of a .gguf file, or one of: {', '.join(known)}.",
            page="teachers.md#packaged-models",
        )
    with file.open("rb") as head:
        if head.read(4) != b"GGUF":
            raise TeacherError(f"Teacher '{spec.name}': {file} is not a GGUF file. llama.cpp reads only GGUF files.")
    return file


def _missing(name: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"Teacher '{name}' of kind llamacpp needs xllamacpp. Install it with: pip install 'tinyllm-distill[llamacpp]'"
    )


def _serve(spec: config.LlamaCppTeacher, file: Path, slots: int) -> Any:
    spin_shortly()  # no effect if torch has loaded the library already; the command line calls it earlier
    try:
        import xllamacpp
    except ImportError:
        raise _missing(spec.name) from None
    threads = spec.threads or capacity().cores
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel = slots
    params.n_ctx = slots * spec.context_tokens
    params.n_gpu_layers = spec.gpu_layers
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.swa_full = True  # without it, models with a sliding window cannot reuse a common prefix of prompts
    params.cache_ram_mib = 0  # each slot keeps its last prompt; copies of older ones take up to 8 GiB and help little
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free port
    params.ui = False
    params.warmup = False
    params.verbosity = -1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise TeacherError(
            f"Teacher '{spec.name}': llama.cpp cannot serve {file}: {error}\n  To do: check that the file is whole. If "
            f"memory is short, lower `slots` ({slots}) or `context_tokens` ({spec.context_tokens})."
        ) from None


def _slots(spec: config.LlamaCppTeacher, file: Path) -> int:
    """Return the number of slots (parallel requests): twice the core count, limited by free memory.

    With more than about four, the time of a decoding step grows with the number of slots (docs/log.md). Each slot also
    computes the common prefix of prompts by itself, so more slots find less in their caches.
    """
    wanted = min(_MOST_SLOTS, max(_FEWEST_SLOTS, 2 * capacity().cores))
    per_token = cache_bytes_per_token(file)
    if not per_token or spec.gpu_layers != 0:
        return wanted
    room = _MEMORY_SHARE * (capacity().free_memory - file.stat().st_size)
    return max(1, min(wanted, int(room / (per_token * spec.context_tokens))))
