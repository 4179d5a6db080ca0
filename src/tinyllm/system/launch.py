"""Run several processes of one training on this machine: `tinyllm train --nproc N`. For several machines use torchrun.

The processes get the same environment variables as under torchrun. Process 0 writes to the terminal. The error output
of another process is shown only if that process fails and process 0 has no error of its own.
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

_GRACE_S = 15.0


def launch(command: Sequence[str], processes: int, *, grace_s: float = _GRACE_S) -> int:
    """Run a command in several processes. Return the exit code of the first that failed, or 0.

    Ctrl-C reaches all processes. This function waits until they have ended.

    Args:
        grace_s: after one process has failed, the others get so many seconds to end. Then they are killed.
    """
    with contextlib.ExitStack() as stack:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, processes)]
        running = []
        for rank in range(processes):
            process = subprocess.Popen(  # noqa: S603
                command, env=_environment(rank, processes, port), stderr=errors[rank - 1] if rank else None
            )
            running.append(stack.enter_context(process))
        try:
            with _signals_passed_on(running):
                failed = _wait(running, grace_s)
        finally:
            for process in running:
                process.kill()
        if failed is None:
            return 0
        code = running[0].returncode
        if failed and code <= 0:
            code = running[failed].returncode
            errors[failed - 1].seek(0)
            text = errors[failed - 1].read().decode("utf-8", "replace")
            sys.stderr.write(f"Process {failed} of {processes} failed:\n{text}")
    return code if code > 0 else 1


@contextlib.contextmanager
def _signals_passed_on(running: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Ignore Ctrl-C, which the terminal sends to all processes. Pass on SIGTERM, which only this process receives."""

    def pass_on(number: int, _: object) -> None:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(running: Sequence[subprocess.Popen[bytes]], grace_s: float) -> int | None:
    """Wait for all processes. Return the rank of the first that failed, or None. Kill the rest after the grace time."""
    failed, deadline = None, float("inf")
    while any(p.poll() is None for p in running) and time.monotonic() < deadline:
        time.sleep(0.05)
        bad = next((rank for rank, p in enumerate(running) if p.poll() not in (None, 0)), None)
        if failed is None and bad is not None:
            failed, deadline = bad, time.monotonic() + grace_s
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()
    return failed if failed is not None else next((rank for rank, p in enumerate(running) if p.returncode), None)


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // processes)
    own = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    return {"OMP_NUM_THREADS": str(threads), **os.environ, **{name: str(value) for name, value in own.items()}}
