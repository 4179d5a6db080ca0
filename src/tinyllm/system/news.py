"""Progress messages on stderr: progress bars on a terminal, otherwise one line every few seconds."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tinyllm.errors import printable

_LINE_EVERY_S = 5.0
_TELLING_S = 10.0  # one result that took so long tells how long the others take; a quick one may be mostly the start
_BAR = 5, 40  # the fewest and the most columns of a bar
_SHARE, _LONGEST_S = 0.2, 60.0  # this share of the time so far passes between two lines, and no longer than this


class Task:
    """One piece of work in progress. `update` is cheap, and any thread may call it.

    Attributes:
        label: what is done. It may change during the work; the line at the end has the first one.
        note: facts, joined by ` · `. Where a bar has no room for all, it leaves out whole facts.
    """

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done, self.note = label, total, 0, ""
        self._whole = label
        self.started = time.monotonic()
        # Count and time where the estimate begins, and of the last update that changed the count. It begins with the
        # first update of what is counted now (resumed work does not begin at 0); from the second result on, with the
        # first result, because what comes before it is a start as well.
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] = (0, self.started)
        self._results = 0
        self.look: Callable[[Task], None] | None = None
        """Called before the task is shown, to update it. For values that change more often than they are shown."""
        self.to_go_s: float | None = None
        """Seconds that remain, where a better estimate than the completed share is known."""

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Set the progress. `total` may change during the work. Where a new count begins, so does the estimate."""
        if done < self.done or total not in (None, self.total):
            self._first = None
        self.done, self.note = done, note
        if self._first is None:
            self._first = self._last = (done, time.monotonic())
            self._results = 0
        elif done != self._last[0]:
            if self._results == 1:
                self._first = self._last
            self._last = (done, time.monotonic())
            self._results += 1
        if total is not None:
            self.total = total

    def refresh(self) -> None:
        """Call `look`, if there is one."""
        if self.look is not None:
            self.look(self)

    def to_go(self) -> str:
        """Return the remaining time in words; empty where it is unknown."""
        if not self.total or self.done >= self.total:
            return ""
        seconds = self.to_go_s
        if seconds is None and self._first and self.look is None:  # `look` sets `to_go_s` where it can
            (before, began), (done, at) = self._first, self._last
            is_telling = self._results > 1 or at - began >= _TELLING_S
            if done > before and is_telling:  # counts may come in blocks: the time since the last one is taken off
                seconds = (at - began) * (self.total - done) / (done - before) - (time.monotonic() - at)
        if seconds is None or seconds < 1:  # it takes longer than it should, and nobody knows how much longer
            return ""
        minutes = round(seconds / 60)
        part = "" if self.label == self._whole else " in this part"  # several things are counted, one after the other
        return f"about {f'{minutes} min' if round(seconds) >= 60 and minutes < 60 else duration(seconds)} to go{part}"

    def line(self) -> str:
        """Return the progress in one line: label, share, remaining time, elapsed time, note."""
        self.refresh()
        gone = duration(time.monotonic() - self.started)
        parts = [self.label, f"{self.done}/{self.total}" if self.total else "", self.to_go(), gone, self.note]
        return " · ".join(p for p in parts if p)


class News:
    """Prints messages and progress; with `quiet` it prints nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print a line. Terminal control sequences are removed, because the text may come from a server."""
        if not self.quiet:
            self.console.print(self.wrapped(printable(text), sys.stderr), markup=False)

    @staticmethod
    def wrapped(text: str, stream: TextIO) -> str:
        """Break long lines between words, if the stream is a terminal. Commands and paths stay whole, to be copied."""
        if not stream.isatty():
            return text
        width = shutil.get_terminal_size().columns
        return "\n".join(chain.from_iterable(_broken(line, width) for line in text.split("\n")))

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Show a task until the block ends, then print how long it took."""
        task = Task(label, total)
        if self.quiet:
            yield task
            return
        with (_bar if self.console.is_terminal else _lines)(self.console, task):
            yield task
        task.refresh()
        self.say(f"✓ {label} · {duration(time.monotonic() - task.started)}" + (f" · {task.note}" if task.note else ""))


@contextlib.contextmanager
def _bar(console: Console, task: Task) -> Iterator[None]:
    """Redraw a progress bar a few times per second."""
    bar = BarColumn()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        bar,
        TextColumn("[progress.download]{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[to_go]}", markup=False),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress, ticking(0.2) as ticks:
        shown = progress.add_task(task.label, total=task.total, count="", note="", to_go="")

        def tick() -> None:
            task.refresh()
            to_go = task.to_go()
            count = f"{task.done:>{len(str(task.total))}}/{task.total}" if task.total else ""
            label, bar.bar_width, note = _fitted(console.width, task, count, to_go)
            progress.update(
                shown, description=label, completed=task.done, total=task.total, count=count, note=note, to_go=to_go
            )
            progress.tasks[shown].finished_time = None  # rich stops the clock of a full bar, and work may go on

        tick()
        ticks.append(tick)
        yield


def _fitted(width: int, task: Task, count: str, to_go: str) -> tuple[str, int, str]:
    """Return label, width of the bar and facts that fit on a line. The counts and the times beside them stay whole.

    Without it the columns shrink at random: on 80 columns a long note leaves no bar, no count and no time.
    """
    spinner, elapsed, gaps = 1, len("0:00:00"), 7  # one after each column
    taken = spinner + elapsed + gaps + len(count) + len(to_go)
    room = width - taken - _BAR[0]
    label = task.label if len(task.label) <= room else task.label[: max(0, room - 1)] + "…"
    note = ""
    for fact in task.note.split(" · "):
        longer = f"{note} · {fact}" if note else fact
        note = longer if len(longer) <= room - len(label) else note
    return label, min(_BAR[1], _BAR[0] + max(0, room - len(label) - len(note))), note


@contextlib.contextmanager
def _lines(console: Console, task: Task) -> Iterator[None]:
    """Print a line every few seconds, also while the progress does not change; less often the longer it takes."""
    last = task.started

    def tick() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= min(_SHARE * (now - task.started), _LONGEST_S):
            last = now
            console.print(f"  {task.line()}", markup=False)

    with ticking(_LINE_EVERY_S) as ticks:
        ticks.append(tick)
        yield


@contextlib.contextmanager
def ticking(every_s: float) -> Iterator[list[Callable[[], None]]]:
    """Yield a list. A background thread calls the functions in it every `every_s` seconds."""
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


def _broken(line: str, width: int) -> list[str]:
    if len(line) <= width or line.lstrip().startswith(("tinyllm ", "Next: ", "Report: ")):
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )


def duration(seconds: float) -> str:
    """Return a duration in words, in its two largest units, as in `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
