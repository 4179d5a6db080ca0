"""The benchmarks' server: what it answers, what it counts, and that its faults are what they are called."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time

import aiohttp
import pytest

from benchmarks import server as benchmark_server

FAULTS, running = benchmark_server.FAULTS, benchmark_server.running


def body(number: int = 0, **more):
    return {"model": "m", "messages": [{"role": "user", "content": f"Why is it {number}?"}], **more}


async def post(url: str, *bodies, timeout_s: float = 20):
    """Post bodies side by side; return (status, headers, text) of each, or the exception."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def one(session, sent):
        path = "chat/completions" if "messages" in sent else "completions"
        async with session.post(f"{url}/{path}", json=sent) as response:
            return response.status, response.headers, await response.text()

    async with aiohttp.ClientSession(timeout=timeout) as session:
        return await asyncio.gather(*(one(session, sent) for sent in bodies), return_exceptions=True)


def test_chats_and_completions_are_answered_and_counted_by_prompt():
    with running(tokens=7) as server:
        chat, plain, again = asyncio.run(post(server.url, body(1), {"prompt": "Why?"}, body(1, seed=5)))
        stats = server.stats()
        server.reset()
        assert server.stats().requests == 0
    assert json.loads(chat[2])["choices"][0]["message"]["content"].startswith("Warm air")
    assert json.loads(plain[2])["choices"][0]["text"].startswith("Warm air")
    assert json.loads(chat[2])["usage"]["completion_tokens"] == 7
    assert chat[2] == again[2]
    assert (stats.requests, stats.prompts, stats.answered, stats.answered_again) == (3, 2, 3, 1)
    assert stats.first_at <= stats.last_at


def test_latency_and_token_rate_add_up_and_requests_overlap():
    with running(latency=0.2, tokens=10, tokens_per_second=50) as server:
        began = time.monotonic()
        asyncio.run(post(server.url, *map(body, range(8))))
        took, stats = time.monotonic() - began, server.stats()
    assert took >= 0.4
    assert stats.most_in_flight > 1
    assert stats.in_flight == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_what_it_is_called(fault):
    with running(fail=1, faults=fault, retry_after=3) as server:
        (said,) = asyncio.run(post(server.url, body(), timeout_s=1.5 if fault in ("hang", "stall") else 20))
        assert server.stats().faults == {fault: 1}
        assert server.stats().answered == 0
    if fault in ("hang", "stall"):
        assert isinstance(said, TimeoutError)
    elif fault == "reset":
        assert isinstance(said, aiohttp.ClientError | ConnectionError)
    elif fault == "half":
        with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
            json.loads(said[2])
    elif fault == "empty":
        assert json.loads(said[2])["choices"][0]["message"]["content"] == ""
    elif fault == "error":
        assert said[0] == 500
    else:
        assert said[0] == 429
        after = said[1]["Retry-After"]
        date = email.utils.parsedate_to_datetime(after).timestamp() - time.time() if fault == "limited_date" else None
        assert 0 < date < 4 if date else after == "3"


def test_faults_depend_on_the_seed_and_the_prompt_and_not_on_the_order():
    def fails(seed, order):
        with running(fail=0.5, faults="error", seed=seed) as server:
            numbers = [n for n in order for _ in range(2)]
            said = [asyncio.run(post(server.url, body(n)))[0][0] for n in numbers]
            return sorted(zip(numbers, said, strict=True))

    assert fails(0, range(12)) == fails(0, reversed(range(12)))
    assert fails(0, range(12)) != fails(1, range(12))


def test_a_prompt_gets_no_more_faults_than_set():
    with running(fail=1, faults="error", most_faults=2) as server:
        said = [asyncio.run(post(server.url, body()))[0][0] for _ in range(4)]
    assert said == [500, 500, 200, 200]


def test_more_in_flight_than_the_limit_are_told_to_wait():
    with running(latency=1.5, limit=2) as server:
        said = asyncio.run(post(server.url, *map(body, range(5))))
        assert server.stats().faults == {"limited": 3}
    assert sorted(status for status, _, _ in said) == [200, 200, 429, 429, 429]


def test_a_wrong_key_is_refused_and_bodies_are_recorded(tmp_path):
    with running(key="right", record=tmp_path / "bodies.jsonl") as server:
        assert asyncio.run(post(server.url, body()))[0][0] == 401
    with running(record=tmp_path / "bodies.jsonl") as server:
        asyncio.run(post(server.url, body(1), body(2)))
    recorded = [json.loads(line) for line in (tmp_path / "bodies.jsonl").read_text().splitlines()]
    assert sorted(r["messages"][0]["content"] for r in recorded) == ["Why is it 1?", "Why is it 2?"]


def test_the_server_ends_when_whoever_started_it_is_gone():
    with running() as server:
        server.process.stdin.close()
        assert server.process.wait(timeout=20) == 0
