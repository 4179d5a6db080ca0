"""One OpenAI-compatible endpoint: sends requests, reads replies, and handles errors. It knows no questions.

429, overloaded, 503 with a time       all requests wait as long as it says; does not count as an attempt
503, 504, 529 in a crowd              the same, up to `attempts` times; a crowd: fewer may be in flight now than then
5xx, dropped, timed out, not JSON     ask another replica, or back off with jitter; after `attempts`, RequestFailed
a dead replica                        it rests; its requests move to others at once, which is no attempt
400 about a parameter                 ParameterRefused: the caller changes the form of the request
400 and others about one prompt       RequestFailed; also for an unknown error, if there were replies before
401, 403, 404, no credit, no server   TeacherError: every other request would fail, too
an error with status 200              like the status that it names
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import urlsplit

from tinyllm.config import Form
from tinyllm.errors import MissingDependencyError, TeacherError
from tinyllm.system.gate import Gate
from tinyllm.teachers._http.envelope import Envelope, public_url
from tinyllm.teachers._http.limits import MOST, START, AdaptiveLimit, Pace
from tinyllm.teachers._http.refusals import (
    about_one_prompt,
    meant,
    no_credit,
    only_thought,
    pause_of,
    refused_parameter,
    words_of,
)
from tinyllm.teachers._http.replicas import Replica, Replicas
from tinyllm.teachers._http.replies import ErrorInReply, NotACompletion, ThoughtFirst, read_completion
from tinyllm.teachers._http.transport import Answer, AttemptFailed, BadUrl, Carrier, Patience, Transport, proxy_for
from tinyllm.teachers._secrets import hide, secrets_of
from tinyllm.teachers.base import UNMETERED, Meter, ParameterRefused, Reply, Request, RequestFailed
from tinyllm.teachers.manners import WITHOUT_THOUGHTS, Manners

NO_SERVER = 0
REMEDIES: Mapping[int, str] = {
    NO_SERVER: "start the server, or correct `base_url`",
    401: "check the key in the environment variable that `api_key_env` names, and `auth_header`",
    402: "the account has no credit left",
    403: "this key may not use this model; some services require a header (`headers`)",
    404: "check `base_url` (it ends in /v1 for most servers), `query` and `model: {model}`",
    405: "check `base_url`; this address accepts no requests",
    407: "the proxy requires a user and a password: http://user:password@host:port in HTTPS_PROXY",
    429: "the account has no credit left",
}
"""What the user can do about a status, or about a server that does not answer."""

_ABOUT_TEACHER = (401, 402, 404, 405, 407, 429)  # every other prompt would fail, too
_encode = json.JSONEncoder(separators=(",", ":")).encode
_JSON = {"Content-Type": "application/json"}
_LONGEST_SLEEP_S = 5.0  # the longest sleep during a pause, which may change
_UNKNOWN_BEFORE_REPLY = 2  # unknown errors before the first reply that are taken to concern one prompt
_UNKNOWN_IN_A_ROW = 16  # the same, in a row, after the first reply
_OVERLOADED = (503, 504, 529)  # 504: a server or gateway that gave up waiting, often because of a queue
_MAY_BE_BILLED = (408, 502, 504, 520, 522, 524)  # from a gateway: the service behind it may bill the request


@dataclass(slots=True)
class _Job:
    """A request and the state of its attempts. Times are those of time.monotonic()."""

    request: Request
    meter: Meter
    began: float
    characters: int  # in the prompt
    replica: Replica  # of the current attempt
    sent: float = 0.0
    reserved: float = 0.0  # tokens of the current attempt
    attempts: int = 0
    width: int = 0  # how many attempts might be in flight when the current one was sent
    spared: int = 0  # attempts that did not count, because there were too many requests at once
    limited_since: float | None = None
    manners: Manners = Manners()  # from which the body was made
    body: Mapping[str, Any] = field(default_factory=dict)
    encoded: bytes = b""
    moved: set[Replica] = field(default_factory=set)  # dead replicas that it left; leaving does not count as an attempt
    avoid: set[Replica] = field(default_factory=set)  # replicas that failed since the last pause


class Endpoint:
    """A client of one endpoint, for one model. `async with` opens and closes its connections.

    Args:
        owner: the teacher's name, for messages.
        envelope: addresses and headers; several URLs are replicas of the same model.
        concurrency: attempts in flight; None: as many as the endpoint can handle.
        pace: rate limits.
        carrier: sends the attempts; None: HTTP in the OpenAI protocol.
        manners: returns which forms of request the endpoint accepts now.
        remedies: what the user can do about a status.

    Attributes:
        faults: how often each kind of failure occurred: `429`, `http 500`, `timeout`, `connection`, `malformed`, ….
    """

    def __init__(
        self,
        owner: str,
        envelope: Envelope,
        model: str,
        *,
        form: Form,
        concurrency: int | None = None,
        pace: Pace | None = None,
        patience: Patience,
        manners: Callable[[], Manners],
        carrier: Carrier | None = None,
        remedies: Mapping[int, str] = REMEDIES,
    ) -> None:
        urls = envelope.urls
        path = ("/chat/completions" if form == "chat" else "/completions") + (envelope.query and f"?{envelope.query}")
        proxies = [proxy_for(url) for url in urls]
        self.faults: Counter[str] = Counter()
        self._manners = manners
        self._owner = owner
        self._envelope = envelope
        self._secrets = (*envelope.secrets, *(secret for proxy in proxies for secret in secrets_of(proxy)))
        self._replicas = Replicas(
            [
                Replica(url + path, hide(public_url(url), self._secrets), proxy)
                for url, proxy in zip(urls, proxies, strict=True)
            ]
        )
        self._model = model
        self._form = form
        self._limit = concurrency or AdaptiveLimit(start=START * len(urls), most=MOST * len(urls))
        self._gate = Gate(lambda: self.concurrency)
        self._pace = pace
        self._queue = asyncio.Lock()  # of the requests that wait for the pace
        self._patience = patience
        self._last_success = 0.0
        self._refused = 0  # unknown errors in a row
        self._rates = False  # whether it has returned log-probabilities
        self._gave_up: str | None = None  # why nothing more is sent
        self._remedies = remedies
        self._carrier: Carrier = carrier or Transport(_JSON | envelope.headers, self._secrets, patience)

    @property
    def concurrency(self) -> int:
        """The number of attempts that may be in flight now."""
        return self._limit if isinstance(self._limit, int) else self._limit.limit

    @property
    def _has_worked(self) -> bool:
        return self._manners().worked or self._last_success > 0

    async def __aenter__(self) -> Self:
        await self._carrier.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._carrier.__aexit__()

    async def complete(self, request: Request, meter: Meter = UNMETERED) -> Reply:
        """Return the model's reply.

        Raises:
            RequestFailed: this request got no reply.
            ParameterRefused: the endpoint refuses a part of it.
            TeacherError: the endpoint cannot answer any request.
        """
        prompt = request.prompt
        characters = sum(len(m.content) for m in prompt.messages) if prompt.messages else len(prompt.text)
        began = time.monotonic()
        job = _Job(request, meter, began, characters, self._replicas.pick(began))
        try:
            while True:
                try:
                    async with self._gate:
                        return await self._attempt(job)
                except AttemptFailed as failure:
                    pause_s = self._failed(job, failure)
                await asyncio.sleep(pause_s)
        except TeacherError as error:
            self._gave_up = str(error)
            raise

    # --- one attempt --------------------------------------------------------------------------------------------

    async def _attempt(self, job: _Job) -> Reply:
        await self._wait_for_turn(job)
        await job.meter.begin()
        job.sent, job.width = time.monotonic(), self.concurrency
        replica = job.replica = self._replicas.pick(job.sent, job.avoid)
        replica.in_flight += 1
        try:
            answer = await self._carrier.post(replica, self._body(job))
            replica.answered = True
            reply = self._read(job, answer)
        except BadUrl:
            job.meter.free()
            raise TeacherError(f"Teacher '{self._owner}': {replica.shown} is no URL; correct `base_url`.") from None
        except MissingDependencyError:
            job.meter.free()
            raise
        except AttemptFailed as failure:
            if failure.billed:
                job.meter.lost(str(failure))
            else:
                job.meter.free()
            raise
        finally:
            replica.in_flight -= 1
        now = self._last_success = time.monotonic()
        self._refused = 0
        replica.succeeded()
        if isinstance(self._limit, AdaptiveLimit):
            self._limit.completed(now, reply.latency_s)
        if self._pace is not None:
            self._pace.correct(now, job.reserved, job.characters, reply.prompt_tokens, reply.completion_tokens)
        return reply

    async def _wait_for_turn(self, job: _Job) -> None:
        """Wait until a request may be sent: a replica is not paused, and the pace allows it. Then count it."""
        while True:
            if self._gave_up is not None:
                raise TeacherError(self._gave_up)
            if (left := self._replicas.wait(time.monotonic())) > 0:
                # Requests continue at random times, because an endpoint often admits only a few at first. The sleep
                # is short, because the pause may change and another replica may return.
                await asyncio.sleep(min(left, _LONGEST_SLEEP_S) + random.uniform(0, min(1.0, 0.1 * left)))
            elif self._pace is None or await self._wait_for_pace(self._pace, job):
                return

    async def _wait_for_pace(self, pace: Pace, job: _Job) -> bool:
        """Wait for the pace, one request after another. Return False if a pause began in the meantime."""
        async with self._queue:
            job.reserved = pace.estimate(job.characters, job.request.sampling.max_tokens)
            while (left := pace.wait(time.monotonic(), job.reserved)) > 0 and self._gave_up is None:  # noqa: ASYNC110
                await asyncio.sleep(min(left, 0.2))  # a reply may give back tokens meanwhile
            now = time.monotonic()
            free = self._gave_up is None and self._replicas.wait(now) <= 0
            if free:
                pace.take(now, job.reserved)
            return free

    def _body(self, job: _Job) -> bytes:
        manners = self._manners()
        if not job.encoded or job.manners is not manners:
            stream = manners.stream if self._envelope.stream is None else self._envelope.stream
            body = request_body(job.request, self._model, self._form, manners, stream=stream)
            job.manners, job.body = manners, {**body, **self._envelope.extra_body}
            job.encoded = _encode(job.body).encode("ascii")
        return job.encoded

    def _read(self, job: _Job, answer: Answer) -> Reply:
        rated, latency_s = bool(job.request.options), time.monotonic() - job.sent
        if only_thought(answer.status, answer.body) and not rated:
            return Reply("", "length", latency_s=latency_s)
        if 200 <= answer.status < 300:
            try:
                reply = read_completion(answer.body, self._form, latency_s, rated=rated)
            except NotACompletion as error:
                is_page = answer.body.lstrip()[:1] == b"<"
                words = f"{error}: {words_of(answer.body, self._secrets)!r}"
                raise AttemptFailed("web page" if is_page else "malformed", words) from None
            except ErrorInReply as error:
                answer = replace(answer, status=error.status, body=error.body)
            except ThoughtFirst as error:
                self._rates = True
                refused = ParameterRefused(("thoughts",), str(error))
                refused.manners = job.manners
                raise refused from None
            else:
                self._rates |= rated and reply.message is not None
                if rated and not self._rates:  # it ignores the parameter, so no request will work
                    raise ParameterRefused(("logprobs",), "it answers without them")
                return reply
        raise self._refusal(job, answer)

    # --- what a failure means -----------------------------------------------------------------------------------

    def _refusal(self, job: _Job, answer: Answer) -> Exception:
        words = words_of(answer.body, self._secrets) or "(it gave no reason)"
        status = meant(answer.status, words)
        about = about_one_prompt(status, words)
        after_s = pause_of(answer.retry_after, answer.body)
        if about is None and status == 429 and not no_credit(words):
            return AttemptFailed("429", words, limited=True, overload=True, billed=False, after_s=after_s)
        said = f"HTTP {answer.status}: {words}"
        if status >= 500 or status in (408, 409, 425):
            overload, billed = status in _OVERLOADED, status in _MAY_BE_BILLED
            limited = overload and not billed and (after_s is not None or "overload" in words.casefold())
            after_s = None if after_s is None else min(after_s, self._patience.backoff_max_s)  # it may recover earlier
            if status != 501:
                return AttemptFailed(
                    f"http {status}",
                    said,
                    limited=limited,
                    overload=overload,
                    alive=True,
                    billed=billed,
                    after_s=after_s,
                )
        job.meter.free()
        self.faults[f"http {answer.status}"] += 1
        if about is None and (refused := refused_parameter(status, answer.body, job.body, self._secrets)):
            refused.manners = job.manners
            return refused
        has_worked = self._has_worked
        own = None if has_worked else next((name for name in self._envelope.extra_body if name in words), None)
        if about is None and own is None and status >= 400 and status not in _ABOUT_TEACHER:
            self._refused += 1
            if self._refused <= (_UNKNOWN_IN_A_ROW if has_worked else _UNKNOWN_BEFORE_REPLY):
                about = "bad_request"
        if about is not None:
            return RequestFailed(said, about)
        remedy = (
            f"correct `{own}` in `{self._envelope.extra_setting}`, or remove it"
            if own
            else self._remedies.get(status, "the endpoint does not accept such requests").format(model=self._model)
        )
        if status < 400:
            remedy = "correct `base_url`; the service has moved, and the key is not sent to the new address"
        return TeacherError(
            f"Teacher '{self._owner}': {job.replica.shown} answers {answer.status}: {words}\n  To do: {remedy}. "
            "Earlier replies are kept.",
            page="configuration.md#endpoints-examples",
        )

    def _failed(self, job: _Job, failure: AttemptFailed) -> float:
        """Account for a failed attempt. Return the seconds to wait before the next."""
        now, replica = time.monotonic(), job.replica
        self.faults[failure.kind] += 1
        if failure.overload and isinstance(self._limit, AdaptiveLimit):
            self._limit.overloaded(now, now - job.sent)
        # A crowd that is smaller now has cost this attempt. The number of such attempts is bounded, because they may be
        # billed, and because a prompt that always takes too long looks the same.
        crowded = failure.overload and failure.alive and self.concurrency < job.width
        spared = crowded and job.spared < self._patience.attempts
        job.spared += spared
        if failure.limited or spared:
            self._limited(job, failure, now)
            return 0.0  # all requests wait for the end of the pause
        if failure.refused and self._pace is not None:
            self._pace.take(now, -job.reserved, -1.0)
        replica.failed(now, job.sent, dead=failure.dead)
        if failure.refused and self._replicas.gone(ever=True):
            raise self._unreachable(str(failure)) from None
        job.avoid.add(replica)
        others = self._replicas.others(job.avoid)
        if others and failure.dead and replica not in job.moved:
            job.moved.add(replica)
            return 0.0
        job.attempts += 1
        patience = self._patience
        if job.attempts >= patience.attempts:
            if failure.refused and self._replicas.gone() and self._last_success < job.began:
                raise self._unreachable(f"it stopped answering: {failure}") from None
            if failure.kind == "web page" and not self._has_worked:
                raise TeacherError(
                    f"Teacher '{self._owner}': {replica.shown} answers with a web page: {failure}\n"
                    f"  To do: {self._remedies[404].format(model=self._model)}. Earlier replies are kept.",
                    page="configuration.md#endpoints-examples",
                ) from None
            raise RequestFailed(f"{failure} ({job.attempts} attempts at {replica.shown})") from None
        if any(r.usable(now) for r in others):
            return 0.0
        job.avoid.clear()
        longest = min(patience.backoff_max_s, patience.backoff_s * 2.0 ** (job.attempts - 1))
        return max(random.uniform(0.5, 1.0) * longest, failure.after_s or 0.0)

    def _unreachable(self, reason: str) -> TeacherError:
        return TeacherError(
            f"Teacher '{self._owner}': nothing answers at {self._replicas}: {reason}\n"
            f"  To do: {self._when_silent()}. Earlier replies are kept.",
            page="configuration.md#endpoints-examples",
        )

    def _when_silent(self) -> str:
        """Return what to do where nothing answers. A public service runs already, so the network is missing."""
        remedy = self._remedies[NO_SERVER]
        is_public = all(_is_public(urlsplit(url).hostname or "") for url in self._envelope.urls)
        return remedy.replace("start the server", "check the network") if is_public else remedy

    def _limited(self, job: _Job, failure: AttemptFailed, now: float) -> None:
        replica, most = job.replica, self._patience.rate_limit_s
        job.limited_since = job.limited_since or job.sent
        after_s = replica.limited(now, job.sent, failure.after_s, self._patience.backoff_s)
        if replica.limited_beyond(now, most) and all(
            r.rests > 0 or r.limited_beyond(now, most) for r in self._replicas
        ):
            raise TeacherError(
                f"Teacher '{self._owner}': {replica.shown} limits its rate or is overloaded, and asks to wait "
                f"{after_s:.0f} s more: {failure}\n  To do: run again later. Earlier replies are kept.",
                page="teachers.md#parallel-requests",
            ) from None
        if now - job.limited_since > most:
            raise RequestFailed(f"no room for {now - job.limited_since:.0f} s: {failure}") from None


def request_body(
    request: Request, model: str, form: Form, manners: Manners = Manners(), *, stream: bool = False
) -> dict[str, Any]:
    """Return the body of a request."""
    sampling = request.sampling
    body: dict[str, Any] = {"model": model, manners.length_field: sampling.max_tokens}
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.seed is not None:
        body["seed"] = sampling.seed + request.sample
    if form == "chat":
        body["messages"] = [{"role": m.role, "content": m.content} for m in request.prompt.messages]
    else:
        body["prompt"] = request.prompt.text
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if request.options:
        top = manners.top_logprobs
        body |= {"logprobs": True, "top_logprobs": top} if form == "chat" else {"logprobs": top}
        body |= WITHOUT_THOUGHTS[manners.thoughts_off] if form == "chat" else {}
    if stream:
        body["stream"] = True
        if manners.stream_usage:
            body["stream_options"] = {"include_usage": True}
    return body


def _is_public(host: str) -> bool:
    """Return whether a host is on the internet, not on this machine or in its network."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and host.rpartition(".")[2] not in ("local", "internal", "lan", "home")
