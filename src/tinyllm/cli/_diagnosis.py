"""The facts of an installation that a bug report needs, and what is broken in it. Nothing is spent or installed."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from tinyllm.errors import TinyLLMError
from tinyllm.system.machine import capacity, environment
from tinyllm.system.packaged import cache_folder, model_file, packaged_models, sha256

if TYPE_CHECKING:
    from tinyllm.config import Config, TeacherConfig
    from tinyllm.system.news import News

_PACKAGE = "tinyllm-distill"
_LITTLE_SPACE_BYTES = 4 << 30  # a student of 135M parameters takes 3.6 GB while it trains
_GB = 1e9
EXTRAS: Mapping[str, str] = {
    "llamacpp": "GGUF teachers and students, the packaged models",
    "litellm": "services with a protocol of their own (Anthropic, Gemini, Bedrock, …)",
    "ctranslate2": "tinyllm export --to ctranslate2",
    "onnx": "tinyllm export --to onnx",
    "openvino": "tinyllm export --to openvino",
    "ray": "teachers and experiments on a Ray cluster",
    "cce": "less memory when training in bf16 on an NVIDIA GPU",
    "figures": "an experiment's figures as SVG and PNG",
    "lm-eval": "tinyllm lm-eval",
    "serve": "tinyllm serve",
    "tensorboard": "train.report_to: [tensorboard]",
    "vllm": "kind: vllm (vLLM may also have an environment of its own)",
    "docs": "make docs, for those who change the documents",
}
"""What each extra is for. `dev` is for developers and is not shown."""
_KEYS = (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "AZURE_API_KEY", "MISTRAL_API_KEY",
    "GROQ_API_KEY", "TOGETHER_API_KEY", "DEEPSEEK_API_KEY", "AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_CREDENTIALS",
    "HF_TOKEN", "TINYLLM_API_KEY", "HTTP_PROXY", "HTTPS_PROXY",
)  # fmt: skip
_SETTINGS = (
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "WORLD_SIZE", "HF_HUB_OFFLINE",
)  # fmt: skip
"""Variables that change what happens, and whose values are no secrets."""


_HEADS: Mapping[str, str] = {
    "extras": f"pip install '{_PACKAGE}[NAME]'",
    "teachers": "GET /models is requested of servers, which costs nothing",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the diagnosis.

    Attributes:
        problem: what is broken and how to mend it; empty: nothing.
    """

    topic: str
    name: str
    value: str
    problem: str = ""


def diagnose(read: Callable[[], Config] | None, runs: Path, news: News, *, checksums: bool = False) -> Iterator[Fact]:
    """Yield the facts about this installation, and about what a configuration needs.

    Args:
        read: reads the configuration; None if there is none.
        runs: the folder of the run, or the folder in which runs are written.
        checksums: read the files of the installed models and compare their checksums.
    """
    with news.task("Looking at the installation"):
        facts = [*_versions(), *_extras(), *_machine(), *_gpus(), *_places(runs)]
    yield from facts
    yield from _models(news, checksums)
    config, problem = None, ""
    if read is not None:
        try:
            config = read()
        except TinyLLMError as error:
            problem = str(error)
    yield from _variables(config)
    if problem:
        yield Fact("configuration", "settings", "wrong", problem)
    if config is not None:
        yield Fact("configuration", "settings", "valid; `tinyllm check` also reads the questions")
        yield from _needs(config, news)


def _versions() -> Iterator[Fact]:
    here = environment()
    yield Fact("versions", "python", f"{here['python']} ({here['system']})")
    for package, version in here["packages"].items():
        yield Fact("versions", package, version)
    for requirement in _requirements():
        if problem := _lacking(requirement):
            yield Fact("versions", requirement.name, problem, f"{problem}: pip install '{requirement}'")


def _extras() -> Iterator[Fact]:
    for extra, use in EXTRAS.items():
        requirements = _requirements(extra)
        lacking = [problem for r in requirements if (problem := _lacking(r))]
        is_partly_there = 0 < len(lacking) < len(requirements) or any("needed is" in problem for problem in lacking)
        value = f"no, {', '.join(lacking)}" if is_partly_there else "no" if lacking else "yes"
        yield Fact("extras", extra, f"{value}; for {use}")


