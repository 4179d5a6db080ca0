"""What every benchmark shares: paired rounds and their medians, what it was measured on, and the file of results.

A benchmark compares *ours* with a *peer*. Both are measured in turn, round after round, in one process tree, so that
what else the machine does meets both alike; ours, peer and their ratio are medians over the rounds. The first round
warms the caches of the disk up and does not count.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tinyllm.system.packaged import cache_folder

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_WRITTEN_HERE = (":!benchmarks/results", ":!docs/benchmarks.md")
PACKAGES = ("tinyllm-distill", "aiohttp", "xllamacpp", "pyarrow", "pydantic")


@dataclass(frozen=True)
class Reach:
    """What a row has to reach: a bound on its `ratio`, or on `ours` where there is nothing to compare it with."""

    of: Literal["ratio", "ours"]
    bound: Literal["at least", "at most"]
    value: float

    def __str__(self) -> str:
        sign = "≥" if self.bound == "at least" else "≤"
        return f"{self.of} {sign} {self.value:g}"

    def met(self, ours: float, ratio: float | None) -> bool:
        """Tell whether a row reaches it."""
        reached = ours if self.of == "ours" else ratio
        if reached is None:
            return False
        return reached >= self.value if self.bound == "at least" else reached <= self.value


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        ratio: ours / peer, the median over the rounds; None where there is no peer.
        spread: the least and the greatest ratio of a round; of `ours`, where there is no ratio.
        reach: a `Reach` in words; empty: this row only informs.
        met: whether that is reached; None where the row only informs.
    """

    name: str
    ours: float
    peer: float | None
    peer_name: str
    ratio: float | None
    reach: str
    met: bool | None
    unit: str
    spread: tuple[float, float]
    rounds: int


def row(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float] = (),
    *,
    unit: str,
    peer_name: str = "",
    reach: Reach | None = None,
) -> Row:
    """Make a line of paired figures; `ours[i]` and `peer[i]` are of the same round."""
    ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)] if peer and all(peer) else []
    ratio = statistics.median(ratios) if ratios else None
    median = statistics.median(ours)
    return Row(
        name=name,
        ours=_rounded(median),
        peer=_rounded(statistics.median(peer)) if peer else None,
        peer_name=peer_name,
        ratio=_rounded(ratio) if ratio is not None else None,
        reach=str(reach) if reach else "",
        met=reach.met(median, ratio) if reach else None,
        unit=unit,
        spread=(_rounded(min(ratios or ours)), _rounded(max(ratios or ours))),
        rounds=len(ours),
    )


def paired(rounds: int, *sides: Callable[[], float], say: Callable[[str], None]) -> list[list[float]]:
    """Measure all sides in every round, in alternating order; return the figures of each side.

    A round more than asked for is run; the first does not count.
    """
    figures: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        order = range(len(sides)) if number % 2 else reversed(range(len(sides)))
        measured = {side: sides[side]() for side in order}
        say(f"  round {number}: " + "   ".join(f"{measured[side]:.5g}" for side in range(len(sides))))
        if number:
            for side, value in measured.items():
                figures[side].append(value)
    return figures


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


# --- results -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What one benchmark found, as it is written to `<name>.json`.

    Attributes:
        about: what is measured and how, in Markdown.
        command: what makes it again.
        settings: sizes, latencies, …
        versions: of what the peers are made of; those of ours are added.
    """

    name: str
    title: str
    about: str
    command: str
    rows: Sequence[Row]
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def write(result: Result, folder: Path, note: str | None, *, replaces: Collection[str] | None = None) -> Path:
    """Write a result.

    Args:
        note: the reason where something falls short, and what was tried; None: the note that was there stays.
        replaces: the rows of these names are written anew, and others that were there stay: several commands make the
            file. None: all rows are written anew.
    """
    file = folder / f"{result.name}.json"
    before = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if note is None:
        note = before.get("note", "")
    others = [] if replaces is None else [r for r in before.get("rows", ()) if r["name"] not in replaces]
    commands = [result.command] if not others else sorted({*before["command"].split("; "), result.command})
    content = {
        "name": result.name,
        "title": result.title,
        "about": result.about,
        "command": "; ".join(commands),
        "machine": machine(),
        "versions": {**(before["versions"] if others else {}), **versions(), **result.versions},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "settings": {**(before["settings"] if others else {}), **result.settings},
        "rows": [*others, *(asdict(r) for r in result.rows)],
        "note": note or "",
    }
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return file


def machine() -> dict[str, Any]:
    """Return what of the machine matters; nothing that names it."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def versions() -> dict[str, str]:
    """Return the versions of what ours is made of."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit that is measured; with a plus, where the files differ from it, earlier results aside."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN_HERE))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


# --- processes ---------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def child(*command: str | Path | int, python: str | Path = sys.executable, env: Mapping[str, str] | None = None) -> Any:
    """Run a Python process from the repository's root, and return the JSON that is the last line it prints."""
    full = [str(python), *map(str, command)]
    done = subprocess.run(full, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(full)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def bench_cache() -> Path:
    """Return the folder for what benchmarks keep between runs: environments of peers, a big store. On the real disk."""
    folder = cache_folder() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
