"""The HTTP teacher with a real local server that fails in every way that endpoints do."""

import asyncio
import email.utils
import json
import socket
import time
from collections import Counter

import pytest
from aiohttp import web
from fake_endpoint import FakeEndpoint, drop, good, hang, raw, slow, status
from http_teacher import CHAT, TEXT, ask, teacher

from tinyllm import config
from tinyllm.errors import ConfigError, TeacherError
from tinyllm.teachers import make_teacher
from tinyllm.teachers._http.envelope import public_url
from tinyllm.teachers._http.refusals import seconds_of
from tinyllm.teachers._http.transport import Patience
from tinyllm.teachers.base import RequestFailed

KEY = "sk-secret-0123456789"


def test_a_completion_is_asked_and_read():
    server, (reply,) = ask()
    assert (reply.text, reply.finish_reason) == ("Because it is so.", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 5)
    assert reply.latency_s > 0
    assert server.paths == ["/v1/completions"]
    assert server.requests == [
        {
            "model": "m",
            "max_tokens": 32,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 3,
            "prompt": "Why?",
            "stop": ["\n\n"],
        }
    ]
    assert "Authorization" not in server.headers[0]


def test_a_chat_is_asked_and_read_and_the_sample_moves_the_seed():
    server, (reply,) = ask(request=CHAT, form="chat")
    assert reply.text == "Because it is so."
    assert server.paths == ["/v1/chat/completions"]
    assert server.requests[0]["messages"][0] == {"role": "system", "content": "Explain."}
    assert server.requests[0]["seed"] == 5


@pytest.mark.parametrize(
    ("finish", "meaning"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("eos", "stop"), (None, "unknown")],
)
def test_finish_reasons(finish, meaning):
    _, (reply,) = ask(lambda body: good(body, finish=finish))
    assert reply.finish_reason == meaning


def test_a_reply_without_text_or_usage_is_a_reply():
    answer = {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}
    _, (reply,) = ask(lambda _: web.json_response(answer), request=CHAT, form="chat")
    assert (reply.text, reply.finish_reason, reply.prompt_tokens) == ("", "content_filter", None)


@pytest.mark.parametrize(
    "failure",
    [
        status(500, "down"), status(503, "busy"), drop, raw("{half a"), raw("[]"), raw("{}"), raw('{"choices": [1]}'),
        raw('{"choices": [{"text": 5}]}'), raw('{"error": {"message": "odd"}}'), raw("[" * 5000),
    ],
    ids=["500", "503", "drop", "truncated", "list", "empty", "odd choice", "no text", "error in 200", "deep"],
)  # fmt: skip
def test_a_temporary_failure_is_retried(failure):
    server, (reply,) = ask(failure, failure, good)
    assert reply.text == "Because it is so."
    assert len(server.requests) == 3


@pytest.mark.parametrize("failure", [status(500, "down for repair"), raw("garbage")], ids=["500", "garbage"])
def test_a_permanent_failure_fails_the_request_after_its_attempts(failure):
    server, (error,) = ask(failure)
    assert isinstance(error, RequestFailed)
    assert "3 attempts" in str(error)
    assert "down for repair" in str(error) or "garbage" in str(error)
    assert len(server.requests) == 3


def test_a_server_that_hangs_is_given_up_after_the_time_limit():
    server, (error,) = ask(hang, patience=Patience(attempts=2, timeout_s=0.2, backoff_s=0.01))
    assert isinstance(error, RequestFailed)
    assert "no reply in 0.2 s" in str(error)
    assert len(server.requests) == 2


def test_a_rate_limit_is_waited_for_and_is_no_attempt():
    limited = status(429, "slow down", retry_after="0.05")
    server, (reply,) = ask(*[limited] * 6, good)
    assert reply.text == "Because it is so."
    assert len(server.requests) == 7  # three attempts were allowed
    assert all(later - earlier >= 0.05 for earlier, later in zip(server.times, server.times[1:], strict=False))