def _requirements(extra: str = "") -> list[Requirement]:
    """Return what the package requires, or what one of its extras adds."""
    found = [Requirement(text) for text in importlib.metadata.requires(_PACKAGE) or ()]
    if not extra:
        return [r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [
        r for r in found if r.marker is not None and "extra" in str(r.marker) and r.marker.evaluate({"extra": extra})
    ]


def _lacking(requirement: Requirement) -> str:
    """Return why a requirement is not met; empty if it is."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} is {version}, needed is {requirement.specifier}"


def _machine() -> Iterator[Fact]:
    here, may_use = environment(), capacity()
    yield Fact("machine", "processor", here["processor"])
    yield Fact("machine", "cores", f"{may_use.cores} usable of {here['cores']}")
    yield Fact("machine", "instructions", ", ".join(here["instructions"]) or "unknown")
    has_bf16 = {"avx512_bf16", "amx_bf16"} & {*here["instructions"]}
    yield Fact(
        "machine", "bf16", "in hardware" if has_bf16 else "not in hardware: precision bf16 is slow on the processor"
    )
    yield Fact(
        "machine", "memory", f"{may_use.memory / _GB:.1f} GB, {may_use.free_memory / _GB:.1f} GB of it available"
    )


def _gpus() -> Iterator[Fact]:
    try:
        import torch
    except (ImportError, OSError) as error:
        why = f"torch cannot be loaded ({error}): install it again, pip install --force-reinstall torch"
        yield Fact("machine", "gpu", "unknown", why)
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        can = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
        yield Fact("machine", f"gpu {number}", f"{about.name}, {about.total_memory / _GB:.1f} GB, {can}")
    if torch.backends.mps.is_available():
        yield Fact("machine", "gpu", "Apple (mps)")
    elif not torch.cuda.device_count():
        yield Fact("machine", "gpu", f"none that torch {torch.__version__} can use")


def _places(runs: Path) -> Iterator[Fact]:
    places = {
        "runs": (runs, "choose another folder with --run-dir, or correct its permissions"),
        "cache": (cache_folder(), "name a folder in the environment variable XDG_CACHE_HOME"),
        "temporary files": (Path(os.environ.get("TMPDIR") or tempfile.gettempdir()), "name a folder in TMPDIR"),
    }
    for name, (place, remedy) in places.items():
        shown = str(place).replace(str(Path.home()), "~", 1)
        folder = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
            free = shutil.disk_usage(folder).free
        except OSError as error:
            yield Fact("places", name, shown, f"{shown} cannot be written ({error.strerror}): {remedy}")
            continue
        problem = f"{shown} has little space: free some, or {remedy}" if free < _LITTLE_SPACE_BYTES else ""
        yield Fact("places", name, f"{shown}, can be written, {free / _GB:.1f} GB free", problem)


def _models(news: News, checksums: bool) -> Iterator[Fact]:
    for model in packaged_models():
        if not model.installed:
            yield Fact(
                "models", model.name, f"not installed; tinyllm models get {model.name} ({model.size / 1e6:,.0f} MB)"
            )
            continue
        value, problem = "installed", ""
        if checksums:
            try:
                with news.task(f"Reading {model.name}"):
                    is_whole = sha256(model_file(model.name)) == model.sha256
            except (TinyLLMError, OSError) as error:
                is_whole, problem = False, str(error)
            value = "installed, its checksum is right" if is_whole else "damaged"
            if not is_whole:
                problem = (
                    problem or f"the file of {model.name} is damaged: remove {cache_folder()}, and run: {model.install}"
                )
        yield Fact("models", model.name, value, problem)


def _variables(config: Config | None) -> Iterator[Fact]:
    """Yield which variables are set. The values of keys are never shown."""
    named = [] if config is None else [getattr(t, "api_key_env", None) for t in config.teachers]
    for name in dict.fromkeys(filter(None, (*named, *_KEYS))):
        if os.environ.get(name, "").strip():
            yield Fact("environment", name, "is set")
        elif name in named:
            yield Fact("environment", name, "is not set")
    for name in _SETTINGS:
        if name in os.environ:
            yield Fact("environment", name, os.environ[name])


# --- what a configuration needs ------------------------------------------------------------------------------------


def _needs(config: Config, news: News) -> Iterator[Fact]:
    yield _fact("configuration", "student", lambda: _local(config.student.model))
    for spec in config.teachers:
        with news.task(f"Looking at {spec.name}"):
            yield _fact("teachers", spec.name, lambda spec=spec: _teacher(spec))  # type: ignore[misc]


def _fact(topic: str, name: str, look: Callable[[], str]) -> Fact:
    try:
        return Fact(topic, name, look())
    except TinyLLMError as error:
        return Fact(topic, name, "cannot be used", str(error))


def _teacher(spec: TeacherConfig) -> str:
    """Return what can be said of a teacher at no cost. Raise `TinyLLMError` if it cannot be used."""
    from tinyllm.teachers import make_teacher
    from tinyllm.teachers.base import Reachable

    if spec.kind in ("given", "scripted"):
        return f"{spec.kind}: nothing is needed"
    if spec.kind == "student":
        if not spec.run.expanduser().is_dir():
            raise TinyLLMError(f"There is no run {spec.run}: train it first, or correct `run`")
        return f"student: {spec.run} is there"
    if spec.kind == "vllm" and shutil.which(str(Path(spec.executable).expanduser())) is None:
        raise TinyLLMError(
            f"the command {spec.executable} is missing: pip install 'tinyllm-distill[vllm]', or correct `executable`"
        )
    if spec.kind == "llamacpp" and importlib.util.find_spec("xllamacpp") is None:
        raise TinyLLMError("xllamacpp is missing: pip install 'tinyllm-distill[llamacpp]'")
    if spec.kind in ("vllm", "llamacpp", "transformers"):  # making one would read its weights
        return f"{spec.kind}: {_local(spec.model)}"
    teacher = make_teacher(spec, (), Path(tempfile.gettempdir()))
    teacher.check()
    if not isinstance(teacher, Reachable):
        return f"{spec.kind}: what it needs is there; not contacted, because no request is known to be free"
    return f"{spec.kind}: {'; '.join(asyncio.run(teacher.look()))}"


def _local(model: str) -> str:
    """Return where a model is, without reading it. Raise `TinyLLMError` if it cannot be used."""
    packaged = next((m for m in packaged_models() if m.name == model), None)
    path = Path(model).expanduser()
    if packaged is not None and not packaged.installed:
        raise TinyLLMError(f"{model} is not installed: tinyllm models get {model}")
    if (packaged is not None or path.suffix == ".gguf") and importlib.util.find_spec("gguf") is None:
        raise TinyLLMError(f"gguf, which reads {model}, is missing: pip install 'tinyllm-distill[llamacpp]'")
    if packaged is not None:
        return f"{model} is installed"
    return f"{model} is there" if path.exists() else f"{model}, no local path; the hub is not contacted"


def as_tree(facts: Sequence[Fact]) -> dict[str, Any]:
    """Return the facts by topic, and the list of problems."""
    tree: dict[str, Any] = {}
    for fact in facts:
        tree.setdefault(fact.topic, {})[fact.name] = fact.value
    return {**tree, "problems": [f"{f.topic}, {f.name}: {f.problem}" for f in facts if f.problem]}


def as_text(facts: Sequence[Fact]) -> str:
    """Return the facts as plain text for a bug report."""
    tree = as_tree(facts)
    problems = tree.pop("problems")
    width = max(len(fact.name) for fact in facts)
    lines = []
    for topic, found in tree.items():
        lines += [
            f"{topic} ({_HEADS[topic]})" if topic in _HEADS else topic,
            *(f"  {name:<{width}}  {value}" for name, value in found.items()),
        ]
    told = [f"  - {problem}" for problem in problems]
    return "\n".join([*lines, f"problems: {len(problems) or 'none'}", *told])
