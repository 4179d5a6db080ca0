"""The same questions with other packages, each in an environment of its own, at the settings that suit it best."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.common import Reach, Result, Row, bench_cache, child, paired, row, say
from benchmarks.material import configuration, endpoint, fresh_folder, made_up, record
from benchmarks.server import Running, running
from benchmarks.throughput import ours_per_second

_ABOUT = """\
The same {count:,} questions at a local server that answers after {latency:g} s, with TinyLLM and with other packages,
each in an environment of its own and at the settings that suit it best: no cache, no telemetry, no rate limit, batches
as large as what may be in flight; distilabel also with the batch shared by two processes. Measured from the first
request's arrival at the server until all replies are in hand (for TinyLLM: durable, checked, and the run's files
written); starting Python and importing count for nobody. With {numbers} in flight no client can get more than
{ceilings} requests/s out of this server."""

_UNIT = "requests/s"
_REACH = Reach("ratio", "at least", 4)


@dataclass(frozen=True)
class Peer:
    """One way to run another package.

    Attributes:
        package: names the environment and the script.
        requirements: what is installed there.
        arguments: of the script, after the server's address, the bodies and the number in flight.
    """

    package: str
    requirements: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """The environment's Python."""
        return bench_cache().parent / "bench-envs" / self.package / "bin" / "python"

    def install(self) -> None:
        """Make the environment, if it is not there."""
        done = self.python.parents[1] / ".installed"
        if done.is_file() and done.read_text("utf-8") == "\n".join(self.requirements):
            return
        say(f"peers: making an environment with {', '.join(self.requirements)}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", self.python.parents[1]], check=True)
        pip: list[str | Path] = [self.python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, *self.requirements], check=True, stdout=sys.stderr)
        done.write_text("\n".join(self.requirements), "utf-8")

    def versions(self) -> dict[str, str]:
        """Return the versions of what does the work in it."""
        wanted = ["distilabel", "bespokelabs-curator", "openai", "litellm", "httpx", "trl", "lm-eval", "lm_eval"]
        code = (
            "import importlib.metadata as m, json; "
            f"print(json.dumps({{d.name: d.version for d in m.distributions() if d.name in {wanted!r}}}))"
        )
        return {f"{self.package}: {name}": str(v) for name, v in child("-c", code, python=self.python).items()}

    def per_second(self, bodies: Path, in_flight: int, count: int, server: Running) -> float:
        """Run it; return requests per second, from the first one's arrival until it has all replies."""
        server.reset()
        script = Path(__file__).with_name(f"{self.package}_run.py")
        found = child(script, server.url, bodies, str(in_flight), *self.arguments, python=self.python)
        stats = server.stats()
        if found["replies"] != count or stats.most_in_flight > in_flight:
            raise SystemExit(f"{self.package}: {found['replies']} of {count} replies; the server saw {stats}")
        return float(count / (found["ended"] - (stats.first_at or 0)))


_DISTILABEL = ("distilabel[openai]==1.5.*", "requests")  # it imports requests and does not ask for it
PEERS: Mapping[str, Peer] = {
    "distilabel": Peer("distilabel", _DISTILABEL, ("1",)),
    "distilabel, two processes": Peer("distilabel", _DISTILABEL, ("2",)),
    "curator": Peer("curator", ("bespokelabs-curator==0.1.*",)),
}


def peers(count: int, in_flight: Sequence[int], latency: float, rounds: int) -> Result:
    """Measure all of them at several numbers of requests in flight."""
    for peer in PEERS.values():
        peer.install()
    return Result(
        name="peers",
        title="Other packages",
        about=_ABOUT.format(
            count=count,
            latency=latency,
            numbers=", ".join(f"{n:,}" for n in in_flight),
            ceilings=", ".join(f"{n / latency:,.0f}" for n in in_flight),
        ),
        command="python -m benchmarks.generate peers",
        rows=_all_rows(count, in_flight, latency, rounds),
        settings={"questions": count, "in_flight": list(in_flight), "latency_s": latency},
        versions={name: version for peer in PEERS.values() for name, version in peer.versions().items()},
    )


def _all_rows(count: int, in_flight: Sequence[int], latency: float, rounds: int) -> list[Row]:
    rows: list[Row] = []
    ours: list[list[float]] = []
    fastest: list[list[float]] = []
    for number in in_flight:
        mine, theirs = _measured(count, number, latency, rounds)
        ours.append(mine)
        fastest.append([max(figures) for figures in zip(*theirs, strict=True)])
        name = f"{number:,} in flight"
        rows += [row(name, mine, each, unit=_UNIT, peer_name=peer) for peer, each in zip(PEERS, theirs, strict=True)]
        rows.append(row(name, mine, fastest[-1], unit=_UNIT, peer_name="the fastest of them", reach=_REACH))
    name, peer = "each at what suits it best", "the fastest of them"
    return [row(name, _best(ours), _best(fastest), unit=_UNIT, peer_name=peer, reach=_REACH), *rows]


def _best(figures: Sequence[Sequence[float]]) -> list[float]:
    """Of each round, the best over the numbers in flight."""
    return [max(of_round) for of_round in zip(*figures, strict=True)]


def _measured(count: int, in_flight: int, latency: float, rounds: int) -> tuple[list[float], list[list[float]]]:
    say(f"peers: {in_flight} in flight, {count} requests (ours, {', '.join(PEERS)}: requests per second)")
    with fresh_folder() as folder, running(latency=latency) as server:
        tree = configuration(made_up(folder, count), endpoint(server.url, in_flight))
        bodies = record(tree, folder / "bodies.jsonl")
        sides = [partial(peer.per_second, bodies, in_flight, count, server) for peer in PEERS.values()]
        ours, *theirs = paired(rounds, partial(ours_per_second, tree, count, server, until="written"), *sides, say=say)
    return ours, theirs
