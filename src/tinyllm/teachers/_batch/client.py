"""Files and Batches of one endpoint over HTTP. Every call is retried until it is answered; a batch is created once.

429                                   wait as long as it says; does not count as an attempt
5xx, dropped, timed out, not JSON     back off with jitter and call again; after `attempts`, UnansweredError
404                                   UnknownError
401, 403, 400, no credit              TeacherError: another call would fail, too
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, quote

import aiohttp

from tinyllm.errors import TeacherError
from tinyllm.teachers._http.envelope import Envelope, public_url
from tinyllm.teachers._http.refusals import no_credit, pause_of, words_of
from tinyllm.teachers._http.transport import Answer, AttemptFailed, BadUrl, Patience, Transport, proxy_for
from tinyllm.teachers._secrets import hide, on_one_line, secrets_of

_T = TypeVar("_T")
_PAGE = 100  # batches in one page of the list; the maximum
_PAGES = 1000
_WORDS = 500
_LONGEST_WAIT_S = 31 * 86400.0  # a longer pause must be a mistake


@dataclass(frozen=True, slots=True)
class BatchPace(Patience):
    """Timeouts and retries for a provider of batches. `timeout_s` is for one call, which may carry a whole file.

    Attributes:
        poll_s: seconds between two polls of a batch.
        gather_s: a batch that is not full is sent after so long without a new request.
        settle_s: a new batch appears in the provider's list after so long at the latest.
        silence_s: give up after so long without an answer, or with only 429.
        full_s: give up after so long in which the provider accepted no batch, because too much is enqueued.
        over_s: stop waiting for a batch after so long; a later run may collect it.
    """

    timeout_s: float = 600.0
    stall_s: float = 600.0
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    poll_s: float = 30.0
    gather_s: float = 1.0
    settle_s: float = 30.0
    silence_s: float = 3600.0
    full_s: float = 26 * 3600.0
    over_s: float = 96 * 3600.0


class UnansweredError(TeacherError):
    """All attempts of one call failed, but a later call may succeed."""


class UnknownError(TeacherError):
    """The provider answers 404."""


class BatchClient:
    """A client of one provider. `async with` opens and closes its connections.

    Args:
        owner: the teacher's name, for messages.
        envelope: the provider's address and headers.

    Attributes:
        clock: the provider's time at its last answer, in seconds since 1970; None: unknown.
    """

    def __init__(self, owner: str, envelope: Envelope, *, pace: BatchPace) -> None:
        self._owner = owner
        [self._base] = envelope.urls
        self._proxy = proxy_for(self._base)
        self._query = dict(parse_qsl(envelope.query, keep_blank_values=True))
        self._pace = pace
        self.secrets = (*envelope.secrets, *secrets_of(self._proxy))
        self._http = Transport(envelope.headers, self.secrets, pace)
        self.url = hide(public_url(self._base), self.secrets)
        self.clock: float | None = None

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.__aexit__()

    # --- calls --------------------------------------------------------------------------------------------------

    async def upload(self, name: str, lines: bytes) -> str:
        """Upload a file of requests (JSONL). Return its id."""
        said = await self._call("POST", "/files", _identified, file=(name, lines))
        return str(said["id"])

    async def create(self, token: str, file: str, endpoint: str) -> str:
        """Start a batch. Return its id. If the answer is lost, search for the batch before starting another one."""
        body = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h", "metadata": _metadata(token)}

        async def existing() -> dict[str, Any] | None:
            try:
                return await self.find(token, file)
            except TeacherError as error:  # it is unknown whether there is a batch
                raise UnansweredError(str(error)) from None

        said = await self._call("POST", "/batches", _identified, json=body, when_lost=existing)
        return str(said["id"])

    async def find(self, token: str, file: str) -> dict[str, Any] | None:
        """Search for a batch whose id is unknown. Return None if it is not in the provider's list in time."""
        until = time.monotonic() + self._pace.settle_s
        while True:
            found = await self._in_list(token, file)
            left = until - time.monotonic()
            if found is not None or left <= 0:
                return found
            await asyncio.sleep(min(left, self._pace.poll_s))

    async def _in_list(self, token: str, file: str) -> dict[str, Any] | None:
        after: dict[str, str] = {}
        seen: set[str] = set()
        while True:
            page = await self._call("GET", "/batches", _page, params={"limit": str(_PAGE), **after})
            for batch in page["data"]:
                # Not every provider keeps metadata. The file belongs to this batch only.
                if batch.get("metadata") == _metadata(token) or batch.get("input_file_id") == file:
                    return dict(batch)
            last = page["data"][-1]["id"] if page["data"] else ""
            if not page.get("has_more") or not last or last in seen:
                return None
            seen.add(last)
            if len(seen) >= _PAGES:  # without this error, the requests would be paid again
                raise UnansweredError(f"Teacher '{self._owner}': {self.url} lists batches without end")
            after = {"after": last}

    async def batch(self, batch_id: str) -> dict[str, Any]:
        """Return the state of a batch.

        Raises:
            UnknownError: there is no such batch for this API key.
        """
        return await self._call("GET", f"/batches/{quote(batch_id, safe='')}", _identified)

    async def rows(self, file: str) -> list[dict[str, Any]]:
        """Return the rows of a file of results. An incomplete file is requested again.

        Raises:
            UnknownError: there is no such file.
        """
        return await self._call("GET", f"/files/{quote(file, safe='')}/content", _rows)

    # --- one call -----------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], _T],
        *,
        when_lost: Callable[[], Awaitable[_T | None]] | None = None,
        **what: Any,
    ) -> _T:
        """Call until there is an answer.

        Args:
            read: reads the answer's body. It raises the errors of `json.loads` and of a wrong structure.
            when_lost: after an attempt without an answer, returns the result if the attempt was executed.
        """
        attempts, began = 0, time.monotonic()
        while True:
            try:
                return await self._once(method, path, read, **what)
            except AttemptFailed as failure:
                if failure.kind == "429":
                    await self._wait_out(failure, time.monotonic() - began)
                    continue
                attempts += 1
                if when_lost is not None and (found := await when_lost()) is not None:
                    return found
                if attempts >= self._pace.attempts:
                    raise UnansweredError(
                        f"Teacher '{self._owner}': {self.url} does not answer as it should: {failure} ({attempts} "
                        f"attempts)\n  To do: run again later, or correct `base_url`. {KEPT}"
                    ) from None
            longest = min(self._pace.backoff_max_s, self._pace.backoff_s * 2 ** (attempts - 1))
            await asyncio.sleep(random.uniform(0.5, 1.0) * longest)

    async def _once(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], _T],
        *,
        file: tuple[str, bytes] | None = None,
        params: Mapping[str, str] | None = None,
        **what: Any,
    ) -> _T:
        if file is not None:
            what["data"] = form = aiohttp.FormData()  # a form can be sent once only
            form.add_field("purpose", "batch")
            form.add_field("file", file[1], filename=file[0], content_type="application/jsonl")
        try:
            answer = await self._http.send(
                method, self._base + path, params={**self._query, **(params or {})}, proxy=self._proxy, **what
            )
        except BadUrl:
            raise TeacherError(f"Teacher '{self._owner}': {self.url} is no URL; correct `base_url`.") from None
        self.clock = _moment(answer.date) or self.clock
        if answer.status >= 300:
            raise self._refusal(answer)
        try:
            return await asyncio.to_thread(read, answer.body)  # it may be large
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            words = f"it answers {method} {path} with {words_of(answer.body, self.secrets)!r}"
            raise AttemptFailed("malformed", words) from None

    # --- what a failure means -----------------------------------------------------------------------------------

    def clean(self, text: str) -> str:
        """Return a provider's text on one line, without secrets and control sequences."""
        return on_one_line(text, self.secrets)[:_WORDS]

    def _refusal(self, answer: Answer) -> Exception:
        status, words = answer.status, words_of(answer.body, self.secrets) or "(it gave no reason)"
        empty = status == 402 or no_credit(words)
        if status == 429 and not empty:
            return AttemptFailed("429", words, after_s=pause_of(answer.retry_after, answer.body))
        if status >= 500 or status in (408, 409, 425):
            return AttemptFailed(f"http {status}", f"HTTP {status}: {words}")
        remedy = {
            401: "check the key in the environment variable that `api_key_env` names",
            403: "this key may not use batches here",
            404: "check `base_url`, and whether this provider supports Files and Batches of the OpenAI protocol "
            "(if not, use `kind: openai`)",
        }.get(status, "correct what it names")
        if empty:
            remedy = "the account has no credit left"
        kind = UnknownError if status == 404 else TeacherError
        return kind(
            f"Teacher '{self._owner}': {self.url} answers {status}: {words}\n  To do: {remedy}. {KEPT}",
            page="configuration.md#kind-openai-batch",
        )

    async def _wait_out(self, limit: AttemptFailed, waited_s: float) -> None:
        # At least our own backoff, because some providers always answer 0 or a time in the past.
        guess = min(60.0, max(self._pace.backoff_s, 0.1 * waited_s)) * random.uniform(0.75, 1.0)
        told = limit.after_s or 0.0
        after_s = max(guess, told if told <= _LONGEST_WAIT_S else 0.0)
        if waited_s + after_s > self._pace.silence_s:
            raise TeacherError(
                f"Teacher '{self._owner}': {self.url} is limiting its rate, and asks to wait {after_s:.0f} s more: "
                f"{limit}\n  To do: run again later. {KEPT}"
            )
        await asyncio.sleep(after_s)


