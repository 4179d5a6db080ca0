"""The HTTP teacher against a real local server that fails in every way that endpoints do."""

import asyncio
import email.utils
import socket
import time

import pytest
from aiohttp import web
from fake_endpoint import FakeEndpoint, drop, good, hang, raw, slow, status

from tinyllm import config
from tinyllm.errors import ConfigError, TeacherError
from tinyllm.prompts import Message, Prompt
from tinyllm.teachers import make_teacher
from tinyllm.teachers.base import Request, RequestFailed, Sampling
from tinyllm.teachers.endpoint import Patience, _seconds, public_url
from tinyllm.teachers.openai import OpenAITeacher

KEY = "sk-secret-0123456789"
QUICK = Patience(attempts=3, timeout_s=5.0, backoff_s=0.01, backoff_max_s=0.05, rate_limit_s=3.0)
SAMPLING = Sampling(max_tokens=32, temperature=0.5, top_p=0.9, seed=3, stop=("\n\n",))
TEXT = Request("q1", Prompt(text="Why?"), SAMPLING)
CHAT = Request("q1", Prompt(messages=(Message("system", "Explain."), Message("user", "Why?"))), SAMPLING, sample=2)


def teacher(url: str, patience: Patience = QUICK, **other) -> OpenAITeacher:
    fields = {"form": "completion", "api_key_env": None, "concurrency": 4, **other}
    spec = config.OpenAITeacher(name="t", kind="openai", model="m", base_url=url, **fields)
    return OpenAITeacher(spec, patience=patience)


def ask(*answers, request: Request = TEXT, times: int = 1, **other):
    """Ask a server that gives these answers; returns the server and the replies (or what was raised)."""

    async def run():
        async with FakeEndpoint(*answers) as server, teacher(server.url, **other) as asked:
            return server, await asyncio.gather(*(asked.ask(request) for _ in range(times)), return_exceptions=True)

    return asyncio.run(run())


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
def test_a_passing_failure_is_asked_again(failure):
    server, (reply,) = ask(failure, failure, good)
    assert reply.text == "Because it is so."
    assert len(server.requests) == 3


@pytest.mark.parametrize("failure", [status(500, "down for repair"), raw("garbage")], ids=["500", "garbage"])
def test_a_lasting_failure_fails_the_request_after_its_attempts(failure):
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
    ("code", "remedy"), [(401, "check the key"), (403, "may not use"), (404, "base_url"), (400, "does not take")]
)
def test_a_refusal_stops_the_teacher_with_the_servers_own_words(code, remedy):
    server, (error,) = ask(status(code, "Own words of the server"))
    assert isinstance(error, TeacherError)
    assert "Own words of the server" in str(error)
    assert remedy in str(error)
    assert str(code) in str(error)
    assert len(server.requests) == 1


def test_a_model_that_wants_another_name_for_the_length_gets_it():
    refusal = status(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    server, (reply,) = ask(refusal, good)
    assert reply.text
    assert server.requests[1]["max_completion_tokens"] == 32
    assert "max_tokens" not in server.requests[1]


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
    assert "start the server, or mend `base_url`" in str(caught.value)
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
def test_a_key_that_is_missing_or_none_names_its_variable(monkeypatch, value, says):
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
    assert (made.stored, made.local, made.concurrency, made.form) == (True, False, 16, "chat")


@pytest.mark.parametrize("url", ["http://u:p@host/v1", "https://host/v1?key=sk-1", "host/v1"])
def test_a_url_with_a_secret_in_it_is_refused_and_not_repeated(url):
    tree = {"name": "t", "kind": "openai", "model": "m", "base_url": url, "api_key_env": "sk-pasted-here"}
    with pytest.raises(ConfigError) as caught:
        config.build_config({"data": {"dataset": "starter"}, "teachers": [tree]})
    assert "teachers[0].base_url" in str(caught.value)
    assert "teachers[0].api_key_env" in str(caught.value)
    assert url not in str(caught.value)
    assert "sk-pasted" not in str(caught.value)


def test_many_requests_at_once_learn_the_other_field_for_the_length():
    def wants_other(body):
        if "max_tokens" in body:
            return web.json_response({"error": {"message": "use max_completion_tokens instead"}}, status=400)
        return good(body)

    async def run():
        async with FakeEndpoint(wants_other) as server, teacher(server.url) as asked:
            return await asyncio.gather(*(asked.ask(TEXT) for _ in range(12)))

    assert len(asyncio.run(run())) == 12


def test_small_readers():
    assert public_url("https://a:b@h:1/v1/?key=x#y") == "https://h:1/v1"
    assert _seconds("12") == 12
    assert _seconds("-3") == 0
    assert _seconds("soon") is None
    assert _seconds(None) is None
    assert _seconds("inf") is None
    assert _seconds("nan") is None
    assert _seconds(email.utils.formatdate(time.time() - 100, usegmt=True)) == 0
