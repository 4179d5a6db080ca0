"""Asks a batch endpoint, in the test's own process or in a separate process that can be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tinyllm import config
from tinyllm.prompts import Prompt
from tinyllm.teachers._batch.client import BatchPace
from tinyllm.teachers._batch.teacher import OpenAIBatchTeacher
from tinyllm.teachers.base import ParameterRefused, Reply, Request, Sampling

SAMPLING = Sampling(max_tokens=32, temperature=0.5, top_p=0.9, seed=3, stop=("\n\n",))
QUICK = {
    "attempts": 3, "poll_s": 0.01, "gather_s": 0.02, "settle_s": 0.05, "silence_s": 5.0, "full_s": 5.0,
    "timeout_s": 10.0, "backoff_s": 0.01, "backoff_max_s": 0.02,
}  # fmt: skip


def requests(count: int) -> list[Request]:
    return [Request(f"q{i}", Prompt(text=f"Why {i}?"), SAMPLING) for i in range(count)]


def teacher(url: str, journal: Path, *, pace: dict | None = None, **fields) -> OpenAIBatchTeacher:
    fields = {"form": "completion", "api_key_env": None, "max_attempts": 3, "requests_per_batch": 100, **fields}
    spec = config.OpenAIBatchTeacher(name="t", kind="openai-batch", model="m", base_url=url, **fields)
    return OpenAIBatchTeacher(spec, journal, pace=BatchPace(**{**QUICK, **(pace or {})}))


async def ask(
    url: str, journal: Path, count: int, asked: list[Request] | None = None, *, learns: bool = False, **how
) -> list[object]:
    """Ask so many questions at once; returns texts, or what was raised. `learns`: as the scheduler does."""

    async def one(request: Request) -> Reply | None:
        try:
            return await t.ask(request)
        except ParameterRefused as refused:
            if not learns:
                raise
            if refused.manners == t.manners:
                t.manners = t.manners.without(refused.names, ())
            return await one(t.manners.form.applied_to(request))

    async with teacher(url, journal, **how) as t:
        replies = await asyncio.gather(*(one(r) for r in asked or requests(count)), return_exceptions=True)
    return [reply.text if isinstance(reply, Reply) else reply for reply in replies]


if __name__ == "__main__":
    print(asyncio.run(ask(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))), flush=True)