@pytest.mark.parametrize(
    "told",
    [status(503, "loading", retry_after="0.05"), status(503, "The model is overloaded."), status(529, "Overloaded")],
    ids=["503 with a time", "503", "529"],
)
def test_an_overload_is_waited_for_like_a_rate_limit(told):
    server, (reply,) = ask(*[told] * 6, good, patience=Patience(attempts=3, backoff_s=0.01))
    assert reply.text == "Because it is so."
    assert len(server.requests) == 7  # three attempts were allowed


def test_a_pause_is_read_from_the_error_if_no_header_tells_it():
    about = {"code": 429, "message": "Quota exceeded.", "details": [{"retryDelay": "0.3s"}]}
    server, (reply,) = ask(raw(json.dumps([{"error": about}]), 429), good)
    assert reply.text
    assert server.times[1] - server.times[0] >= 0.3


def test_a_rate_limit_given_as_a_date_is_waited_for():
    until = email.utils.formatdate(time.time() + 2, usegmt=True)
    began = time.monotonic()
    _, (reply,) = ask(status(429, retry_after=until), good)
    assert reply.text
    assert time.monotonic() - began >= 0.9


def test_a_rate_limit_pauses_all_requests_of_the_teacher():
    async def run():
        async with FakeEndpoint(status(429, retry_after="0.4"), good) as server, teacher(server.url) as asked:
            limited = asyncio.create_task(asked.ask(TEXT))
            await asyncio.sleep(0.1)
            await asyncio.gather(limited, *(asked.ask(TEXT) for _ in range(3)))
            return server.times

    first, *others = asyncio.run(run())
    assert len(others) == 4
    assert min(others) - first >= 0.4


def test_a_rate_limit_without_a_time_is_waited_for_too():
    server, (reply,) = ask(status(429), status(429), good)
    assert reply.text
    assert len(server.requests) == 3


def test_an_endless_rate_limit_is_given_up():
    _, (error,) = ask(status(429, "tomorrow", retry_after="86400"))
    assert isinstance(error, TeacherError)
    assert "86400 s" in str(error)
    assert "tomorrow" in str(error)
    patience = Patience(backoff_s=0.01, rate_limit_s=0.3)
    _, (error,) = ask(status(429, "again", retry_after="0.1"), patience=patience)
    assert isinstance(error, TeacherError)


def test_no_credit_is_no_rate_limit():
    server, (error,) = ask(status(429, "You exceeded your quota", kind="insufficient_quota"))
    assert isinstance(error, TeacherError)
    assert len(server.requests) == 1
    assert "no credit" in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 2048 tokens",
        "the request exceeds the available context size, try increasing it",
    ],
)
def test_a_prompt_that_is_too_long_fails_alone(message):
    server, (error,) = ask(status(400, message))
    assert isinstance(error, RequestFailed)
    assert message in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "remedy"), [(401, "check the key"), (402, "no credit"), (404, "base_url"), (405, "accepts no requests")]
)
def test_a_refusal_stops_the_teacher_with_the_servers_own_words(code, remedy):
    server, (error,) = ask(status(code, "Own words of the server"))
    assert isinstance(error, TeacherError)
    assert "Own words of the server" in str(error)
    assert remedy in str(error)
    assert str(code) in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [400, 403, 422])
def test_after_a_reply_an_unknown_error_concerns_one_prompt(code):
    _, outcomes = ask(good, *[status(code, "Own words")] * 3, good, times=6, concurrency=1)
    assert [type(o).__name__ for o in outcomes] == ["Reply", *["RequestFailed"] * 3, "Reply", "Reply"]
    assert all(o.reason == "bad_request" and "Own words" in str(o) for o in outcomes[1:4])


