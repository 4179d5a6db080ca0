"""A real HTTP server for the OpenAI protocol that can be told to fail."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer

Answer = Callable[[dict[str, Any]], Any]
"""From a request's body to a `web.Response`, a number of seconds to think, "drop" (cut the connection), "hang",
"reset" (with a TCP reset), or a `Wire`; or a coroutine of one."""


class Wire(NamedTuple):
    """Bytes on the wire, each part a little after the one before, and then "drop", "reset" or "hang"."""

    parts: tuple[bytes, ...]
    then: str
    every_s: float = 0.0


class FakeEndpoint:
    """Counts requests, and answers them from a list; the last answer stands for all that follow."""

    def __init__(self, *answers: Answer, port: int | None = None) -> None:
        self.answers = list(answers) or [good]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.raw_paths: list[str] = []
        self.queries: list[str] = []
        self.times: list[float] = []
        self.looks: list[str] = []
        """The paths that were read, as a list of models is."""
        self.listing: Callable[[], web.Response] = lambda: web.json_response({"data": [{"id": "m"}]})
        self.most_in_flight = 0
        self.in_flight = 0
        self._release = asyncio.Event()
        self._transports: set[asyncio.Transport] = set()
        app = web.Application()
        app.router.add_post("/{tail:.*}", self._handle)
        app.router.add_get("/{tail:.*}", self._look)
        self._server = TestServer(app, port=port)

    async def __aenter__(self) -> FakeEndpoint:
        await self._server.start_server()
        self.root = str(self._server.make_url("/")).rstrip("/")
        self.url = f"{self.root}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._release.set()
        await self._server.close()

    @property
    def port(self) -> int:
        assert self._server.port is not None
        return self._server.port

    async def die(self) -> None:
        """Take no more connections and cut those there are, as a process that is killed."""
        for site in list(self._server.runner.sites):
            await site.stop()
        for transport in self._transports:
            _reset(transport)

    async def _look(self, request: web.Request) -> web.Response:
        self.looks.append(request.path_qs)
        self.headers.append(dict(request.headers))
        return self.listing()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        self.raw_paths.append(request.raw_path)
        self.queries.append(request.query_string)
        self.times.append(asyncio.get_running_loop().time())
        assert isinstance(request.transport, asyncio.Transport)
        self._transports.add(request.transport)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            said = answer(body)
            if inspect.isawaitable(said):
                said = await said
            if isinstance(said, Wire):
                for part in said.parts:
                    request.transport.write(part)
                    await asyncio.sleep(said.every_s)
                said = said.then
            if said == "drop":
                request.transport.close()  # after what was written
            elif said == "reset":
                _reset(request.transport)
            elif said == "hang":
                await self._release.wait()
            elif isinstance(said, float):
                await asyncio.sleep(said)
                said = good(body)
            return said if isinstance(said, web.Response) else web.Response()
        finally:
            self.in_flight -= 1


def _reset(transport: asyncio.Transport) -> None:
    if (sock := transport.get_extra_info("socket")) is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def good(body: dict[str, Any], text: str = "Because it is so.", finish: str | None = "stop") -> web.Response:
    said = {"message": {"content": text}} if "messages" in body else {"text": text}
    usage = {"prompt_tokens": 7, "completion_tokens": 5}
    return web.json_response({"choices": [{**said, "finish_reason": finish}], "usage": usage})


def status(code: int, message: str = "no", *, kind: str = "", retry_after: str | None = None) -> Answer:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    body = json.dumps({"error": {"message": message, "type": kind}})
    return lambda _: web.Response(status=code, text=body, headers=headers)


def raw(text: str, code: int = 200) -> Answer:
    return lambda _: web.Response(status=code, text=text)


def drop(_: dict[str, Any]) -> str:
    return "drop"


def reset(_: dict[str, Any]) -> str:
    return "reset"


def hang(_: dict[str, Any]) -> str:
    return "hang"


def slow(_: dict[str, Any]) -> float:
    return 0.05


def wire(*parts: bytes, then: str, every_s: float = 0.0) -> Answer:
    return lambda _: Wire(parts, then, every_s)
