"""Places: worker processes of this machine that do jobs. A place does one job at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Protocol

from tinyllm.experiments._cell import Job
from tinyllm.experiments._worker import Tell, log_file
from tinyllm.system.machine import capacity

_TAIL = 12  # lines of a log in a message
_GONE_S = 20.0
_SHARE = 4  # between two runs a worker may hold 1/4 of its part of the memory


class Place(Protocol):
    """Does jobs, one at a time."""

    def work(self, job: Job, tell: Tell) -> Mapping[str, Any]:
        """Do a job, and return the worker's last event."""
        ...

    def interrupt(self) -> None:
        """End the current job as Ctrl-C does. Another thread may call this."""
        ...

    def close(self) -> None:
        """Release the resources of the place."""
        ...


class LocalProcess:
    """A worker process of this machine. It is started for the first job, and again after it died.

    Args:
        number: the index of this place, which decides its GPU.
    """

    def __init__(self, number: int, places: int, gpus: int) -> None:
        self._environment = _environment(number, places, gpus)
        self._most_bytes = capacity().memory // (_SHARE * places)
        self._process: subprocess.Popen[str] | None = None
        self._interrupted = False

    def work(self, job: Job, tell: Tell) -> Mapping[str, Any]:
        """See `Place`. If the process dies, only this job has failed."""
        process = self._started()
        if self._interrupted:  # before the process had started; `close` ends it
            return {"event": "interrupted"}
        with contextlib.suppress(BrokenPipeError):
            _pipe(process.stdin).write(json.dumps(asdict(job), ensure_ascii=False) + "\n")
            _pipe(process.stdin).flush()
        for line in _pipe(process.stdout):
            event = json.loads(line)
            if event["event"] == "progress":
                tell(event)
                continue
            if event.get("resident_bytes", 0) > self._most_bytes:
                self.close()  # frees what libraries cached for the shapes of this run
            return event  # type: ignore[no-any-return]
        code = process.wait()
        self._process = None
        return {"event": "failed", "error": _how_it_died(code, job), "is_bug": False}

    def interrupt(self) -> None:
        """See `Place`."""
        self._interrupted = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """See `Place`."""
        if self._process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(_GONE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()
        self._process = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tinyllm.experiments._worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # until a job sets its log
                env=self._environment,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # so that Ctrl-C reaches it once, through `interrupt`
            )
        return self._process


def _environment(number: int, places: int, gpus: int) -> dict[str, str]:
    environment = {"TOKENIZERS_PARALLELISM": "false", **os.environ}
    if places > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // places)))
    if gpus > 0 and places > 1:
        seen = environment.get("CUDA_VISIBLE_DEVICES")
        names = [n.strip() for n in seen.split(",")] if seen else [str(n) for n in range(gpus)]
        environment["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]
    return environment


def _how_it_died(code: int, job: Job) -> str:
    why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    hint = "; the memory may have been too small" if code == -signal.SIGKILL else ""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = log_file(Path(job.folder), job.key).read_text("utf-8", errors="replace").splitlines()[-_TAIL:]
    log = " The end of its log:\n" + "\n".join(lines) if lines else ""
    return f"Its process ended ({why}{hint}).{log}"


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("the process was started without this pipe")
    return pipe
