"""What all tests share."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Models this small are slower with several threads; set before torch is loaded, here and in processes started by tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import yaml

import tinyllm.cli
from support import save_tiny


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def cli(capsys) -> Cli:
    """Run the command line in this process."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        try:
            tinyllm.cli.main([str(a) for a in arguments])
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        printed = capsys.readouterr()
        return Said(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory) -> Path:
    """A tiny T5 in a folder."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "t5", "t5")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """A tiny Llama in a folder."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "llama", "llama")


class Project:
    """A folder with a configuration and questions, as a person has it."""

    def __init__(self, folder: Path, student: Path) -> None:
        self.folder = folder
        self.config = folder / "tinyllm.yaml"
        self.run = folder / "runs" / "mine"
        self.questions = folder / "questions.jsonl"
        self.write_questions(rows(20))
        self.tree: dict[str, Any] = {
            "name": "mine",
            "data": {"train": str(self.questions), "cut": {"valid": 0.1, "test": 0.3}},
            "teachers": [
                {"name": "ada", "kind": "scripted"},
                {"name": "bob", "kind": "scripted", "template": "Of all choices {answer} fits best, says bob."},
            ],
            "student": {"model": str(student)},
            "train": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2},
            "evaluate": {"max_new_tokens": 4, "rationales": 2, "max_rationale_tokens": 4, "train_questions": 3},
        }
        self.save()

    def write_questions(self, lines: Sequence[Any]) -> None:
        """Write the questions file; a line that is text is written as it stands."""
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.questions.write_text("\n".join(texts) + "\n", encoding="utf-8")

    def change(self, path: str, value: Any) -> None:
        """Change one setting and write the configuration."""
        *sections, key = path.split(".")
        place = self.tree
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
        self.save()

    def save(self) -> None:
        """Write the configuration."""
        self.config.write_text(yaml.safe_dump(self.tree, sort_keys=False), encoding="utf-8")


def rows(count: int) -> list[dict[str, Any]]:
    """Rows of a questions file."""
    words = ["ice", "water", "iron", "the moon"]
    return [
        {"id": f"q{i}", "question": f"Which is number {i}?", "choices": words, "answer": i % 4} for i in range(count)
    ]


@pytest.fixture
def project(tmp_path, tiny_t5, monkeypatch) -> Project:
    """A project of one's own, which is also the current folder."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, tiny_t5)


@contextlib.contextmanager
def in_thread(endpoint: Any) -> Iterator[str]:
    """Serve a `FakeEndpoint` from a thread of its own, for commands that bring their own event loop."""
    import asyncio
    import threading

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(endpoint.__aenter__(), loop).result(10)
        yield endpoint.url
    finally:
        asyncio.run_coroutine_threadsafe(endpoint.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
