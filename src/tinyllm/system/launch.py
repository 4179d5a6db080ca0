"""Several processes of one training on this machine: `tinyllm train --nproc N`. Over several machines, use torchrun.

The processes find each other by the environment variables that torchrun sets, too. The first one speaks; what another
says is shown only if it fails where the first does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO

_GRACE_S = 15.0


def launch(command: Sequence[str], processes: int, *, grace_s: float = _GRACE_S) -> int:
    """Run a command in several processes on this machine; return the exit code of the first that failed, or 0.

    Ctrl-C in the terminal reaches all of them; they are waited for, so that they can end in order.

    Args:
        grace_s: seconds for the others to end by themselves, once one has failed; then they are killed.
    """
    with contextlib.ExitStack() as stack:
        port = str(_free_port())
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, processes)]
        running = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603
                    command, env=_environment(rank, processes, port), stderr=None if rank == 0 else said[rank - 1]
                )
            )
            for rank in range(processes)
        ]  # fmt: skip
        try:
            with _heard(running):
                failed = _wait(running, grace_s)
        finally:
            for process in running:
                process.kill()
        if failed and running[0].returncode <= 0:
            sys.stderr.write(f"Process {failed} of {processes} failed:\n{_read(said[failed - 1])}")
    if failed is None:
        return 0
    code = running[0].returncode if running[0].returncode > 0 else running[failed].returncode
    return code if code > 0 else 1


@contextlib.contextmanager
def _heard(running: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Leave Ctrl-C to the processes, who have heard it as well; hand SIGTERM on, which only this one is sent."""

    def hand_on(number: int, _: object) -> None:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(running: Sequence[subprocess.Popen[bytes]], grace_s: float) -> int | None:
    """Wait for all; return the place of the first that failed. Once one has, the others get a while to end."""
    failed, deadline = None, float("inf")
    while any(p.poll() is None for p in running) and time.monotonic() < deadline:
        time.sleep(0.05)
        bad = next((place for place, p in enumerate(running) if p.poll() not in (None, 0)), None)
        if failed is None and bad is not None:
            failed, deadline = bad, time.monotonic() + grace_s
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return failed if failed is not None else next((i for i, p in enumerate(running) if p.returncode), None)


def _environment(rank: int, processes: int, port: str) -> dict[str, str]:
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    own = {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {"OMP_NUM_THREADS": threads} | dict(os.environ) | own


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
