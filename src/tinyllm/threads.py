"""How threads of numeric libraries wait for each other. Must be settled before such a library is loaded.

GNU's OpenMP, which torch and llama.cpp share, lets a thread that waits spin for milliseconds. That gains little while
nothing else runs, and beside other work everyone waits for everyone: a model's replies then take twice to four times as
long (docs/log.md). Spinning shortly keeps nearly all of the one and avoids most of the other.
"""

from __future__ import annotations

import os

_SPINS = "1000"


def spin_shortly() -> None:
    """Let waiting threads go to sleep soon, unless the environment says how they are to wait."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
