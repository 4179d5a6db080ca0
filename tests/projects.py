"""What a person has who uses the command line: a folder with questions and a configuration; and an endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml


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


def trained(folder: Path, student: Path) -> Project:
    """A project whose run is finished, without rationales of test questions."""
    from tinyllm.cli.app import main

    project = Project(folder, student)
    project.change("evaluate.rationales", 0)
    try:
        main(["run", str(project.config), "--run-dir", str(project.run), "--quiet"])
    except SystemExit as ended:
        assert not ended.code  # noqa: PT017 - how the command line ends
    return project


def rows(count: int) -> list[dict[str, Any]]:
    """Rows of a questions file."""
    words = ["ice", "water", "iron", "the moon"]
    return [
        {"id": f"q{i}", "question": f"Which is number {i}?", "choices": words, "answer": i % 4} for i in range(count)
    ]


@contextlib.contextmanager
def in_thread(endpoint: Any) -> Iterator[str]:
    """Serve a `FakeEndpoint` from a thread of its own, for commands that bring their own event loop."""
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
