"""Generation on a Ray cluster. The teachers run on its nodes; questions, checks, budget and store stay on this machine.

For the scheduler, a teacher on the cluster is a teacher like any other: `ask` sends one request to one worker. So the
same guarantees hold: each reply is stored before it counts, the budget is a hard cap, Ctrl-C keeps all replies.
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

_RESTARTS = 3  # Ray restarts a worker so often, and sends its requests again
_WORKERS_PER_REQUEST = 2  # if so many workers died during a request, the request is given up
_CALLS_AT_ONCE = 10_000  # of one worker; the scheduler sends fewer
_STOP_S = 15.0
_REACH_S = 10.0
_RAY_IS_MISSING = (
    "{needed_by} needs Ray. Install it with: pip install 'tinyllm-distill[ray]'. Without Ray, use one machine."
)
_OBJECT_STORE_BYTES = 100 << 20  # enough for requests and replies in flight; Ray's default is 30 % of the memory


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
    """Like `generate`, with the teachers on a Ray cluster.

    Args:
        specs: the teachers' sections, by name.
        address: of a running cluster; None: start Ray on this machine, and stop it at the end.
        workers: number of workers for each teacher. Each loads the model; workers of an endpoint share its limits.

    Raises:
        MissingDependencyError: Ray is not installed.
        RunFolderError: the store cannot be used.
        OSError: the disk is full; earlier replies are kept.
    """
    ray_module(address)
    with _Cluster(address) as cluster:
        asked = []
        for requests in teachers:
            spec = specs[requests.teacher.name]
            if travels(spec):
                remote = _RayTeacher(requests.teacher, spec, cluster, workers, requests.questions)
                asked.append(requests.with_teacher(remote))
            else:
                asked.append(requests)
        try:
            return await generate(asked, store, progress, budget=budget, stop=stop, first=first)
        finally:
            for requests, used in zip(teachers, asked, strict=True):
                requests.manners = used.manners  # `collect` looks for the replies in these forms


def travels(spec: config.TeacherConfig) -> bool:
    """Return whether a teacher runs on the cluster. The others only wait, or have their rationales already."""
    return not isinstance(spec, config.GivenTeacher | config.OpenAIBatchTeacher)


# --- the cluster --------------------------------------------------------------------------------------------------


class _Cluster:
    """The connection to Ray. It is opened when the first teacher needs it, and closed at the end of `with`.

    Args:
        address: of a running cluster; None: start Ray on this machine, on the loopback address only.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._lock = asyncio.Lock()
        self._ray: Any = None
        self._is_ours = False
        # A separate thread: in the main thread, Ray would handle SIGTERM. The thread must live as long as Ray, because
        # Ray's processes are killed when the thread that started them ends.
        self._thread = ThreadPoolExecutor(1)

    async def connect(self) -> Any:
        """Return the module `ray`, connected."""
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

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            self._thread.submit(ray_module(self._address).shutdown).result()
        self._thread.shutdown()


