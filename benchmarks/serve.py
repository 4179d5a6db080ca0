"""The benchmark of serving: `python -m benchmarks.serve`, alone on the machine."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks import common
from benchmarks.common import ROOT, Reach, Result, child, row, say
from benchmarks.material import fresh_folder
from benchmarks.train import smollm_folder
from benchmarks.training.material import DATA
from tinyllm.config import DataSection, StudentSection
from tinyllm.questions import load_splits
from tinyllm.serving import Limits
from tinyllm.student.model import StudentCard, load_student, save_student

_WARM = 32
_ABOUT = """\
{count:,} questions of ARC's test split to SmolLM2-135M, untrained, layout `{layout}`, by {clients} clients. Each sends
a question to `POST /predict`, waits for its answer, and sends the next. The first peer is `tinyllm predict` on the same
questions in a file. The second is the same server with batches of one question. Latency is from a request to its
answer, at the client, on the same machine."""


@dataclass(frozen=True)
class _Load:
    """What clients saw.

    Attributes:
        rate: answers a second.
        p95_ms: latency that 95 of 100 requests stay below.
    """

    rate: float
    p50_ms: float
    p95_ms: float


def serve(count: int | None, layout: str, clients: int, rounds: int) -> Result:
    """Many clients at a server that batches, and at one that does not."""
    asked = list(load_splits(DataSection(folder=DATA / "arc", on_invalid="drop")).test)[:count]
    bodies = [{"question": q.question, "choices": list(q.choices)} for q in asked]
    ours, alone, filed = [], [], []
    with fresh_folder() as folder:
        card = StudentCard(prefixes={"answer": "predict: "}, layout=layout)  # type: ignore[arg-type]
        student, questions = folder / "student", folder / "questions.jsonl"
        save_student(load_student(StudentSection(model=smollm_folder()), card), student, "")
        lines = [{"id": str(n), **body} for n, body in enumerate(bodies)]
        questions.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        for number in range(rounds):
            filed.append(len(bodies) / child("-m", "benchmarks.predicting.ours", student, questions)["seconds"])
            alone.append(_load(student, 1, bodies, clients))
            ours.append(_load(student, Limits().batch, bodies, clients))
            say(f"  round {number}: predict {filed[-1]:.1f}/s, one at a time {alone[-1]}, batches {ours[-1]}")
    rates, singly = [load.rate for load in ours], [load.rate for load in alone]
    times, waits = [load.p95_ms for load in ours], [load.p95_ms for load in alone]
    return Result(
        name="serve",
        title="Serving",
        about=_ABOUT.format(count=len(bodies), layout=layout, clients=clients),
        command="python -m benchmarks.serve",
        rows=[
            row(
                "answers", rates, filed, unit="questions/s", peer_name="predict", reach=Reach("ratio", "at least", 0.8)
            ),
            row(
                "answers, batches of one", rates, singly, unit="questions/s", peer_name="one at a time",
                reach=Reach("ratio", "at least", 4),
            ),
            row("latency, 95th percentile", times, waits, unit="ms", peer_name="one at a time"),
            row(
                "latency, median", *([load.p50_ms for load in some] for some in (ours, alone)), unit="ms",
                peer_name="one at a time",
            ),
        ],
        settings={"questions": len(bodies), "layout": layout, "clients": clients},
    )  # fmt: skip


def _load(student: Path, batch: int, bodies: Sequence[dict[str, Any]], clients: int) -> _Load:
    with _served(student, batch) as url:
        asyncio.run(_all_asked(url, bodies[:_WARM], clients))
        began = time.perf_counter()
        seconds = asyncio.run(_all_asked(url, bodies, clients))
        rate = len(bodies) / (time.perf_counter() - began)
    p50, p95 = (float(np.percentile(seconds, p)) * 1000 for p in (50, 95))
    return _Load(round(rate, 2), round(p50, 1), round(p95, 1))


async def _all_asked(url: str, bodies: Sequence[dict[str, Any]], clients: int) -> list[float]:
    """Ask everything; return the seconds of each request."""
    left, took = iter(bodies), []

    async def one(client: aiohttp.ClientSession) -> None:
        for body in left:
            began = time.perf_counter()
            async with client.post(f"{url}/predict", json=body) as reply:
                if reply.status != 200:
                    raise SystemExit(f"The server says {reply.status}: {await reply.text()}")
                await reply.json()
            took.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    return took


@contextlib.contextmanager
def _served(student: Path, batch: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.predicting.served", str(student), str(batch)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stderr or ())
            yield next(found[1] for line in lines if (found := re.search(r"Serving on (http://\S+)", line)))
        finally:
            process.terminate()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its rows; those of the faults (`make test-faults`) stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=2, help="rounds")
    parser.add_argument("--questions", type=int, help="at most so many questions; by default all")
    parser.add_argument("--clients", type=int, default=32, help="requests at once")
    parser.add_argument(
        "--layout", default="cloze", choices=["cloze", "labelled"], help="how a question is written out"
    )
    parser.add_argument("--note", help="the reason where something falls short; without it, the one before stays")
    options = parser.parse_args(arguments)
    if not DATA.is_dir():
        raise SystemExit(f"The real data are not at {DATA}; this benchmark needs them.")
    result = serve(options.questions, options.layout, options.clients, options.rounds)
    file = common.write(result, options.out, options.note, replaces={line.name for line in result.rows})
    for line in result.rows:
        met = {True: "met", False: "NOT met", None: ""}[line.met]
        say(f"{result.name}: {line.name}: {line.ours:g} {line.unit}, ratio {line.ratio} {line.reach} {met}")
    say(f"wrote {file}")


if __name__ == "__main__":
    main()
