"""One OpenAI-compatible endpoint: bodies, replies, and what to do when it does not answer. Knows no questions.

429                                   wait as long as it says (all requests together), ask again; not an attempt
5xx, dropped, timed out, not JSON     ask another replica, or back off with jitter; after `attempts`, RequestFailed
a dead replica                        let it rest; its requests move to the others at once, which is no attempt
400 about a parameter                 ParameterRefused: whoever asks forms the request anew
400 and the like about one prompt     RequestFailed, with its reason; also an error that nobody knows, after successes
401, 403, 404, no credit, no server   TeacherError: no other request would fare better
an error with status 200              as the status that it names
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from tinyllm import config
from tinyllm.config import Form
from tinyllm.errors import MissingDependencyError, TeacherError
from tinyllm.system.gate import Gate
from tinyllm.teachers._http.envelope import Envelope, public_url
from tinyllm.teachers._http.limits import MOST, START, AdaptiveLimit, Limits, Pace
from tinyllm.teachers._http.refusals import (
    about_one_prompt,
    hide,
    meant,
    no_credit,
    refused_parameter,
    seconds_of,
    words_of,
)
from tinyllm.teachers._http.replicas import Replica, Replicas
from tinyllm.teachers._http.replies import ErrorInReply, NotACompletion, ThoughtFirst, read_completion
from tinyllm.teachers._http.transport import Answer, AttemptFailed, BadUrl, Carrier, Transport, proxy_for
from tinyllm.teachers._secrets import secrets_of
from tinyllm.teachers.base import UNMETERED, Meter, ParameterRefused, Reply, Request, RequestFailed
from tinyllm.teachers.manners import WITHOUT_THOUGHTS, Manners

NO_SERVER = 0
REMEDIES: Mapping[int, str] = {
    NO_SERVER: "start the server, or mend `base_url`",
    401: "check the key in the environment variable that `api_key_env` names, and `auth_header`",
    402: "the account has no credit left",
    403: "this key may not use this model; some services want a header (`headers`)",
    404: "check `base_url` (it ends in /v1 for most servers), `query` and `model: {model}`",
    405: "check `base_url`; it is an address that takes no requests",
    407: "the proxy wants a user and a password: http://user:password@host:port in HTTPS_PROXY",
    429: "the account has no credit left",
}
"""What to do about a status, and about a server that does not answer at all."""

TOP_LOGPROBS = 20
"""First tokens whose log-probabilities are asked for: as many as OpenAI and vLLM give."""

_ABOUT_TEACHER = (401, 402, 404, 405, 407, 429)  # another prompt would fare no better
_encode = json.JSONEncoder(separators=(",", ":")).encode
_LOOK_S = 5.0  # the longest sleep between two looks at a pause
_DOUBTED = 2  # prompts that may be refused for unknown reasons before anything was answered
_REFUSED_IN_A_ROW = 16  # and after that, before the endpoint is taken to refuse everything
_DONE_ELSEWHERE = (408, 502, 504, 520, 522, 524)  # a gateway's: what is behind it may have answered, and may bill it


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an endpoint is waited for.

    Attributes:
        attempts: times that one request is sent; answers of 429 are not counted, nor are moves from a dead replica.
        timeout_s: seconds for one attempt as a whole.
        connect_s: seconds for a connection.
        first_byte_s: seconds until a reply begins; None: as `timeout_s`.
        stall_s: seconds in which a reply that has begun may stand still.
        backoff_s: pause after the first failed attempt; it doubles with each, up to `backoff_max_s`.
        rate_limit_s: after so long in which the endpoint only said 429, it is given up.
    """

    attempts: int = 5
    timeout_s: float = 120.0
    connect_s: float = 10.0
    first_byte_s: float | None = None
    stall_s: float = 30.0
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    rate_limit_s: float = 3600.0

    @classmethod
    def of(cls, spec: config.EndpointTeacher) -> Self:
        """Take the times from a teacher's section."""
        return cls(spec.max_attempts, spec.timeout_s, spec.connect_s, spec.first_byte_s, spec.stall_s)