def check_engine(engine: str) -> None:
    """Check that Ray is installed if it is needed, without importing it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise MissingDependencyError(_RAY_IS_MISSING.format(needed_by="`rationales.engine: ray`"))


def ray_module(address: str | None, needed_by: str = "`rationales.engine: ray`") -> Any:
    """Import Ray. Its environment variables must be set before the import.

    Raises:
        MissingDependencyError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # makes Ray bind to the loopback address only
    try:
        import ray
    except ImportError:
        raise MissingDependencyError(_RAY_IS_MISSING.format(needed_by=needed_by)) from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    where: dict[str, Any] = {"address": address}
    if address is None:
        # With None, Ray would read the variable RAY_ADDRESS.
        where = {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        reach(address or "")
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except (OSError, RuntimeError, ValueError) as error:
        raise TeacherError(
            f"Ray at {address or 'this machine'} cannot be used: {_last_line(error)}. Set `rationales.ray_address` to "
            "the address of a running cluster (`auto`: the cluster of this machine), or to null to start Ray here."
        ) from error


def reach(address: str) -> None:
    """Check that a server answers at an address with a port. Ray itself would wait for many minutes.

    Raises:
        OSError: no server answers.
    """
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()


# --- a teacher on the cluster -------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _ReadyWorker:
    """A worker that is ready, and the number of requests that it has."""

    worker: Any
    concurrency: int
    asked: int = 0


class _RayTeacher:
    """A teacher that runs in workers on a Ray cluster. It has the name and the identity of the original teacher.

    Args:
        teacher: the original, which is not started on this machine.
        questions: sent along to a teacher that answers from the question itself.
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
        self.local = teacher.local  # local teachers take turns on the cluster, too
        self._count, self._spec = shared_out(spec, workers)
        self._cluster = cluster
        self._questions = ById(questions if isinstance(spec, config.ScriptedTeacher) else ())
        self._ray: Any = None
        self._workers: list[Any] = []
        self._joining: set[asyncio.Task[None]] = set()
        self._ready: list[_ReadyWorker] = []
        self._last_error = ""

    def check(self) -> None:
        """Check nothing here: the workers check on their own nodes."""

    @property
    def concurrency(self) -> int:
        """Requests that all workers together can use."""
        return max(1, sum(ready.concurrency for ready in self._ready))

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return a reply from one of the workers. If the worker dies, another one is asked."""
        attempts = deaths = 0
        while deaths < _WORKERS_PER_REQUEST:
            ready = await self._next_worker()
            await meter.begin()
            ready.asked += 1
            try:
                question = self._questions.get(request.question_id)
                said = await self._answer_of(ready.worker.ask.remote(request, question, self.manners))
            except self._ray.exceptions.RayTaskError:
                raise  # a bug in TinyLLM, with the traceback from the node
            except self._ray.exceptions.RayError as error:
                deaths += 1
                self._last_error = _last_line(error)
                with contextlib.suppress(ValueError):  # another request may have removed it
                    self._ready.remove(ready)
            else:
                ready.concurrency = said.concurrency
                if said.lost is None:
                    if said.reply is None and not said.charged:
                        meter.free()
                    return _reply_of(said)
                attempts += 1
                if attempts >= getattr(self._spec, "max_attempts", 1):
                    raise RequestFailed(f"{said.lost} ({attempts} attempts)")
            finally:
                ready.asked -= 1
        raise RequestFailed(f"{_WORKERS_PER_REQUEST} workers on the Ray cluster died while they had this request.")

    async def __aenter__(self) -> Self:
        self._ray = ray = await self._cluster.connect()
        kind = ray.remote(Worker).options(
            num_gpus=self._gpus(),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
            max_concurrency=_CALLS_AT_ONCE,
            scheduling_strategy="SPREAD",  # the default fills one node first
        )
        known = self._spec.model_dump(mode="json"), dict(self.identity)
        self._workers = [kind.remote(*known) for _ in range(self._count)]
        self._joining = {asyncio.create_task(self._join(worker)) for worker in self._workers}
        try:
            await self._next_worker()  # the other workers join later
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._joining:
            task.cancel()
        await asyncio.gather(*self._joining, *map(self._stop_worker, self._workers), return_exceptions=True)
        self._joining, self._workers, self._ready = set(), [], []

    async def _join(self, worker: Any) -> None:
        try:
            said = await self._answer_of(worker.start.remote())
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            raise TeacherError(
                f"Teacher '{self.name}': a worker on the Ray cluster did not start: {_last_line(error)}. Install the "
                "same versions of Python, Ray and tinyllm-distill on every node as on this machine."
            ) from error
        _reply_of(said)
        self._ready.append(_ReadyWorker(worker, said.concurrency))

    async def _answer_of(self, answer: Any) -> Said:
        """Wait for a worker's answer. If this is cancelled, the worker stops, too."""
        try:
            said: Said = await answer
        except asyncio.CancelledError:
            self._ray.cancel(answer)
            raise
        return said

    async def _next_worker(self) -> _ReadyWorker:
        """Return the least busy worker. If there is none, wait for one to start."""
        while True:
            for task in [task for task in self._joining if task.done()]:
                task.result()
                self._joining.remove(task)
            if self._ready:
                return min(self._ready, key=lambda ready: ready.asked / max(1, ready.concurrency))
            if not self._joining:
                raise TeacherError(
                    f"Teacher '{self.name}': all its workers on the Ray cluster have died. "
                    f"The last error: {self._last_error}"
                )
            await asyncio.wait(self._joining, return_when=asyncio.FIRST_COMPLETED)

    async def _stop_worker(self, worker: Any) -> None:
        try:
            with contextlib.suppress(TimeoutError, self._ray.exceptions.RayError):
                await asyncio.wait_for(worker.stop.remote(), _STOP_S)
        finally:
            self._ray.kill(worker)

    def _gpus(self) -> int:
        """Return the GPUs of a worker; 0 if the cluster has no GPU."""
        total = int(self._ray.cluster_resources().get("GPU", 0))
        wanted = gpus_of(self._spec) if total else 0
        if wanted > total:
            raise TeacherError(
                f"Teacher '{self.name}' needs {wanted} GPUs per worker, and the Ray cluster has {total}. Use a larger "
                "cluster, or lower the parallel sizes in `arguments`."
            )
        return wanted


def _reply_of(said: Said) -> Reply | None:
    if said.gave_up is not None:
        raise TeacherError(said.gave_up)
    if said.refused is not None:
        names, words, limit, manners = said.refused
        refused = ParameterRefused(names, words, limit)
        refused.manners = manners
        raise refused
    if said.failed is not None:
        raise RequestFailed(*said.failed)
    return said.reply


def _last_line(error: Exception) -> str:
    """Return the last line of Ray's message, which is long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
