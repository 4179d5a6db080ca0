"""An experiment from its file to its report: prepare what is shared, run what is left, write what it shows."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyllm.errors import RunFolderError
from tinyllm.experiments.forecast import Forecast
from tinyllm.experiments.grid import Experiment
from tinyllm.experiments.places import LocalProcess, Place
from tinyllm.experiments.runner import Board, Runner
from tinyllm.experiments.shared import prepare
from tinyllm.experiments.show import showing
from tinyllm.news import News, duration


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of an experiment.

    Attributes:
        failed: what went wrong, by the key of the run.
        left: runs that are not done.
        seconds_left: about how long those will take; None where nothing is left.
        report: the page; None where no run is done yet.
    """

    done: int
    failed: dict[str, str]
    left: int
    seconds_left: float | None
    report: Path | None


def run_experiment(
    experiment: Experiment,
    folder: Path,
    news: News,
    *,
    workers: int = 1,
    ray_address: str | None = None,
    plan_only: bool = False,
) -> Summary:
    """Run what an experiment still lacks and write its report.

    Args:
        folder: gets the records; what is in it already is not done again.
        workers: runs under way at once.
        ray_address: of a Ray cluster whose nodes all see the folder and the data; None: processes of this machine.
        plan_only: say what is left and how long it will take; run nothing.

    Raises:
        RunFolderError: another process is at work in the folder, or it holds runs of other settings.
        KeyboardInterrupt: it was interrupted; everything finished is kept, runs under way have a checkpoint.
    """
    with _claimed(folder):
        shared = prepare(experiment, folder, news)
        runner = Runner(experiment, folder, shared)
        runner.open()
        gpus = _gpus()
        with news.task("Estimating the time"):
            forecast = Forecast(experiment, shared, places=workers, gpus=gpus)
            seconds = _to_go(experiment, forecast, runner.board)
        if runner.board.done:
            news.say(f"  {len(runner.board.done)} runs are done already")
        if runner.board.left:
            news.say(f"  {_count(experiment, runner.board)} runs to go: about {duration(seconds)} on this machine")
        if not plan_only and runner.board.left:
            with (
                _places(workers, gpus, ray_address) as places,
                showing(experiment, news, lambda board: _to_go(experiment, forecast, board)) as show,
            ):
                runner.run(places, show)
        board = runner.board
        report = _report(folder, news) if board.done else None
        left = _count(experiment, board)
        return Summary(len(board.done), dict(board.failed), left, seconds if plan_only and left else None, report)


def _report(folder: Path, news: News) -> Path:
    from tinyllm.report import write_experiment

    with news.task("Writing the report"):
        return write_experiment(folder)


@contextlib.contextmanager
def _places(workers: int, gpus: int, ray_address: str | None) -> Iterator[Sequence[Place]]:
    if ray_address is None:
        yield [LocalProcess(number, workers, gpus) for number in range(workers)]
        return
    from tinyllm.experiments.ray_place import ray_places

    with ray_places(ray_address, workers) as places:
        yield places


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _count(experiment: Experiment, board: Board) -> int:
    """Return how many runs are not done, those included of which it is not known yet with which settings."""
    return sum(g.sweep.runs() for g in experiment.groups) - len(_mine(experiment, board)) - len(board.failed)


def _mine(experiment: Experiment, board: Board) -> list[str]:
    """Return the finished runs that belong to the grid as it is now; a folder may hold more."""
    names = {(g.dataset, g.student, g.spec.id) for g in experiment.groups}
    return [key for key, r in board.done.items() if (r.dataset, r.student, r.method) in names]


def _to_go(experiment: Experiment, forecast: Forecast, board: Board) -> float:
    unknown = max(0, _count(experiment, board) - len(board.left))
    return forecast.left(board.left, unknown, board.done.values())


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"Another process is at work in {folder}. Wait for it, or choose another folder with --run-dir."
            ) from None
        yield
