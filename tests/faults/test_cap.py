"""The cap is hard: the server's bill never exceeds it, whatever happens to requests and processes."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from faults import billing
from forked import forking

QUESTIONS = 24
MOODS = (
    {"fine": 1.0},
    {"fine": 0.6, "hang": 0.2, "reset": 0.2},
    {"fine": 0.5, "limit": 0.2, "error": 0.2, "gateway": 0.1},
    {"fine": 0.5, "uncounted": 0.3, "garbage": 0.2},
    {"hang": 0.5, "reset": 0.5},
)


@pytest.fixture(scope="module")
def processes():
    """Processes are forked from one that has imported everything, so that each starts in milliseconds."""
    return forking()


def spelt(draw: random.Random, folder: Path) -> Path:
    """The run's folder, in one of the ways in which it can be spelt."""
    link = folder / "link"
    if not link.is_symlink():
        link.symlink_to("runs/mine")
    return draw.choice([folder / "runs" / "mine", link, folder / "runs" / ".." / "runs" / "mine"])


def end(draw: random.Random, process, *, first: bool) -> None:
    """Interrupt a process once or twice, kill it, or (but for the first) let it finish."""
    ways = [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGKILL], []]
    for number in draw.choice(ways[: 3 if first else 4]):
        time.sleep(draw.uniform(0, 0.25))
        if process.is_alive():
            os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode is not None, "it did not end"


def schedule(seed: int, folder: Path, processes) -> tuple[float, int]:
    """Run one schedule; return what was billed over the cap, and how many requests were asked twice."""
    draw = random.Random(seed)
    with billing.billing(draw, draw.choice(MOODS)) as server:
        usd, tokens = draw.choice([(0.01, None), (0.002, None), (None, 1500), (0.02, 3000), (0.0, None)])
        budget = {name: value for name, value in (("usd", usd), ("tokens", tokens)) if value is not None}
        for n in range(draw.randint(2, 4)):
            tree = billing.configuration(server.url, budget, draw.choice(["a", "b", "ab"]))
            where = spelt(draw, folder)
            where.parent.mkdir(parents=True, exist_ok=True)
            (folder / "runs" / "mine").mkdir(parents=True, exist_ok=True)
            process = processes.Process(target=billing.generate, args=(tree, str(where), QUESTIONS))
            process.start()
            end(draw, process, first=n == 0)
        time.sleep(0.05)  # what was on its way to the server
        ratios = [server.usd / usd if usd else float(server.usd > 0)] if usd is not None else []
        ratios += [server.tokens / tokens] if tokens is not None else []
        return max(ratios), billing.asked_twice(folder / "runs" / "replies.sqlite", server)


def test_the_bill_never_exceeds_the_cap(tmp_path, processes, full, figures):
    count = 500 if full else 10
    most, twice = 0.0, 0
    for seed in range(count):
        folder = tmp_path / str(seed)
        folder.mkdir()
        ratio, again = schedule(seed, folder, processes)
        assert ratio <= 1, f"schedule {seed} was billed {ratio} of its cap"
        assert again == 0, f"schedule {seed} asked {again} requests whose replies it had"
        most, twice = max(most, ratio), twice + again
    assert most > 0.5, "the cap must come into play"
    figures(
        "the cap", schedules=count, largest_billed_of_cap=f"{most:.3f}", asked_twice=twice, wrong=twice + (most > 1)
    )
