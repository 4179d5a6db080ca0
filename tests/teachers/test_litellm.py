"""`kind: litellm` with local servers that speak the services' own protocols."""

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys

import pytest
from aiohttp import web
from fake_endpoint import FakeEndpoint, drop, hang, raw, reset, wire
from hypothesis import given
from hypothesis import strategies as st
from services import ANTHROPIC, CACHED, COHERE, COMPLETION, GEMINI, PROMPT, SAID, SERVICES, THOUGHT, Service

from generation import Recorder, questions
from tinyllm import config
from tinyllm.errors import ConfigError, MissingDependencyError, TeacherError
from tinyllm.prompts import ExampleGenerator, Message, Prompt
from tinyllm.rationales._visible import visible
from tinyllm.rationales.generate import Stop, generate
from tinyllm.rationales.requests import Requests
from tinyllm.replies._store import Store
from tinyllm.spending.budget import Budget
from tinyllm.teachers import make_teacher
from tinyllm.teachers._http.refusals import meant, pause_of
from tinyllm.teachers._http.transport import Patience, Transport
from tinyllm.teachers._litellm import LiteLLMTeacher, _Wire
from tinyllm.teachers.base import ParameterRefused, Reply, Request, RequestFailed, Sampling

installed = pytest.mark.skipif(
    importlib.util.find_spec("litellm") is None, reason="the extra is missing: pip install 'tinyllm-distill[litellm]'"
)
each = pytest.mark.parametrize("service", SERVICES, ids=lambda s: s.name)
KEY = "sk-secret-0123456789"
QUICK = Patience(attempts=3, timeout_s=5.0, backoff_s=0.01, backoff_max_s=0.05, rate_limit_s=3.0)
SAMPLING = Sampling(max_tokens=400, temperature=0.5, top_p=None, seed=None)
ASKED = Request("q1", Prompt(messages=(Message("system", "Explain."), Message("user", "Why?"))), SAMPLING)


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    """The services' own variables, each with a key of its own."""
    for service in SERVICES:
        monkeypatch.setenv(service.variable, f"{service.name}-{KEY}")


class Meter:
    """Counts what becomes of attempts; `open` is one that nothing became of yet."""

    def __init__(self) -> None:
        self.begun = self.freed = self.lost_ = 0
        self.open = False

    async def begin(self) -> None:
        assert not self.open
        self.begun, self.open = self.begun + 1, True

    def free(self) -> None:
        assert self.open
        self.freed, self.open = self.freed + 1, False

    def lost(self, words: str = "") -> None:
        assert self.open
        self.lost_, self.open = self.lost_ + 1, False


def teacher(service: Service, url: str, patience: Patience = QUICK, **other) -> LiteLLMTeacher:
    fields = {"concurrency": 4, "base_url": url, **other}
    return LiteLLMTeacher(
        config.LiteLLMTeacher(name="t", kind="litellm", model=service.model, **fields), patience=patience
    )


def ask(service: Service, *answers, request: Request = ASKED, **other):
    """Ask once; returns the server, the reply (or what was raised), and the meter."""

    async def run():
        meter = Meter()
        async with (
            FakeEndpoint(*(answers or [service.good])) as server,
            teacher(service, server.root, **other) as asked,
        ):
            (outcome,) = await asyncio.gather(asked.ask(request, meter), return_exceptions=True)
            return server, outcome, meter

    return asyncio.run(run())


# --- a reply ------------------------------------------------------------------------------------------------------


@installed
@each
def test_only_the_text_is_shown_and_the_usage_is_whole(service):
    server, reply, meter = ask(service)
    assert isinstance(reply, Reply), reply
    assert (visible(reply).text, visible(reply).thought) == (SAID, True)
    assert THOUGHT not in visible(reply).text
    assert THOUGHT in (reply.message or "")  # what came is kept as it came
    assert (reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens) == (PROMPT, CACHED, COMPLETION)
    assert reply.finish_reason == "stop"
    assert reply.latency_s > 0
    assert (len(server.requests), meter.begun, meter.open) == (1, 1, True)  # to be paid by who asked


@installed
def test_a_request_is_in_the_services_own_protocol():
    server, *_ = ask(ANTHROPIC)
    assert server.paths == ["/v1/messages"]
    (body,) = server.requests
    assert body.keys() == {"model", "messages", "system", "max_tokens", "temperature"}
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("claude-sonnet-4-5", 400, 0.5)
    assert "Explain." in json.dumps(body["system"])
    assert "Why?" in json.dumps(body["messages"])
    server, *_ = ask(GEMINI)
    assert server.paths == ["/models/gemini-2.5-flash:generateContent"]
    assert "Explain." in json.dumps(server.requests[0]["system_instruction"])


