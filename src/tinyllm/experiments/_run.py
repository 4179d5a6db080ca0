"""Running an experiment: prepare what the runs share, do the runs that are left, write the report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinyllm.experiments._forecast import Forecast
from tinyllm.experiments._grid import Experiment, Group
from tinyllm.experiments._places import LocalProcess, Place
from tinyllm.experiments._runner import Board, Runner
from tinyllm.experiments._shared import Shared, forecast_of_teachers, known_rationales, read_questions, write_rationales
from tinyllm.experiments._show import Overview, showing
from tinyllm.stages.folder import RunFolder
from tinyllm.system.news import News, duration


@dataclass(frozen=True, slots=True)
class Summary:
    """The state of an experiment.

    Attributes:
        failed: the errors of failed runs, by key.
        left: the number of runs that are neither done nor failed.
        seconds_left: estimated time of those runs; None if there are none.
        unanswered: the number of requests to teachers without a reply.
        report: the page; None while no run is done.
        shows: the sentences that the page begins with.
    """

    done: int
    failed: dict[str, str]
    left: int
    seconds_left: float | None
    unanswered: int
    report: Path | None
    shows: str = ""


def run_experiment(
    experiment: Experiment,
    folder: Path,
    news: News,
    *,
    workers: int = 1,
    ray_address: str | None = None,
    plan_only: bool = False,
) -> Summary:
    """Do the runs of an experiment that are left, and write its report.

    Args:
        folder: the folder of the records. Runs that are there already are not repeated.
        workers: the number of runs at the same time.
        ray_address: a Ray cluster whose nodes all see the folder and the data; None: processes of this machine.
        plan_only: print what is left and its estimated time, and run nothing.

    Raises:
        RunFolderError: another process uses the folder, or the folder holds runs with other settings.
        KeyboardInterrupt: Ctrl-C was pressed. Finished runs are kept, and runs in progress have a checkpoint.
    """
    if plan_only:
        return _planned(experiment, folder, news, workers, is_here=ray_address is None)
    questions = read_questions(experiment, news)
    RunFolder(folder).make()
    with RunFolder(folder).locked():
        Runner(experiment, folder, known_rationales(experiment, folder, questions))  # before anything is spent
        shared = write_rationales(experiment, folder, questions, news)
        runner = Runner(experiment, folder, shared)
        runner.open()
        forecast = _forecast(experiment, shared, news, workers, is_here=ray_address is None)
        board = runner.board()
        if board.done:
            news.say(f"  {len(board.done)} runs are done already")
        if left := _count(experiment, board):
            runs = "1 run" if left == 1 else f"{left} runs"
            news.say(f"  {runs} to go: about {duration(_to_go(experiment, forecast, board))} on this machine")
        if undated := runner.undated():
            news.say(
                f"  note: {undated} finished runs of an earlier version do not record their training and validation "
                "questions; if these questions have changed, remove the runs from `cells`"
            )
        if lacking := runner.views_lacking():
            news.say(
                f"  note: some finished runs have no answers in the views {', '.join(sorted(lacking))}; to run them "
                "again, remove their folders from `cells`"
            )
        if board.left:
            with (
                _places(workers, ray_address) as places,
                showing(experiment, news, lambda b: (_count(experiment, b), _to_go(experiment, forecast, b))) as show,
            ):
                runner.run(places, show)
        board = runner.board()
        report, shows = None, list[str]()
        if board.done:
            from tinyllm.report import write_experiment

            with news.task("Writing the report"):
                report = write_experiment(folder, shows.append)
        summary = _summary(experiment, forecast, board, sum(shared.unanswered.values()), report)
        return replace(summary, shows=" ".join(shows))


def _planned(experiment: Experiment, folder: Path, news: News, workers: int, *, is_here: bool) -> Summary:
    """Print what is left and its estimated time. Ask no teacher, write no file."""
    shared = known_rationales(experiment, folder, read_questions(experiment, news))
    board = Runner(experiment, folder, shared).board()
    for line in forecast_of_teachers(experiment, folder, shared, news):
        news.say(line)
    forecast = _forecast(experiment, shared, news, workers, is_here=is_here)
    if _count(experiment, board) and not news.quiet:
        done = board.done.values()
        news.console.print(
            Overview(experiment).plan(
                board, lambda group, known: forecast.left(known, max(0, board.not_ended(group) - len(known)), done)
            )
        )
    return _summary(experiment, forecast, board, 0, None)


def _forecast(experiment: Experiment, shared: Shared, news: News, workers: int, *, is_here: bool) -> Forecast:
    with news.task("Estimating the time"):
        return Forecast(experiment, shared, places=workers, gpus=_gpus(), is_here=is_here)


def _summary(experiment: Experiment, forecast: Forecast, board: Board, unanswered: int, report: Path | None) -> Summary:
    left = _count(experiment, board)
    seconds = _to_go(experiment, forecast, board) if left else None
    return Summary(len(board.done), dict(board.failed), left, seconds, unanswered, report)


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
    """Return the number of runs that are left, with those whose settings are not known yet."""
    return max(len(board.left), sum(_to_come(g, board) for g in experiment.groups))


def _to_come(group: Group, board: Board) -> int:
    if group.sweep.chooses and all(c.key in board.failed for c in group.cells() if c.is_first):
        return 0  # all candidates failed, so nothing can be chosen
    return board.not_ended(group)


def _to_go(experiment: Experiment, forecast: Forecast, board: Board) -> float:
    unknown = max(0, _count(experiment, board) - len(board.left))
    return forecast.left(board.left, unknown, board.done.values())
