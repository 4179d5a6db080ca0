"""Real servers for the tests: `tinyllm serve` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tinyllm.serving import Limits


@dataclass
class Served:
    """A server under way."""

    process: subprocess.Popen[str]
    url: str
    said: list[str] = field(default_factory=list)

    @property
    def resident_kb(self) -> int:
        """Its memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return int(next(w for w in status.splitlines() if "VmRSS" in w).split()[1])

    @property
    def open_files(self) -> int:
        """How many files and sockets it holds."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


_WITH_LIMITS = """
import json, sys
from pathlib import Path
from tinyllm.serving import Limits, serve
from tinyllm.system.news import News
serve(Path(sys.argv[1]), "127.0.0.1", 0, None, Limits(**json.loads(sys.argv[2])), News())
"""


@contextlib.contextmanager
def serving(student: Path, *options: object, limits: Limits | None = None, **environment: str) -> Iterator[Served]:
    """Serve a student on a free port until the block ends.

    Args:
        limits: other limits than the command has options for.
    """
    command = [sys.executable, "-m", "tinyllm", "serve", str(student), "--port", "0", *map(str, options)]
    if limits is not None:
        command = [sys.executable, "-c", _WITH_LIMITS, str(student), json.dumps(asdict(limits))]
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
