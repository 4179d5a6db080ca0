"""Rate limits and automatic concurrency. Servers and time are simulated."""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.teachers._http.limits import MOST, START, AdaptiveLimit, Bucket, Pace

# --- pace ---------------------------------------------------------------------------------------------------------


def greedy(bucket, amounts, until):
    """Take the amounts one after the other, each as soon as it may be taken; returns (time, amount) of each."""
    now, taken = 0.0, []
    for amount in amounts:
        now += bucket.wait(now, amount)
        assert bucket.wait(now, amount) < 1e-6, "what it said to wait for is enough"
        if now > until:
            break
        bucket.take(now, amount)
        taken.append((now, amount))
    return taken


@settings(deadline=None)
@given(
    per_minute=st.floats(0.5, 1000),
    least=st.sampled_from([0.0, 1.0]),
    greatest=st.floats(0.05, 2.0),
    seed=st.integers(0, 2**32),
)
def test_in_no_minute_is_more_taken_than_allowed_but_for_a_second_s_worth(per_minute, least, greatest, seed):
    chance = random.Random(seed)
    amounts = [per_minute * greatest * chance.uniform(0.01, 1) for _ in range(100)]
    spare = max(per_minute / 60, least, max(amounts))
    taken = greedy(Bucket(per_minute, least), amounts, until=1e9)
    first, total = 0, 0.0
    for at, amount in taken:
        total += amount
        while taken[first][0] <= at - 60:
            total -= taken[first][1]
            first += 1
        assert total <= (per_minute + spare) * (1 + 1e-6)


@settings(deadline=None)
@given(per_minute=st.floats(1, 10_000), amount=st.floats(0.1, 1000))
def test_the_allowed_rate_is_reached(per_minute, amount):
    taken = greedy(Bucket(per_minute), [amount] * 2000, until=600)
    if len(taken) < 2000:
        assert sum(a for _, a in taken) >= per_minute * 10 * 0.99 - amount


def test_an_amount_larger_than_the_bucket_passes_and_leaves_a_debt():
    bucket = Bucket(60)
    assert bucket.wait(0.0, 600) == 0
    bucket.take(0.0, 600)
    assert bucket.wait(0.0, 600) == pytest.approx(600)
    assert bucket.wait(300.0, 1) == pytest.approx(300)


def test_requests_and_tokens_are_both_kept_to():
    pace = Pace(requests_per_minute=60, tokens_per_minute=6000)
    pace.take(0.0, 50)
    assert pace.wait(0.0, 50) == pytest.approx(1.0)  # the requests
    assert pace.wait(1.0, 50) == 0
    pace.take(1.0, 300)
    assert pace.wait(1.0, 50) == pytest.approx(2.5)  # the tokens
    assert Pace().wait(0.0, 1e9) == 0


def test_a_request_that_did_not_arrive_gives_back_its_tokens():
    pace = Pace(requests_per_minute=60, tokens_per_minute=6000)
    pace.take(0.0, 500)
    pace.take(0.0, -500, -1)
    assert pace.wait(0.0, 100) == 0


@pytest.mark.parametrize("told", [True, False])
def test_tokens_are_reserved_by_estimate_and_corrected_by_the_reply(told):
    pace = Pace(tokens_per_minute=60_000)
    now, used = 0.0, 0
    while now < 600:
        reserved = pace.estimate(1200, 256)
        now += pace.wait(now, reserved)
        pace.take(now, reserved)
        used += 300 + 60
        pace.correct(now, reserved, 1200, 300 if told else None, 60 if told else None)
    assert used == pytest.approx(600_000 if told else 600_000 * 360 / 656, rel=0.03)


def test_the_estimate_learns_how_many_characters_a_token_has():
    pace = Pace(tokens_per_minute=60_000)
    assert pace.estimate(900, 100) == pytest.approx(400)
    for _ in range(20):
        pace.correct(0.0, 400, 900, 180, 10)
    assert pace.estimate(900, 100) == pytest.approx(280, rel=0.02)


# --- adaptive concurrency -----------------------------------------------------------------------------------------