@dataclass(slots=True)
class _Job:
    """A request on its way through its attempts."""

    request: Request
    meter: Meter
    began: float  # this and the other times: time.monotonic()
    characters: int  # of the prompt
    replica: Replica  # of the attempt under way, as are the next two
    sent: float = 0.0
    reserved: float = 0.0  # tokens
    attempts: int = 0
    limited_since: float | None = None
    manners: Manners = Manners()  # with which the body was made
    body: Mapping[str, Any] = field(default_factory=dict)
    encoded: bytes = b""
    moved: set[Replica] = field(default_factory=set)  # dead replicas that it left without losing an attempt
    avoid: set[Replica] = field(default_factory=set)  # replicas that failed it since it last backed off


class Endpoint:
    """A client of one endpoint, for one model. `async with` opens and closes its connections.

    Args:
        owner: the teacher's name, for messages.
        envelope: where requests go and what is around them; several URLs are replicas that serve the same model.
        concurrency: attempts under way at once; None: as many as the endpoint bears.
        limits: what it may be asked for in a minute.
        carrier: takes attempts to the service; None: HTTP in the OpenAI protocol.
        remedies: what the person is told to do about a status.

    Attributes:
        manners: how the endpoint is asked.
        faults: how often which failure was met: `429`, `http 500`, `timeout`, `connection`, `malformed`, ….
    """

    def __init__(
        self,
        owner: str,
        envelope: Envelope,
        model: str,
        *,
        form: Form,
        concurrency: int | None = None,
        limits: Limits | None = None,
        patience: Patience,
        manners: Manners = Manners(),
        carrier: Carrier | None = None,
        remedies: Mapping[int, str] = REMEDIES,
    ) -> None:
        urls = envelope.urls
        path = ("/chat/completions" if form == "chat" else "/completions") + (envelope.query and f"?{envelope.query}")
        proxies = [proxy_for(url) for url in urls]
        self.faults: Counter[str] = Counter()
        self.manners = manners
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
        self._pace = Pace(limits) if limits is not None and limits != Limits() else None
        self._queue = asyncio.Lock()  # of those who wait for the pace
        self._patience = patience
        self._last_success = 0.0
        self._refused = 0  # prompts in a row, for reasons that nobody knows
        self._rates = False  # whether it has given log-probabilities
        self._end: str | None = None  # why nothing more is asked
        self._remedies = remedies
        self._carrier: Carrier = carrier or Transport(
            envelope.headers, self._secrets, connect_s=patience.connect_s, first_byte_s=patience.first_byte_s,
            stall_s=patience.stall_s, timeout_s=patience.timeout_s,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Endpoint({str(self._replicas)!r}, model={self._model!r})"

    @property
    def concurrency(self) -> int:
        """Attempts that may be under way at once, now."""
        return self._limit if isinstance(self._limit, int) else self._limit.limit

    async def __aenter__(self) -> Self:
        await self._carrier.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._carrier.__aexit__()

    async def complete(self, request: Request, meter: Meter = UNMETERED) -> Reply:
        """Return the model's reply.

        Raises:
            RequestFailed: this request got none.
            ParameterRefused: the endpoint does not take a part of it.
            TeacherError: the endpoint answers nothing.
        """
        try:
            return await self._answered(request, meter)
        except TeacherError as error:
            self._end = str(error)
            raise

    async def _answered(self, request: Request, meter: Meter) -> Reply:
        prompt = request.prompt
        characters = sum(len(m.content) for m in prompt.messages) if prompt.messages else len(prompt.text)
        began = time.monotonic()
        job = _Job(request, meter, began, characters, self._replicas.pick(began))
        while True:
            try:
                async with self._gate:
                    return await self._attempt(job)
            except AttemptFailed as failure:
                pause_s = self._failed(job, failure)
            await asyncio.sleep(pause_s)

    # --- one attempt --------------------------------------------------------------------------------------------

    async def _attempt(self, job: _Job) -> Reply:
        await self._turn(job)
        await job.meter.begin()
        job.sent = time.monotonic()
        replica = job.replica = self._replicas.pick(job.sent, job.avoid)
        replica.in_flight += 1
        try:
            answer = await self._carrier.post(replica, self._body(job))
            replica.answered = True
            reply = self._read(job, answer)
        except BadUrl:
            job.meter.free()
            raise TeacherError(f"Teacher '{self._owner}': {replica.shown} is no URL; mend `base_url`.") from None
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
        self._succeeded(job, reply)
        return reply

    async def _turn(self, job: _Job) -> None:
        """Wait until a request may be sent: no replica is paused, and the pace allows it. Then it counts."""
        while True:
            if self._end is not None:
                raise TeacherError(self._end)  # nobody waits for a teacher that is given up
            if (left := self._replicas.wait(time.monotonic())) > 0:
                # Not all at the same moment: a limit that is lifted for one is often lifted for a few. And not too
                # long: a pause may be lengthened, and another replica come back.
                await asyncio.sleep(min(left, _LOOK_S) + random.uniform(0, min(1.0, 0.1 * left)))
            elif self._pace is None or await self._paced(self._pace, job):
                return

    async def _paced(self, pace: Pace, job: _Job) -> bool:
        """Wait for the pace, one after the other; False if something else has come up since."""
        async with self._queue:
            job.reserved = pace.estimate(job.characters, job.request.sampling.max_tokens)
            while (left := pace.wait(time.monotonic(), job.reserved)) > 0 and self._end is None:  # noqa: ASYNC110
                await asyncio.sleep(min(left, 0.2))  # what a reply did not use may come back meanwhile
            now = time.monotonic()
            free = self._end is None and self._replicas.wait(now) <= 0
            if free:
                pace.take(now, job.reserved)
            return free

    def _body(self, job: _Job) -> bytes:
        if not job.encoded or job.manners is not self.manners:
            stream = self.manners.stream if self._envelope.stream is None else self._envelope.stream
            body = request_body(job.request, self._model, self._form, self.manners, stream=stream)
            job.manners, job.body = self.manners, {**body, **self._envelope.extra_body}
            job.encoded = _encode(job.body).encode("ascii")
        return job.encoded

    def _read(self, job: _Job, answer: Answer) -> Reply:
        if 200 <= answer.status < 300:
            try:
                rated, latency_s = bool(job.request.options), time.monotonic() - job.sent
                reply = read_completion(answer.body, self._form, latency_s, rated=rated)
            except NotACompletion as error:
                words = words_of(answer.body, self._secrets)
                raise AttemptFailed("malformed", f"{error}: {words!r}") from None
            except ErrorInReply as error:
                answer = replace(answer, status=error.status, body=error.body)
            except ThoughtFirst as error:
                self._rates = True
                refused = ParameterRefused(("thoughts",), str(error))
                refused.manners = job.manners
                raise refused from None
            else:
                self._rates |= rated and reply.message is not None
                if rated and not self._rates:  # it leaves out what it does not know: others would fare no better
                    raise ParameterRefused(("logprobs",), "it answers without them")
                return reply
        raise self._refusal(job, answer)

    def _succeeded(self, job: _Job, reply: Reply) -> None:
        now = self._last_success = time.monotonic()
        self._refused = 0
        job.replica.succeeded()
        if isinstance(self._limit, AdaptiveLimit):
            self._limit.completed(now, reply.latency_s)
        if self._pace is not None:
            self._pace.correct(now, job.reserved, job.characters, reply.prompt_tokens, reply.completion_tokens)

    # --- what a failure means -----------------------------------------------------------------------------------

    def _refusal(self, job: _Job, answer: Answer) -> Exception:
        words = words_of(answer.body, self._secrets) or "(it gave no reason)"
        status = meant(answer.status, words)
        about = about_one_prompt(status, words)
        if about is None and status == 429 and not no_credit(words):
            return AttemptFailed("429", words, overload=True, billed=False, after_s=seconds_of(answer.retry_after))
        said = f"HTTP {answer.status}: {words}"
        if status >= 500 or status in (408, 409, 425):
            after_s, billed = seconds_of(answer.retry_after), status in _DONE_ELSEWHERE
            if status != 501:
                return AttemptFailed(f"http {status}", said, overload=status == 503, billed=billed, after_s=after_s)
        job.meter.free()
        self.faults[f"http {answer.status}"] += 1
        if about is None and (refused := refused_parameter(status, answer.body, job.body, self._secrets)):
            refused.manners = job.manners
            return refused
        has_worked = self.manners.worked or self._last_success > 0
        own = None if has_worked else next((name for name in self._envelope.extra_body if name in words), None)
        if about is None and own is None and status >= 400 and status not in _ABOUT_TEACHER:
            self._refused += 1
            if self._refused <= (_REFUSED_IN_A_ROW if has_worked else _DOUBTED):
                about = "bad_request"
        if about is not None:
            return RequestFailed(said, about)
        remedy = (
            f"mend `{own}` in `{self._envelope.extra_setting}`, or take it out"
            if own
            else self._remedies.get(status, "the endpoint does not take this kind of request").format(model=self._model)
        )
        if status < 400:
            remedy = "mend `base_url`; the service has moved, and the key is not sent to where it points"
        return TeacherError(
            f"Teacher '{self._owner}': {job.replica.shown} answers {answer.status}: {words}\n  To do: {remedy}. "
            "Replies that came before are kept."
        )

    def _failed(self, job: _Job, failure: AttemptFailed) -> float:
        """Account for a failed attempt; return the seconds to wait before the next.

        Raises:
            RequestFailed, TeacherError: there is no next.
        """
        now, replica = time.monotonic(), job.replica
        self.faults[failure.kind] += 1
        if failure.overload and isinstance(self._limit, AdaptiveLimit):
            self._limit.overloaded(now, now - job.sent)
        if failure.kind == "429":
            self._limited(job, failure, now)
            return 0.0  # all wait for the end of the pause
        if failure.refused and self._pace is not None:
            self._pace.give_back(now, job.reserved)
        replica.failed(now, job.sent, dead=failure.dead)
        if failure.refused and self._replicas.gone(ever=True):
            raise self._gone(str(failure)) from None
        return self._back_off(job, failure, now)

    def _back_off(self, job: _Job, failure: AttemptFailed, now: float) -> float:
        job.avoid.add(job.replica)
        others = self._replicas.others(job.avoid)
        if others and failure.dead and job.replica not in job.moved:
            job.moved.add(job.replica)
            return 0.0
        job.attempts += 1
        patience = self._patience
        if job.attempts >= patience.attempts:
            raise self._given_up(job, failure) from None
        if any(r.usable(now) for r in others):
            return 0.0
        job.avoid.clear()
        longest = min(patience.backoff_max_s, patience.backoff_s * 2.0 ** (job.attempts - 1))
        return max(random.uniform(0.5, 1.0) * longest, min(failure.after_s or 0.0, patience.backoff_max_s))

    def _given_up(self, job: _Job, failure: AttemptFailed) -> Exception:
        if failure.refused and self._replicas.gone() and self._last_success < job.began:
            return self._gone(f"it stopped answering: {failure}")
        return RequestFailed(f"{failure} ({job.attempts} attempts at {job.replica.shown})")

    def _gone(self, reason: str) -> TeacherError:
        return TeacherError(
            f"Teacher '{self._owner}': nothing answers at {self._replicas}: {reason}\n"
            f"  To do: {self._remedies[NO_SERVER]}. Replies that came before are kept."
        )

    def _limited(self, job: _Job, failure: AttemptFailed, now: float) -> None:
        replica, most = job.replica, self._patience.rate_limit_s
        job.limited_since = job.limited_since or job.sent
        after_s = replica.limited(now, job.sent, failure.after_s, self._patience.backoff_s)
        if replica.limited_beyond(now, most) and all(
            r.rests > 0 or r.limited_beyond(now, most) for r in self._replicas
        ):
            raise TeacherError(
                f"Teacher '{self._owner}': {replica.shown} is limiting its rate, and asks to wait {after_s:.0f} s "
                f"more: {failure}\n  To do: run again later; replies that came before are kept."
            ) from None
        if now - job.limited_since > most:
            raise RequestFailed(f"HTTP 429 for {now - job.limited_since:.0f} s: {failure}") from None


def request_body(
    request: Request, model: str, form: Form, manners: Manners = Manners(), *, stream: bool = False
) -> dict[str, Any]:
    """Return what an endpoint is asked."""
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
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if form == "chat" else {"logprobs": TOP_LOGPROBS}
        body |= WITHOUT_THOUGHTS[manners.thoughts_off] if form == "chat" else {}
    if stream:
        body["stream"] = True
        if manners.stream_usage:
            body["stream_options"] = {"include_usage": True}
    return body
