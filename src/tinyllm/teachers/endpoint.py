"""One OpenAI-compatible endpoint: bodies, replies, and what to do when it does not answer. Knows no questions.

429                                   wait as long as it says (all requests together), ask again; not an attempt
5xx, dropped, timed out, not JSON     back off with jitter, ask again; `max_attempts` in all, then RequestFailed
400 and the like about one prompt     RequestFailed
401, 403, 404, no credit, no server   TeacherError: no other request would fare better
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from tinyllm.config import Form
from tinyllm.errors import TeacherError
from tinyllm.teachers.base import FinishReason, Reply, Request, RequestFailed

_FINISHED: Mapping[str, FinishReason] = {
    "stop": "stop", "eos": "stop", "stop_sequence": "stop", "end_turn": "stop",
    "length": "length", "max_tokens": "length",
    "content_filter": "content_filter", "safety": "content_filter",
}  # fmt: skip
_ABOUT_ONE_PROMPT = (
    "context_length", "exceed_context", "context length", "context size", "context window", "too long", "too large",
    "too many tokens", "maximum allowed", "content_filter", "content policy", "content management",
)  # fmt: skip
_NO_CREDIT = ("insufficient_quota", "billing", "credit balance")
_WORDS = 400


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an endpoint is waited for.

    Attributes:
        attempts: times that one request is sent; answers of 429 are not counted.
        timeout_s: seconds for one attempt as a whole.
        connect_s: seconds for the connection alone.
        backoff_s: pause after the first failed attempt; it doubles with each, up to `backoff_max_s`.
        rate_limit_s: after so long in which the endpoint only said 429, it is given up.
    """

    attempts: int = 5
    timeout_s: float = 120.0
    connect_s: float = 10.0
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    rate_limit_s: float = 3600.0


