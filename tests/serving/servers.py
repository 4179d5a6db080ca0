"""Real servers for the tests: `tinyllm serve` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Served:
    """A server under way."""

    process: subprocess.Popen[str]
    url: str
    said: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serving(student: Path, *options: object, **environment: str) -> Iterator[Served]:
    """Serve a student on a free port until the block ends."""
    command = [sys.executable, "-m", "tinyllm", "serve", str(student), "--port", "0", *map(str, options)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    said: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"Serving on (http://\S+)", line):
            break
    else:
        raise AssertionError("".join(said))
    reader = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        yield Served(process, found[1], said)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5)
        process.stderr.close()
