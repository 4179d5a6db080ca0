"""One attempt over HTTP: bytes to a replica, bytes back, within the time allowed."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from tinyllm.errors import printable
from tinyllm.teachers._http.refusals import hide
from tinyllm.teachers._http.replicas import Replica

_KEEP_ALIVE_S = 4.0  # common servers close an idle connection after 5; a request sent at that moment is lost
_WORDS = 400
_OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)  # this machine has no more sockets


class AttemptFailed(Exception):
    """An attempt failed in a way that another may not.

    Args:
        kind: what it is counted as: `429`, `http 500`, `timeout`, `connection`, `malformed`.
        dead: the replica refused or cut the connection.
        refused: there was no connection at all.
        overload: fewer attempts at once may fare better.
        billed: whether the service may have worked on it, and so may bill it.
        after_s: the wait that the replica asked for.
    """

    def __init__(
        self,
        kind: str,
        words: str,
        *,
        dead: bool = False,
        refused: bool = False,
        overload: bool = False,
        billed: bool = True,
        after_s: float | None = None,
    ) -> None:
        super().__init__(words)
        self.kind = kind
        self.dead = dead
        self.refused = refused
        self.overload = overload
        self.billed = billed
        self.after_s = after_s


class BadUrl(Exception):
    """Nothing can be sent to this address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever the status."""

    status: int
    retry_after: str | None
    body: bytes


class Carrier(Protocol):
    """Whatever takes one attempt to a service. `async with` opens and closes it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def post(self, replica: Replica, body: bytes) -> Answer:
        """Send a request in the OpenAI protocol once; return an answer in it.

        Raises:
            AttemptFailed: there is none.
            BadUrl: the replica's address is none.
            MissingDependencyError: a package is missing that the service needs; nothing was sent.
        """
        ...


class Transport:
    """A pool of connections. `async with` opens and closes it.

    Args:
        headers: sent with every request.
        secrets: taken out of every text that leaves here.
        connect_s: seconds for a connection.
        first_byte_s: seconds until a reply begins; None: as `timeout_s`.
        stall_s: seconds in which a reply that has begun may stand still.
        timeout_s: seconds for an attempt as a whole.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        secrets: Sequence[str],
        *,
        connect_s: float,
        first_byte_s: float | None,
        stall_s: float,
        timeout_s: float,
    ) -> None:
        self._headers = headers
        self._secrets = secrets
        self._connect_s = connect_s
        self._first_byte_s = timeout_s if first_byte_s is None else min(first_byte_s, timeout_s)
        self._stall_s = stall_s
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),  # who asks keeps the limit
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
            headers={"Content-Type": "application/json", **self._headers},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, replica: Replica, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Send JSON to a replica and return its answer.

        Args:
            headers: of this request, laid over those of all.

        Raises:
            AttemptFailed: there is no connection, it was lost, or it took too long.
            BadUrl: the replica's address is none.
        """
        try:
            return await self._post(replica, body, headers)
        except aiohttp.ConnectionTimeoutError:
            words = f"no connection in {self._connect_s:g} s"
            raise AttemptFailed("timeout", words, dead=True, refused=True, overload=True, billed=False) from None
        except (aiohttp.InvalidURL, UnicodeError):  # a name that is none
            raise BadUrl from None
        except aiohttp.ClientConnectorError as error:
            ours = error.errno in _OURS
            raise AttemptFailed(
                "connection", self._words(error), dead=not ours, refused=not ours, overload=ours, billed=False
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            words = f"connection lost: {self._words(error)}"
            raise AttemptFailed("connection", words, dead=True, overload=True) from None

    async def _post(self, replica: Replica, body: bytes, headers: Mapping[str, str] | None) -> Answer:
        assert self._session is not None, "ask inside `async with`"  # noqa: S101
        now = asyncio.get_running_loop().time
        end, moved, parts = now() + self._timeout_s, None, []
        try:
            # One timer for all limits, set anew: it costs a few microseconds, one for each would cost them each time.
            async with asyncio.timeout_at(end - self._timeout_s + self._first_byte_s) as timer:
                async with self._session.post(
                    replica.url, data=body, proxy=replica.proxy, headers=headers, allow_redirects=False
                ) as response:
                    content = response.content
                    while not content.at_eof():
                        moved = now()
                        timer.reschedule(min(end, moved + self._stall_s))
                        parts.append(await content.readany())
                    return Answer(response.status, response.headers.get("Retry-After"), b"".join(parts))
        except TimeoutError:
            if not timer.expired():
                raise  # the connection's
            if moved is None:
                words = f"no reply in {self._first_byte_s:g} s"
            elif moved + self._stall_s < end:
                words = f"its reply stood still for {self._stall_s:g} s"
            else:
                words = f"no whole reply in {self._timeout_s:g} s"
            raise AttemptFailed("timeout", words, overload=True) from None

    def _words(self, error: Exception) -> str:
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return "server disconnected"  # its own words are the half reply
        said = hide(str(error) or type(error).__name__, self._secrets)
        return " ".join(printable(said).split())[:_WORDS]


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL. Read once: aiohttp's own way costs a thread each time."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("127.0.0.1", "::1", "localhost") or proxy_bypass(host):
        return None  # proxies are for what is outside this machine
    proxy = getproxies().get(parts.scheme)
    return proxy if proxy and proxy.startswith("http://") else None