@installed
@pytest.mark.parametrize(
    ("service", "stop", "meaning"),
    [
        (ANTHROPIC, "max_tokens", "length"), (ANTHROPIC, "stop_sequence", "stop"), (ANTHROPIC, "refusal", "content_filter"),
        (GEMINI, "MAX_TOKENS", "length"), (GEMINI, "SAFETY", "content_filter"), (GEMINI, "RECITATION", "content_filter"),
    ],
)  # fmt: skip
def test_finish_reasons(service, stop, meaning):
    _, reply, _ = ask(service, lambda _: web.json_response(service.reply(stop=stop)))
    assert reply.finish_reason == meaning


@installed
def test_a_prompt_that_is_blocked_is_a_reply_that_is_withheld():
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 10}}
    _, reply, _ = ask(GEMINI, lambda _: web.json_response(blocked))
    assert visible(reply).withheld == "content_filter"
    assert reply.prompt_tokens == 10


@installed
def test_further_arguments_are_sent_and_are_part_of_the_identity():
    server, *_ = ask(ANTHROPIC, arguments={"top_k": 7})
    assert server.requests[0]["top_k"] == 7
    plain, other = teacher(ANTHROPIC, "http://host"), teacher(ANTHROPIC, "http://host", arguments={"top_k": 7})
    assert plain.identity == {"kind": "litellm", "model": ANTHROPIC.model, "base_url": "http://host"}
    assert other.identity == {**plain.identity, "arguments": '{"top_k": 7}'}
    made = make_teacher(config.LiteLLMTeacher(name="t", kind="litellm", model=GEMINI.model, concurrency=3), [])
    assert made.identity == {"kind": "litellm", "model": GEMINI.model}
    assert (made.stored, made.local, made.concurrency, made.form) == (True, False, 3, "chat")


# --- the key ------------------------------------------------------------------------------------------------------


@installed
@each
@pytest.mark.parametrize("named", [False, True], ids=["the service's own", "named"])
def test_the_key_is_in_its_header_and_nowhere_else(service, named, monkeypatch, caplog, capfd):
    key = f"{service.name}-{KEY}"
    other = {}
    if named:
        key = "my-very-own-key-77"
        monkeypatch.setenv("MY_KEY", key)
        other = {"api_key_env": "MY_KEY"}
    answers = [
        service.good, service.error(401, f"bad key {key}"), service.error(500, f"oh {key}"), raw(f"what is {key}?"),
        service.error(400, f"no {key}"), drop,
    ]  # fmt: skip
    for answer in answers:
        server, outcome, _ = ask(service, answer, **other)
        headers = {name.lower(): value for name, value in server.headers[0].items()}
        held = headers.pop(service.header.lower())
        assert held.removeprefix("Bearer ") == key
        assert key not in json.dumps([headers, server.requests, server.paths])
        assert all(mine not in json.dumps(headers) for mine in (f"{s.name}-{KEY}" for s in SERVICES))
        seen = [repr(outcome), str(outcome)]
        while isinstance(outcome, BaseException) and (outcome := outcome.__cause__ or outcome.__context__):
            if not outcome.__suppress_context__:
                seen.append(repr(outcome))
        assert key not in "".join(seen)
    assert key not in caplog.text
    assert "".join(capfd.readouterr()) == ""  # the library says nothing by itself


