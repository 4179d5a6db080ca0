"""Runs on a Ray cluster. Each run is a task on a node, which writes its record into the shared folder."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyllm.errors import TinyLLMError
from tinyllm.experiments._cell import Job
from tinyllm.experiments._places import Place
from tinyllm.experiments._worker import Tell, do
from tinyllm.rationales.ray_engine import ray_module, reach

_LOCAL = "local"
"""The address of a Ray on this machine, which is started here and stopped at the end."""


class RayPlace:
    """Does one job at a time on any node of a cluster."""

    def __init__(self, ray: Any, processors: float, gpus: float) -> None:
        self._ray = ray
        # A failed run is not tried again, because it would fail in the same way.
        self._task = ray.remote(num_cpus=processors, num_gpus=gpus, max_retries=0)(_do)
        self._running: Any = None
        self._interrupted = False

    def work(self, job: Job, tell: Tell) -> Mapping[str, Any]:
        """See `Place`."""
        tell({"event": "progress", "label": "On the cluster", "done": 0, "total": None})
        self._running = self._task.remote(asdict(job), str(Path.cwd()))
        if self._interrupted:  # before the task existed
            self._ray.cancel(self._running)
        try:
            ended: Mapping[str, Any] = self._ray.get(self._running)
        except self._ray.exceptions.TaskCancelledError:
            return {"event": "interrupted"}
        except self._ray.exceptions.RayError as error:
            return {"event": "failed", "error": f"Ray: {str(error).strip().splitlines()[0]}", "is_bug": False}
        finally:
            self._running = None
        return ended

    def interrupt(self) -> None:
        """See `Place`."""
        self._interrupted = True
        if self._running is not None:
            self._ray.cancel(self._running)

    def close(self) -> None:
        """See `Place`."""


def _do(job: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Do a job in the folder that paths of the configuration are relative to. All nodes must see it."""
    os.chdir(folder)
    return do(job, lambda _: None)


@contextlib.contextmanager
def ray_places(address: str, workers: int) -> Iterator[list[Place]]:
    """Connect to a cluster, and yield places that share it evenly. The connection ends with the block.

    Args:
        address: the address of a running cluster, `auto` for the cluster of this machine, or `local`.

    Raises:
        MissingDependencyError: Ray is not installed.
        TinyLLMError: there is no such cluster.
    """
    ray = ray_module(None if address == _LOCAL else address, needed_by="`tinyllm experiment --ray`")
    try:
        reach(address)
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise TinyLLMError(
            f"Ray at {address} cannot be used: {error}. Give --ray the address of a running cluster, `auto` for the "
            f"cluster of this machine, or `{_LOCAL}`."
        ) from error
    try:
        nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        of_all = sum(n.get("CPU", 0.0) for n in nodes)
        largest = max((n.get("CPU", 0.0) for n in nodes), default=1.0)  # a run is on one node
        gpus = min(1.0, sum(n.get("GPU", 0.0) for n in nodes) / workers)
        yield [RayPlace(ray, max(1.0, min(largest, of_all // workers)), gpus) for _ in range(workers)]
    finally:
        ray.shutdown()
