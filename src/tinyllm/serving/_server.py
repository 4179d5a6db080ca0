"""The process of the server: the address, the signals, and the time limit for slow connections."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tinyllm.errors import TinyLLMError
from tinyllm.inference import load
from tinyllm.serving._app import application
from tinyllm.serving._limits import Limits
from tinyllm.system.news import News

_HEADER_BYTES = 16 << 10
_KEEP_ALIVE_S = 15
_BACKLOG = 512


def run(folder: Path, host: str, port: int, key: str | None, limits: Limits, news: News) -> None:
    """Serve until a signal comes; see `tinyllm.serving.serve`."""
    if key is None and not _is_loopback(host):
        raise TinyLLMError(
            f"Other machines can reach the address {host}, so the server needs a key. Give the name of the environment "
            "variable that holds the key with --api-key-env NAME, or use --host 127.0.0.1.",
            page="serving.md",
        )
    with _bound(host, port) as listening:
        with news.task("Loading the student"):
            student = load(folder)
        with _told(host, port):  # another process may have bound the same port, and listen by now
            listening.listen(_BACKLOG)
        served = application(student, key, limits, host)
        config = uvicorn.Config(
            served,
            http=_impatient(limits.body_s),
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            limit_concurrency=limits.connections,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(limits.stop_s)),
        )
        shown = f"[{host}]" if ":" in host else host
        news.say(f"Serving on http://{shown}:{listening.getsockname()[1]} (Ctrl-C stops)")
        asyncio.run(_Server(config).serve(sockets=[listening]))
        left = served.state.unanswered
        lost = f"{left} request{'s were' if left > 1 else ' was'}" if left else "No request was"
        news.say(f"Stopped. {lost} left without an answer.")


class _Server(uvicorn.Server):
    """A server that returns after a signal. Uvicorn's own server raises the signal again."""

    should_exit: bool
    force_exit: bool

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop after the accepted requests at the first signal, and at once at the second."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        if self.force_exit:  # since Python 3.12, uvicorn waits for open connections in this case, too
            for task in self.server_state.tasks:
                task.cancel()


def _impatient(patience_s: float) -> type[H11Protocol]:
    """Return the HTTP protocol with a time limit for the headers of a request.

    Without the limit, clients that send one byte now and then (slow loris) keep connections open for ever.
    """

    class Impatient(H11Protocol):
        _hurry: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._hurry = self.loop.call_later(patience_s, self._close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._calm()
            elif self._hurry is None:
                self._hurry = self.loop.call_later(patience_s, self._close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._calm()
            super().connection_lost(exc)

        def _calm(self) -> None:
            if self._hurry is not None:
                self._hurry.cancel()
                self._hurry = None

        def _close(self) -> None:
            self._hurry = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return Impatient


def _addresses(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is not a host name"
        raise TinyLLMError(
            f"No address is known for --host {host}: {why}. Give an address or a name of this machine, as 127.0.0.1."
        ) from None


def _is_loopback(host: str) -> bool:
    found = _addresses(host, 0)
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


@contextlib.contextmanager
def _told(host: str, port: int) -> Iterator[None]:
    """Turn the system's error about an address into a message for the user."""
    try:
        yield
    except OSError as error:
        raise TinyLLMError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another --port (0 for any free port) or --host."
        ) from None


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Bind a socket until the block ends. It does not listen yet, so that no client waits while the student loads."""
    family, kind, *_, address = _addresses(host, port)[0]
    with socket.socket(family, kind) as bound:
        with _told(host, port):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        yield bound
