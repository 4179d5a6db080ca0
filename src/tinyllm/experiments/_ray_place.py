"""Runs of an experiment on a Ray cluster: each is a task on a node, which leaves its record in the shared folder."""

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

LOCAL = "local"
"""As an address: Ray on this machine, started for this and stopped again."""


class RayPlace:
    """Does one job at a time on any node of a cluster.

    Args:
        ray: the module, connected.
        processors, gpus: that a run is given.
    """

    def __init__(self, ray: Any, processors: float, gpus: float) -> None:
        self._ray = ray
        # A run that fails is told of, not tried again: with the same questions it would fail the same way.
        self._task = ray.remote(num_cpus=processors, num_gpus=gpus, max_retries=0)(_do)
        self._running: Any = None
        self._interrupted = False

    def work(self, job: Job, tell: Tell) -> Mapping[str, Any]:
        """See `Place`."""
        tell({"event": "progress", "label": "On the cluster", "done": 0, "total": None})
        self._running = self._task.remote(asdict(job), str(Path.cwd()))
        if self._interrupted:  # before there was a task that could be told
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
    """Do a job in the folder from which paths of the configuration are meant; all nodes must see it."""
    os.chdir(folder)
    return do(job, lambda _: None)


@contextlib.contextmanager
def ray_places(address: str, workers: int) -> Iterator[list[Place]]:
    """Connect to a cluster and give places that share it out evenly; the connection ends with the block.

    Args:
        address: of a running cluster, `auto` for the one that this machine belongs to, or `local`.

    Raises:
        MissingDependencyError: Ray is not installed.
        TinyLLMError: there is no such cluster.
    """
    ray = ray_module(None if address == LOCAL else address, needed_by="`tinyllm experiment --ray`")
    try:
        reach(address)
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise TinyLLMError(
            f"Ray at {address} cannot be used: {error}. Give --ray the address of a running cluster, `auto` for the "
            f"one that this machine belongs to, or `{LOCAL}`."
        ) from error
    try:
        nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        of_all = sum(n.get("CPU", 0.0) for n in nodes)
        largest = max((n.get("CPU", 0.0) for n in nodes), default=1.0)  # a run is on one node
        gpus = min(1.0, sum(n.get("GPU", 0.0) for n in nodes) / workers)
        yield [RayPlace(ray, max(1.0, min(largest, of_all // workers)), gpus) for _ in range(workers)]
    finally:
        ray.shutdown()
