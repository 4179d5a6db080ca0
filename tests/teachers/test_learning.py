"""What an endpoint refuses is learnt once and stored, and nothing is paid twice."""

import asyncio
import json
import socket
import time

import pytest
from aiohttp import web
from fake_endpoint import FakeEndpoint, good

from generation import REASON, Recorder, questions
from tinyllm import config
from tinyllm.config import RationalesSection
from tinyllm.prompts import ExampleGenerator
from tinyllm.rationales.collect import Collection
from tinyllm.rationales.generate import Ended, Stop, generate
from tinyllm.rationales.requests import Requests
from tinyllm.rationales.types import Rationale
from tinyllm.replies._store import Store
from tinyllm.spending.budget import Budget
from tinyllm.teachers._openai import OpenAITeacher

EXAMPLES = {"count": 0}


def refuses(*names, then=lambda body: good(body, REASON)):
    """A server that does not take some parameters."""

    def answer(body):
        for name in names:
            if name in body:
                said = {"error": {"message": f"Unsupported parameter: '{name}'", "param": name}}
                return web.json_response(said, status=400)
        return then(body)

    return answer


def run(store, count, answer, section=None, *, stop=None, **teacher):
    """Ask so many questions of a server; returns the server, what was told, how it ended and what came of it."""
    section = section or RationalesSection(examples=EXAMPLES)
    told, asked = Recorder(), questions(count)

    async def ask():
        async with FakeEndpoint(answer, port=store.port) as server:
            fields = {"name": "ada", "kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
            spec = config.OpenAITeacher(**fields, **teacher)
            asks = OpenAITeacher(spec)
            requests = Requests(
                asks, asked, ExampleGenerator(asked, section.examples), section, omit=spec.omit,
                thinking_tokens=spec.thinking_tokens, manners=store.manners(asks.identity),
            )  # fmt: skip
            ended = await generate([requests], store, told, budget=Budget(section.budget, {}), stop=stop or Stop())
            return server, ended, list(Collection([requests], store))

    server, ended, outcomes = asyncio.run(ask())
    return server, told, ended, outcomes


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "replies.sqlite") as opened, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        opened.port = probe.getsockname()[
            1
        ]  # of the service in all runs: its address is part of what replies are known by
        probe.close()
        yield opened


def test_a_refused_parameter_is_left_out_reported_once_and_remembered(store):
    server, told, ended, outcomes = run(store, 20, refuses("seed", "top_p"))
    assert ended == Ended(None, ())
    assert all(isinstance(o, Rationale) for o in outcomes)
    assert [w for w in told.words if "`seed`" in w or "`top_p`" in w] == told.words
    assert len(told.words) == 2
    assert len(server.requests) < 20 + 2 * 20
    server, told, _, outcomes = run(store, 30, refuses("seed", "top_p"))  # a later run: ten more questions
    assert len(server.requests) == 10
    assert told.words == []
    assert all("seed" not in body and "top_p" not in body for body in server.requests)
    assert sum(isinstance(o, Rationale) for o in outcomes) == 30


def test_the_key_holds_what_was_sent(store):
    run(store, 1, refuses("seed"))
    [(request,)] = store._db.execute("SELECT request FROM replies").fetchall()
    assert "seed" not in json.loads(request)["sampling"]
    assert "temperature" in json.loads(request)["sampling"]


@pytest.mark.parametrize("written", [{"temperature": 0.2}, {"temperature": 0.7}])
def test_a_configured_parameter_is_never_left_out(store, written):
    section = RationalesSection(examples=EXAMPLES, **written)
    server, told, ended, _ = run(store, 6, refuses("temperature"), section)
    [error] = ended.errors
    assert "does not take `temperature`" in str(error)
    assert "omit: [temperature]" in str(error)
    assert told.words == []
    assert all("temperature" in body for body in server.requests)
    server, _, ended, outcomes = run(store, 6, refuses("temperature"), section, omit=["temperature"])  # their choice
    assert (ended, len(server.requests)) == (Ended(None, ()), 6)
    assert all(isinstance(o, Rationale) for o in outcomes)


def test_of_two_exclusive_parameters_the_default_one_is_left_out(store):
    def answer(body):
        if {"temperature", "top_p"} <= body.keys():
            said = {"error": {"message": "temperature and top_p cannot both be specified"}}
            return web.json_response(said, status=400)
        return good(body, REASON)

    server, *_ = run(store, 1, answer, RationalesSection(examples=EXAMPLES, top_p=0.5))
    assert (server.requests[-1].get("temperature"), server.requests[-1]["top_p"]) == (None, 0.5)


def test_replies_from_before_an_endpoint_changed_are_not_paid_again(store):
    run(store, 10, lambda body: good(body, REASON))
    server, told, _, outcomes = run(store, 15, refuses("seed"))
    assert len(told.words) == 1
    assert sum("seed" not in body for body in server.requests) == 5  # the new questions alone
    assert all(isinstance(o, Rationale) for o in outcomes)
    assert len(run(store, 15, refuses("seed"))[0].requests) == 0


def test_a_prompt_with_an_error_of_its_own_fails_alone_also_when_it_comes_first(store):
    def answer(body):
        if "number 0?" in body["messages"][-1]["content"]:
            return web.json_response({"error": {"message": "Something about your text we did not like"}}, status=400)
        return good(body, REASON)

    for _ in range(2):  # in the second run it is the only one that is asked
        _, _, ended, outcomes = run(store, 12, answer, concurrency=1)
        assert ended == Ended(None, ())
        assert [o.reason for o in outcomes if not isinstance(o, Rationale)] == ["bad_request"]


