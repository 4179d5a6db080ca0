"""Several servers of one model: which one is asked next, and which ones are not asked for a while.

Nothing here waits or reads a clock: methods receive the time, in seconds of a monotonic clock.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarl import URL

_STRIKES = 3  # a replica rests after so many failures in a row, or at once if it is dead
_LONGEST_REST_S = 60.0
_LONGEST_GUESS_S = 60.0
_SOON_S = 0.25
_GROWTH = 0.5


@dataclass(eq=False, slots=True)
class Replica:
    """One server and its state."""

    url: str | URL  # a text is quoted where necessary, a `URL` is sent unchanged
    shown: str  # its name in messages
    proxy: str | None = None
    in_flight: int = 0  # attempts
    answered: bool = False  # whether it has ever answered
    gone: bool = False  # whether it was dead at the last attempt
    rests: int = 0  # rests in a row; 0: it is live
    resume_at: float = 0.0  # end of the pause that it asked for
    limited_since: float | None = None  # since when it has only asked to wait
    _rested_at: float = 0.0
    _rest_until: float = 0.0
    _strikes: int = 0

    def usable(self, now: float) -> bool:
        """Return whether it may be asked. After a rest, it gets a single request first."""
        if now < self.resume_at:
            return False
        return self.rests == 0 or (now >= self._rest_until and self.in_flight == 0)

    def next_use(self) -> float:
        """Return when its pause and rest end."""
        return max(self.resume_at, self._rest_until if self.rests else 0.0)

    def succeeded(self) -> None:
        """It gave a reply."""
        self.gone = False
        self.rests = self._strikes = 0
        self.limited_since = None

    def failed(self, now: float, sent: float, *, dead: bool) -> None:
        """An attempt failed. If it is dead or fails repeatedly, it rests: 1 s at first, then longer and longer.

        Args:
            sent: when the attempt began. Attempts from before a rest do not lengthen it.
        """
        self.gone = dead
        self._strikes += 1
        if (dead or self._strikes >= _STRIKES) and (self.rests == 0 or sent > self._rested_at):
            self._rested_at = now
            self._rest_until = now + min(_LONGEST_REST_S, 2.0**self.rests)
            self.rests += 1

    def limited(self, now: float, sent: float, after_s: float | None, backoff_s: float) -> float:
        """It asked to wait: pause it for the time that it asked for, or else for a growing guess. Return the time."""
        self.gone, self.rests, self._strikes = False, 0, 0  # it is alive
        if self.limited_since is None:
            self.limited_since = sent
        # The guess is half the time since its first 429, because it may admit a single request after each pause.
        guess = min(_LONGEST_GUESS_S, max(backoff_s, _GROWTH * (now - self.limited_since))) * random.uniform(0.75, 1.0)
        if not after_s:  # 0: a date is exact to a second only, and asking again at once could go on for ever
            after_s = guess if after_s is None else min(guess, _SOON_S)
        self.resume_at = max(self.resume_at, now + after_s)
        return after_s

    def limited_beyond(self, now: float, most_s: float) -> bool:
        """Return whether it has asked to wait for longer than this, or asks for a longer pause."""
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

    def __str__(self) -> str:
        return ", ".join(r.shown for r in self._all)

    def wait(self, now: float) -> float:
        """Return the seconds until a replica may be asked.

        If all rest, any replica that is not paused may be asked, because the caller backs off by itself.
        """
        if any(r.usable(now) for r in self._all):
            return 0.0
        if any(r.rests == 0 for r in self._all):
            return min((at for r in self._all if (at := r.next_use()) > now), default=now) - now
        return max(0.0, min(r.resume_at for r in self._all) - now)

    def pick(self, now: float, avoid: Collection[Replica] = ()) -> Replica:
        """Return the replica with the fewest attempts in flight, if possible none of `avoid`. Equal ones take turns."""
        self._turn = (self._turn + 1) % len(self._all)
        order = self._all[self._turn :] + self._all[: self._turn]
        usable = [r for r in order if r.usable(now)]
        fresh = [r for r in usable if r not in avoid]
        if fresh or usable:
            return min(fresh or usable, key=lambda r: r.in_flight)
        return min(order, key=lambda r: (r.resume_at > now, r.next_use()))

    def others(self, avoid: Collection[Replica]) -> list[Replica]:
        """Return the live replicas, without `avoid`."""
        return [r for r in self._all if r.rests == 0 and r not in avoid]

    def gone(self, *, ever: bool = False) -> bool:
        """Return whether all replicas are dead. With `ever`, also require that none has ever answered."""
        return all(r.gone and not (ever and r.answered) for r in self._all)
