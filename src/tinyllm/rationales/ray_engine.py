"""The same generation over a Ray cluster: teachers work on its nodes; questions, checks, budget and store stay here.

To the scheduler a teacher on the cluster is a teacher like any other: `ask` sends one request to one of its workers.
So what holds for this machine (each reply stored before it counts, a hard budget, Ctrl-C) holds for the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tinyllm import config
from tinyllm.errors import MissingDependencyError, TeacherError
from tinyllm.questions import ById, Question
from tinyllm.rationales._ray_worker import Said, Worker, gpus_of, shared_out
from tinyllm.rationales.generate import Ended, Progress, Stop, generate
from tinyllm.rationales.requests import Requests
from tinyllm.replies import Store
from tinyllm.spending.budget import Budget
from tinyllm.teachers import Teacher
from tinyllm.teachers.base import UNMETERED, Meter, ParameterRefused, Reply, Request, RequestFailed
from tinyllm.teachers.manners import Manners

_RESTARTS = 3  # of a worker's process, by Ray, which then also asks again for what was in flight
_WORKERS_PER_REQUEST = 2  # after so many workers died of one request, it is the request's fault
_CALLS_AT_ONCE = 10_000  # of one worker; how many requests it gets is the scheduler's affair
_STOP_S = 15.0
_REACH_S = 10.0
_RAY_IS_MISSING = (
    "{needed_by} needs Ray: pip install 'tinyllm-distill[ray]'; without it everything runs on this machine."
)
_OBJECT_STORE_BYTES = 100 << 20  # for requests and replies in flight; Ray would take 30 % of the memory


async def generate_on_ray(
    teachers: Sequence[Requests],
    specs: Mapping[str, config.TeacherConfig],
    store: Store,
    progress: Progress,
    *,
    budget: Budget,
    stop: Stop,
    first: int | None = None,
    address: str | None = None,
    workers: int = 1,
) -> Ended:
    """Ask as `generate` does, with the teachers at work on a Ray cluster.

    Args:
        specs: the teachers' sections, by name.
        address: of a running cluster; None: Ray is started on this machine, and stopped at the end.
        workers: of each teacher, each with the teacher's model; those of an endpoint share its limits.

    Raises:
        MissingDependencyError: Ray is not installed.
        RunFolderError: the store cannot be used.
        OSError: the disk is full; what was stored before is kept.
    """
    ray_module(address)
    with _Cluster(address) as cluster:
        asked = [_on_cluster(requests, specs[requests.teacher.name], cluster, workers) for requests in teachers]
        try:
            return await generate(asked, store, progress, budget=budget, stop=stop, first=first)
        finally:
            for requests, used in zip(teachers, asked, strict=True):
                requests.manners = used.manners  # the replies are looked for in the forms that were found out


def travels(spec: config.TeacherConfig) -> bool:
    """Whether a teacher's work is done on the cluster; the others only wait, or have their rationales at hand."""
    return not isinstance(spec, config.GivenTeacher | config.OpenAIBatchTeacher)


def _on_cluster(requests: Requests, spec: config.TeacherConfig, cluster: _Cluster, workers: int) -> Requests:
    if not travels(spec):
        return requests
    return requests.with_teacher(_RayTeacher(requests.teacher, spec, cluster, workers, requests.questions))


# --- the cluster --------------------------------------------------------------------------------------------------


