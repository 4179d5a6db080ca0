"""A server that bills every request it accepts, and one generation as a separate process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tinyllm.config import build_config
from tinyllm.questions import Question

PRICES = {"a": {"prompt": 3.0, "completion": 15.0}, "b": {"prompt": 0.5, "completion": 40.0, "cached": 0.1}}
TEXTS = (
    "Why is this so in {n}?",
    "为什么 {n} 会这样？请解释。",
    "यह {n} क्यों है?",
    "Γιατί {n} είναι έτσι;",
    "🧊 {n} 🧊?",
)


@dataclass
class Server:
    """Counts what it bills, in tokens and dollars. Every byte is a token to it, which is as dear as it can be.

    Attributes:
        mood: fates of requests and how likely each is.
        arrived: model, question, seed and time of each request.
    """

    draw: random.Random
    mood: dict[str, float]
    tokens: int = 0
    usd: float = 0.0
    arrived: list[tuple[str, str, int, float]] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        fate = self.draw.choices(list(self.mood), list(self.mood.values()))[0]
        if fate == "limit":
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})
        if fate == "error":
            return web.json_response({"error": {"message": "oops"}}, status=500)
        prompt = sum(len(m["content"].encode()) + 3 for m in body["messages"]) + 3
        said = body["max_tokens"] if self.draw.random() < 0.5 else self.draw.randint(0, body["max_tokens"])
        price = PRICES[body["model"]]
        self.tokens += prompt + said
        self.usd += (prompt * price["prompt"] + said * price["completion"]) / 1e6
        self.arrived.append((body["model"], body["messages"][-1]["content"], body["seed"], time.time()))
        await asyncio.sleep(self.draw.uniform(0, 0.02))
        if fate == "hang":
            await asyncio.sleep(1)
        if fate in ("reset", "gateway"):
            if fate == "gateway":
                return web.json_response({"error": {"message": "upstream timed out"}}, status=504)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fate == "garbage":
            return web.Response(text="<html>sorry</html>")
        usage = {"prompt_tokens": prompt, "completion_tokens": said} if fate != "uncounted" else None
        text = "It is right for a reason." if self.draw.random() < 0.8 else "…"
        return web.json_response({"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage})


@contextlib.contextmanager
def billing(draw: random.Random, mood: dict[str, float]) -> Iterator[Server]:
    """Serve on a free port, from a thread of its own."""
    server, loop, ready = Server(draw, mood), asyncio.new_event_loop(), threading.Event()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait()
    try:
        yield server
    finally:

        async def stop() -> None:
            await runner.cleanup()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
            loop.stop()

        asyncio.run_coroutine_threadsafe(stop(), loop)
        thread.join()


def questions(count: int) -> list[Question]:
    return [Question(f"q{n}", TEXTS[n % len(TEXTS)].format(n=n), ("yes", "no"), n % 2) for n in range(count)]


def configuration(url: str, budget: dict[str, Any], teachers: str) -> dict[str, Any]:
    """Return the configuration of a run with two teachers, of which some are in use."""
    endpoint = {"kind": "openai", "base_url": url, "api_key_env": None, "concurrency": 6, "timeout_s": 0.4}
    return {
        "name": "scene",
        "data": {"dataset": "starter"},
        "teachers": [
            {**endpoint, "name": n, "model": n, "price": PRICES[n], "max_attempts": 2, "thinking_tokens": 0}
            for n in "ab"
        ],
        "rationales": {"examples": {"count": 0}, "max_tokens": 40, "samples": 2, "budget": budget},
        "train": {"alpha": {n: float(n in teachers) for n in "ab"}},
    }


def generate(tree: dict[str, Any], run_dir: str, count: int) -> None:
    """Ask the teachers of a run, as `tinyllm generate` does after it has read the questions."""
    from tinyllm.errors import TeacherError
    from tinyllm.stages.asking import opened_asking
    from tinyllm.stages.folder import RunFolder
    from tinyllm.system.news import News

    config, run = build_config(tree), RunFolder(Path(run_dir))
    with (
        contextlib.suppress(KeyboardInterrupt, TeacherError),
        run.claimed(config, renews_rationales=True, wait_s=10.0),
        opened_asking(config, run, questions(count)) as asking,
    ):
        asking.ask(News(quiet=True), "Rationales")


def asked_twice(store: Path, server: Server) -> int:
    """Return how many requests arrived although their replies were in the store already."""
    from tinyllm.replies._store import Store

    stored = {}
    with Store(store) as opened:
        for request, created in opened._db.execute("SELECT request, created FROM replies"):
            asked = json.loads(request)
            seed = asked["sampling"]["seed"] + asked["sample"]
            stored[asked["identity"]["model"], asked["prompt"][-1][1], seed] = created
    return sum(stored.get((model, text, seed), at) < at for model, text, seed, at in server.arrived)
