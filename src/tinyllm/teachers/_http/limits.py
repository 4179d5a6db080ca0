"""How fast an endpoint is asked: the rate limits that the user set, and the concurrency that is found by trying.

Nothing here waits or reads a clock: every method receives the time, in seconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyllm import config

START = 8
"""The first number of requests in flight at an endpoint, if nothing is configured."""

MOST = 512
"""The largest number that is tried. With more, the event loop is the bottleneck and not the endpoint."""

_STEP = 1.25  # after doubling has ended, the limit changes by this factor
_CUT = 0.7  # an overload reduces the limit to this part
_PAYS = 0.15  # a change is kept if throughput grows with at least this power of the limit: 1.11 times for a doubling
_FULL = 0.75  # a round counts if at least this part of the limit was in flight
_ROUND, _LONG_ROUND = 16, 64  # the fewest replies in a round
_REST = 6  # rounds between two small steps


class Bucket:
    """A token bucket that holds one second's worth, but at least `least`.

    In any 60 seconds, at most `per_minute` plus its contents is taken. An amount larger than the bucket passes when the
    bucket is full, and leaves a debt. So the excess is at most the largest single amount.
    """

    def __init__(self, per_minute: float, least: float = 0.0) -> None:
        self._rate = per_minute / 60.0
        self._most = max(self._rate, least)
        self._level = self._most
        self._at: float | None = None

    def wait(self, now: float, amount: float) -> float:
        """Return the seconds until `amount` may be taken."""
        self._fill(now)
        short = min(amount, self._most) - self._level
        return short / self._rate if short > 1e-9 * self._most else 0.0

    def take(self, now: float, amount: float) -> None:
        """Take `amount`. A negative amount is given back."""
        self._fill(now)
        self._level = min(self._most, self._level - amount)

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now


class Pace:
    """Limits requests and tokens per minute. Tokens are estimated first, and corrected by the reply.

    The estimate of a prompt uses the mean characters per token of the replies so far. The estimate of a reply is its
    longest length.
    """

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._requests = Bucket(requests_per_minute, least=1.0) if requests_per_minute is not None else None
        self._tokens = Bucket(tokens_per_minute) if tokens_per_minute is not None else None
        self._characters = 3.0  # of English text, with a margin; both sums grow with every reply
        self._prompt_tokens = 1.0

    @classmethod
    def of(cls, spec: config.EndpointTeacher) -> Pace | None:
        """Take the limits from a teacher's section; None if it has none."""
        if spec.requests_per_minute is None and spec.tokens_per_minute is None:
            return None
        return cls(spec.requests_per_minute, spec.tokens_per_minute)

    def estimate(self, characters: int, max_tokens: int) -> float:
        """Return the tokens to reserve for a prompt and its reply."""
        return characters * self._prompt_tokens / self._characters + max_tokens

    def wait(self, now: float, tokens: float) -> float:
        """Return the seconds until a request of so many tokens may be sent."""
        requests = self._requests.wait(now, 1.0) if self._requests is not None else 0.0
        return max(requests, self._tokens.wait(now, tokens) if self._tokens is not None else 0.0)

    def take(self, now: float, tokens: float, requests: float = 1.0) -> None:
        """Account for a request that is sent now. Negative numbers undo this for a request that did not arrive."""
        if self._requests is not None:
            self._requests.take(now, requests)
        if self._tokens is not None:
            self._tokens.take(now, tokens)

    def correct(self, now: float, reserved: float, characters: int, prompt: int | None, completion: int | None) -> None:
        """Replace the reserved tokens by those that the reply reports."""
        if prompt is None or completion is None:
            return
        self._characters += characters
        self._prompt_tokens += prompt
        if self._tokens is not None:
            self._tokens.take(now, prompt + completion - reserved)


@dataclass(frozen=True, slots=True)
class _Before:
    """The limit before a change, and its throughput in replies per second."""

    limit: int
    throughput: float


class AdaptiveLimit:
    """Finds out how many requests an endpoint can handle at once.

    The limit is measured in rounds. A round ignores the requests that were in flight when the limit changed, and then
    times at least as many replies as the limit. The limit is doubled while throughput grows enough; a change that does
    not pay is undone. After that the limit is kept, and small steps up or down are tried now and then, because the load
    of servers changes. An overload reduces the limit, once for all requests sent before the reduction, and then it
    grows in small steps. A round with fewer requests in flight than allowed does not count.
    """

    def __init__(self, *, start: int = START, most: int = MOST) -> None:
        self.limit = min(start, most)
        self._most = most
        self._ceiling = most + 1  # doubling stays below this: it did not pay, or was too much
        self._before: _Before | None = None  # set while a change is tried
        self._held: float | None = None  # throughput at the limit that is kept
        self._rest = 0  # rounds until the next change is tried
        self._down = False  # direction of the next small step
        self._cut_at: float | None = None
        self._skip = 0  # replies to skip: their requests were sent before the change
        self._since: float | None = None  # when the round began
        self._count = 0
        self._busy = 0.0  # sum of latencies in seconds
        self._size = max(self.limit, _ROUND)

    def completed(self, now: float, latency_s: float) -> None:
        """A reply has arrived, so long after its request was sent."""
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
        if self._busy / took >= _FULL * self.limit:  # Little's law: the mean number in flight
            self._judge(self._count / took, now)
        else:
            self._begin(now)

    def overloaded(self, now: float, latency_s: float) -> None:
        """A request that was sent so long ago was rejected because of load, dropped, or timed out."""
        if self._cut_at is not None and now - latency_s < self._cut_at:
            return
        self._cut_at = now
        self._ceiling = self.limit
        self._before, self._held, self._rest, self._down = None, None, 0, False
        self._change(max(1, int(_CUT * self.limit)), now)

    def _begin(self, now: float) -> None:
        """Begin a round. A small step needs more replies than a doubling, to be distinguished from noise."""
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
                self._ceiling = self._most + 1  # it handles more than before
            if not self._down and self._higher() >= self._ceiling:
                self._hold()
        if self._rest > 0:
            self._begin(now)
            return
        # Change the limit. The next round shows whether that pays.
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
