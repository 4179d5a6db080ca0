"""A server for a benchmark: `python -m benchmarks.predicting.served STUDENT BATCH` serves on a free port."""

from __future__ import annotations

import sys
from pathlib import Path

from tinyllm.serving import Limits, serve
from tinyllm.system.machine import keep_freed_memory, spin_shortly
from tinyllm.system.news import News

if __name__ == "__main__":
    spin_shortly()
    keep_freed_memory()
    serve(Path(sys.argv[1]), "127.0.0.1", 0, None, Limits(batch=int(sys.argv[2])), News())
