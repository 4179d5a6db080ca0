"""Run a command for as long as standard input stays open; then end it, with all that it started.

    python _supervise.py SECONDS COMMAND [ARGUMENT …]

Whoever starts this holds the other end of the pipe: when it dies, however suddenly, the kernel closes the pipe and the
command goes with it. Processes that ignore SIGTERM for SECONDS are killed. A script of the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

KILLED_S = 5.0
"""Seconds in which what was killed must be gone."""

_LOOK_S = 0.1
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: Sequence[str]) -> int:
    """Run the command `arguments[1:]`; return its exit code, with 128 + n for signal n as shells have it."""
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    _adopt_orphans()
    try:
        command = subprocess.Popen(arguments[1:], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    except OSError as error:
        print(f"cannot run {arguments[1]}: {error}", file=sys.stderr)  # noqa: T201
        return 127
    while command.poll() is None and not asked_to_stop:
        if select.select([sys.stdin], [], [], _LOOK_S)[0]:
            break  # nothing is ever written there: it was closed
    _end(command, float(arguments[0]))
    code = command.returncode
    return 128 - code if code < 0 else code


def _end(command: subprocess.Popen[bytes], patience_s: float) -> None:
    """End the command's process group: politely, then not."""
    for kind, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, KILLED_S)):
        deadline = time.monotonic() + wait_s
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(command.pid, kind)
        while time.monotonic() < deadline:
            command.poll()
            if not _is_there(command.pid):
                return
            time.sleep(0.02)


def _is_there(group: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:  # the dead among the adopted would count as there
            pass
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of the dead
        return False
    return True


def _adopt_orphans() -> None:
    """On Linux, become the parent of whatever the command leaves behind; process 1 may be none that reaps."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
