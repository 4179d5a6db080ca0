"""A worker process: it reads jobs as lines of JSON from stdin, and writes events as lines of JSON to stdout.

    → {"key": "arc--…", "config": {…}, …}
    ← {"event": "progress", "label": "Training", "done": 3, "total": 70}
    ← {"event": "done"}   or   {"event": "failed", "error": "…", "is_bug": false}   or   {"event": "interrupted"}

The last event of a job also holds the memory of the worker (`resident_bytes`). When stdin ends, the process that gave
the jobs is gone. The worker then writes a checkpoint and exits.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tinyllm.errors import TinyLLMError
from tinyllm.system.news import News, Task, ticking

Tell = Callable[[Mapping[str, Any]], None]
_TELL_EVERY_S = 1.0


class _TellingNews(News):
    """News that are also sent as events."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Send the progress every second."""
        with super().task(label, total) as task, ticking(_TELL_EVERY_S) as ticks:
            ticks.append(lambda: self._tell(_progress(task)))
            self._tell(_progress(task))
            yield task


def _progress(task: Task) -> dict[str, Any]:
    task.refresh()
    return {"event": "progress", "label": task.label, "done": task.done, "total": task.total}


def log_file(folder: Path, key: str) -> Path:
    """Return the log file of a job's process."""
    return folder / "work" / f"{key}.log"


def do(job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Do a job and return its last event."""
    from tinyllm.experiments._cell import Job, run_job

    try:
        run_job(Job(**job), _TellingNews(tell))
    except KeyboardInterrupt:
        return {"event": "interrupted"}
    except TinyLLMError as error:
        return {"event": "failed", "error": str(error), "is_bug": False}
    except Exception as error:  # noqa: BLE001  it is reported, and the other jobs go on
        traceback.print_exc()
        return {"event": "failed", "error": f"{type(error).__name__}: {error}", "is_bug": True}
    return {"event": "done"}


def main() -> None:
    """Do jobs until stdin ends."""
    from tinyllm.system.machine import resident_bytes, spin_shortly

    spin_shortly()
    # A shell starts background processes with Ctrl-C ignored, and workers inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Libraries can print to stdout. That goes to the log, because the real stdout carries events only.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def tell(event: Mapping[str, Any]) -> None:
        with lock, contextlib.suppress(BrokenPipeError):
            events.write(json.dumps(event, ensure_ascii=False) + "\n")
            events.flush()

    jobs: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, jobs), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # while waiting
        while (line := jobs.get()) is not None:
            job = json.loads(line)
            _log_to(log_file(Path(job["folder"]), job["key"]))
            ended = do(job, tell) | {"resident_bytes": resident_bytes()}
            tell(ended)
            if ended["event"] == "interrupted":
                return


def _read(lines: IO[str], jobs: queue.Queue[str | None]) -> None:
    for line in lines:
        jobs.put(line)
    jobs.put(None)
    os.kill(os.getpid(), signal.SIGINT)  # end a job in progress as Ctrl-C does


def _log_to(file: Path) -> None:
    """Send all further output of this process to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stderr.flush()
    os.dup2(log, sys.stderr.fileno())
    os.dup2(log, sys.stdout.fileno())
    os.close(log)


if __name__ == "__main__":
    main()