@pytest.mark.parametrize("code", [400, 403, 422])
def test_without_a_reply_an_unknown_error_stops_the_teacher(code):
    server, outcomes = ask(status(code, "Own words"), times=6, concurrency=1)
    assert [type(o).__name__ for o in outcomes[:3]] == ["RequestFailed", "RequestFailed", "TeacherError"]
    assert len(server.requests) == 3
    server, outcomes = ask(good, status(code, "Own words"), times=40, concurrency=1)
    assert Counter(type(o).__name__ for o in outcomes) == {"Reply": 1, "RequestFailed": 16, "TeacherError": 23}
    assert len(server.requests) == 18


def test_an_address_of_a_web_page_stops_the_teacher():
    page = raw("<!doctype html><title>Sign in</title>")
    server, errors = ask(page, times=4, concurrency=1)
    assert all(isinstance(e, TeacherError) and "base_url" in str(e) and "Sign in" in str(e) for e in errors)
    assert len(server.requests) <= 4 * 2 + 1  # the first that fails for the third time stops the others
    _, outcomes = ask(good, page, times=4, concurrency=1)  # a gateway in trouble
    assert [type(o).__name__ for o in outcomes] == ["Reply", *["RequestFailed"] * 3]


def test_an_endpoint_that_does_not_answer_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"

    async def run():
        async with teacher(url) as asked:
            await asked.ask(TEXT)

    with pytest.raises(TeacherError) as caught:
        asyncio.run(run())
    assert url in str(caught.value)
    assert "start the server, or correct `base_url`" in str(caught.value)
    assert "stopped" not in str(caught.value)  # told at once, not after all attempts


def test_an_endpoint_that_stops_answering_stops_the_teacher():
    async def run():
        async with FakeEndpoint() as server, teacher(server.url) as asked:
            assert (await asked.ask(TEXT)).text
            await server.__aexit__()
            await asked.ask(TEXT)

    with pytest.raises(TeacherError, match="stopped answering"):
        asyncio.run(run())


def test_no_more_requests_are_in_flight_than_allowed():
    server, replies = ask(slow, times=20, concurrency=3)
    assert all(r.text for r in replies)
    assert server.most_in_flight == 3


def test_nothing_is_sent_after_a_teacher_gave_up():
    async def run():
        answers = status(429, retry_after="0.3"), status(401, "revoked")
        async with FakeEndpoint(*answers) as server, teacher(server.url, concurrency=1) as asked:
            asks = [asked.ask(TEXT) for _ in range(20)]
            return await asyncio.gather(*asks, return_exceptions=True), len(server.requests)

    errors, requests = asyncio.run(run())
    assert all(isinstance(error, TeacherError) and "revoked" in str(error) for error in errors)
    assert requests == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(400, "maximum context length exceeded"), "too_long"),
        (status(413, "too big"), "too_long"),
        (status(400, "blocked", kind="content_filter"), "content_filter"),
        (status(500, "down"), "failed"),
        (drop, "failed"),
    ],
)
def test_a_request_that_failed_has_a_reason(answer, reason):
    _, (error,) = ask(answer)
    assert isinstance(error, RequestFailed)
    assert error.reason == reason


def test_a_refusal_is_told_from_an_answer():
    said = {"choices": [{"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"}]}
    _, (reply,) = ask(lambda _: web.json_response(said), request=CHAT, form="chat")
    assert (reply.text, reply.finish_reason) == ("I will not.", "refusal")


def test_failures_are_counted_and_can_be_asked_for_afterwards():
    async def run():
        answers = status(500), status(503), status(429, retry_after="0.01"), drop, raw("{"), status(500), good
        async with FakeEndpoint(*answers) as server:
            asked = teacher(server.url, patience=Patience(attempts=9, backoff_s=0.001))
            assert asked.faults == {}
            async with asked:
                await asked.ask(TEXT)
            return dict(asked.faults)

    assert asyncio.run(run()) == {"http 500": 2, "http 503": 1, "429": 1, "connection": 1, "malformed": 1}


# --- how fast -----------------------------------------------------------------------------------------------------


