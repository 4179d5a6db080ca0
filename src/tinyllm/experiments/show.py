"""The table of an experiment under way: on a terminal it is drawn in place, elsewhere lines say what changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tinyllm.evidence.answers import Scorer
from tinyllm.evidence.records import Record
from tinyllm.experiments.grid import Experiment
from tinyllm.experiments.runner import Board
from tinyllm.news import News, duration

ToGo = Callable[[Board], float]
Keys = Mapping[tuple[str, str, str], set[str]]
"""The runs of each dataset, student and method, by their keys."""


@contextlib.contextmanager
def showing(experiment: Experiment, news: News, to_go: ToGo) -> Iterator[Callable[[Board], None]]:
    """Give what shows a board; it may be called as often as one likes."""
    if news.quiet:
        yield lambda _: None
    elif news.console.is_terminal:
        keys = {(g.dataset, g.student, g.spec.id): {c.key for c in g.cells()} for g in experiment.groups}
        with Live(console=news.console, auto_refresh=False) as live:
            yield lambda board: live.update(table(experiment, board, keys, to_go(board)), refresh=True)
    else:
        yield Lines(experiment.grid.scorer, news.console, to_go)


class Lines:
    """Says each run that begins, ends or fails in a line of its own."""

    def __init__(self, scorer: Scorer, console: Console, to_go: ToGo) -> None:
        self._scorer, self._console, self._to_go = scorer, console, to_go
        self._done: set[str] | None = None
        self._failed: set[str] = set()
        self._begun: set[str] = set()

    def __call__(self, board: Board) -> None:
        """Say what is new since the last call."""
        done = set(board.done)
        before = done if self._done is None else self._done
        for key in sorted(set(board.running) - self._begun):
            self._say(f"  ▶ {key}")
        for key in sorted(done - before):
            left = len(board.left)
            told = f"{left} more, about {duration(self._to_go(board))}" if left else "the last"
            self._say(f"✓ {key}: {_figure(board.done[key], self._scorer)} · {told}")
        for key in sorted(set(board.failed) - self._failed):
            self._say(f"✗ {key}: {board.failed[key]}")
        self._done, self._failed, self._begun = done, set(board.failed), self._begun | set(board.running)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)


def _figure(record: Record, scorer: Scorer) -> str:
    seconds = float(record.figures.get("seconds") or 0.0)
    return f"{100 * (record.accuracy('test', scorer) or 0.0):.1f} % in {duration(seconds)}"


def table(experiment: Experiment, board: Board, keys: Keys, to_go_s: float) -> Table:
    """Return the table: a row a method, a column a dataset and student."""
    columns = list(dict.fromkeys((g.dataset, g.student) for g in experiment.groups))
    rows = list(dict.fromkeys((g.spec.id, g.spec.label) for g in experiment.groups))
    left = f"{len(board.left)} runs to go, about {duration(to_go_s)}" if board.left else "all runs done"
    title = escape(f"{experiment.grid.name}: {len(board.done)} runs done, {left}")
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("method")
    for dataset, student in columns:
        drawn.add_column(f"{dataset}\n{student}" if len(experiment.grid.students) > 1 else dataset, justify="right")
    groups = {(g.dataset, g.student, g.spec.id): g for g in experiment.groups}
    for name, label in rows:
        cells = [(groups.get((d, s, name)), keys.get((d, s, name), set())) for d, s in columns]
        scorer = experiment.grid.scorer
        drawn.add_row(escape(label), *("" if g is None else _cell(g.sweep.runs(), k, board, scorer) for g, k in cells))
    return drawn


def _cell(runs: int, keys: set[str], board: Board, scorer: Scorer) -> str:
    done = [record for key in keys if (record := board.done.get(key)) is not None]
    running = [state for key in keys if (state := board.running.get(key)) is not None]
    parts = []
    if done:
        mean = sum(r.accuracy("test", scorer) or 0.0 for r in done) / len(done)
        parts.append(f"{100 * mean:.1f} ({len(done)}/{runs})")
    parts += [f"{label} {so_far}/{total}" if total else label for label, so_far, total in running]
    parts += ["✗"] * sum(key in board.failed for key in keys)
    return "\n".join(parts) or "·"