# --- thoughts -----------------------------------------------------------------------------------------------------


def thinks(needs):
    """A server whose thoughts take so many tokens."""

    def answer(body):
        if body["max_tokens"] < needs:
            return good(body, "<think>Hm, let me see", "length")
        return good(body, f"<think>Hm.</think>{REASON}")

    return answer


def test_after_a_cut_thought_more_tokens_are_allowed(store):
    server, _, _, outcomes = run(store, 8, thinks(3000), concurrency=1)
    assert all(isinstance(o, Rationale) and o.text == REASON for o in outcomes)
    lengths = [body["max_tokens"] for body in server.requests]
    assert lengths[0] == 256
    assert lengths.count(256 + 4096) == 8  # some more were under way with 256 when the first reply taught it
    assert set(lengths) == {256, 256 + 4096}
    server, _, _, outcomes = run(store, 10, thinks(3000))
    assert [body["max_tokens"] for body in server.requests] == [256 + 4096] * 2
    assert sum(isinstance(o, Rationale) for o in outcomes) == 10


def test_an_error_that_tells_of_a_cut_thought_is_a_cut_thought(store):
    said = "Could not finish the message because max_tokens or model output limit was reached."

    def answer(body):
        if body["max_tokens"] < 1000:
            return web.json_response({"error": {"message": said, "type": "invalid_request_error"}}, status=400)
        return good(body, REASON)

    server, _, ended, outcomes = run(store, 8, answer, concurrency=1)
    assert ended == Ended(None, ())
    assert all(isinstance(o, Rationale) for o in outcomes)
    assert len(server.requests) <= 16
    server, _, _, _ = run(store, 13, answer)  # the room is known from the beginning
    assert len(server.requests) == 5


def test_configured_thinking_tokens_are_added_and_doubled(store):
    server, _, _, outcomes = run(store, 1, thinks(1500), thinking_tokens=400)
    assert [body["max_tokens"] for body in server.requests] == [656, 1056, 1856]
    assert isinstance(outcomes[0], Rationale)
    server, _, _, outcomes = run(store, 2, thinks(9999), thinking_tokens=0)
    assert outcomes[1].reason == "unfinished_thought"
    assert {body["max_tokens"] for body in server.requests} == {256}


def test_replies_with_fewer_thinking_tokens_are_not_paid_again(store):
    def short_for_some(body):
        hard = "number 5?" in body["messages"][-1]["content"]
        return (thinks(3000) if hard else thinks(0))(body)

    first, *_ = run(store, 5, short_for_some, concurrency=1)
    assert len(first.requests) == 5
    second, *_ = run(store, 8, short_for_some, concurrency=1)
    assert len(second.requests) == 3 + 1
    assert len(run(store, 8, short_for_some)[0].requests) == 0


def test_thoughts_in_a_store_of_an_earlier_version_cost_no_token(store):
    """What was kept as a rationale then is read anew."""
    run(store, 3, lambda body: good(body, f"<think>Hm, I think.</think>\n\n{REASON}"))
    server, _, _, outcomes = run(store, 3, thinks(0))
    assert len(server.requests) == 0
    assert [o.text for o in outcomes] == [REASON] * 3


def test_a_length_limit_reduces_thinking_tokens(store):
    def answer(body):
        if body["max_tokens"] > 2000:
            said = {"error": {"message": f"max_tokens is too large: {body['max_tokens']}. At most 2000 are supported."}}
            return web.json_response(said, status=400)
        return thinks(1500)(body)

    server, told, _, outcomes = run(store, 3, answer, concurrency=1)
    assert all(isinstance(o, Rationale) for o in outcomes)
    assert server.requests[-1]["max_tokens"] == 2000
    assert any("at most 2,000 tokens" in w for w in told.words)
    _, _, ended, _ = run(store, 6, answer, RationalesSection(examples=EXAMPLES, max_tokens=3000))
    assert "set `rationales.max_tokens` to 2000 or less" in str(ended.errors[0])


# --- the wish to stop ---------------------------------------------------------------------------------------------


def test_stopping_cancels_requests_that_wait_for_the_pace(store):
    stop = Stop()

    def answer(body):
        stop.wish("interrupted")
        return good(body, REASON)

    began = time.monotonic()
    server, _, ended, _ = run(store, 40, answer, stop=stop, requests_per_minute=60, concurrency=16)
    assert ended.stopped == "interrupted"
    assert len(server.requests) == 1
    assert time.monotonic() - began < 20
    assert len(store) == 1


def test_stopping_ends_retries(store):
    stop = Stop()

    def answer(body):
        stop.wish("interrupted")
        return web.json_response({"error": {"message": "oops"}}, status=500)

    server, _, ended, _ = run(store, 4, answer, stop=stop, concurrency=4)
    assert ended.stopped == "interrupted"
    assert len(server.requests) <= 4


@pytest.mark.parametrize("refused", [0, 5])  # before it is known that the model thinks, and after
def test_the_reason_of_a_failure_is_told_whatever_was_learnt_about_the_endpoint(store, refused):
    def answer(body):
        if f"number {refused}?" in body["messages"][-1]["content"]:
            return web.json_response({"error": {"message": "It is against our content policy"}}, status=400)
        return thinks(1500)(body)

    *_, outcomes = run(store, 8, answer, concurrency=1)
    assert [getattr(o, "reason", None) for o in outcomes] == [
        "content_filter" if n == refused else None for n in range(8)
    ]
