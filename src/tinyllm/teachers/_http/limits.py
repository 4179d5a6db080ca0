"""How fast an endpoint is asked: the pace a person set, and the parallelism that is found out.

Nothing here waits or reads a clock: every method is told the time, in seconds of a clock that only moves forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tinyllm import config

START = 8
"""Requests in flight at once that an endpoint is first tried with, where nothing is set."""

MOST = 512
"""As many are tried at the most; beyond them one event loop is the bottleneck, not the endpoint."""

_STEP = 1.25  # up or down by this factor, once doubling has ended
_CUT = 0.7  # what an overload leaves of the limit
_PAYS = 0.15  # a change pays if throughput goes with at least this power of the limit: 1.11 times for a doubling
_FULL = 0.75  # a round counts if this share of the limit was in flight
_ROUND, _LONG_ROUND = 16, 64  # replies, at least
_REST = 6  # rounds that a limit is held before the next small step


@dataclass(frozen=True, slots=True)
class Limits:
    """What an endpoint may be asked for in a minute; None: any number."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    @classmethod
    def of(cls, spec: config.EndpointTeacher) -> Self:
        """Take the limits from a teacher's section."""
        return cls(spec.requests_per_minute, spec.tokens_per_minute)


# --- the pace that is set -----------------------------------------------------------------------------------------


class Bucket:
    """A token bucket that holds one second's worth, and no less than `least`.

    In any 60 seconds at most `per_minute` plus what it holds is taken. An amount greater than it holds is let
    through when it is full, and then owed: so the excess is at most the greatest single amount.
    """

    def __init__(self, per_minute: float, least: float = 0.0) -> None:
        self._rate = per_minute / 60.0
        self._most = max(self._rate, least)
        self._level = self._most
        self._at: float | None = None

    def wait(self, now: float, amount: float) -> float:
        """Return the seconds until `amount` may be taken; 0: it may be taken now."""
        self._fill(now)
        short = min(amount, self._most) - self._level
        return short / self._rate if short > 1e-9 * self._most else 0.0

    def take(self, now: float, amount: float) -> None:
        """Take `amount`; a negative one gives back."""
        self._fill(now)
        self._level = min(self._most, self._level - amount)

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now


class Pace:
    """Requests and tokens per minute. Tokens are reserved by estimate, and corrected when the reply tells.

    The estimate of a prompt is its characters over the characters that a token had in the replies so far; of a
    reply, the most that it may hold.
    """

    def __init__(self, limits: Limits) -> None:
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        self._requests = Bucket(requests, least=1.0) if requests is not None else None
        self._tokens = Bucket(tokens) if tokens is not None else None
        self._characters = 3.0  # of English, with a margin; both sums grow with every reply
        self._prompt_tokens = 1.0

    def estimate(self, characters: int, max_tokens: int) -> float:
        """Return the tokens to reserve for a prompt of so many characters and a reply of so many tokens."""
        return characters * self._prompt_tokens / self._characters + max_tokens

    def wait(self, now: float, tokens: float) -> float:
        """Return the seconds until a request of so many tokens may be sent."""
        requests = self._requests.wait(now, 1.0) if self._requests is not None else 0.0
        return max(requests, self._tokens.wait(now, tokens) if self._tokens is not None else 0.0)

    def take(self, now: float, tokens: float) -> None:
        """Account for a request that is sent now."""
        if self._requests is not None:
            self._requests.take(now, 1.0)
        if self._tokens is not None:
            self._tokens.take(now, tokens)

    def give_back(self, now: float, tokens: float) -> None:
        """Undo `take` for a request that never reached the endpoint."""
        if self._requests is not None:
            self._requests.take(now, -1.0)
        if self._tokens is not None:
            self._tokens.take(now, -tokens)

    def correct(self, now: float, reserved: float, characters: int, prompt: int | None, completion: int | None) -> None:
        """Put the tokens that a reply tells in the place of those that were reserved for it."""
        if prompt is None or completion is None:
            return
        self._characters += characters
        self._prompt_tokens += prompt
        if self._tokens is not None:
            self._tokens.take(now, prompt + completion - reserved)