@installed
@pytest.mark.parametrize("name", ["SOME_API_KEY", "MY_CLIENT_SECRET", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"])
def test_every_key_in_the_environment_is_hidden(name, monkeypatch):
    monkeypatch.setenv(name, "hidden-0123456789")
    _, error, _ = ask(ANTHROPIC, ANTHROPIC.error(401, "no such key: hidden-0123456789"))
    assert "hidden-0123456789" not in str(error)
    assert "no such key: ***" in str(error)


@installed
def test_a_key_that_is_missing_is_told_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    with pytest.raises(TeacherError, match=r"export ANTHROPIC_API_KEY=…"):
        teacher(ANTHROPIC, None).check()
    with pytest.raises(TeacherError, match=r"MY_KEY holds none.*service's own variables"):
        teacher(ANTHROPIC, None, api_key_env="MY_KEY").check()
    teacher(GEMINI, None).check()
    # A server of one's own may ask for no key.
    teacher(ANTHROPIC, "http://127.0.0.1:9").check()
    _, reply, _ = ask(ANTHROPIC)
    assert reply.text == SAID


# --- what goes wrong ----------------------------------------------------------------------------------------------

BUSY = {
    "500": lambda s: s.error(500, "down"),
    "529": lambda s: s.error(529, "Overloaded"),
    "503": lambda s: s.error(503, "busy"),
    "502": lambda s: s.error(502, "no gateway"),
    "drop": lambda s: drop,
    "reset": lambda s: reset,
    "half a body": lambda s: wire(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", then="drop"),
    "no JSON": lambda s: raw("<html>"),
    "no reply": lambda s: raw('{"x": 1}'),
    "a list": lambda s: raw("[]"),
}
LOST = {"502", "drop", "reset", "half a body", "no JSON", "no reply", "a list"}  # may be billed all the same


@installed
@each
@pytest.mark.parametrize("failure", BUSY)
def test_a_passing_failure_is_asked_again_once_an_attempt(service, failure):
    server, reply, meter = ask(service, BUSY[failure](service), BUSY[failure](service), service.good)
    assert isinstance(reply, Reply), reply
    assert reply.text == SAID
    assert len(server.requests) == meter.begun == 3  # the library sends nothing by itself
    assert (meter.lost_, meter.freed) == ((2, 0) if failure in LOST else (0, 2))


@installed
@each
def test_a_time_out_is_lost_and_told(service):
    patience = Patience(attempts=2, timeout_s=0.3, backoff_s=0.01)
    server, error, meter = ask(service, hang, patience=patience)
    assert isinstance(error, RequestFailed)
    assert "no reply in 0.3 s" in str(error)
    assert (len(server.requests), meter.begun, meter.lost_, meter.freed) == (2, 2, 2, 0)


@installed
@each
def test_a_rate_limit_is_waited_for_by_all_and_is_no_attempt(service):
    limited = service.error(429, "slow down", retry_after="0.1")
    server, reply, meter = ask(service, *[limited] * 5, service.good)
    assert reply.text == SAID
    assert len(server.requests) == meter.begun == 6  # three attempts were allowed
    assert (meter.freed, meter.lost_) == (5, 0)
    assert all(later - earlier >= 0.1 for earlier, later in zip(server.times, server.times[1:], strict=False))


@installed
def test_a_wait_that_stands_in_the_error_is_waited_for():
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.3s"}]
    server, reply, _ = ask(GEMINI, GEMINI.error(429, "quota", details=details), GEMINI.good)
    assert reply.text == SAID
    assert server.times[1] - server.times[0] >= 0.3


@installed
@each
@pytest.mark.parametrize(
    ("status", "words", "reason"),
    [
        (400, "prompt is too long: 210000 tokens > 200000 maximum", "too_long"),
        (400, "The input token count exceeds the maximum number of tokens allowed", "too_long"),
        (413, "Request exceeds the maximum size", "too_long"),
        (400, "Output blocked by content filtering policy: content filter", "content_filter"),
        (400, "messages: unexpected something", "bad_request"),
    ],
)
def test_an_error_about_one_prompt_fails_that_alone_and_is_free(service, status, words, reason):
    server, error, meter = ask(service, service.error(status, words))
    assert isinstance(error, RequestFailed), error
    assert error.reason == reason
    assert words in str(error)
    assert len(server.requests) == meter.freed == 1


@installed
@each
@pytest.mark.parametrize(
    ("status", "words", "remedy"),
    [
        (401, "invalid x-api-key", "check the key"),
        (400, "API key not valid. Please pass a valid API key.", "check the key"),
        (403, "The security token included in the request is invalid.", "check the key"),
        (400, "Your credit balance is too low to access the API.", "no credit"),
        (404, "model: claude-9", "check `model: "),
    ],
)
def test_a_refusal_of_the_account_ends_the_teacher_with_a_remedy(service, status, words, remedy):
    server, error, meter = ask(service, service.error(status, words))
    assert isinstance(error, TeacherError), error
    assert words in str(error)
    assert remedy in str(error)
    assert "auth_header" not in str(error)  # a setting that this kind does not have
    assert len(server.requests) == meter.freed == 1


@installed
@each
@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("temperature", "temperature: Input should be less than or equal to 1"),
        ("temperature", "`temperature` is deprecated for this model."),
        ("temperature", "`temperature` may only be set to 1 when thinking is enabled."),
        ("max_tokens", "max_tokens: 400 > 64, which is the maximum allowed number of output tokens"),
    ],
)
def test_a_parameter_that_is_refused_is_told_apart(service, field, words):
    server, refused, meter = ask(service, service.error(400, words))
    assert isinstance(refused, ParameterRefused), refused
    assert refused.names[0] == field
    assert refused.limit == (64 if field == "max_tokens" else None)
    assert len(server.requests) == meter.freed == 1


@installed
def test_a_parameter_that_the_service_does_not_have_is_not_sent():
    request = Request("q1", ASKED.prompt, Sampling(400, 0.5, None, seed=3))
    server, refused, meter = ask(ANTHROPIC, request=request)
    assert isinstance(refused, ParameterRefused), refused
    assert refused.names == ("seed",)
    assert (
        str(refused) == "anthropic does not support parameters: ['seed'], for model=claude-sonnet-4-5"
    )  # without its advice
    assert (server.requests, meter.freed) == ([], 1)


@installed
def test_an_unreachable_service_is_reported_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

    async def run():
        meter = Meter()
        async with teacher(ANTHROPIC, url) as asked:
            with pytest.raises(TeacherError, match=f"nothing answers at {url}") as caught:
                await asked.ask(ASKED, meter)
        return str(caught.value), meter

    said, meter = asyncio.run(run())
    assert "check the network and `base_url`" in said
    assert (meter.begun, meter.freed) == (1, 1)


@installed
def test_an_unknown_service_is_named():
    with pytest.raises(TeacherError, match=r"no service 'antropic'\. Did you mean 'anthropic'\?"):
        teacher(Service("antropic/claude-sonnet-4-5", "", ""), None).check()


@installed
@pytest.mark.skipif(importlib.util.find_spec("boto3") is not None, reason="boto3 is installed")
def test_a_package_that_one_service_needs_is_named():
    with pytest.raises(MissingDependencyError, match="pip install 'boto3'"):
        teacher(Service("bedrock/anthropic.claude-3-haiku-20240307-v1:0", "", ""), None).check()


@installed
@pytest.mark.skipif(importlib.util.find_spec("boto3") is None, reason="Bedrock needs boto3: pip install boto3")
def test_a_request_to_bedrock_is_signed_for_the_address_that_it_is_sent_to(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0123456789")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    said = {
        "output": {"message": {"role": "assistant", "content": [{"text": SAID}]}}, "stopReason": "end_turn",
        "usage": {"inputTokens": PROMPT, "outputTokens": COMPLETION, "totalTokens": PROMPT + COMPLETION},
    }  # fmt: skip
    bedrock = Service("bedrock/anthropic.claude-3-haiku-20240307-v1:0", "AWS_SECRET_ACCESS_KEY", "Authorization")
    arguments = {"aws_region_name": "eu-central-1"}
    server, reply, _ = ask(bedrock, lambda _: web.json_response(said), arguments=arguments)
    assert isinstance(reply, Reply), reply
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == (SAID, PROMPT, COMPLETION)
    assert server.raw_paths == ["/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"]  # as it was signed
    assert "/eu-central-1/bedrock/aws4_request" in server.headers[0]["Authorization"]
    assert KEY not in json.dumps([server.headers, server.requests])


@installed
def test_whatever_the_library_does_an_attempt_is_one_request():
    import httpx

    async def run():
        async with FakeEndpoint(raw("{}", 503), ANTHROPIC.good) as server:
            async with Transport({}, (), Patience(connect_s=1, stall_s=1, timeout_s=5)) as http:
                wire = _Wire(http, "there")
                client = httpx.AsyncClient(transport=wire)
                first = await client.post(server.root, json={})
                with pytest.raises(httpx.UnsupportedProtocol):
                    await client.post(server.root, json={})
                with pytest.raises(httpx.UnsupportedProtocol):
                    await httpx.AsyncClient(transport=_Wire(http, "there")).get(server.root)
            return first.status_code, wire.answer.status, len(server.requests)

    assert asyncio.run(run()) == (503, 503, 1)


# --- services whose part of the library takes no connection of ours -----------------------------------------------


@installed
@pytest.mark.parametrize(
    ("answer", "outcome", "lost"),
    [
        (COHERE.good, Reply, 0),
        (COHERE.error(401, "invalid api token"), TeacherError, 0),
        (COHERE.error(404, "model not found"), TeacherError, 0),
        (COHERE.error(400, "too many tokens: prompt is too long"), RequestFailed, 0),
        (COHERE.error(400, "temperature must be between 0 and 1"), ParameterRefused, 0),
        (COHERE.error(500, "down"), RequestFailed, 0),
        (raw("<html>"), RequestFailed, 3),
        (hang, RequestFailed, 3),
    ],
    ids=["good", "401", "404", "too long", "parameter", "500", "no JSON", "hang"],
)
def test_exceptions_of_the_library_become_answers_of_the_service(monkeypatch, answer, outcome, lost):
    monkeypatch.setenv("COHERE_API_KEY", KEY)
    server, found, meter = ask(COHERE, answer, patience=Patience(attempts=3, timeout_s=0.5, backoff_s=0.01))
    assert isinstance(found, outcome), found
    assert meter.lost_ == lost
    assert (
        meter.begun == len(server.requests) == (3 if outcome is RequestFailed and "too long" not in str(found) else 1)
    )
    assert KEY not in str(found)
    if isinstance(found, Reply):
        assert (visible(found).text, found.prompt_tokens, found.completion_tokens) == (SAID, PROMPT, COMPLETION)


@installed
def test_a_rate_limit_is_waited_for_there_too(monkeypatch):
    monkeypatch.setenv("COHERE_API_KEY", KEY)
    server, reply, meter = ask(COHERE, *[COHERE.error(429, "slow down", retry_after="0.3")] * 4, COHERE.good)
    assert isinstance(reply, Reply), reply
    assert (meter.begun, meter.freed, meter.lost_) == (5, 4, 0)
    assert all(later - earlier >= 0.3 for earlier, later in zip(server.times, server.times[1:], strict=False))


# --- with the scheduler and the budget ----------------------------------------------------------------------------


@installed
@pytest.mark.parametrize("service", [ANTHROPIC, GEMINI], ids=lambda s: s.name)
def test_the_budget_holds_for_every_behaviour_of_the_service(service, tmp_path):
    price = config.PriceSection(prompt=1.0, completion=1.0)
    section = config.RationalesSection(
        store=tmp_path / "r.sqlite", samples=1, budget=config.BudgetSection(usd=0.004), max_tokens=256
    )
    asked = questions(40)
    answers = [service.error(500, "down"), drop, service.good, raw("{"), service.error(429, "slow", "0.01")] * 3

    async def run(store, said):
        async with FakeEndpoint(*answers, service.good) as server:
            spec = config.LiteLLMTeacher(
                name="t", kind="litellm", model=service.model, base_url=server.root, price=price, concurrency=4
            )
            requests = Requests(
                LiteLLMTeacher(spec, patience=QUICK), asked, ExampleGenerator(asked, section.examples), section
            )
            budget = Budget(section.budget, {"t": price}, run="mine")
            ended = await generate([requests], store, said, budget=budget, stop=Stop())
            return server, ended, requests.manners

    said = Recorder()
    with Store(section.store) as store:
        server, ended, manners = asyncio.run(run(store, said))
        spent = store.spent("mine")["t"]
    assert ended.stopped == "budget"
    assert ended.errors == ()
    assert (spent.usd or 0.0) + spent.lost_usd <= 0.004
    assert spent.lost > 0
    replies = said.standings["t"].replies
    assert spent.usd == pytest.approx(replies * (PROMPT + COMPLETION) / 1e6)
    assert manners.worked
    if service is ANTHROPIC:
        assert "seed" in manners.form.dropped
        assert any("does not take `seed`" in words for words in said.words)
        assert all("seed" not in body for body in server.requests)


# --- the library --------------------------------------------------------------------------------------------------

_BESIDE = """
import asyncio, os, sys, threading
seen = []
class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "litellm":
            seen.append(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Look())
calls = []
def hear(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        calls.append((event, args))
sys.addaudithook(hear)
from tinyllm import config
from tinyllm.teachers import make_teacher
teacher = make_teacher(config.LiteLLMTeacher(name="t", kind="litellm", model="anthropic/claude-sonnet-4-5"), [])
assert "litellm" not in sys.modules
async def main():
    async with teacher:
        pass
asyncio.run(main())
assert "litellm" in sys.modules
assert True not in seen[1:], seen  # the first look only tells whether it is there
assert not calls, calls
assert "FROM_A_FILE" not in os.environ
"""


@installed
def test_the_import_of_the_library_blocks_nothing_and_makes_no_call(tmp_path):
    (tmp_path / ".env").write_text("FROM_A_FILE=1\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM_")}
    done = subprocess.run(
        [sys.executable, "-c", _BESIDE], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""


def test_a_package_that_is_missing_is_named_at_use(monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    asked = teacher(ANTHROPIC, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'tinyllm-distill\[litellm\]'"):
        asked.check()

    async def enter():
        async with asked:
            pass

    with pytest.raises(MissingDependencyError, match=r"pip install 'tinyllm-distill\[litellm\]'"):
        asyncio.run(enter())


# --- the configuration --------------------------------------------------------------------------------------------


def built(**fields):
    tree = {"name": "t", "kind": "litellm", "model": ANTHROPIC.model, **fields}
    return config.build_config({"data": {"dataset": "starter"}, "teachers": [tree]}).teachers[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": {"api_key": "sk-1"}}, {"query": {"api_key": "sk-1"}}, {"extra_body": {"api_key": "sk-1"}},
        {"extra_body": {"a": [{"b": {"api_key": "sk-1"}}]}},
    ],
)  # fmt: skip
def test_a_key_in_the_configuration_is_refused_at_any_depth_and_not_repeated(fields):
    tree = {"name": "t", "kind": "openai", "model": "m", **fields}
    with pytest.raises(ConfigError, match="looks like a key") as caught:
        config.build_config({"data": {"dataset": "starter"}, "teachers": [tree]})
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": "claude-sonnet-4-5"}, "does not name a service"),
        ({"model": "anthropic/"}, "does not name a service"),
        ({"form": "completion"}, "chat"),
        ({"base_url": "https://host/?key=1"}, "base_url"),
        ({"arguments": {"temperature": 1}}, "rationales.temperature"),
        ({"arguments": {"api_base": "http://host"}}, "base_url"),
        ({"arguments": {"num_retries": 3}}, "TinyLLM itself repeats and limits requests"),
        ({"arguments": {"max_retries": 3}}, "TinyLLM itself repeats and limits requests"),
        ({"arguments": {"fallbacks": ["gemini/x"]}}, "TinyLLM itself repeats and limits requests"),
        ({"arguments": {"context_window_fallback_dict": {}}}, "TinyLLM itself repeats and limits requests"),
        ({"arguments": {"mock_response": "x"}}, "not allowed"),
        ({"arguments": {"success_callback": ["x"]}}, "not allowed"),
        ({"arguments": {"drop_params": True}}, "omit"),
        ({"arguments": {"caching": True}}, "store"),
        ({"arguments": {"api_key": "sk-1"}}, "api_key_env"),
        ({"arguments": {"aws_secret_access_key": "x"}}, "AWS_SECRET_ACCESS_KEY"),
        ({"arguments": {"extra_body": {"max_tokens": 3}}}, "max_tokens"),
        ({"arguments": {"extra_headers": {"x-api-key": "sk-1"}}}, "looks like a key"),
        ({"arguments": {"extra_headers": {"x-api-key": "${sk-1}"}}}, "looks like a key"),
        ({"arguments": {"extra_body": {"a": [{"secret": "sk-1"}]}}}, "looks like a key"),
    ],
)  # fmt: skip
def test_arguments_that_bypass_our_settings_are_refused(fields, says):
    with pytest.raises(ConfigError) as caught:
        built(**fields)
    assert says in str(caught.value)
    assert "sk-1" not in str(caught.value)


def test_settings_that_are_taken():
    assert built().base_url is None
    assert built(arguments={"thinking": {"type": "enabled", "budget_tokens": 2048}, "aws_region_name": "x"})
    assert built(base_url="http://127.0.0.1:4000", omit=["seed"]).omit == ("seed",)


# --- pure readers -------------------------------------------------------------------------------------------------


def test_a_delay_is_read_where_there_is_one():
    told = b'{"error": {"details": [{"a": 1}, {"retryDelay": "34.5s"}]}}'
    assert (pause_of(None, told), pause_of("2", told)) == (34.5, 2)
    for odd in (
        b"",
        b"[]",
        b'{"error": 1}',
        b'{"error": {"details": {}}}',
        b'{"error": {"details": [1, {"retryDelay": 3}]}}',
    ):
        assert pause_of(None, odd) is None


@given(st.integers(100, 599), st.text())
def test_only_a_refusal_of_the_account_is_taken_for_another_status(status, words):
    assert meant(status, words) in ({status, 401, 402} if status in (400, 403) else {status})