class _Cluster:
    """The connection to Ray, made when the first teacher needs it; `with` ends it.

    Args:
        address: of a running cluster; None: Ray is started on this machine, reachable from nowhere else.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._lock = asyncio.Lock()
        self._ray: Any = None
        self._is_ours = False
        # Ray's processes are killed when the thread ends that started them, and in the main thread Ray would take
        # SIGTERM for itself.
        self._thread = ThreadPoolExecutor(1)

    async def connect(self) -> Any:
        """Return the module `ray`, connected.

        Raises:
            TeacherError: there is no such cluster.
        """
        async with self._lock:
            if self._ray is None:
                ray = ray_module(self._address)
                if not ray.is_initialized():
                    self._is_ours = True
                    await asyncio.wrap_future(self._thread.submit(_connect, ray, self._address))
                self._ray = ray
        return self._ray

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_ours:
            self._thread.submit(ray_module(self._address).shutdown).result()
        self._thread.shutdown()


def check_engine(engine: str) -> None:
    """Say in time that Ray is missing, without importing it.

    Raises:
        MissingDependencyError: it is asked for and not installed.
    """
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise MissingDependencyError(_RAY_IS_MISSING.format(needed_by="`rationales.engine: ray`"))


def ray_module(address: str | None, needed_by: str = "`rationales.engine: ray`") -> Any:
    """Import Ray. What it reads from the environment when it is imported has to stand there before.

    Raises:
        MissingDependencyError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on any system: binds to loopback only
    try:
        import ray
    except ImportError:
        raise MissingDependencyError(_RAY_IS_MISSING.format(needed_by=needed_by)) from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    where: dict[str, Any] = {"address": address}
    if address is None:
        # For Ray, None would mean the variable RAY_ADDRESS.
        where = {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        reach(address or "")
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except (OSError, RuntimeError, ValueError) as error:
        raise TeacherError(
            f"Ray at {address or 'this machine'} cannot be used: {_gist(error)}. Give `rationales.ray_address` the "
            "address of a running cluster (`auto`: the one this machine belongs to), or null for Ray on this machine."
        ) from error


def reach(address: str) -> None:
    """Knock at an address with a port: Ray itself would wait for many minutes.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()


# --- a teacher on the cluster -------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Seat:
    """A worker that is ready, and how many requests it has."""

    worker: Any
    concurrency: int
    asked: int = 0


class _RayTeacher:
    """A teacher whose work is done by workers on a Ray cluster. Its name and identity are those of the teacher.

    Args:
        teacher: as made on this machine, where it is not entered.
        workers: that hold the teacher.
        questions: those it will be asked about; sent along to a teacher that answers from them.
    """

    def __init__(
        self,
        teacher: Teacher,
        spec: config.TeacherConfig,
        cluster: _Cluster,
        workers: int,
        questions: Sequence[Question],
    ) -> None:
        self.name = teacher.name
        self.identity = teacher.identity
        self.stored = teacher.stored
        self.manners = Manners()
        self.local = teacher.local  # such teachers take turns on the cluster, too: each gets all of it
        self._count, self._spec = shared_out(spec, workers)
        self._cluster = cluster
        self._questions = ById(questions if isinstance(spec, config.ScriptedTeacher) else ())
        self._ray: Any = None
        self._workers: list[Any] = []
        self._joining: set[asyncio.Task[None]] = set()
        self._seats: list[_Seat] = []
        self._last_words = ""

    def check(self) -> None:
        """Find nothing missing: the workers look for themselves, on their nodes."""

    @property
    def concurrency(self) -> int:
        """What its workers can use together."""
        return max(1, sum(seat.concurrency for seat in self._seats))

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the reply that one of the workers got; a worker that dies is replaced by another."""
        attempts = deaths = 0
        while deaths < _WORKERS_PER_REQUEST:
            seat = await self._seat()
            await meter.begin()
            seat.asked += 1
            try:
                question = self._questions.get(request.question_id)
                said = await self._said(seat.worker.ask.remote(request, question, self.manners))
            except self._ray.exceptions.RayTaskError:
                raise  # a bug of ours, with its traceback from there
            except self._ray.exceptions.RayError as error:
                deaths += 1
                self._last_words = _gist(error)
                with contextlib.suppress(ValueError):  # each of the requests that it had comes here
                    self._seats.remove(seat)
            else:
                seat.concurrency = said.concurrency
                if said.lost is None:
                    if said.reply is None and not said.charged:
                        meter.free()
                    return _taken(said)
                attempts += 1
                if attempts >= getattr(self._spec, "max_attempts", 1):
                    raise RequestFailed(f"{said.lost} ({attempts} attempts)")
            finally:
                seat.asked -= 1
        raise RequestFailed(f"{_WORKERS_PER_REQUEST} workers on the Ray cluster died while they had this request.")

    async def __aenter__(self) -> Self:
        self._ray = ray = await self._cluster.connect()
        kind = ray.remote(Worker).options(
            num_gpus=self._gpus(),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
            max_concurrency=_CALLS_AT_ONCE,
            scheduling_strategy="SPREAD",  # Ray would fill one node first
        )
        known = self._spec.model_dump(mode="json"), dict(self.identity)
        self._workers = [kind.remote(*known) for _ in range(self._count)]
        self._joining = {asyncio.create_task(self._join(worker)) for worker in self._workers}
        try:
            await self._seat()  # the others join when they are ready
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._joining:
            task.cancel()
        await asyncio.gather(*self._joining, *map(self._dismiss, self._workers), return_exceptions=True)
        self._joining, self._workers, self._seats = set(), [], []

    async def _join(self, worker: Any) -> None:
        try:
            said = await self._said(worker.start.remote())
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            raise TeacherError(
                f"Teacher '{self.name}': a worker on the Ray cluster did not start: {_gist(error)}. Every node needs "
                "the Python, the Ray and the tinyllm-distill of this machine."
            ) from error
        _taken(said)
        self._seats.append(_Seat(worker, said.concurrency))

    async def _said(self, coming: Any) -> Said:
        """Wait for what a worker says; nobody waiting any more, it need not go on."""
        try:
            said: Said = await coming
        except asyncio.CancelledError:
            self._ray.cancel(coming)
            raise
        return said

    async def _seat(self) -> _Seat:
        """Return the worker that has most room; wait for one that starts if there is none."""
        while True:
            for task in [task for task in self._joining if task.done()]:
                task.result()
                self._joining.remove(task)
            if self._seats:
                return min(self._seats, key=lambda seat: seat.asked / max(1, seat.concurrency))
            if not self._joining:
                raise TeacherError(
                    f"Teacher '{self.name}': all its workers on the Ray cluster have died, the last: {self._last_words}"
                )
            await asyncio.wait(self._joining, return_when=asyncio.FIRST_COMPLETED)

    async def _dismiss(self, worker: Any) -> None:
        try:
            with contextlib.suppress(TimeoutError, self._ray.exceptions.RayError):
                await asyncio.wait_for(worker.stop.remote(), _STOP_S)
        finally:
            self._ray.kill(worker)

    def _gpus(self) -> int:
        """GPUs for a worker; a cluster without any computes on its processors."""
        total = int(self._ray.cluster_resources().get("GPU", 0))
        wanted = gpus_of(self._spec) if total else 0
        if wanted > total:
            raise TeacherError(
                f"Teacher '{self.name}' needs {wanted} GPUs a worker and the Ray cluster has {total} in all."
            )
        return wanted


def _taken(said: Said) -> Reply | None:
    if said.gave_up is not None:
        raise TeacherError(said.gave_up)
    if said.refused is not None:
        names, words, most_tokens, manners = said.refused
        refused = ParameterRefused(names, words, most_tokens)
        refused.manners = manners
        raise refused
    if said.failed is not None:
        raise RequestFailed(*said.failed)
    return said.reply


def _gist(error: Exception) -> str:
    """The last line of Ray's words, which say at length which process died where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
