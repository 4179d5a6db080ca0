"""A worker process: takes jobs as lines of JSON from its input, says how they go as lines of JSON on its output.

    → {"key": "arc--…", "config": {…}, …}
    ← {"event": "progress", "label": "Training", "done": 3, "total": 70}
    ← {"event": "done"}   or   {"event": "failed", "error": "…", "is_bug": false}   or   {"event": "interrupted"}

The last event of a job also says how much memory the worker then holds (`resident_bytes`).

Its input's end means that whoever gave the jobs is gone: it writes a checkpoint and goes, too.
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
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tinyllm.errors import TinyLLMError
from tinyllm.system.news import News, Task, ticking

Tell = Callable[[Mapping[str, Any]], None]
_TELL_EVERY_S = 1.0


class TellingNews(News):
    """News that also go, as events, to whoever gave the job."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Tell every second how far it is."""
        with super().task(label, total) as task, ticking(_TELL_EVERY_S) as ticks:
            ticks.append(lambda: self._tell(_progress(task)))
            self._tell(_progress(task))
            yield task


def _progress(task: Task) -> dict[str, Any]:
    task.refresh()
    return {"event": "progress", "label": task.label, "done": task.done, "total": task.total}


def log_file(folder: Path, key: str) -> Path:
    """Return where a job's process writes what it would print."""
    return folder / "work" / f"{key}.log"


def do(job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Do a job and return how it ended, as an event."""
    from tinyllm.experiments._cell import Job, run_job

    try:
        run_job(Job(**job), TellingNews(tell))
    except KeyboardInterrupt:
        return {"event": "interrupted"}
    except TinyLLMError as error:
        return {"event": "failed", "error": str(error), "is_bug": False}
    except Exception as error:  # noqa: BLE001  it is told, and the other jobs go on
        traceback.print_exc()
        return {"event": "failed", "error": f"{type(error).__name__}: {error}", "is_bug": True}
    return {"event": "done"}


def main() -> None:
    """Work until the input ends."""
    from tinyllm.system.machine import resident_bytes, spin_shortly

    spin_shortly()
    # A shell starts what it sends to the background with Ctrl-C ignored, and that is handed down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Libraries may print; what they print goes to the log, and the real output is for events alone.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def tell(event: Mapping[str, Any]) -> None:
        with lock, contextlib.suppress(BrokenPipeError):
            events.write(json.dumps(event, ensure_ascii=False) + "\n")
            events.flush()

    jobs: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, jobs), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # while it waits
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
    os.kill(os.getpid(), signal.SIGINT)  # in the midst of a job: end it as Ctrl-C would


def _log_to(file: Path) -> None:
    """Send what this process prints from now on to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stderr.flush()
    os.dup2(log, sys.stderr.fileno())
    os.dup2(log, sys.stdout.fileno())
    os.close(log)


def as_line(job: Any) -> str:
    """Return a job as a worker reads it."""
    return json.dumps(asdict(job), ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
