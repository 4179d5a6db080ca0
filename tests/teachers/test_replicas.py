"""Several servers of one model, first with a simulated clock, then with real servers."""

import asyncio
import socket
import time

import pytest
from fake_endpoint import FakeEndpoint, good, hang, reset, slow, status
from http_teacher import QUICK, TEXT, teacher

from tinyllm.errors import TeacherError
from tinyllm.teachers._http.replicas import Replica, Replicas
from tinyllm.teachers._http.transport import Patience
from tinyllm.teachers.base import Reply, RequestFailed


def three():
    replicas = [Replica(f"http://{name}/v1", name) for name in "abc"]
    return Replicas(replicas), *replicas


def test_the_one_with_the_least_in_flight_is_asked_and_equals_in_turn():
    replicas, a, b, c = three()
    a.in_flight, b.in_flight, c.in_flight = 5, 2, 7
    assert replicas.pick(0.0) is b
    a.in_flight = b.in_flight = c.in_flight = 0
    assert {replicas.pick(0.0).shown for _ in range(3)} == {"a", "b", "c"}
    assert replicas.pick(0.0, avoid={a, b}) is c
    assert replicas.pick(0.0, avoid={a, b, c}) in (a, b, c)


def test_a_dead_replica_rests_ever_longer_and_is_tried_with_one_request():
    replicas, a, b, c = three()
    rests = []
    now = 0.0
    for _ in range(8):
        a.failed(now, now, dead=True)
        a.failed(now + 0.1, now, dead=True)  # another that was sent before it rested
        rests.append(a.next_use() - now)
        assert not a.usable(a.next_use() - 0.01)
        now = a.next_use()
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]
    assert a.usable(now)
    assert replicas.pick(now, avoid={b, c}) is a
    a.in_flight = 1
    assert not a.usable(now)
    a.succeeded()
    assert a.usable(now)


def test_bad_answers_make_a_replica_rest_only_if_they_come_in_a_row():
    _, a, _, _ = three()
    for _ in range(2):
        a.failed(0.0, 0.0, dead=False)
        a.failed(0.0, 0.0, dead=False)
        assert a.usable(0.0)
        a.succeeded()
    for _ in range(3):
        a.failed(0.0, 0.0, dead=False)
    assert not a.usable(0.0)


def test_no_request_waits_while_a_replica_is_usable():
    replicas, a, b, c = three()
    a.limited(0.0, 0.0, 30.0, 0.5)
    assert replicas.wait(0.0) == 0
    b.limited(0.0, 0.0, 20.0, 0.5)
    c.failed(0.0, 0.0, dead=True)  # for a second
    assert replicas.wait(0.0) == 1
    assert replicas.wait(1.0) == 0
    c.in_flight = 1  # it is being tried
    assert replicas.wait(1.0) == 19
    assert replicas.pick(20.0) is b


def test_if_all_replicas_rest_one_without_a_pause_is_asked():
    replicas, a, b, c = three()
    c.limited(0.0, 0.0, 30.0, 0.5)
    for replica in (c, b, a):
        replica.failed(0.0, 0.0, dead=True)
    b.failed(2.0, 2.0, dead=True)
    assert replicas.wait(2.0) == 0
    assert replicas.pick(2.0) is a
    for replica in (a, b):
        replica.limited(2.0, 2.0, 10.0, 0.5)
    assert replicas.wait(2.0) == 10


def test_a_pause_without_a_time_is_a_growing_guess():
    _, a, _, _ = three()
    waits, now = [], 0.0
    for _ in range(40):
        waits.append(a.limited(now, now, None, 1.0))
        now = a.resume_at
    assert all(0.75 <= wait <= 60 for wait in waits)
    assert sum(waits[:10]) < 60  # so many requests, let through one by one, do not wait for minutes
    assert sum(waits[-3:]) > 100
    a.succeeded()
    assert a.limited(now, now, None, 1.0) <= 1


def test_a_pause_of_zero_seconds_becomes_a_short_one():
    _, a, _, _ = three()
    now = 0.0
    for _ in range(20):
        assert a.limited(now, now, 0.0, 0.5) == 0.25
        now = a.resume_at


# --- for real -----------------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def both(first: FakeEndpoint, second: FakeEndpoint, times: int, **other):
    """Ask two replicas; returns the replies (or what was raised) and the faults."""

    async def run():
        async with first, second, teacher([first.url, second.url], **{"concurrency": 8, **other}) as asked:
            said = await asyncio.gather(*(asked.ask(TEXT) for _ in range(times)), return_exceptions=True)
            return said, dict(asked.faults)

    return asyncio.run(run())


def test_replicas_share_the_work():
    first, second = FakeEndpoint(slow), FakeEndpoint(slow)
    replies, _ = both(first, second, 40)
    assert all(isinstance(r, Reply) for r in replies)
    assert len(first.requests) + len(second.requests) == 40
    assert min(len(first.requests), len(second.requests)) >= 12


def test_the_first_replica_names_the_service():
    assert teacher(["http://a/v1", "http://b/v1"]).identity == teacher("http://a/v1").identity
    assert teacher(["http://a/v1", "http://b/v1"], concurrency=None).concurrency == 16