def timed(times: int, *answers, **other):
    """Ask so often at once; returns the server, the replies, and the seconds that it took."""

    async def run():
        async with FakeEndpoint(*answers) as server, teacher(server.url, **other) as asked:
            began = time.monotonic()
            replies = await asyncio.gather(*(asked.ask(TEXT) for _ in range(times)))
            return server, replies, time.monotonic() - began

    return asyncio.run(run())


def test_requests_per_minute_are_kept_to_and_every_attempt_counts():
    server, _, took = timed(19, status(500), good, requests_per_minute=600)
    assert len(server.requests) == 20
    assert took >= 0.99  # the first ten at once, a tenth of a second for each of the others


def test_tokens_per_minute_are_kept_to_and_waiting_for_them_is_no_latency():
    _, replies, took = timed(10, tokens_per_minute=4800, concurrency=16)
    assert took >= 0.7  # 80 at once and then 80 a second; 12 for each of nine, and 33 reserved for the last
    assert sum(reply.latency_s for reply in replies) < took


def test_what_a_reply_tells_of_its_tokens_corrects_the_pace():
    async def run():
        async with FakeEndpoint() as server, teacher(server.url, tokens_per_minute=6000) as asked:
            pace = asked._endpoint._pace
            before = pace.estimate(1000, 0)
            await asked.ask(TEXT)
            return before, pace.estimate(1000, 0), pace.wait(time.monotonic(), 80)

    before, after, wait = asyncio.run(run())
    assert after > 2 * before  # of 4 characters it made 7 tokens
    assert wait == 0  # 12 of 100 are used, not the 33 that were reserved


def test_automatic_concurrency_grows_with_the_endpoint():
    async def run():
        async with FakeEndpoint(lambda _: 0.2) as server, teacher(server.url, concurrency=None) as asked:
            assert asked.concurrency == 8
            await asyncio.gather(*(asked.ask(TEXT) for _ in range(150)))
            return server.most_in_flight  # at the end it may be lower again, if this machine was slow meanwhile

    assert asyncio.run(run()) > 8


def test_automatic_concurrency_shrinks_if_the_endpoint_refuses():
    async def run():
        server = FakeEndpoint()

        def bears_three(body):
            return status(429, "busy", retry_after="0.05")(body) if server.in_flight > 3 else 0.01

        server.answers = [bears_three]
        async with server, teacher(server.url, concurrency=None, patience=Patience(attempts=1)) as asked:
            replies = await asyncio.gather(*(asked.ask(TEXT) for _ in range(60)))
            return replies, asked.concurrency, asked.faults["429"]

    replies, concurrency, refused = asyncio.run(run())
    assert all(reply.text for reply in replies)
    assert concurrency < 8
    assert refused < 60


@pytest.mark.parametrize("code", [503, 504])
def test_all_requests_are_answered_by_a_server_that_takes_one_at_a_time_and_drops_a_long_queue(code):
    async def run():
        free, late = asyncio.Lock(), status(code, "There was no answer within 0.3 s, because the server is busy.")

        async def one_at_a_time(body):
            try:
                await asyncio.wait_for(free.acquire(), 0.3)
            except TimeoutError:
                return late(body)
            await asyncio.sleep(0.12)
            free.release()
            return good(body)

        patience = Patience(attempts=2, backoff_s=0.01, backoff_max_s=0.02)
        async with FakeEndpoint(one_at_a_time) as server, teacher(server.url, patience, concurrency=None) as asked:
            replies = await asyncio.gather(*(asked.ask(TEXT) for _ in range(24)), return_exceptions=True)
            return replies, asked.concurrency, asked.faults[f"http {code}"]

    replies, concurrency, refused = asyncio.run(run())
    assert [r for r in replies if isinstance(r, Exception)] == []
    assert concurrency < 5
    assert refused < 24