@dataclass
class Server:
    """Works on `slots` requests at once, each for about `seconds`; the others queue.

    `bears`: with more in it, it says 429. `per_minute`: with more in a minute, it says 429 too.
    """

    slots: int
    seconds: float
    spread: float = 0.3
    bears: int | None = None
    per_minute: float | None = None
    seed: int = 0
    now: float = 0.0
    sent: int = 0
    refused: int = 0
    replies: list[float] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    def run(self, limit: AdaptiveLimit, replies: int) -> "Server":
        """Keep as much in flight as the limit allows until so many replies came."""
        chance, events, queue = random.Random(self.seed), [], deque()
        in_flight = working = resume_at = 0
        bucket = Bucket(self.per_minute, least=1.0) if self.per_minute else None
        while len(self.replies) < replies:
            while in_flight < limit.limit and self.now >= resume_at:
                in_flight, self.sent = in_flight + 1, self.sent + 1
                if (self.bears and in_flight > self.bears) or (bucket and bucket.wait(self.now, 1) > 0):
                    heapq.heappush(events, (self.now + 0.01, self.sent, False, self.now))
                    continue
                if bucket:
                    bucket.take(self.now, 1)
                queue.append((self.sent, self.now))
            while queue and working < self.slots:
                number, began = queue.popleft()
                working += 1
                took = self.seconds * chance.lognormvariate(-(self.spread**2) / 2, self.spread)
                heapq.heappush(events, (self.now + took, number, True, began))
            if not events:
                self.now = resume_at
                continue
            self.now, _, served, began = heapq.heappop(events)
            in_flight -= 1
            if served:
                working -= 1
                self.replies.append(self.now)
                limit.completed(self.now, self.now - began)
            else:
                self.refused += 1
                resume_at = max(resume_at, self.now + 0.5)
                limit.overloaded(self.now, self.now - began)
            self.limits.append(limit.limit)
        return self

    def throughput(self) -> float:
        """Replies a second in the second half."""
        half = len(self.replies) // 2
        return (len(self.replies) - half) / (self.replies[-1] - self.replies[half - 1])

    def usual_limit(self) -> float:
        """The mean limit in the second half."""
        half = self.limits[len(self.limits) // 2 :]
        return sum(half) / len(half)


@pytest.mark.parametrize("spread", [0.0, 0.4])
@pytest.mark.parametrize(("slots", "seconds"), [(8, 0.5), (20, 2.0), (100, 1.0), (300, 4.0)])
def test_the_limit_approaches_the_servers_capacity(slots, seconds, spread):
    servers = [Server(slots, seconds, spread, seed=n).run(AdaptiveLimit(), replies=60 * slots) for n in range(5)]
    limits = [server.usual_limit() for server in servers]
    shares = [server.throughput() * seconds / slots for server in servers]
    assert slots / 2 <= sum(limits) / 5 <= 2 * slots
    assert max(limits) <= 4 * slots  # chance may look like a gain; more than is worked on only queues
    assert sum(shares) / 5 >= 0.9
    assert min(shares) >= 0.8


def test_a_server_without_a_limit_gets_the_maximum():
    limit = AdaptiveLimit()
    server = Server(10_000, 1.0).run(limit, replies=15_000)
    assert max(server.limits) == MOST
    assert server.usual_limit() > 0.9 * MOST


@pytest.mark.parametrize("bears", [12, 60])
def test_a_server_that_refuses_overload_stays_busy_and_rarely_refuses(bears):
    servers = [Server(10_000, 1.0, bears=bears, seed=n).run(AdaptiveLimit(), replies=60 * bears) for n in range(5)]
    assert sum(server.throughput() for server in servers) / 5 >= 0.75 * bears
    assert all(server.refused <= 0.05 * server.sent for server in servers)


def test_a_server_with_a_rate_limit_is_not_flooded():
    server = Server(10_000, 0.5, per_minute=600).run(AdaptiveLimit(), replies=2000)
    assert server.throughput() >= 0.75 * 600 / 60
    assert server.refused <= 0.15 * server.sent


def test_the_limit_grows_again_after_a_server_recovers():
    limit = AdaptiveLimit()
    server = Server(64, 1.0).run(limit, replies=2000)
    for burst in range(20):
        limit.overloaded(server.now + burst, 0.1)
    assert limit.limit == 1
    server.limits.clear()
    server.replies.clear()
    server.run(limit, replies=3000)
    assert server.throughput() >= 0.9 * 64


def test_a_burst_of_refusals_reduces_the_limit_once():
    limit = AdaptiveLimit(start=100)
    for _ in range(100):
        limit.overloaded(10.0, 0.5)
    assert limit.limit == 70
    limit.overloaded(11.0, 1.5)  # sent before the cut
    assert limit.limit == 70
    limit.overloaded(11.0, 0.5)
    assert limit.limit == 49


def test_rounds_with_few_requests_change_nothing():
    limit = AdaptiveLimit()
    for reply in range(1000):
        limit.completed(1.0 * reply, 0.5)  # half a request in flight on average
    assert limit.limit == START


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 10)), max_size=400), st.integers(1, 64))
def test_it_stays_within_its_bounds_whatever_happens(events, most):
    limit, now = AdaptiveLimit(most=most), 0.0
    for good, latency in events:
        now += latency / 10
        (limit.completed if good else limit.overloaded)(now, latency)
        assert 1 <= limit.limit <= most
