"""A local OpenAI-compatible server that costs little, takes a set time, and fails when told to. Standard library only.

    python benchmarks/server.py --latency 0.2 --fail 0.1        prints its port, then serves until it is stopped

HTTP is read off the sockets by hand: the server must be far cheaper than any client that is measured against it.
`POST …/chat/completions` and `POST …/completions` are answered with a text that passes the checks of rationales and
names the prompt's checksum. `GET /stats` tells what was asked so far (`Stats`), `POST /reset` forgets it.

Faults: `--fail SHARE` of the requests get one of `FAULTS`. Which ones depends on the seed, the prompt and how often
that prompt was asked before, and on nothing else: not on the order in which requests come.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email.utils
import json
import os
import random
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FAULTS: Mapping[str, str] = {
    "limited": "429, Retry-After in seconds",
    "limited_date": "429, Retry-After as a date",
    "error": "500",
    "reset": "the connection is reset instead of an answer",
    "hang": "nothing is ever answered",
    "half": "200, and JSON that stops in the middle",
    "empty": "200, and a text without a character",
    "stall": "200, and a body that stops in the middle while the connection stays open",
}
TEXT = (
    "Warm air can hold more water than cold air, so when it cools down some of the water has to leave it. "
    "That is what the question describes, and none of the other choices would bring it about. "
    "It is the same with a cold glass on a warm day"
)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST


@dataclass(frozen=True)
class Settings:
    """What the command line sets.

    Attributes:
        latency: seconds until an answer.
        tokens_per_second: rate of one reply; its `tokens` take so much longer. 0: no time.
        tokens: completion tokens that each reply says it has.
        fail: share of requests that get a fault.
        faults: names of the faults there may be.
        most_faults: faults that one prompt gets at most; -1: any number.
        retry_after: seconds that a 429 asks to wait (a date has whole seconds).
        limit: requests in flight beyond which 429 is answered; 0: any number.
        record: file to which the body of every request is added, a line each.
        key: bearer token without which 401 is answered.
    """

    port: int = 0
    latency: float = 0.0
    tokens_per_second: float = 0.0
    tokens: int = 48
    fail: float = 0.0
    faults: str = ",".join(FAULTS)
    most_faults: int = -1
    retry_after: float = 1.0
    limit: int = 0
    seed: int = 0
    record: str = ""
    key: str = ""


@dataclass
class Stats:
    """What was asked since the start, or the last `POST /reset`.

    Attributes:
        prompts: distinct ones. Prompts count by their text alone, whatever the sampling.
        answered: requests that got a good answer.
        answered_again: good answers to prompts that had one already.
        first_at, last_at: when the first request came and the last good answer went; seconds since 1970.
    """

    requests: int = 0
    prompts: int = 0
    answered: int = 0
    answered_again: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    first_at: float | None = None
    last_at: float | None = None


class Server:
    """What all connections share: settings, counts, and what to answer."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stats = Stats()
        self.loop = asyncio.get_running_loop()
        self.delay = settings.latency
        if settings.tokens_per_second:
            self.delay += settings.tokens / settings.tokens_per_second
        self._faults = [name for name in settings.faults.split(",") if name]
        if unknown := set(self._faults) - set(FAULTS):
            raise SystemExit(f"Unknown faults {sorted(unknown)}. Known: {', '.join(FAULTS)}")
        self._asked: Counter[int] = Counter()  # by the prompt's checksum
        self._faulty: Counter[int] = Counter()
        self._answered: set[int] = set()
        self._record = Path(settings.record).open("ab") if settings.record else None  # noqa: SIM115 - as long as it serves

    def reset(self) -> None:
        """Forget what was asked; what is in flight stays so."""
        self.stats = Stats(in_flight=self.stats.in_flight, most_in_flight=self.stats.in_flight)
        for counted in (self._asked, self._faulty, self._answered):
            counted.clear()

    def begin(self, body: dict[str, Any]) -> tuple[int, str | None]:
        """Count a request; return its prompt's checksum and the fault it gets, if any."""
        stats = self.stats
        if stats.first_at is None:
            stats.first_at = time.time()
        stats.requests += 1
        stats.in_flight += 1
        stats.most_in_flight = max(stats.most_in_flight, stats.in_flight)
        if self._record is not None:
            self._record.write(json.dumps(body).encode() + b"\n")
            self._record.flush()
        prompt = checksum(body)
        times = self._asked[prompt]
        self._asked[prompt] = times + 1
        stats.prompts = len(self._asked)
        fault = self._fault(prompt, times)
        if fault is not None:
            stats.faults[fault] = stats.faults.get(fault, 0) + 1
        return prompt, fault

    def _fault(self, prompt: int, times: int) -> str | None:
        settings = self.settings
        if settings.limit and self.stats.in_flight > settings.limit:
            return "limited"
        if not settings.fail or 0 <= settings.most_faults <= self._faulty[prompt]:
            return None
        draw = random.Random(f"{settings.seed} {prompt} {times}")
        if draw.random() >= settings.fail:
            return None
        self._faulty[prompt] += 1
        return draw.choice(self._faults)

    def answer(self, prompt: int, body: dict[str, Any]) -> bytes:
        """Return a good answer, and count it."""
        self.stats.answered += 1
        self.stats.answered_again += prompt in self._answered
        self._answered.add(prompt)
        self.stats.last_at = time.time()
        return ok(self.completion(body, f"{TEXT}, as case {prompt:08x} shows."))

    def completion(self, body: dict[str, Any], text: str) -> bytes:
        """Return a completion in JSON."""
        said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        shown = sum(len(m["content"]) for m in body["messages"]) if "messages" in body else len(body["prompt"])
        usage = {"prompt_tokens": shown // 4, "completion_tokens": self.settings.tokens}
        choice: dict[str, Any] = {"index": 0, **said, "finish_reason": "stop"}
        if body.get("logprobs"):
            top = [{"token": letter, "logprob": -1.0 - place} for place, letter in enumerate("ABCD")]
            choice["logprobs"] = {"content": [{"top_logprobs": top}]}
        return json.dumps({"id": "reply", "model": body.get("model"), "choices": [choice], "usage": usage}).encode()


def checksum(body: Mapping[str, Any]) -> int:
    """Return a prompt's checksum: of its text, not of how it is sampled."""
    messages = body.get("messages")
    text = "\0".join(m["content"] for m in messages) if messages is not None else body["prompt"]
    return zlib.crc32(text.encode())


def ok(body: bytes) -> bytes:
    """Return a whole answer of 200."""
    return response(200, body)


def response(status: int, body: bytes, headers: str = "") -> bytes:
    """Return a whole answer."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def refusal(status: int, words: str, headers: str = "") -> bytes:
    """Return an error in the form in which OpenAI's are."""
    return response(status, json.dumps({"error": {"message": words, "type": "benchmark"}}).encode(), headers)


class Connection(asyncio.Protocol):
    """One client's connection: requests come one after the other (nothing is pipelined)."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._open = False  # whether a request waits for its answer
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        self._close()
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end]
        lower = head.lower()
        place = lower.find(b"content-length:")
        length = int(lower[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        end = head_end + 4 + length
        if len(self._buffer) < end:
            return
        body, self._buffer = self._buffer[head_end + 4 : end], self._buffer[end:]
        self._handle(head, body)

    def _handle(self, head: bytes, raw: bytes) -> None:
        method, path = head.split(b" ", 2)[:2]
        server, key = self._server, self._server.settings.key
        if method == b"POST" and path.endswith(b"completions"):
            if key and f"Authorization: Bearer {key}".encode() not in head:
                self._transport.write(refusal(401, "this is not the key"))
            else:
                self._complete(json.loads(raw))
        elif path == b"/stats":
            self._transport.write(ok(json.dumps(asdict(server.stats)).encode()))
        elif path == b"/reset":
            server.reset()
            self._transport.write(ok(b"{}"))
        elif path.endswith(b"/models"):
            self._transport.write(ok(b'{"object": "list", "data": [{"id": "local", "object": "model"}]}'))
        elif path == b"/health":
            self._transport.write(ok(b'{"status": "ok"}'))
        else:
            self._transport.write(refusal(404, f"there is nothing at {path.decode()}"))

    def _complete(self, body: dict[str, Any]) -> None:
        server = self._server
        prompt, fault = server.begin(body)
        self._open = True
        if fault == "hang":
            return
        if fault is None and server.delay > 0:
            self._timer = server.loop.call_later(server.delay, self._answer, prompt, body)
        elif fault is None:
            self._answer(prompt, body)
        else:
            self._fail(fault, body)

    def _answer(self, prompt: int, body: dict[str, Any]) -> None:
        self._close()
        self._transport.write(self._server.answer(prompt, body))

    def _fail(self, fault: str, body: dict[str, Any]) -> None:
        after = self._server.settings.retry_after
        if fault == "reset":
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
            return
        whole = ok(self._server.completion(body, TEXT))
        if fault == "stall":
            self._transport.write(whole[: -len(whole) // 3])
            return
        answers: Mapping[str, Callable[[], bytes]] = {
            "limited": lambda: refusal(429, "too many requests", f"Retry-After: {after:g}\r\n"),
            "limited_date": lambda: refusal(429, "too many requests", f"Retry-After: {_date(after)}\r\n"),
            "error": lambda: refusal(500, "the server made a mistake"),
            "half": lambda: ok(self._server.completion(body, TEXT)[:100]),
            "empty": lambda: ok(self._server.completion(body, "")),
        }
        self._close()
        self._transport.write(answers[fault]())

    def _close(self) -> None:
        self._server.stats.in_flight -= self._open
        self._open = False


def _date(after_s: float) -> str:
    return email.utils.formatdate(time.time() + after_s, usegmt=True)


async def serve(settings: Settings, *, until_stdin_closes: bool = False) -> None:
    """Serve on a loopback address and print the port."""
    server = Server(settings)
    listener = await server.loop.create_server(lambda: Connection(server), "127.0.0.1", settings.port, backlog=4096)
    print(listener.sockets[0].getsockname()[1], flush=True)
    if until_stdin_closes:
        closed = asyncio.Event()
        server.loop.add_reader(0, lambda: closed.set() if not os.read(0, 1) else None)
        await closed.wait()
    else:
        await listener.serve_forever()


# --- from Python -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """A server in a process of its own. `url` is up to and with /v1."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The base URL of an endpoint."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> Stats:
        """Return what was asked so far."""
        return Stats(**json.loads(self._call("stats")))

    def reset(self) -> None:
        """Forget what was asked so far."""
        self._call("reset", b"")

    def _call(self, path: str, data: bytes | None = None) -> bytes:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy on this machine's own address
        with direct.open(f"http://127.0.0.1:{self.port}/{path}", data, timeout=60) as answer:
            body: bytes = answer.read()
            return body


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[Running]:
    """Run a server with these `Settings` in a process; it ends with the block, and also if this process dies."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = [sys.executable, str(Path(__file__).resolve()), "--until-stdin-closes", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Running(int(process.stdout.readline()), process)
        finally:
            process.terminate()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when whoever started this is gone")
    for option in fields(Settings):
        kind = type(option.default)
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=kind, default=option.default)
    given = vars(parser.parse_args(arguments))
    until_stdin_closes = given.pop("until_stdin_closes")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Settings(**given), until_stdin_closes=until_stdin_closes))


if __name__ == "__main__":
    main()