def test_a_replica_that_dies_in_the_middle_costs_its_requests_no_attempt():
    async def run():
        once = Patience(attempts=1, timeout_s=30)
        async with (
            FakeEndpoint(hang) as dying,
            FakeEndpoint(slow) as steady,
            teacher([dying.url, steady.url], patience=once, concurrency=16) as asked,
        ):
            asks = [asyncio.create_task(asked.ask(TEXT)) for _ in range(60)]
            while len(dying.requests) < 8:
                await asyncio.sleep(0.01)
            await dying.die()
            return await asyncio.gather(*asks), dict(asked.faults), len(steady.requests)

    replies, faults, steady = asyncio.run(run())
    assert all(reply.text for reply in replies)
    assert steady == 60
    assert set(faults) == {"connection"}
    assert faults["connection"] >= 8


def test_requests_move_to_the_others_without_backing_off():
    slowly = Patience(attempts=3, timeout_s=30, backoff_s=30, backoff_max_s=30)
    for first in (reset, status(500, "broken")):
        began = time.monotonic()
        replies, _ = both(FakeEndpoint(first), FakeEndpoint(), 8, patience=slowly)
        assert all(isinstance(r, Reply) for r in replies)
        assert time.monotonic() - began < 10


def test_a_replica_that_never_answered_does_not_stop_the_teacher():
    async def run():
        async with FakeEndpoint(slow) as server:
            urls = [f"http://127.0.0.1:{closed_port()}/v1", server.url]
            async with teacher(urls, patience=Patience(attempts=1)) as asked:
                return await asyncio.gather(*(asked.ask(TEXT) for _ in range(20))), len(server.requests)

    replies, asked = asyncio.run(run())
    assert all(reply.text for reply in replies)
    assert asked == 20


def test_a_replica_that_comes_back_is_asked_again():
    async def run():
        port = closed_port()
        async with FakeEndpoint(slow) as steady, teacher([f"http://127.0.0.1:{port}/v1", steady.url]) as asked:
            await asyncio.gather(*(asked.ask(TEXT) for _ in range(4)))
            async with FakeEndpoint(port=port) as back:
                until = time.monotonic() + 20
                while not back.requests and time.monotonic() < until:
                    await asked.ask(TEXT)
                return len(back.requests)

    assert asyncio.run(run()) >= 1


def test_replicas_that_are_all_dead_stop_the_teacher_and_are_all_named():
    urls = [f"http://127.0.0.1:{closed_port()}/v1", f"http://127.0.0.1:{closed_port()}/v1"]

    async def run():
        async with teacher(urls) as asked:
            await asked.ask(TEXT)

    with pytest.raises(TeacherError) as caught:
        asyncio.run(run())
    assert all(url in str(caught.value) for url in urls)
    assert "stopped" not in str(caught.value)

    async def dying():
        async with FakeEndpoint() as first, FakeEndpoint() as second, teacher([first.url, second.url]) as asked:
            await asyncio.gather(*(asked.ask(TEXT) for _ in range(4)))
            await first.die()
            await second.die()
            await asked.ask(TEXT)

    with pytest.raises(TeacherError, match="stopped answering"):
        asyncio.run(dying())


def test_a_request_that_fails_on_all_replicas_fails_after_its_attempts():
    first, second = FakeEndpoint(status(500, "poison")), FakeEndpoint(status(500, "poison"))
    (error,), faults = both(first, second, 1, patience=QUICK)
    assert isinstance(error, RequestFailed)
    assert "3 attempts" in str(error)
    assert faults == {"http 500": 3}
    assert min(len(first.requests), len(second.requests)) >= 1


def test_a_dead_replica_beside_one_that_fails_is_no_reason_to_stop_the_teacher():
    async def run():
        async with FakeEndpoint(status(500, "poison")) as server:
            urls = [server.url, f"http://127.0.0.1:{closed_port()}/v1"]
            quick = Patience(attempts=2, timeout_s=30, backoff_s=0.01)
            async with teacher(urls, patience=quick) as asked:
                return await asyncio.gather(*(asked.ask(TEXT) for _ in range(8)), return_exceptions=True)

    assert all(isinstance(error, RequestFailed) for error in asyncio.run(run()))


def test_a_rate_limit_pauses_that_replica_alone():
    first, second = FakeEndpoint(status(429, "slow down", retry_after="20")), FakeEndpoint(slow)
    began = time.monotonic()
    replies, faults = both(first, second, 24, patience=Patience(attempts=1))
    assert all(isinstance(r, Reply) for r in replies)
    assert time.monotonic() - began < 15
    assert faults["429"] == len(first.requests) <= 8
    assert len(second.requests) == 24


def test_a_long_rate_limit_stops_the_teacher_only_if_all_replicas_have_one():
    day = status(429, "tomorrow", retry_after="86400")
    replies, _ = both(FakeEndpoint(day), FakeEndpoint(good), 6)
    assert all(isinstance(r, Reply) for r in replies)
    replies, _ = both(FakeEndpoint(day), FakeEndpoint(day), 6)
    assert any(isinstance(r, TeacherError) for r in replies)


def test_a_key_that_one_replica_does_not_take_stops_the_teacher_and_names_it():
    first, second = FakeEndpoint(slow), FakeEndpoint(status(401, "Incorrect API key"))
    said, faults = both(first, second, 6)
    errors = [s for s in said if isinstance(s, TeacherError)]
    assert errors
    assert all(second.url in str(e) and "Incorrect API key" in str(e) and first.url not in str(e) for e in errors)
    assert faults == {"http 401": len(errors)}
