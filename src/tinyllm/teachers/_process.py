"""A server process that never outlives this process. It is stopped with all its child processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinyllm.errors import printable
from tinyllm.teachers._secrets import secrets_of
from tinyllm.teachers._supervise import KILLED_S

_TAIL_BYTES = 1 << 16
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 8  # shorter values are settings (`TOKENIZERS_PARALLELISM=false`)


class ServerProcess:
    """A running command. It ends with `stop`, or when this process ends, even if this process is killed.

    Args:
        stop_s: seconds to end after SIGTERM, before it is killed.

    Raises:
        OSError: the process or the file cannot be created.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, label: str, stop_s: float = 10.0
    ) -> None:
        self._stop_s = stop_s
        handle, name = tempfile.mkstemp(prefix=f"tinyllm-{label}-", suffix=".log")  # only the owner can read it
        self.log = Path(name)
        supervisor = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_supervise.py")), str(stop_s)]
        with os.fdopen(handle, "wb") as log:
            # A new session, so that Ctrl-C reaches this process only, which then stops the server.
            self._process = subprocess.Popen(  # noqa: S603
                [*supervisor, *command], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                env=dict(environment), start_new_session=True,
            )  # fmt: skip

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    async def ended(self, within_s: float) -> int | None:
        """Wait for its end. Return the exit code; None if it still runs after `within_s`."""
        deadline = time.monotonic() + within_s
        while (code := self.exit_code) is None and time.monotonic() < deadline:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
        return code

    async def stop(self) -> None:
        """Stop it, and wait until all its child processes are gone. It also stops if the wait is cancelled."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()
        self._process.terminate()  # needed because a fork of this process may hold the pipe open
        await self.ended(self._stop_s + 2 * KILLED_S)

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log, indented, without control sequences and without secrets of the environment."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            text = printable(log.read().decode("utf-8", "replace"))
        for name, value in os.environ.items():
            if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, "***")
            for secret in secrets_of(value) if "://" in value else ():  # in the address of a proxy or a database
                text = text.replace(secret, "***")
        said = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(f"    {line}" for line in said[-lines:]) or "    (the log is empty)"

    def forget(self) -> None:
        """Delete its log."""
        with contextlib.suppress(OSError):
            self.log.unlink()
