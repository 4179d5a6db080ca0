"""Requests per second at a local server, ours against a bare loop that stores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks.common import Reach, Result, Row, child, paired, row, say
from benchmarks.material import Tree, configuration, endpoint, fresh_folder, generate, made_up, record
from benchmarks.server import Running, running

_ABOUT = """\
Requests per second at a local server, a process of its own, that answers each request after {latency:g} s. *Ours* is
`tinyllm generate`: prompts with two examples, checks, every reply durably stored. The peer is a bare `aiohttp` loop
that posts the same bodies and keeps nothing. Both are measured from the first request's arrival at the server, ours
until every reply is durable, the loop until the last reply is read; starting Python, importing and reading the
questions count for neither. Every round starts with an empty store on the disk."""


def throughput(in_flight: Sequence[int], latency: float, rounds: int, least: int = 20, each: int = 40) -> Result:
    """Measure at several numbers of requests in flight.

    Args:
        latency: of the server, in seconds.
        least: requests in one round at least; else `each` for every one in flight.
    """
    rows = [_row(number, max(least, each * number), latency, rounds) for number in in_flight]
    return Result(
        name="throughput",
        title="Throughput",
        about=_ABOUT.format(latency=latency),
        command="python -m benchmarks.generate throughput",
        rows=rows,
        settings={"latency_s": latency, "requests": {str(n): max(least, each * n) for n in in_flight}},
    )


def _row(in_flight: int, count: int, latency: float, rounds: int) -> Row:
    say(f"throughput: {in_flight} in flight, {count} requests (ours, bare loop: requests per second)")
    with fresh_folder() as folder, running(latency=latency) as server:
        tree = configuration(made_up(folder, count), endpoint(server.url, in_flight))
        bodies = record(tree, folder / "bodies.jsonl")

        def ours() -> float:
            return ours_per_second(tree, count, server)

        def bare() -> float:
            return bare_per_second(bodies, in_flight, count, server)

        figures = paired(rounds, ours, bare, say=say)
    name = f"{in_flight} in flight"
    reach = Reach("ratio", "at least", 0.9)
    return row(name, *figures, unit="requests/s", peer_name="bare aiohttp loop", reach=reach)


def ours_per_second(
    tree: Tree, count: int, server: Running, *, until: Literal["durable", "written"] = "durable"
) -> float:
    """Generate with an empty store; return requests per second, from the first one's arrival.

    Args:
        until: every reply is durable, or also checked again and written into the run's files.
    """
    server.reset()
    found = generate(tree)
    stats = server.stats()
    kept = found["yields"]["teacher"]["rationales"]
    if (kept, stats.requests, stats.answered) != (count, count, count):
        raise SystemExit(f"{count} rationales were wanted, {kept} were kept; the server saw {stats}")
    ended = found["phases"]["Rationales"][1] if until == "durable" else found["ended"]
    return float(count / (ended - (stats.first_at or 0)))


def bare_per_second(bodies: Path, in_flight: int, count: int, server: Running) -> float:
    """Post the bodies; return requests per second, from the first one's arrival to the last reply."""
    server.reset()
    found = child("-m", "benchmarks.bare", server.url, bodies, in_flight)
    return float(count / (found["ended"] - (server.stats().first_at or 0)))
