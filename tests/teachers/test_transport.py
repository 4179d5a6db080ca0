"""Every time limit, and every way in which a reply can break, with a real server."""

import asyncio
import socket

import pytest
from fake_endpoint import FakeEndpoint, drop, good, hang, raw, reset, status, wire
from http_teacher import QUICK, TEXT, ask, teacher

from tinyllm.errors import TeacherError
from tinyllm.teachers._http.transport import Patience, proxy_for
from tinyllm.teachers.base import RequestFailed

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = b'{"choices": [{"text": "Because it is so.", "finish_reason": "stop"}]}'
SIZED = HEAD + b"Content-Length: %d\r\n\r\n" % len(WHOLE)

BROKEN = {
    "cut before the head": drop,
    "reset before the head": reset,
    "half a head": wire(b"HTTP/1.1 200 OK\r\nConte", then="drop"),
    "half a body": wire(SIZED + WHOLE[:20], then="drop"),
    "half a body, then reset": wire(SIZED + WHOLE[:20], then="reset"),
    "half a chunk": wire(HEAD + b"Transfer-Encoding: chunked\r\n\r\n40\r\n{", then="drop"),
    "a chunk of no size": wire(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", then="hang"),
    "gzip that is none": wire(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde", then="hang"),
    "no HTTP": wire(b"SSH-2.0-OpenSSH_9.6\r\n", then="drop"),
    "half of the JSON": raw('{"choices": [{"text": "Becau'),
    "bytes that are no text": wire(HEAD + b"Content-Length: 2\r\n\r\n\xff\xfe", then="drop"),
}
MALFORMED = ("half of the JSON", "bytes that are no text")


@pytest.mark.parametrize("name", BROKEN)
def test_a_reply_that_breaks_is_asked_for_again_and_counted(name):
    async def run():
        async with FakeEndpoint(BROKEN[name], BROKEN[name], good) as server, teacher(server.url) as asked:
            return await asked.ask(TEXT), dict(asked.faults)

    reply, faults = asyncio.run(run())
    assert reply.text == "Because it is so."
    assert faults == {"malformed" if name in MALFORMED else "connection": 2}


def test_a_reply_that_comes_bit_by_bit_is_read_whole():
    bits = wire(SIZED, *(WHOLE[i : i + 8] for i in range(0, len(WHOLE), 8)), then="hang", every_s=0.02)
    _, (reply,) = ask(bits, patience=Patience(attempts=1, first_byte_s=2.0, stall_s=2.0))
    assert reply.text == "Because it is so."


@pytest.mark.parametrize(
    ("answer", "patience", "says"),
    [
        (hang, Patience(attempts=2, backoff_s=0.01, timeout_s=0.2), "no reply in 0.2 s"),
        (hang, Patience(attempts=2, backoff_s=0.01, timeout_s=60, first_byte_s=0.2), "no reply in 0.2 s"),
        (hang, Patience(attempts=2, backoff_s=0.01, timeout_s=0.2, first_byte_s=60), "no reply in 0.2 s"),
        (
            wire(SIZED + WHOLE[:20], then="hang"),
            Patience(attempts=2, backoff_s=0.01, timeout_s=60, stall_s=0.2),
            "its reply stood still for 0.2 s",
        ),
        (
            wire(SIZED + WHOLE[:20], then="hang"),
            Patience(attempts=2, backoff_s=0.01, timeout_s=0.3),
            "no whole reply in 0.3 s",
        ),
        (
            wire(SIZED, *([b" "] * 60), then="hang", every_s=0.05),  # never still, never done
            Patience(attempts=2, backoff_s=0.01, timeout_s=0.6, stall_s=0.5),
            "no whole reply in 0.6 s",
        ),
    ],
    ids=["nothing", "no first byte", "first byte allowed for longer", "stall", "whole", "whole, bit by bit"],
)
def test_a_timeout_names_its_limit(answer, patience, says):
    async def run():
        async with FakeEndpoint(answer) as server, teacher(server.url, patience=patience) as asked:
            with pytest.raises(RequestFailed) as caught:
                await asked.ask(TEXT)
            return str(caught.value), dict(asked.faults)

    words, faults = asyncio.run(run())
    assert says in words
    assert faults == {"timeout": 2}


def test_a_connection_that_is_never_made_is_given_up_in_its_own_time():
    with socket.socket() as full:  # a queue of one that nobody takes from: the system lets the others wait
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(where)

        async def run():
            patience = Patience(attempts=1, timeout_s=60, connect_s=0.2)
            async with teacher(f"http://127.0.0.1:{where[1]}/v1", patience=patience) as asked:
                await asked.ask(TEXT)

        try:
            with pytest.raises(TeacherError, match=r"no connection in 0\.2 s"):
                asyncio.run(run())
        finally:
            for filler in fillers:
                filler.close()


def test_a_cancelled_request_is_no_timeout_and_does_not_affect_others():
    async def run():
        async with FakeEndpoint(hang, good) as server, teacher(server.url, concurrency=1) as asked:
            hanging = asyncio.create_task(asked.ask(TEXT))
            while not server.requests:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(asked.ask(TEXT))
            await asyncio.sleep(0.05)
            hanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging
            return await waiting, dict(asked.faults)

    reply, faults = asyncio.run(run())
    assert reply.text
    assert faults == {}


def test_a_busy_server_gets_the_pause_that_it_asks_for():
    server, (reply,) = ask(status(503, "loading", retry_after="0.3"), good, patience=Patience(backoff_s=0.001))
    assert reply.text
    assert server.times[1] - server.times[0] >= 0.3
    server, _ = ask(status(503, "loading", retry_after="3600"), good, patience=QUICK)
    assert server.times[1] - server.times[0] < 10  # within the bounds of backing off


def test_proxies_are_used_only_for_other_machines(monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("https://api.example.com/v1") is None
    monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example.com:3128")
    assert proxy_for("https://api.example.com/v1") == "http://proxy.example.com:3128"
    assert proxy_for("http://127.0.0.1:8000/v1") is None
    monkeypatch.setenv("no_proxy", "example.com")
    assert proxy_for("https://api.example.com/v1") is None


def test_a_proxy_is_used(monkeypatch):
    async def run():
        async with FakeEndpoint() as server:
            seen = []

            async def forward(reader, writer):
                head = await reader.readuntil(b"\r\n\r\n")
                seen.append(head.split(b"\r\n")[0].decode())
                there, out = await asyncio.open_connection("127.0.0.1", server.port)
                out.write(head + await reader.read(65536))
                writer.write(await there.read(65536))
                await writer.drain()
                out.close()
                writer.close()

            proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
            async with proxy:
                port = proxy.sockets[0].getsockname()[1]
                monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
                monkeypatch.setenv("no_proxy", "")
                async with teacher("http://far.invalid/v1") as asked:
                    return await asked.ask(TEXT), seen

    reply, seen = asyncio.run(run())
    assert reply.text == "Because it is so."
    assert seen == ["POST http://far.invalid/v1/completions HTTP/1.1"]
