"""What a demo takes and gives: `python -m benchmarks.demo LOG… [--avx2 LOG…]`, from what `make demo` printed.

A log is made in a fresh clone, alone on the machine: `(time -p make demo) > LOG 2>&1`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks import common
from benchmarks.common import Reach, Result, Row, row, say

_ABOUT = """\
`make demo` in {count} fresh clones with an empty home, alone on the machine or nearly so. The packages came from a
local disk, so *all* has no download in it. The steps are those that the demo prints; *other steps* have no imports in
them. The gains and their p-values, of 240 test questions each: {gains}."""
_AVX2 = """
*AVX2* is the same with `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2`, so that PyTorch
uses no AVX-512 and no BF16; installed already. Its gain: {gains}."""
_STEPS = ("Opinions", "Training", "Evaluating the untrained student", "Evaluating the student")
_STEP = re.compile(r"^✓ (.+?) · (?:(\d+) min )?(\d+) s", re.MULTILINE)
_GAIN = re.compile(r": (\+?-?[\d.]+ points \(95 % interval .+?, p = [\d.e-]+\)) on")
_ALL = re.compile(r"^real ([\d.]+)$|exit 0 after (\d+) s", re.MULTILINE)


def demo(logs: Sequence[str], avx2: Sequence[str]) -> Result:
    """Read the logs of demos on the machine as it is, and of demos without AVX-512."""
    about = _ABOUT.format(count=len(logs), gains="; ".join(map(_gain, logs)))
    if avx2:
        about += _AVX2.format(gains="; ".join(map(_gain, avx2)))
    return Result(
        name="demo",
        title="The demo",
        about=about,
        command="python -m benchmarks.demo LOG… --avx2 LOG…",
        rows=[*_rows(logs, ""), *_rows(avx2, "AVX2: ")],
        settings={"demos": len(logs), "avx2": len(avx2)},
    )


def _rows(logs: Sequence[str], mark: str) -> list[Row]:
    if not logs:
        return []
    times = [_times(log) for log in logs]
    others = [sum(seconds for step, seconds in of.items() if step not in _STEPS) for of in times]
    rows = [row(f"{mark}{step[0].lower()}{step[1:]}", [of.get(step, 0) for of in times], unit="s") for step in _STEPS]
    rows.append(row(f"{mark}other steps", others, unit="s"))
    steps = [sum(of.values()) for of in times]
    rows.append(row(f"{mark}all steps", steps, unit="s", reach=Reach("ours", "at most", 300)))
    if whole := [float(found[1] or found[2]) for log in logs if (found := _ALL.search(log))]:
        what = "all" if mark else "all, with the installation"
        rows.append(row(f"{mark}{what}", whole, unit="s"))
    return rows


def _times(log: str) -> dict[str, float]:
    """Return the seconds of each step. A step that is printed again was done already."""
    seconds: dict[str, float] = {}
    for step, minutes, rest in _STEP.findall(log):
        seconds[step] = seconds.get(step, 0) + 60 * int(minutes or 0) + int(rest)
    return seconds


def _gain(log: str) -> str:
    found = _GAIN.search(log)
    if found is None:
        raise SystemExit(
            "This is not the whole output of `make demo`: it does not end with the change of the accuracy."
        )
    return found[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the logs and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path, nargs="+", help="what `make demo` printed")
    parser.add_argument("--avx2", type=Path, nargs="*", default=[], help="the same, without AVX-512")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the result")
    parser.add_argument("--note", help="a remark; without it, the one before stays")
    options = parser.parse_args(arguments)
    result = demo(*([file.read_text("utf-8") for file in files] for files in (options.logs, options.avx2)))
    say(f"wrote {common.write(result, options.out, options.note)}")


if __name__ == "__main__":
    main()
