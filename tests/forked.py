"""Real processes that start in milliseconds: each is forked from one that has imported everything.

A process can be killed and gets signals, as one that a person starts. What differs is that nothing is imported anew, so
what happens at an import (such as the hub's client reading its settings) needs `subprocess`.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tinyllm.system.launch import _environment as rank_environment

PRELOADED = (
    "torch", "torch._dynamo", "transformers.trainer", "transformers.generation", "transformers.core_model_loading",
    "transformers.models.auto.modeling_auto", "transformers.models.t5.modeling_t5",
    "transformers.models.llama.modeling_llama", "peft", "datasets", "aiohttp", "uvicorn",
    "tinyllm.cli.app", "tinyllm.stages.run", "tinyllm.stages.asking", "tinyllm.rationales.generate",
    "tinyllm.teachers._openai", "tinyllm.experiments", "tinyllm.inference", "tinyllm.serving",
    "tinyllm.student.train",
)  # fmt: skip
"""A module that is not there is left out in silence, and then imported by each process that needs it."""


def forking() -> ForkServerContext:
    """What forks processes. The process that it forks from starts with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


class Started:
    """A process under way, with the interface of `subprocess.Popen`. What it prints can be read at any time.

    Args:
        work: what it does, and `arguments` of that; both are pickled.
        environment: variables besides those of this process.
        ignores_ctrl_c: as processes do that a shell starts in the background.
    """

    def __init__(
        self, work: Callable[..., object], *arguments: object, cwd: Path | None = None,
        environment: Mapping[str, str] | None = None, ignores_ctrl_c: bool = False,
    ) -> None:  # fmt: skip
        self._folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._process = forking().Process(
            target=_become, daemon=True,
            args=(self._folder, cwd or Path.cwd(), {**os.environ, **(environment or {})}, ignores_ctrl_c, work, arguments),
        )  # fmt: skip
        for name in ("out", "err"):
            (self._folder / name).touch()
        self._process.start()
        self.pid: int = self._process.pid or 0

    @property
    def out(self) -> str:
        """What it has printed to stdout so far."""
        return (self._folder / "out").read_text("utf-8", errors="replace")

    @property
    def err(self) -> str:
        """What it has printed to stderr so far."""
        return (self._folder / "err").read_text("utf-8", errors="replace")

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the number of the signal that killed it, or None."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, and return what it printed."""
        self.wait(timeout)
        return self.out, self.err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


def start_tinyllm(*words: object, **how: object) -> Started:
    """Start the command line in a process of its own. `how` is as for `Started`."""
    return Started(command_line, [str(w) for w in words], **how)


def run_tinyllm(*words: object, timeout: float = 200, **how: object) -> Started:
    """Run the command line in a process of its own to its end."""
    process = start_tinyllm(*words, **how)
    try:
        process.wait(timeout)
    finally:
        process.kill()
    return process


def run_together(
    processes: int, work: Callable[..., object], *arguments: object, timeout: float = 200
) -> list[Started]:
    """Run a function in several processes that know of each other, as those of `tinyllm train --nproc` do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    ranks = [
        Started(work, *arguments, environment=rank_environment(rank, processes, port)) for rank in range(processes)
    ]
    try:
        for rank in ranks:
            rank.wait(timeout)
    finally:
        for rank in ranks:
            rank.kill()
    return ranks


def command_line(words: list[str]) -> None:
    """Be the command line."""
    from tinyllm.cli import main

    sys.argv = ["tinyllm", *words]  # `--nproc` starts this command line again
    main()


def _become(
    folder: Path, cwd: Path, environment: dict[str, str], ignores_ctrl_c: bool, work: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:  # fmt: skip
    """Be a process as a shell starts one: its folder, variables, output and signals."""
    gc.freeze()  # what is imported is shared with the others, and a collection would write to it
    for name, number in (("out", 1), ("err", 2)):
        file = os.open(folder / name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    # Pytest itself may have been started in the background, with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignores_ctrl_c else signal.default_int_handler)
    work(*arguments)