# --- the parallelism that is found out ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Before:
    """What a change of the limit is compared with. `throughput`: replies a second."""

    limit: int
    throughput: float


class AdaptiveLimit:
    """How many requests an endpoint bears at once, found by trying.

    The limit is judged in rounds: what was in flight when it changed is let go by, then as many replies as it allows
    (or more) are timed. It is doubled as long as that pays, and what did not pay is taken back. Then it is held, and
    a small step up or down is tried now and then, since servers change. A sign of overload cuts it, once for all that
    was sent before the cut; what was too much is neared again in small steps. A round in which less was in flight
    than allowed says nothing.
    """

    def __init__(self, *, start: int = START, most: int = MOST) -> None:
        self.limit = min(start, most)
        self._most = most
        self._ceiling = most + 1  # what did not pay or was too much; doubling stays below it
        self._before: _Before | None = None  # while a change is tried
        self._held: float | None = None  # throughput at the limit that is held
        self._rest = 0  # rounds until the next change is tried
        self._down = False  # its direction
        self._cut_at: float | None = None
        self._skip = 0  # replies to requests from before the change
        self._since: float | None = None  # when the round began, and what came in it
        self._count = 0
        self._busy = 0.0  # seconds of latency
        self._size = max(self.limit, _ROUND)

    def completed(self, now: float, latency_s: float) -> None:
        """A reply came, so long after its request was sent."""
        if self._skip > 0:
            self._skip -= 1
            self._since = now
            return
        if self._since is None:
            self._since = now - latency_s
        self._count += 1
        self._busy += latency_s
        if self._count < self._size:
            return
        took = max(now - self._since, 1e-9)
        if self._busy / took >= _FULL * self.limit:  # Little's law: what was in flight on average
            self._judge(self._count / took, now)
        else:
            self._begin(now)

    def overloaded(self, now: float, latency_s: float) -> None:
        """A request that was sent so long ago was refused for now, dropped, or not answered in time."""
        if self._cut_at is not None and now - latency_s < self._cut_at:
            return
        self._cut_at = now
        self._ceiling = self.limit
        self._before, self._held, self._rest, self._down = None, None, 0, False
        self._change(max(1, int(_CUT * self.limit)), now)

    # --- rounds -------------------------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        """Begin a round. Doubling shows in a few replies; a small step needs more to stand out from chance."""
        small = self._before is not None and self.limit != 2 * self._before.limit
        self._size = max(self.limit, _LONG_ROUND if small else _ROUND)
        self._since, self._count, self._busy = now, 0, 0.0

    def _change(self, limit: int, now: float) -> None:
        self._skip, self.limit = self.limit, limit
        self._begin(now)

    def _judge(self, throughput: float, now: float) -> None:
        before, self._before = self._before, None
        if before is None:
            self._held = throughput if self._held is None else (self._held + throughput) / 2
            self._rest -= 1
        elif throughput < before.throughput * (self.limit / before.limit) ** _PAYS:
            if self.limit > before.limit:
                self._ceiling = self.limit
            self._held = before.throughput
            self._hold()
            self._change(before.limit, now)
            return
        else:
            self._held = throughput
            if self.limit >= self._ceiling:
                self._ceiling = self._most + 1  # it bears more than it did
            if not self._down and self._higher() >= self._ceiling:
                self._hold()
        if self._rest > 0:
            self._begin(now)
        else:
            self._try(now)

    def _try(self, now: float) -> None:
        """Change the limit; the round that follows tells whether it paid."""
        assert self._held is not None  # noqa: S101
        target = max(1, int(self.limit / _STEP)) if self._down else self._higher()
        if target == self.limit:
            self._hold()
            self._begin(now)
        else:
            self._before = _Before(self.limit, self._held)
            self._change(target, now)

    def _higher(self) -> int:
        double = 2 * self.limit
        return min(self._most, double if double < self._ceiling else max(self.limit + 1, int(_STEP * self.limit)))

    def _hold(self) -> None:
        self._rest = _REST
        self._down = not self._down
