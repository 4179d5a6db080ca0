"""Several servers of one model: which is asked next, and which are left in peace for a while.

Nothing here waits or reads a clock: methods are told the time, in seconds of a clock that only moves forward.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarl import URL

_STRIKES = 3  # failures in a row that make a replica rest, if none of them means that it is dead
_LONGEST_REST_S = 60.0
_LONGEST_GUESS_S = 60.0
_SOON_S = 0.25
_GROWTH = 0.5


class Replica:
    """One server, and what is known about it.

    Args:
        url: where requests are sent; a text is quoted where it has to be, a `URL` is sent as it is.
        shown: how it is called in messages.
        proxy: the proxy that leads there.

    Attributes:
        in_flight: attempts under way.
        answered: whether it ever said anything.
        gone: whether it was dead when it was last asked.
        rests: how often in a row it had to rest; 0: it is live.
        resume_at: when the pause ends that it asked for (429).
        limited_since: since when it has said nothing but 429.
    """

    def __init__(self, url: str | URL, shown: str, proxy: str | None = None) -> None:
        self.url = url
        self.shown = shown
        self.proxy = proxy
        self.in_flight = 0
        self.answered = False
        self.gone = False
        self.rests = 0
        self.resume_at = 0.0
        self.limited_since: float | None = None
        self._rested_at = self._rest_until = 0.0
        self._strikes = 0

    def usable(self, now: float) -> bool:
        """Tell whether it may be asked. One that has rested is tried with a single request first."""
        if now < self.resume_at:
            return False
        return self.rests == 0 or (now >= self._rest_until and self.in_flight == 0)

    def next_use(self) -> float:
        """Return when pause and rest are over."""
        return max(self.resume_at, self._rest_until if self.rests else 0.0)

    def succeeded(self) -> None:
        """It gave a reply."""
        self.gone = False
        self.rests = self._strikes = 0
        self.limited_since = None

    def failed(self, now: float, sent: float, *, dead: bool) -> None:
        """An attempt failed: let it rest, 1 s and then ever longer, if it is dead or does so again and again.

        Args:
            sent: when the attempt began; those from before a rest do not lengthen it.
        """
        self.gone = dead
        self._strikes += 1
        if (dead or self._strikes >= _STRIKES) and (self.rests == 0 or sent > self._rested_at):
            self._rested_at = now
            self._rest_until = now + min(_LONGEST_REST_S, 2.0**self.rests)
            self.rests += 1

    def limited(self, now: float, sent: float, after_s: float | None, backoff_s: float) -> float:
        """It said 429: pause it for the time it asked for, else for a guess that grows. Returns that time."""
        self.gone, self.rests, self._strikes = False, 0, 0  # who says so is alive
        if self.limited_since is None:
            self.limited_since = sent
        # As long again as half the time for which it has been so: after each pause a single request may be let through.
        guess = min(_LONGEST_GUESS_S, max(backoff_s, _GROWTH * (now - self.limited_since))) * random.uniform(0.75, 1.0)
        if not after_s:  # a date is exact to a second; and to ask at once, again and again, would be a storm
            after_s = guess if after_s is None else min(guess, _SOON_S)
        self.resume_at = max(self.resume_at, now + after_s)
        return after_s

    def limited_beyond(self, now: float, most_s: float) -> bool:
        """Tell whether it has said 429 for longer than that, or asked to wait for longer."""
        if self.limited_since is None:
            return False
        return now - self.limited_since > most_s or self.resume_at - now > most_s


class Replicas:
    """All servers of one teacher."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._all = list(replicas)
        self._turn = 0

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __str__(self) -> str:
        return ", ".join(r.shown for r in self._all)

    def wait(self, now: float) -> float:
        """Return the seconds until it makes sense to ask; 0: now.

        If all rest, any that is not paused may be asked: backing off is then the affair of those who ask.
        """
        if any(r.usable(now) for r in self._all):
            return 0.0
        if any(r.rests == 0 for r in self._all):
            return min((at for r in self._all if (at := r.next_use()) > now), default=now) - now
        return max(0.0, min(r.resume_at for r in self._all) - now)

    def pick(self, now: float, avoid: Collection[Replica] = ()) -> Replica:
        """Return the one with the least in flight, by preference none of `avoid`. In turn among equals."""
        self._turn = (self._turn + 1) % len(self._all)
        order = self._all[self._turn :] + self._all[: self._turn]
        usable = [r for r in order if r.usable(now)]
        fresh = [r for r in usable if r not in avoid]
        if fresh or usable:
            return min(fresh or usable, key=lambda r: r.in_flight)
        return min(order, key=lambda r: (r.resume_at > now, r.next_use()))

    def others(self, avoid: Collection[Replica]) -> list[Replica]:
        """Return those that live, without `avoid`."""
        return [r for r in self._all if r.rests == 0 and r not in avoid]

    def gone(self, *, ever: bool = False) -> bool:
        """Tell whether all are dead; `ever`: and none has ever said anything."""
        return all(r.gone and not (ever and r.answered) for r in self._all)
