"""Helpers for real processes."""

from __future__ import annotations

import time
from pathlib import Path

import psutil


def is_there(pid: int) -> bool:
    """Tell whether a process runs; one that is dead and only not yet collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, seconds: float = 60.0) -> bool:
    """Wait for a condition; tell whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def pids_in(file: Path, count: int) -> list[int]:
    """Wait until so many processes have written their ids into a file, a line each."""
    assert wait_until(lambda: file.is_file() and file.read_text().count("\n") >= count), f"no {count} lines in {file}"
    return [int(line) for line in file.read_text().split()]
