"""Shared by the tests of HTTP teachers: a teacher with short timeouts, its requests, and one call that asks."""

from __future__ import annotations

import asyncio

from fake_endpoint import FakeEndpoint

from tinyllm import config
from tinyllm.prompts import Message, Prompt
from tinyllm.teachers._http.transport import Patience
from tinyllm.teachers._openai import OpenAITeacher
from tinyllm.teachers.base import Request, Sampling

QUICK = Patience(attempts=3, timeout_s=5.0, backoff_s=0.01, backoff_max_s=0.05, rate_limit_s=3.0)
SAMPLING = Sampling(max_tokens=32, temperature=0.5, top_p=0.9, seed=3, stop=("\n\n",))
TEXT = Request("q1", Prompt(text="Why?"), SAMPLING)
CHAT = Request("q1", Prompt(messages=(Message("system", "Explain."), Message("user", "Why?"))), SAMPLING, sample=2)


def teacher(url: str, patience: Patience = QUICK, **other) -> OpenAITeacher:
    fields = {"form": "completion", "api_key_env": None, "concurrency": 4, **other}
    spec = config.OpenAITeacher(name="t", kind="openai", model="m", base_url=url, **fields)
    return OpenAITeacher(spec, patience=patience)


def ask(*answers, request: Request = TEXT, times: int = 1, **other):
    """Ask a server that gives these answers; returns the server and the replies (or what was raised)."""

    async def run():
        async with FakeEndpoint(*answers) as server, teacher(server.url, **other) as asked:
            return server, await asyncio.gather(*(asked.ask(request) for _ in range(times)), return_exceptions=True)

    return asyncio.run(run())
