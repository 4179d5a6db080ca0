"""The server's process: its address, its signals, and connections that take too long."""

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
    """Serve until told to stop; see `tinyllm.serving.serve`."""
    if key is None and not _is_loopback(host):
        raise TinyLLMError(
            f"Binding to {host} would let every machine that reaches this one ask without a key. Name a key with "
            "--api-key-env NAME (the environment variable that holds it), or bind to 127.0.0.1.",
            page="serving.md",
        )
    with _bound(host, port) as listening:
        with news.task("Loading the student"):
            student = load(folder)
        listening.listen(_BACKLOG)
        config = uvicorn.Config(
            application(student, key, limits),
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
        news.say("Stopped; every request that was accepted is answered.")


class _Server(uvicorn.Server):
    """A server that stops at a signal and then returns; uvicorn's own raises the signal anew."""

    should_exit: bool
    force_exit: bool

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal, at once at the second."""
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


def _impatient(patience_s: float) -> type[H11Protocol]:
    """Return the protocol with a limit on the time that a client takes to send its headers.

    Without one, clients that send a byte now and then (slow loris) hold connections for ever.
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


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise TinyLLMError(f"No address is known for --host {host}: {error.strerror}.") from None
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    family, kind, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise TinyLLMError(
                f"Cannot bind to {host}:{port}: {error.strerror}. Choose another --port (0: any free one) or --host."
            ) from None
        yield listening
