"""Makes docs/benchmarks.md of the files in benchmarks/results; `--check` only says whether it is up to date."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
ORDER = (
    "train-t5", "train-smollm-2", "train-smollm-4", "train-share", "evaluate", "predict", "predict-memory", "serve",
    "export", "page", "demo", "throughput", "peers", "memory", "startup", "real", "prefix",
)  # fmt: skip
_ELSEWHERE = ("statistics", "architectures")  # have hundreds of rows, and pages of their own
_INTRO = """\
# Benchmarks

`python -m benchmarks.table` makes this page from the files in `benchmarks/results`. The command under a title measures
that part anew, and `make bench-train`, `bench-generate`, `bench-evaluate` and `bench-use` measure groups of them, in up
to an hour each. Nothing else should run on the machine meanwhile.

*Ours* and the *peer* are measured in turn, round after round, in one process tree: what else the machine does meets
both alike. Each figure is the median over the rounds. *Ratio* is the median over the rounds of ours / peer, with the
least and the greatest of a round in brackets (of ours, where there is no peer). *Reach* is what was set as the goal
beforehand; a row without one only informs.
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page as Markdown: results by name, in the order in which they are run, other names after them."""
    parts = [_INTRO]
    names = [*(name for name in ORDER if name in results), *sorted(set(results) - set(ORDER))]
    parts += [_section(name, results[name]) for name in names]
    if not names:
        parts.append("No results yet.\n")
    return "\n".join(parts)


def _section(name: str, result: Mapping[str, Any]) -> str:
    """One result: its rows, and whatever it tells besides the machine, the versions, the date and the commit."""
    lines = [f"## {result.get('title', name)}", ""]
    for told in (f"`{result['command']}`" if "command" in result else "", result.get("about"), result.get("note")):
        lines += [told, ""] if told else []
    lines += ["| what | ours | peer | ratio | reach | met |", "|---|---:|---:|---:|---|---|"]
    lines += [_line(row) for row in result["rows"]]
    machine = result["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}"
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    counted = " or ".join(str(n) for n in sorted({row["rounds"] for row in result["rows"] if "rounds" in row}))
    when = f"{result['date'][:10]}, commit {result['commit']}" + (f", rounds: {counted}" if counted else "")
    lines += ["", f"<sub>{when}. {where}. {versions}.</sub>", ""]
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    spread = f" ({_number(row['spread'][0])}–{_number(row['spread'][1])})" if row.get("rounds", 1) > 1 else ""
    ours, ratio = f"{_number(row['ours'])} {row['unit']}", ""
    if row["ratio"] is None:
        ours += spread
    else:
        ratio = f"{_number(row['ratio'])}{spread}"
    peer = "" if row["peer"] is None else f"{_number(row['peer'])} {row['unit']}, {row['peer_name']}"
    met = {True: "yes", False: "**no**", None: ""}[row["met"]]
    return f"| {row['name']} | {ours} | {peer} | {ratio} | {row['reach']} | {met} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Read all results, by the names of their files."""
    files = (file for file in sorted(folder.glob("*.json")) if file.stem not in _ELSEWHERE)
    return {file.stem: json.loads(file.read_text("utf-8")) for file in files}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is not up to date")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    options = parser.parse_args(arguments)
    text = page(read(options.results))
    if not options.check:
        options.page.write_text(text, "utf-8")
    elif not options.page.is_file() or options.page.read_text("utf-8") != text:
        sys.exit("docs/benchmarks.md is out of date: run `python -m benchmarks.table`")


if __name__ == "__main__":
    main()
