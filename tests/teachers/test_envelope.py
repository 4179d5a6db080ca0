"""Query, headers and further fields are sent with every request, and no secret appears in a message."""

import asyncio

import pytest
from fake_endpoint import FakeEndpoint, drop, good, status
from http_teacher import CHAT, ask, teacher

from tinyllm import config
from tinyllm.errors import ConfigError, TeacherError
from tinyllm.teachers._http.envelope import envelope_of, identity_of
from tinyllm.teachers.base import Reply

KEY = "sk-own-0123456789"


def spec(**other) -> config.OpenAITeacher:
    fields = {"name": "t", "kind": "openai", "model": "m", "api_key_env": None, **other}
    return config.build_config({"data": {"dataset": "starter"}, "teachers": [fields]}).teachers[0]


def test_query_headers_and_further_fields_are_sent(monkeypatch):
    monkeypatch.setenv("MY_ORG", "acme")
    server, (reply,) = ask(
        request=CHAT, form="chat", query={"api-version": "2024-10-21"}, headers={"X-Org": "${MY_ORG}", "X-Title": "tiny"},
        extra_body={"provider": {"order": ["a"]}, "reasoning_effort": "low"},
    )  # fmt: skip
    assert isinstance(reply, Reply)
    assert server.requests[0]["provider"] == {"order": ["a"]}
    assert server.requests[0]["reasoning_effort"] == "low"
    assert (server.headers[0]["X-Org"], server.headers[0]["X-Title"]) == ("acme", "tiny")
    assert server.queries == ["api-version=2024-10-21"]


def test_a_field_of_ones_own_that_is_refused_is_named_at_once():
    server, (error,) = ask(
        status(400, "No endpoints found that match `provider`"), extra_body={"provider": {"order": ["x"]}}
    )
    assert isinstance(error, TeacherError)
    assert "correct `provider` in `extra_body`" in str(error)
    assert len(server.requests) == 1


def test_the_key_goes_into_the_header_that_is_named(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    server, _ = ask(api_key_env="MY_KEY", auth_header="api-key")
    assert server.headers[0]["api-key"] == KEY
    assert "Authorization" not in server.headers[0]
    server, _ = ask(api_key_env="MY_KEY", auth_header="authorization")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_redirect_is_not_followed_with_the_key(monkeypatch):
    from aiohttp import web

    monkeypatch.setenv("MY_KEY", KEY)

    async def run():
        async with FakeEndpoint() as thief:
            moved = lambda _: web.Response(status=307, headers={"Location": thief.url + "/chat/completions"})  # noqa: E731
            async with FakeEndpoint(moved) as server, teacher(server.url, api_key_env="MY_KEY") as asked:
                with pytest.raises(TeacherError, match="307"):
                    await asked.ask(CHAT)
            assert thief.requests == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"headers": {"Authorization": KEY}}, "read from environment variables only"),
        ({"headers": {"X-Api-Key": KEY}}, "read from environment variables only"),
        ({"headers": {"my-token": KEY}}, "read from environment variables only"),
        ({"query": {"key": KEY}}, "read from environment variables only"),
        ({"extra_body": {"api_key": KEY}}, "read from environment variables only"),
        ({"extra_body": {"temperature": 1}}, "rationales.temperature"),
        ({"extra_body": {"stream": True}}, "`stream`"),
        ({"extra_body": {"n": 4}}, "rationales.samples"),
        ({"auth_header": "two words"}, "auth_header"),
        ({"stream": "maybe"}, "stream"),
        ({"base_url": "http://no such host/v1"}, "base_url"),
        ({"base_url": "http://[::1/v1"}, "the host must be"),
        ({"base_url": "http://host:99999/v1"}, "the host must be"),
        ({"base_url": "http://" + "a" * 70 + ".example/v1"}, "the host must be"),
        ({"base_url": "http:///v1"}, "base_url"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_told_with_the_configuration_and_without_the_key(section, says):
    with pytest.raises(ConfigError) as caught:
        spec(**section)
    assert says in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_variable_that_is_missing_is_told_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(TeacherError, match=r"\$\{NO_SUCH\}, which the environment does not hold"):
        envelope_of(spec(headers={"X-Org": "${NO_SUCH}"}))


def test_dates_and_numbers_of_yaml_are_texts():
    import datetime

    found = spec(query={"api-version": datetime.date(2024, 10, 21), "n": 1, "beta": True})
    assert found.query == {"api-version": "2024-10-21", "n": "1", "beta": "true"}


def test_the_identity_holds_what_changes_a_reply_and_names_of_variables_only(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    plain = identity_of(spec())
    assert plain == {"kind": "openai", "base_url": "https://api.openai.com/v1", "model": "m"}  # as it always was
    assert identity_of(spec(headers={"X-Org": "a"}, auth_header="api-key", stream=True)) == plain
    dressed = identity_of(spec(query={"key": "${MY_KEY}", "v": "1"}, extra_body={"b": 1, "a": 2}))
    assert dressed == plain | {"query": "key=${MY_KEY}&v=1", "extra_body": '{"a": 2, "b": 1}'}


@pytest.mark.parametrize("answer", [status(500, f"oh {KEY}"), status(401, f"bad {KEY}"), drop])
def test_no_secret_is_in_what_is_said(monkeypatch, answer):
    monkeypatch.setenv("MY_KEY", KEY)
    for where in ({"api_key_env": "MY_KEY"}, {"query": {"key": "${MY_KEY}"}}, {"headers": {"X-Token": "${MY_KEY}"}}):
        _, (error,) = ask(answer, **where)
        assert KEY not in str(error)


def test_a_proxys_password_is_in_nothing_that_is_said(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://user:p%40ss-word@127.0.0.1:1")

    async def run():
        async with teacher("http://api.example.com/v1") as asked:
            with pytest.raises(TeacherError) as caught:
                await asked.ask(CHAT)
            return str(caught.value)

    said = asyncio.run(run())
    assert "ss-word" not in said


# --- streams ------------------------------------------------------------------------------------------------------


def test_a_stream_is_asked_for_where_it_is_wanted():
    server, (reply,) = ask(good, stream=True)
    assert isinstance(reply, Reply)
    assert (server.requests[0]["stream"], server.requests[0]["stream_options"]) == (True, {"include_usage": True})
    server, _ = ask(good)
    assert "stream" not in server.requests[0]
