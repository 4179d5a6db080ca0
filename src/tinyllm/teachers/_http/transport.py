"""One attempt over HTTP: sends bytes to a replica and receives bytes, within time limits."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from tinyllm import config
from tinyllm.teachers._http.replicas import Replica
from tinyllm.teachers._secrets import on_one_line

if TYPE_CHECKING:
    from yarl import URL

_KEEP_ALIVE_S = 4.0  # many servers close an idle connection after 5 s; a request sent at that moment is lost
_WORDS = 400
_OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)  # this machine has no more sockets


@dataclass(frozen=True, slots=True)
class Patience:
    """Timeouts and retries.

    Attributes:
        attempts: how often one request is sent. Rate limits, overload and moves from a dead replica do not count.
        timeout_s: seconds for one whole attempt.
        connect_s: seconds for the connection.
        first_byte_s: seconds until the reply begins; None: `timeout_s`.
        stall_s: seconds in which a reply that has begun may bring no data.
        backoff_s: pause after the first failed attempt; it doubles with each, up to `backoff_max_s`.
        rate_limit_s: an endpoint that only asks to wait for so long is given up.
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


@dataclass(eq=False)
class AttemptFailed(Exception):
    """An attempt failed. Another attempt may succeed."""

    kind: str  # how it is counted: `429`, `http 500`, `timeout`, `connection`, `malformed`, `web page`
    words: str
    _: KW_ONLY
    limited: bool = False  # it asks for a pause: no request succeeds before, so this counts as no attempt
    dead: bool = False  # the replica refused or cut the connection
    refused: bool = False  # there was no connection at all
    overload: bool = False  # fewer attempts at once may help
    alive: bool = False  # it answered with a status
    billed: bool = True  # the service may have worked on the request, and so may bill it
    after_s: float | None = None  # the pause that the replica asked for

    def __str__(self) -> str:
        return self.words


class BadUrl(Exception):
    """Nothing can be sent to this address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with any status. `retry_after` and `date` are headers."""

    status: int
    retry_after: str | None
    body: bytes
    date: str | None = None


class Carrier(Protocol):
    """Sends one attempt to a service. `async with` opens and closes it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def post(self, replica: Replica, body: bytes) -> Answer:
        """Send a request in the OpenAI protocol once. Return an answer in the same protocol.

        Raises:
            AttemptFailed: there is no answer.
            BadUrl: the replica's address is not a URL.
            MissingDependencyError: a package is missing that the service needs; nothing was sent.
        """


class Transport:
    """A pool of connections. `async with` opens and closes it.

    Args:
        secrets: removed from every message.
    """

    def __init__(self, headers: Mapping[str, str], secrets: Sequence[str], patience: Patience) -> None:
        self._headers = headers
        self._secrets = secrets
        self._patience = patience
        first_byte_s, timeout_s = patience.first_byte_s, patience.timeout_s
        self._first_byte_s = timeout_s if first_byte_s is None else min(first_byte_s, timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),  # the endpoint has the limit
            timeout=aiohttp.ClientTimeout(total=None, connect=self._patience.connect_s),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, replica: Replica, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a body to a replica. `headers` replace the common ones. See `send`."""
        return await self.send("POST", replica.url, data=body, proxy=replica.proxy, headers=headers)

    async def send(self, method: str, url: str | URL, **what: Any) -> Answer:
        """Send a request and return its answer.

        Args:
            what: as `aiohttp` takes it.

        Raises:
            AttemptFailed: the connection failed or was lost, or a time limit was exceeded.
            BadUrl: the address is not a URL.
        """
        try:
            return await self._send(method, url, **what)
        except aiohttp.ConnectionTimeoutError:
            words = f"no connection in {self._patience.connect_s:g} s"
            raise AttemptFailed("timeout", words, dead=True, refused=True, overload=True, billed=False) from None
        except (aiohttp.InvalidURL, UnicodeError):  # UnicodeError: not a host name
            raise BadUrl from None
        except aiohttp.ClientConnectorError as error:
            ours = error.errno in _OURS
            raise AttemptFailed(
                "connection", self._words(error), dead=not ours, refused=not ours, overload=ours, billed=False
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            words = f"connection lost: {self._words(error)}"
            raise AttemptFailed("connection", words, dead=True, overload=True) from None

    async def _send(self, method: str, url: str | URL, **what: Any) -> Answer:
        assert self._session is not None, "ask inside `async with`"  # noqa: S101
        now, timeout_s, stall_s = asyncio.get_running_loop().time, self._patience.timeout_s, self._patience.stall_s
        end, moved, parts = now() + timeout_s, None, []
        try:
            # One timer serves all limits and is rescheduled, which costs a few microseconds. One timer for each limit
            # would cost them several times.
            async with asyncio.timeout_at(end - timeout_s + self._first_byte_s) as timer:
                async with self._session.request(method, url, allow_redirects=False, **what) as response:
                    content, headers = response.content, response.headers
                    while not content.at_eof():
                        moved = now()
                        timer.reschedule(min(end, moved + stall_s))
                        parts.append(await content.readany())
                    return Answer(response.status, headers.get("Retry-After"), b"".join(parts), headers.get("Date"))
        except TimeoutError:
            if not timer.expired():
                raise  # the connection's own limit
            if moved is None:
                words = f"no reply in {self._first_byte_s:g} s"
            elif moved + stall_s < end:
                words = f"its reply stood still for {stall_s:g} s"
            else:
                words = f"no whole reply in {timeout_s:g} s"
            raise AttemptFailed("timeout", words, overload=True) from None

    def _words(self, error: Exception) -> str:
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return "server disconnected"  # its own message contains the incomplete reply
        words = str(error).replace(" ssl:default", "")  # what aiohttp says of every address, http:// too
        return on_one_line(words or type(error).__name__, self._secrets)[:_WORDS]


def proxy_for(url: str) -> str | None:
    """Return the proxy for a URL from the environment. Call it once; aiohttp would start a thread each time."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("127.0.0.1", "::1", "localhost") or proxy_bypass(host):
        return None
    proxy = getproxies().get(parts.scheme)
    return proxy if proxy and proxy.startswith("http://") else None
