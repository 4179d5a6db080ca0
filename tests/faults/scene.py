"""Shared by the fault tests: questions, a configuration, a server in its own process, and the real command."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from benchmarks.server import Running

from forked import start_tinyllm
from tinyllm.replies._store import Store

PATIENCE_S = 120.0
"""For what comes in a second on an idle machine."""


class Scene:
    """A folder in which a command is run, killed and run again.

    Args:
        teacher: settings of the one teacher besides its name, kind and model.
    """

    def __init__(self, folder: Path, student: Path, questions: int, url: str | list[str], **teacher: Any) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.store = folder / "replies.sqlite"
        self.questions = questions
        with (folder / "questions.jsonl").open("w") as file:
            for n in range(questions):
                words = [f"one {n}", f"two {n}", "three", "four"]
                row = {"id": f"q{n}", "question": f"Which is number {n}?", "choices": words, "answer": n % 4}
                file.write(json.dumps(row) + "\n")
        spec = {"name": "ada", "kind": "openai", "model": "m", "base_url": url, "api_key_env": None}
        self.tree: dict[str, Any] = {
            "name": "scene",
            "data": {"train": str(folder / "questions.jsonl"), "cut": {"valid": 0, "test": 0}},
            "teachers": [spec | teacher],
            "rationales": {"max_tokens": 64, "examples": {"count": 1}, "store": str(self.store)},
            "student": {"model": str(student)},
        }

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        run: Path | None = None,
        command: Literal["generate", "run"] = "generate",
    ) -> Command:
        """Start `tinyllm generate` or `tinyllm run` in a process of its own."""
        config = self.folder / "tinyllm.yaml"
        config.write_text(yaml.safe_dump(self.tree), encoding="utf-8")
        return Command(command, config, "--run-dir", run or self.run, *arguments, env=env)

    def generate(self, *arguments: str, env: Mapping[str, str] | None = None) -> Command:
        """Run `tinyllm generate` to its end."""
        command = self.start(*arguments, env=env)
        command.wait(600)
        return command

    def replies(self) -> list[tuple[str, int]]:
        """Return question and sample of every stored reply; it opens, so it is whole."""
        with Store(self.store) as store:
            rows = store._db.execute("SELECT question_id, json_extract(request, '$.sample') FROM replies").fetchall()
            assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return rows

    def yields(self) -> dict[str, Any]:
        """Return what the run says its teacher gave."""
        return json.loads((self.run / "yields.json").read_text())["ada"]

    def rationales(self) -> list[str]:
        """Return the ids of the questions that have a rationale."""
        from tinyllm.rationales.files import read_rationales

        return [r.question_id for r in read_rationales(self.run)]


class Command:
    """A command in a process of its own."""

    def __init__(self, *arguments: object, env: Mapping[str, str] | None) -> None:
        self.process = start_tinyllm(*arguments, environment=env)

    @property
    def said(self) -> str:
        """All that it has said so far."""
        return self.process.out + self.process.err

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.poll()

    def wait(self, timeout: float = PATIENCE_S) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"It did not end:\n{self.said}") from None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        self.process.send_signal(number)


def until(happens: Callable[[], Any], what: str = "") -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline, f"It never came to pass: {what}"
        time.sleep(0.005)


def asked(server: Running) -> int:
    """How many requests a server has had."""
    return server.stats().requests
