"""What a person sees of asking: the bar, and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tinyllm.config import PriceSection
from tinyllm.errors import TinyLLMError
from tinyllm.rationales.generate import Ended, Standing, Stop
from tinyllm.spending.budget import Budget
from tinyllm.stages._loops import completed
from tinyllm.system.news import News, Task

_RATE_WINDOW_S, _RATE_REPLIES = 30.0, 20  # the longer of both
_NEW_OBJECTS = 50_000  # between two looks for cycles among the newest objects


@dataclass
class GenerationNews:
    """Keeps the teachers' standings, and puts them into words when somebody looks.

    Args:
        in_turn: names of teachers that are asked one after the other, because they share this machine.
        notes: what teachers themselves say of how far they are.
        stop: the request to stop, once asking has begun.
    """

    news: News
    budget: Budget
    prices: Mapping[str, PriceSection | None]
    in_turn: frozenset[str] = frozenset()
    notes: Sequence[Callable[[], str]] = ()
    stop: Stop = field(default_factory=Stop)
    standings: dict[str, Standing] = field(default_factory=dict)
    _rates: dict[str, _Rate] = field(default_factory=dict)

    def advance(self, standing: Standing) -> None:
        """Take in a teacher's standing."""
        if standing.teacher not in self.standings:
            self.standings[standing.teacher] = standing  # the scheduler goes on changing this very object
            self._rates[standing.teacher] = _Rate()

    def gave_up(self, teacher: str, error: TinyLLMError) -> None:
        """Say at once that a teacher can answer nothing more; the others go on."""
        self.news.say(f"  {error}\n  '{teacher}' is asked no more; its replies so far are kept.")

    def learnt(self, words: str) -> None:
        """Say how an endpoint wants to be asked."""
        self.news.say(f"  note: {words}")

    def look(self, task: Task) -> None:
        """Bring the bar up to date."""
        standings = list(self.standings.values())
        for standing in standings:
            self._rates[standing.teacher].see(standing.done - standing.stored)
        task.done = sum(s.done for s in standings)
        task.note = self.summary()
        task.to_go_s = self._to_go_s(task.total or 0)
        if self.stop.reason is not None:  # nothing new is sent, so the rest of the work is not waited for
            task.to_go_s = None
            task.note = f"{sum(s.in_flight for s in standings)} in flight · {task.note}"

    def summary(self) -> str:
        """Return, by teacher, what is kept and what is not; and what is spent, of what, how fast."""
        parts = [_words(s) for s in self.standings.values()]
        rate = sum(self._rates[s.teacher].per_s() or 0.0 for s in self.standings.values() if s.done < s.total)
        parts += [f"{rate:.1f}/s"] if rate else []
        parts += filter(None, (note() for note in self.notes))
        usd = self.budget.usd
        parts += [self.budget.left()] if self.budget.is_set else [f"${usd:.4f} spent"] if usd else []
        return " · ".join(p for p in parts if p)

    def _to_go_s(self, total: int) -> float | None:
        """The slowest teacher's time to go; those that take turns add up.

        One whose turn has not come is taken to be as fast as the slowest before it.
        """
        in_turn, side_by_side, slowest = 0.0, [0.0], math.inf
        for standing in self.standings.values():
            rate = self._rates[standing.teacher].per_s()
            slowest = min(slowest, rate or math.inf)
            left = standing.total - standing.done
            if not left:
                continue
            if rate is None:
                return None
            if standing.teacher in self.in_turn:
                in_turn += left / rate
            else:
                side_by_side.append(left / rate)
        if self.in_turn - self.standings.keys():
            if slowest == math.inf:
                return None
            in_turn += (total - sum(s.total for s in self.standings.values())) / slowest
        return max(in_turn, *side_by_side)


class _Rate:
    """How many a second, lately, from the first reply on. What the store answered at once does not count."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def see(self, count: int) -> None:
        now = time.monotonic()
        if self._seen and not self._seen[0][1]:  # until now it was loaded, and nothing came
            self._seen.clear()
        if [c for _, c in self._seen[-2:]] == [count, count]:  # while nothing comes, the list does not grow
            self._seen.pop()
        self._seen.append((now, count))
        while (
            len(self._seen) > 2
            and now - self._seen[1][0] > _RATE_WINDOW_S
            and count - self._seen[1][1] >= _RATE_REPLIES
        ):
            self._seen.pop(0)

    def per_s(self) -> float | None:
        if len(self._seen) < 2:
            return None
        (began, before), (now, count) = self._seen[0], self._seen[-1]
        return (count - before) / (now - began) if count > before and now > began else None


def _words(standing: Standing) -> str:
    bad = [f"{standing.rejected} rejected"] if standing.rejected else []
    bad += [f"{standing.resampled} asked anew"] if standing.resampled else []
    bad += [f"{standing.failed} failed"] if standing.failed else []
    bad += [f"({standing.stored} earlier)"] if standing.stored else []
    return " ".join([f"{standing.teacher} {standing.kept} kept", *bad])


def run_asking(asking: Callable[[Stop], Awaitable[Ended]], news: News) -> Ended:
    """Run the scheduler's loop; Ctrl-C (or SIGTERM) once finishes what is in flight, twice stops at once.

    Raises:
        KeyboardInterrupt: it was interrupted; every reply that came is stored.
    """

    async def main() -> Ended:
        stop = Stop()
        with _heard_signals(stop, news):
            return await asking(stop)

    try:
        with _old_objects_left_alone():
            ended = completed(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if ended.stopped == "interrupted":
        raise KeyboardInterrupt
    return ended


@contextlib.contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Keep the garbage collector to what is made from now on.

    The libraries loaded by now have made a million objects that live on, and to walk them again and again takes a third
    of the time at hundreds of requests in flight. Each request makes some hundred objects that go by themselves, so
    cycles are looked for less often, too. What a caller has frozen stays frozen.
    """
    frozen = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    usual = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        if not frozen:
            gc.unfreeze()


@contextlib.contextmanager
def _heard_signals(stop: Stop, news: News) -> Iterator[None]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def hear() -> None:
        if stop.reason != "interrupted":
            stop.wish("interrupted")
            stop.reason = "interrupted"  # also where the budget had come to its end already
            news.say("  Finishing what is in flight; Ctrl-C again stops at once. Every reply that came is kept.")
        elif task is not None:
            task.cancel()

    heard = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    for number in heard:
        loop.add_signal_handler(number, hear)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