KEPT = "Earlier replies are kept. Batches at the provider go on, and the next run collects them."
"""The end of every error message."""


def _metadata(token: str) -> dict[str, str]:
    return {"tinyllm": token}


def _identified(raw: bytes) -> dict[str, Any]:
    said = json.loads(raw)
    if not isinstance(said["id"], str):
        raise TypeError("no id")
    return dict(said)


def _page(raw: bytes) -> dict[str, Any]:
    """Read a page of the list. Entries that are not batches are ignored."""
    said = json.loads(raw)
    if not isinstance(said["data"], list):
        raise TypeError("no list of batches")
    batches = [b for b in said["data"] if isinstance(b, dict) and isinstance(b.get("id"), str)]
    return {"data": batches, "has_more": bool(said.get("has_more"))}


def _rows(raw: bytes) -> list[dict[str, Any]]:
    """Read the rows of a file. A few invalid rows are ignored, so that the others are not lost."""
    lines = [line for line in raw.splitlines() if line.strip()]
    rows = [row for row in map(_row, lines) if row is not None]
    if 2 * len(rows) < len(lines) or (lines and _row(lines[-1]) is None):
        raise ValueError("not rows, or not all of them")
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _moment(date: str | None) -> float | None:
    """Read a header `Date`."""
    if date is None:
        return None
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
