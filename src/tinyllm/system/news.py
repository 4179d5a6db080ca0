"""News for the person who waits: bars on a terminal, elsewhere a line every few seconds. Always on stderr."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tinyllm.errors import printable

_LINE_EVERY_S = 5.0


class Task:
    """One thing under way; `update` is cheap and may be called from any thread."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done, self.note = label, total, 0, ""
        self.started = time.monotonic()
        self.look: Callable[[Task], None] | None = None
        """Brings the task up to date when it is shown; for what changes more often than anyone looks."""
        self.to_go_s: float | None = None
        """Seconds to go, where that is better known than by the share that is done."""

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Say how far it is; `total` may change on the way."""
        self.done, self.note = done, note
        if total is not None:
            self.total = total

    def refresh(self) -> None:
        """Take in what has changed since the last look."""
        if self.look is not None:
            self.look(self)

    def to_go(self) -> str:
        """Return the time to go in words; empty where nobody can know."""
        if not self.total or self.done >= self.total:
            return ""
        seconds = self.to_go_s
        if seconds is None and self.done > 0 and self.look is None:  # who looks knows whether it can be told
            seconds = (time.monotonic() - self.started) * (self.total - self.done) / self.done
        return "" if seconds is None else f"about {duration(seconds)} to go"

    def line(self) -> str:
        """Return the state in one line: label, share, time gone and time to go, note."""
        self.refresh()
        gone = duration(time.monotonic() - self.started)
        parts = [self.label, f"{self.done}/{self.total}" if self.total else "", self.to_go(), gone, self.note]
        return " · ".join(p for p in parts if p)


class News:
    """Tells what goes on. `quiet` says only what must be said."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print a line; it may repeat what a server said."""
        if not self.quiet:
            self.console.print(printable(text), markup=False)

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Show one thing under way until the block ends, then say how long it took."""
        task = Task(label, total)
        watcher = _Bars(self.console) if self.console.is_terminal else _Lines(self.console)
        if self.quiet:
            yield task
            return
        with watcher.watching(task):
            yield task
        task.refresh()
        self.say(f"✓ {label} · {duration(time.monotonic() - task.started)}" + (f" · {task.note}" if task.note else ""))


class _Bars:
    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def watching(self, task: Task) -> Iterator[None]:
        """Redraw a bar a few times a second."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[to_go]}"),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress, ticking(0.2) as ticks:
            bar = progress.add_task(task.label, total=task.total, note="", to_go="")

            def tick() -> None:
                task.refresh()
                progress.update(bar, completed=task.done, total=task.total, note=task.note, to_go=task.to_go())

            ticks.append(tick)
            yield


class _Lines:
    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def watching(self, task: Task) -> Iterator[None]:
        """Print a line every few seconds, also while nothing moves."""
        with ticking(_LINE_EVERY_S) as ticks:
            ticks.append(lambda: self.console.print(f"  {task.line()}", markup=False))
            yield


@contextlib.contextmanager
def ticking(every_s: float) -> Iterator[list[Callable[[], None]]]:
    """Call what is in the list yielded, again and again, from a thread of its own."""
    ticks: list[Callable[[], None]] = []
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(every_s):
            for tick in ticks:
                tick()

    thread = threading.Thread(target=loop, daemon=True, name="tinyllm-news")
    thread.start()
    try:
        yield ticks
    finally:
        stop.set()
        thread.join()


def duration(seconds: float) -> str:
    """Return a time in words, with the units that matter."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
