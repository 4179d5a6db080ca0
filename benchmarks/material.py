"""What the benchmarks work on: made-up questions, a student of which only the tokenizer is needed, configurations."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import ROOT, bench_cache, child
from benchmarks.server import running

_THINGS = (
    "a copper wire", "a pine forest", "a glass of salt water", "the north side of a hill", "a block of dry ice",
    "a colony of ants", "a steel spring", "a pond in early winter", "a battery and a small lamp", "a handful of sand",
    "a seed in moist soil", "the feathers of a duck", "an iron nail", "a shallow river", "a thermometer in the shade",
)  # fmt: skip
_CHANGES = (
    "it takes up heat from the air around it", "its mass grows while its volume stays the same",
    "it reflects more of the light that falls on it", "water from it moves into the air as vapour",
    "the force that pulls it down becomes weaker", "its particles move faster and farther apart",
    "it gives energy to whatever eats it", "nothing can be seen without a microscope",
)  # fmt: skip


def questions(count: int, *, mark: str = "") -> Iterator[dict[str, Any]]:
    """Yield rows of a questions file, about as long as those of the benchmarks of the field; all differ.

    Args:
        mark: stands in every question; questions of different marks differ too.
    """
    draw = random.Random(f"{count} {mark}")
    for number in range(count):
        one, other = draw.sample(_THINGS, 2)
        text = (
            f"In trial {mark}{number} a class leaves {one} beside {other} for {draw.randint(2, 48)} hours and writes "
            "down what it sees before and after. Which of these changes explains best what it found?"
        )
        yield {
            "id": f"q{mark}{number}", "question": text, "choices": draw.sample(_CHANGES, 4), "answer": number % 4,
        }  # fmt: skip


def write_questions(file: Path, count: int, *, mark: str = "") -> Path:
    """Write a questions file."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in questions(count, mark=mark))
    return file


def student_folder() -> Path:
    """Return a folder with a student's configuration and tokenizer. Generation needs no weights, so it has none.

    Its tokenizer knows the words of the choices, which a student has to tell apart.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = bench_cache() / "student"
    folder.mkdir(exist_ok=True)
    known = sorted({word for change in _CHANGES for word in re.findall(r"\w+|[^\w\s]+", change)})
    words = {word: number for number, word in enumerate(("<pad>", "</s>", "<unk>", *known))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>",
            "unk_token": "<unk>", "model_max_length": 4096,
        },
        "config.json": {
            "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True,
            "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": len(words),
            "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        },
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder


Tree = Mapping[str, Any]
"""A configuration as YAML has it."""


def made_up(folder: Path, count: int, *, mark: str = "") -> dict[str, Any]:
    """Write so many questions and return the `data` section that reads them; all are training questions."""
    file = write_questions(folder / f"questions-{count}{mark}.jsonl", count, mark=mark)
    return {"train": str(file), "cut": {"valid": 0, "test": 0}}


def endpoint(url: str, in_flight: int, **more: Any) -> dict[str, Any]:
    """Return a teacher at a local server."""
    return {"kind": "openai", "model": "local", "base_url": url, "api_key_env": None, "concurrency": in_flight, **more}


def configuration(data: Tree, teacher: Tree, rationales: Tree | None = None) -> dict[str, Any]:
    """Return a configuration with one teacher."""
    return {
        "name": "bench",
        "data": dict(data),
        "teachers": [{"name": "teacher", **teacher}],
        "rationales": dict(rationales or {}),
        "student": {"model": str(student_folder())},
    }


def write_configuration(tree: Tree, folder: Path, store: Path | None = None) -> Path:
    """Write a configuration into a folder, its store of replies beside it unless another is given."""
    tree = {**tree, "rationales": {**tree["rationales"], "store": str(store or folder / "replies.sqlite")}}
    file = folder / "tinyllm.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False), "utf-8")
    return file


def generate(tree: Tree) -> dict[str, Any]:
    """Generate in a process of its own, with an empty store; return what `benchmarks.ours` prints."""
    with fresh_folder() as place:
        return dict(child("-m", "benchmarks.ours", write_configuration(tree, place), place / "run"))


@dataclass(frozen=True)
class Command:
    """What a command of `tinyllm` printed and took.

    Attributes:
        printed: the JSON that it printed.
        began: seconds since 1970, before the process was started.
        peak_bytes: its greatest resident memory, or that of a process it started, whichever is more.
    """

    printed: dict[str, Any]
    began: float
    seconds: float
    peak_bytes: int


def run_command(config: Path, folder: Path) -> Command:
    """Run `tinyllm generate` as a person does; its run folder lies in `folder`."""
    return measured("generate", config, "--run-dir", folder / "run", folder=folder)


def measured(*arguments: str | Path, folder: Path) -> Command:
    """Run a command of `tinyllm` as a person does, and print JSON; its messages go to a file in `folder`."""
    words = [sys.executable, "-m", "tinyllm", *arguments, "--json", "--quiet"]
    said = folder / "stderr.txt"
    began = time.time()
    with said.open("wb") as errors, subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"`tinyllm {arguments[0]}` ended with {process.returncode}:\n{said.read_text('utf-8')[-4000:]}"
        )
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Command(json.loads(printed), began, time.time() - began, peak)


def record(tree: Tree, file: Path) -> Path:
    """Write the bodies of all requests that a configuration's endpoint gets, a line each."""
    file.unlink(missing_ok=True)
    teacher = tree["teachers"][0]
    with running(record=file) as server:
        generate({**tree, "teachers": [{**teacher, "base_url": server.url, "concurrency": 64}]})
    return file


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """Make a scratch folder on the disk where the cache is (/tmp may be memory), and remove it."""
    place = Path(tempfile.mkdtemp(dir=bench_cache(), prefix="work-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
