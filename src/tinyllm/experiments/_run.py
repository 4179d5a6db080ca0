"""An experiment from its file to its report: prepare what is shared, run what is left, write what it shows."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyllm.errors import RunFolderError
from tinyllm.experiments._forecast import Forecast
from tinyllm.experiments._grid import Cell, Experiment, Group
from tinyllm.experiments._places import LocalProcess, Place
from tinyllm.experiments._runner import Board, Runner
from tinyllm.experiments._shared import (
    Shared,
    forecast_of_teachers,
    known_rationales,
    read_questions,
    write_rationales,
)
from tinyllm.experiments._show import Overview, showing
from tinyllm.stages.folder import make_folder
from tinyllm.system.news import News, duration


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of an experiment.

    Attributes:
        failed: what went wrong, by the key of the run.
        left: runs that are not done, failed ones aside.
        seconds_left: about how long those will take; None where nothing is left.
        unanswered: requests to teachers that got no reply.
        report: the page; None where no run is done yet.
    """

    done: int
    failed: dict[str, str]
    left: int
    seconds_left: float | None
    unanswered: int
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
    if plan_only:
        return _planned(experiment, folder, news, workers, is_here=ray_address is None)
    questions = read_questions(experiment, news)
    with _claimed(folder):
        Runner(experiment, folder, known_rationales(experiment, folder, questions))  # before anything is spent
        shared = write_rationales(experiment, folder, questions, news)
        runner = Runner(experiment, folder, shared)
        runner.open()
        forecast = _forecast(experiment, shared, news, workers, is_here=ray_address is None)
        board = runner.board()
        _say_what_is_left(experiment, forecast, board, news)
        if undated := runner.undated():
            news.say(
                f"  note: {undated} finished runs do not say which training and validation questions they learnt from "
                "(an earlier version made them); if those have changed since, remove the runs from `cells`"
            )
        if lacking := runner.views_lacking():
            news.say(
                f"  note: some finished runs were not asked in the views {', '.join(sorted(lacking))}; remove their "
                "folders from `cells` to have them run again"
            )
        if board.left:
            with (
                _places(workers, ray_address) as places,
                showing(experiment, news, lambda b: (_count(experiment, b), _to_go(experiment, forecast, b))) as show,
            ):
                runner.run(places, show)
        board = runner.board()
        report = _report(folder, news) if board.done else None
        return _summary(experiment, forecast, board, sum(shared.unanswered.values()), report)


def _planned(experiment: Experiment, folder: Path, news: News, workers: int, *, is_here: bool) -> Summary:
    """Say what is left and how long it takes; ask nobody, write nothing."""
    shared = known_rationales(experiment, folder, read_questions(experiment, news))
    board = Runner(experiment, folder, shared).board()
    for line in forecast_of_teachers(experiment, folder, shared, news):
        news.say(line)
    forecast = _forecast(experiment, shared, news, workers, is_here=is_here)
    if _count(experiment, board) and not news.quiet:
        news.console.print(Overview(experiment).plan(board, lambda g, known: _of_group(g, known, forecast, board)))
    return _summary(experiment, forecast, board, 0, None)


def _of_group(group: Group, known: Sequence[Cell], forecast: Forecast, board: Board) -> float:
    """Return how long the runs of a group take that are left, `known` among them."""
    ended = sum(c.key in board.done or c.key in board.failed for c in group.cells())
    return forecast.left(known, max(0, group.sweep.runs() - ended - len(known)), board.done.values())


def _forecast(experiment: Experiment, shared: Shared, news: News, workers: int, *, is_here: bool) -> Forecast:
    with news.task("Estimating the time"):
        return Forecast(experiment, shared, places=workers, gpus=_gpus(), is_here=is_here)


def _say_what_is_left(experiment: Experiment, forecast: Forecast, board: Board, news: News) -> None:
    if board.done:
        news.say(f"  {len(board.done)} runs are done already")
    if left := _count(experiment, board):
        news.say(f"  {left} runs to go: about {duration(_to_go(experiment, forecast, board))} on this machine")


def _summary(experiment: Experiment, forecast: Forecast, board: Board, unanswered: int, report: Path | None) -> Summary:
    left = _count(experiment, board)
    seconds = _to_go(experiment, forecast, board) if left else None
    return Summary(len(board.done), dict(board.failed), left, seconds, unanswered, report)


def _report(folder: Path, news: News) -> Path:
    from tinyllm.report import write_experiment

    with news.task("Writing the report"):
        return write_experiment(folder)


@contextlib.contextmanager
def _places(workers: int, ray_address: str | None) -> Iterator[Sequence[Place]]:
    if ray_address is None:
        gpus = _gpus()
        yield [LocalProcess(number, workers, gpus) for number in range(workers)]
        return
    from tinyllm.experiments._ray_place import ray_places

    with ray_places(ray_address, workers) as places:
        yield places


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _count(experiment: Experiment, board: Board) -> int:
    """Return how many runs are not done, those included of which it is not known yet with which settings."""
    return max(len(board.left), sum(_to_come(g, board) for g in experiment.groups))


def _to_come(group: Group, board: Board) -> int:
    cells = group.cells()
    if group.sweep.chooses and all(c.key in board.failed for c in cells if c.is_first):
        return 0  # there is nothing to choose from
    return max(0, group.sweep.runs() - sum(c.key in board.done or c.key in board.failed for c in cells))


def _to_go(experiment: Experiment, forecast: Forecast, board: Board) -> float:
    unknown = max(0, _count(experiment, board) - len(board.left))
    return forecast.left(board.left, unknown, board.done.values())


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    make_folder(folder)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"Another process is at work in {folder}. Wait for it, or choose another folder with --run-dir."
            ) from None
        yield
