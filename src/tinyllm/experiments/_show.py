"""Progress of an experiment: a plan before it starts, and a table while it runs.

A terminal gets a table that is drawn in place, other outputs get lines about changes. Test accuracies are shown for
chosen settings only. For candidates the validation accuracy is shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tinyllm.comparison.records import Record
from tinyllm.comparison.selection import FAILED, accuracies, named
from tinyllm.experiments._grid import Cell, Experiment, GroupName
from tinyllm.experiments._grid import Group as Runs
from tinyllm.experiments._runner import Board
from tinyllm.system.news import News, duration

ToGo = Callable[[Board], tuple[int, float]]
"""Returns the number of runs to go, and their estimated seconds."""


@contextlib.contextmanager
def showing(experiment: Experiment, news: News, to_go: ToGo) -> Iterator[Callable[[Board], None]]:
    """Yield a function that shows a board."""
    if news.quiet:
        yield lambda _: None
    elif news.console.is_terminal:
        overview = Overview(experiment)
        with Live(console=news.console, auto_refresh=False) as live:
            yield lambda board: live.update(overview.drawn(board, *to_go(board)), refresh=True)
    else:
        yield Lines(experiment, news.console, to_go)


class Lines:
    """Prints a line for each run that starts, ends or fails."""

    def __init__(self, experiment: Experiment, console: Console, to_go: ToGo) -> None:
        self._experiment, self._console, self._to_go = experiment, console, to_go
        self._candidates = {c.key for g in experiment.groups if g.sweep.chooses for c in g.cells()}
        self._done: set[str] | None = None
        self._failed: set[str] = set()
        self._begun: set[str] = set()

    def __call__(self, board: Board) -> None:
        """Print what has changed since the last call."""
        done = set(board.done)
        before = done if self._done is None else self._done
        new = sorted(done - before)
        for key in sorted(set(board.running) - self._begun):
            self._say(f"  ▶ {key}")
        for key in new:
            count, seconds = self._to_go(board)
            told = f" · {count} more, about {duration(seconds)}" if count else ""
            told = told or (" · the last" if key == new[-1] else "")
            self._say(f"✓ {key}: {self._figure(board.done[key])}{told}")
        for error, keys in _by_error({k: e for k, e in board.failed.items() if k not in self._failed}).items():
            self._say(f"✗ {', '.join(keys)}: {error}")
        self._done, self._failed, self._begun = done, set(board.failed), self._begun | set(board.running)

    def _figure(self, record: Record) -> str:
        seconds = duration(float(record.figures.get("seconds") or 0.0))
        scorer = self._experiment.grid.scorer
        if record.key in self._candidates:
            return f"{100 * (record.accuracy('valid', scorer) or 0.0):.1f} % of the validation questions in {seconds}"
        return f"{100 * (record.accuracy('test', scorer) or 0.0):.1f} % in {seconds}"

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)


class Overview:
    """The table of methods and datasets, and below it the runs in progress."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    @cached_property
    def _cells(self) -> dict[GroupName, list[Cell]]:
        return {g.name: g.cells() for g in self._experiment.groups}

    def drawn(self, board: Board, count: int, seconds: float) -> Group:
        """Return the table with the runs in progress."""
        left = f"{_runs(count)} to go, about {duration(seconds)}" if count else "none to go"
        title = Text(f"{self._experiment.grid.name}: {_runs(len(board.done))} done, {left}", style="bold")
        chooses = any(group.sweep.chooses for group in self._experiment.groups)
        note = "Accuracy on the test questions in %, of the runs that are done (of all)"
        note += "; settings are chosen on validation questions" if chooses else ""
        under_way = [
            Text(f"▶ {key}: {label}" + (f" {done}/{total}" if total else ""), overflow="ellipsis", no_wrap=True)
            for key, (label, done, total) in sorted(board.running.items())
        ]
        return Group(title, self._table(lambda g: self._figure(g, board)), Text(note, style="dim"), *under_way)

    def plan(self, board: Board, seconds_of: Callable[[Runs, list[Cell]], float]) -> Table:
        """Return a table with the number of runs that are left, and their estimated time.

        Args:
            seconds_of: returns the time of a group's runs, given those that are known to be left.
        """

        def cell(group: Runs) -> str:
            keys = {c.key for c in self._cells[group.name]}
            count = board.not_ended(group)
            known = [c for c in board.left if c.key in keys]
            return f"{_runs(count)}, {duration(seconds_of(group, known))}" if count > 0 else "done"

        return self._table(cell)

    def _table(self, cell: Callable[[Runs], str]) -> Table:
        groups = {g.name: g for g in self._experiment.groups}
        datasets = list(dict.fromkeys(g.dataset for g in self._experiment.groups))
        table = Table()
        table.add_column("method", overflow="fold")
        for dataset in datasets:
            table.add_column(escape(dataset), justify="right", overflow="fold")
        students = list(dict.fromkeys(g.student for g in self._experiment.groups))
        for student in students:
            if len(students) > 1:
                table.add_row(f"[bold]{escape(student)}")
            labels = dict.fromkeys((g.spec.id, g.spec.label) for g in self._experiment.groups if g.student == student)
            for name, label in labels:
                found = [groups.get((dataset, student, name)) for dataset in datasets]
                table.add_row(escape(label), *("" if g is None else cell(g) for g in found))
            table.add_section()
        return table

    def _figure(self, group: Runs, board: Board) -> str:
        cells = self._cells[group.name]
        done = [board.done[c.key] for c in cells if c.key in board.done]
        scorer, wanted = self._experiment.grid.scorer, group.sweep.runs()
        lost = {(named(c.settings), c.seed): FAILED for c in cells if c.key in board.failed}
        settings = group.sweep.chosen(accuracies(done, scorer) | lost)
        own = [] if settings is None else [r for r in done if named(r.settings) == named(settings)]
        parts = []
        if own:
            parts.append(f"{100 * sum(r.accuracy('test', scorer) or 0.0 for r in own) / len(own):.1f}")
        if done and len(done) + len(lost) < wanted:
            parts.append(f"({len(done)}/{wanted})")
        parts += ["▶"] * sum(c.key in board.running for c in cells) + ["✗"] * len(lost)
        return " ".join(parts) or "·"


def _by_error(failed: Mapping[str, str]) -> dict[str, list[str]]:
    """Group failed runs by error, because many runs can fail for the same reason."""
    found: dict[str, list[str]] = {}
    for key in sorted(failed):
        found.setdefault(failed[key], []).append(key)
    return found


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
