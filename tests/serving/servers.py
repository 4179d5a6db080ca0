"""Real servers for the tests: `tinyllm serve` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forked import Started, start_tinyllm
from tinyllm.serving import Limits, serve
from tinyllm.system.news import News


@dataclass
class Served:
    """A server under way."""

    process: Started
    url: str

    @property
    def said(self) -> list[str]:
        """The lines that it has written so far."""
        return self.process.err.splitlines()

    @property
    def resident_kb(self) -> int:
        """Its memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return int(next(w for w in status.splitlines() if "VmRSS" in w).split()[1])

    @property
    def open_files(self) -> int:
        """How many files and sockets it holds."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def _serve(student: Path, limits: Limits) -> None:
    serve(student, "127.0.0.1", 0, None, limits, News())


@contextlib.contextmanager
def serving(student: Path, *options: object, limits: Limits | None = None, **environment: str) -> Iterator[Served]:
    """Serve a student on a free port until the block ends.

    Args:
        limits: other limits than the command has options for.
    """
    if limits is None:
        process = start_tinyllm("serve", student, "--port", 0, *options, environment=environment)
    else:
        process = Started(_serve, student, limits, environment=environment)
    try:
        while (found := re.search(r"Serving on (http://\S+)[^\n]*\n", process.err)) is None:
            assert process.poll() is None, process.err
            time.sleep(0.01)
        yield Served(process, found[1])
    finally:
        process.kill()
        process.wait()