class _RetryError(Exception):
    """This attempt failed in a way that another may not."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class _RateLimitError(Exception):
    """The endpoint said 429. `after_s`: the wait it asked for, if it did."""

    def __init__(self, words: str, after_s: float | None) -> None:
        super().__init__(words)
        self.after_s = after_s


class Endpoint:
    """A client of one endpoint, for one model. `async with` opens and closes its connections.

    Args:
        owner: the teacher's name, for messages.
        key: sent as a bearer token; taken out of every text that leaves here.
    """

    def __init__(
        self,
        owner: str,
        base_url: str,
        model: str,
        *,
        form: Form,
        concurrency: int,
        patience: Patience,
        key: str | None,
    ) -> None:
        self._owner = owner
        self._url = base_url.rstrip("/") + ("/chat/completions" if form == "chat" else "/completions")
        self._shown_url = public_url(base_url)
        self._model = model
        self._form = form
        self._concurrency = concurrency
        self._patience = patience
        self._key = key
        self._length_field = "max_tokens"
        self._session: aiohttp.ClientSession | None = None
        self._answered = False  # has the endpoint ever said anything?
        self._last_success = 0.0  # this and the next two: time.monotonic()
        self._limited_since: float | None = None
        self._resume_at = 0.0
        self._pauses = 0

    def __repr__(self) -> str:
        return f"Endpoint({self._shown_url!r}, model={self._model!r})"

    async def __aenter__(self) -> Self:
        here = urlsplit(self._url).hostname in ("127.0.0.1", "::1", "localhost")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency),
            timeout=aiohttp.ClientTimeout(total=self._patience.timeout_s, sock_connect=self._patience.connect_s),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            trust_env=not here,  # proxies are for what is outside this machine
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def complete(self, request: Request) -> Reply:
        """Return the model's reply.

        Raises:
            RequestFailed: this request got none.
            TeacherError: the endpoint answers nothing.
        """
        began = time.monotonic()
        attempts = 0
        limited_since: float | None = None
        while True:
            await self._pause()
            sent = time.monotonic()
            try:
                reply = await self._once(request)
            except _RateLimitError as limit:
                limited_since = limited_since or sent
                self._limited(limit, sent, limited_since)
            except _RetryError as failure:
                attempts += 1
                if attempts >= self._patience.attempts:
                    if failure.refused and self._last_success < began:
                        raise self._gone(f"it stopped answering: {failure}") from None
                    raise RequestFailed(f"{failure} ({attempts} attempts at {self._shown_url})") from None
                longest = min(self._patience.backoff_max_s, self._patience.backoff_s * 2 ** (attempts - 1))
                await asyncio.sleep(random.uniform(0.5, 1.0) * longest)
            else:
                self._last_success = time.monotonic()
                self._limited_since, self._pauses = None, 0
                return reply

    # --- one attempt --------------------------------------------------------------------------------------------

    async def _once(self, request: Request) -> Reply:
        assert self._session is not None, "ask inside `async with`"  # noqa: S101
        began = time.perf_counter()
        try:
            length_field = self._length_field
            async with self._session.post(self._url, json=self._body(request)) as response:
                status, headers, raw = response.status, response.headers, await response.read()
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            limit = self._patience.connect_s if connecting else self._patience.timeout_s
            raise self._unreachable(
                f"no {'connection' if connecting else 'reply'} in {limit:g} s", connecting
            ) from None
        except aiohttp.InvalidURL:
            raise TeacherError(f"Teacher '{self._owner}': {self._shown_url} is no URL; mend `base_url`.") from None
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(self._redacted(str(error.os_error)), refused=True) from None
        except aiohttp.ClientError as error:
            raise _RetryError(self._redacted(f"connection lost: {error or type(error).__name__}")) from None
        self._answered = True
        text = raw.decode("utf-8", "replace")
        if status == 200:
            return self._read(text, time.perf_counter() - began)
        words = self._redacted(_words_of(text)) or "(it gave no reason)"
        if self._wants_other_length(status, words, length_field):
            return await self._once(request)
        raise self._refusal(status, words, headers.get("Retry-After"))

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            self._length_field: sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed + request.sample,
        }
        if self._form == "chat":
            body["messages"] = [{"role": m.role, "content": m.content} for m in request.prompt.messages]
        else:
            body["prompt"] = request.prompt.text
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        return body

    def _read(self, text: str, latency_s: float) -> Reply:
        try:
            answer = json.loads(text)
            choice = answer["choices"][0]
            said = choice["message"]["content"] if self._form == "chat" else choice["text"]
            finish = _FINISHED.get(str(choice.get("finish_reason")).lower(), "unknown")
            usage = answer.get("usage") or {}
            tokens = [usage.get(k) for k in ("prompt_tokens", "completion_tokens")]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _RetryError(f"its reply is not a completion: {self._redacted(_words_of(text))!r}") from None
        if said is not None and not isinstance(said, str):
            raise _RetryError(f"its reply holds no text: {self._redacted(_words_of(text))!r}")
        prompt_tokens, completion_tokens = (n if type(n) is int else None for n in tokens)
        return Reply(said or "", finish, prompt_tokens, completion_tokens, latency_s)

    def _wants_other_length(self, status: int, words: str, sent: str) -> bool:
        """Newer models of one provider refuse `max_tokens` and name the field they want instead; take it from then on.

        Args:
            sent: the field that this request had; many may be under way when the first is refused.
        """
        if status == 400 and "max_completion_tokens" in words and sent == "max_tokens":
            self._length_field = "max_completion_tokens"
            return True
        return False

    # --- what a failure means -----------------------------------------------------------------------------------

    def _refusal(self, status: int, words: str, retry_after: str | None) -> Exception:
        said = words.casefold()
        if status == 429 and not any(sign in said for sign in _NO_CREDIT):
            return _RateLimitError(words, _seconds(retry_after))
        if status >= 500 or status in (408, 409, 425):
            return _RetryError(f"HTTP {status}: {words}")
        if status == 413 or (status in (400, 422) and any(sign in said for sign in _ABOUT_ONE_PROMPT)):
            return RequestFailed(f"HTTP {status}: {words}")
        remedy = {
            401: "check the key in the environment variable that `api_key_env` names",
            402: "the account has no credit left",
            403: "this key may not use this model",
            404: f"check `base_url` (it ends in /v1 for most servers) and `model: {self._model}`",
            405: "check `base_url`; it is an address that takes no requests",
            429: "the account has no credit left",
        }.get(status, "the endpoint does not take this kind of request")
        return TeacherError(
            f"Teacher '{self._owner}': {self._shown_url} answers {status}: {words}\n  To do: {remedy}. "
            "Replies that came before are kept."
        )

    def _unreachable(self, reason: str, refused: bool) -> Exception:
        if refused and not self._answered:
            return self._gone(reason)
        return _RetryError(reason, refused=refused)

    def _gone(self, reason: str) -> TeacherError:
        return TeacherError(
            f"Teacher '{self._owner}': nothing answers at {self._shown_url}: {reason}\n"
            "  To do: start the server, or mend `base_url`. Replies that came before are kept."
        )

    # --- rate limits: one pause for all requests ----------------------------------------------------------------

    async def _pause(self) -> None:
        while (left := self._resume_at - time.monotonic()) > 0:  # noqa: ASYNC110 - it may be lengthened meanwhile
            # Not all at the same moment: a limit that is lifted for one is often lifted for a few.
            await asyncio.sleep(left + random.uniform(0, min(1.0, 0.1 * left)))

    def _limited(self, limit: _RateLimitError, sent: float, request_since: float) -> None:
        now = time.monotonic()
        self._limited_since = self._limited_since or now
        if sent >= self._resume_at:  # the first to hear of this limit sets the pause; the rest were sent before it
            self._pauses += 1
        guess = min(60.0, self._patience.backoff_s * 2 ** min(self._pauses, 10)) * random.uniform(0.75, 1.0)
        after_s = guess if limit.after_s is None else limit.after_s
        self._resume_at = max(self._resume_at, now + after_s)
        most = self._patience.rate_limit_s
        if after_s > most or now - self._limited_since > most:
            raise TeacherError(
                f"Teacher '{self._owner}': {self._shown_url} is limiting its rate, and asks to wait {after_s:.0f} s "
                f"more: {limit}\n  To do: run again later; replies that came before are kept."
            )
        if now - request_since > most:
            raise RequestFailed(f"HTTP 429 for {now - request_since:.0f} s: {limit}")

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def public_url(url: str) -> str:
    """Return a URL without user, password, query and fragment: what of it may be written down."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _words_of(text: str) -> str:
    """The server's own words: the message of an error in JSON, else the beginning of the text, on one line."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, dict):
        named = [str(error[k]) for k in ("code", "type", "message", "detail") if error.get(k)]
        text = ": ".join(dict.fromkeys(named)) or text
    elif isinstance(error, str):
        text = error
    line = " ".join(text.split())
    return line if len(line) <= _WORDS else line[:_WORDS] + " …"


def _seconds(retry_after: str | None) -> float | None:
    """Read `Retry-After`, which is a number of seconds or a date; None if it is neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None