def test_attempts_at_a_server_that_is_always_too_busy_are_bounded():
    patience = Patience(attempts=3, backoff_s=0.01, backoff_max_s=0.02)
    server, (error,) = ask(status(504, "busy"), patience=patience, concurrency=None)
    assert isinstance(error, RequestFailed)
    assert len(server.requests) == 6


def test_automatic_concurrency_shrinks_after_a_time_out():
    async def run():
        patience = Patience(attempts=1, timeout_s=0.1)
        async with FakeEndpoint(hang) as server, teacher(server.url, patience, concurrency=None) as asked:
            await asyncio.gather(*(asked.ask(TEXT) for _ in range(8)), return_exceptions=True)
            return asked.concurrency

    assert asyncio.run(run()) == 5


# --- the key ------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_shown_nowhere(monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    for answer in (good, status(401, f"bad key {KEY}"), status(500, f"oh {KEY}"), raw(f"what is {KEY}?"), drop):
        server, (result,) = ask(answer, api_key_env="MY_KEY")
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        seen = [repr(result), str(result)]
        while isinstance(result, BaseException) and (result := result.__cause__ or result.__context__):
            if not result.__suppress_context__:
                seen.append(repr(result))
        assert KEY not in "".join(seen)

    async def run():
        async with FakeEndpoint() as server, teacher(server.url, api_key_env="MY_KEY") as asked:
            return repr(asked) + repr(asked._endpoint) + repr(asked.identity)

    assert KEY not in asyncio.run(run())
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("value", "says"), [(None, "holds none"), ("  ", "holds none"), ("two words", "no key"), ("schlüssel", "no key")]
)
def test_a_missing_or_invalid_key_names_its_variable(monkeypatch, value, says):
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)

    async def run():
        async with teacher("http://127.0.0.1:9/v1", api_key_env="MY_KEY"):
            pass

    with pytest.raises(TeacherError, match="MY_KEY") as caught:
        asyncio.run(run())
    assert says in str(caught.value)
    assert value is None or not value.strip() or value not in str(caught.value)


def test_identity_holds_what_could_change_a_reply_and_nothing_else():
    one, other = teacher("http://host/v1/"), teacher("http://host/v1", concurrency=99)
    assert one.identity == other.identity == {"kind": "openai", "base_url": "http://host/v1", "model": "m"}
    made = make_teacher(config.OpenAITeacher(name="t", kind="openai", model="m", base_url="http://host/v1"), [])
    assert made.identity == one.identity
    assert (made.stored, made.local, made.concurrency, made.form) == (True, False, 8, "chat")


@pytest.mark.parametrize("url", ["http://u:p@host/v1", "https://host/v1?key=sk-1", "host/v1"])
def test_a_url_with_a_secret_in_it_is_refused_and_not_repeated(url):
    tree = {"name": "t", "kind": "openai", "model": "m", "base_url": url, "api_key_env": "sk-pasted-here"}
    with pytest.raises(ConfigError) as caught:
        config.build_config({"data": {"dataset": "starter"}, "teachers": [tree]})
    assert "teachers[0].base_url" in str(caught.value)
    assert "teachers[0].api_key_env" in str(caught.value)
    assert url not in str(caught.value)
    assert "sk-pasted" not in str(caught.value)


def test_small_readers():
    assert public_url("https://a:b@h:1/v1/?key=x#y") == "https://h:1/v1"
    assert seconds_of("12") == 12
    assert seconds_of("-3") == 0
    assert seconds_of("soon") is None
    assert seconds_of(None) is None
    assert seconds_of("inf") is None
    assert seconds_of("nan") is None
    assert seconds_of(email.utils.formatdate(time.time() - 100, usegmt=True)) == 0


def test_a_rate_limit_after_a_lost_connection_is_waited_for():
    limited = status(429, retry_after="0.01")
    patience = Patience(attempts=9, timeout_s=5, backoff_s=0.01)
    server, (reply,) = ask(drop, limited, drop, drop, drop, limited, good, patience=patience)
    assert reply.text == "Because it is so."
    assert len(server.requests) == 7
