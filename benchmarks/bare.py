"""The bare loop: posts recorded bodies with aiohttp, so many at once, reads the replies and keeps nothing.

`python -m benchmarks.bare URL BODIES IN_FLIGHT` prints `began`, `ended`, `replies` and `completion_tokens` as JSON.
It is what a client can get out of a server at best: no prompts to make, no checks, no retries, nothing stored.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp


async def ask_all(url: str, bodies: Sequence[dict[str, Any]], in_flight: int) -> dict[str, Any]:
    """Post all bodies to the completions of a base URL, each worker one after the other."""
    left = iter(bodies)
    tokens: list[int] = []

    async def work(session: aiohttp.ClientSession) -> None:
        for body in left:
            path = "chat/completions" if "messages" in body else "completions"
            async with session.post(f"{url}/{path}", json=body) as response:
                answer = await response.json()
            choice = answer["choices"][0]
            said = choice["message"]["content"] if "messages" in body else choice["text"]
            assert isinstance(said, str)
            tokens.append(answer["usage"]["completion_tokens"])

    timeout = aiohttp.ClientTimeout(total=3600)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight), timeout=timeout) as session:
        began = time.time()
        await asyncio.gather(*(work(session) for _ in range(in_flight)))
        ended = time.time()
    return {"began": began, "ended": ended, "replies": len(tokens), "completion_tokens": sum(tokens)}


def read_bodies(file: Path) -> list[dict[str, Any]]:
    """Read recorded bodies."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def main(url: str, bodies: str, in_flight: str) -> None:
    """Ask and print."""
    print(json.dumps(asyncio.run(ask_all(url, read_bodies(Path(bodies)), int(in_flight)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
