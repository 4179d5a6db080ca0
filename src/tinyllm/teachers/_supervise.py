"""Run a command while standard input is open. Then stop it and all its child processes.

    python _supervise.py SECONDS COMMAND [ARGUMENT …]

The parent process holds the other end of the pipe. When the parent ends in any way, the kernel closes the pipe.
Processes that ignore SIGTERM for SECONDS are killed. This script uses only the standard library.
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
"""The longest wait for killed processes to disappear."""

_LOOK_S = 0.1
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: Sequence[str]) -> int:
    """Run the command `arguments[1:]`. Return its exit code; after signal n, 128 + n, as in a shell."""
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    # On Linux, become the parent of orphaned processes, because process 1 of a container may not reap them.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        command = subprocess.Popen(arguments[1:], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    except OSError as error:
        print(f"cannot run {arguments[1]}: {error}", file=sys.stderr)  # noqa: T201
        return 127
    while command.poll() is None and not asked_to_stop:
        if select.select([sys.stdin], [], [], _LOOK_S)[0]:
            break  # nothing is ever written to the pipe, so it was closed
    _end(command, float(arguments[0]))
    code = command.returncode
    return 128 - code if code < 0 else code


def _end(command: subprocess.Popen[bytes], patience_s: float) -> None:
    """Stop the command's process group, first by SIGTERM, then by SIGKILL."""
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
        while os.waitpid(-group, os.WNOHANG)[0]:  # otherwise dead adopted processes would count
            pass
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS raises PermissionError for dead processes
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
