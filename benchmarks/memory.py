"""Peak memory of a generation, by the number of questions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.common import Reach, Result, Row, row, say
from benchmarks.material import (
    configuration,
    endpoint,
    fresh_folder,
    made_up,
    run_command,
    write_configuration,
)
from benchmarks.server import running

_ABOUT = """\
The greatest resident memory of `tinyllm generate`, from reading the questions to writing the run's files, with more
and more questions; each row against the smallest number of them. The teacher is {teacher}.
(The libraries alone take most of it: torch is loaded for the student's tokenizer.)"""
_TEACHERS = {"scripted": "scripted, so that nothing but TinyLLM costs anything", "openai": "a server without latency"}


def memory(sizes: Sequence[int], teacher: str, rounds: int) -> Result:
    """Measure with several numbers of questions.

    Args:
        teacher: scripted, or openai (a local server without latency).
    """
    smallest, *others = sorted(sizes)
    base = [_peak_mb(smallest, teacher) for _ in range(rounds)]
    rows = [row(f"{smallest:,} questions", base, unit="MB")]
    rows += [_row(size, smallest, base, teacher) for size in others]
    return Result(
        name="memory",
        title="Memory",
        about=_ABOUT.format(teacher=_TEACHERS[teacher]),
        command="python -m benchmarks.generate memory",
        rows=rows,
        settings={"questions": sorted(sizes), "teacher": teacher},
    )


def _row(size: int, smallest: int, base: Sequence[float], teacher: str) -> Row:
    # Once: a peak hardly differs from run to run, and the largest takes its time.
    peak = _peak_mb(size, teacher)
    return row(
        f"{size:,} questions", [peak], [statistics.median(base)],
        unit="MB", peer_name=f"{smallest:,} questions", reach=Reach("ratio", "at most", 1.2),
    )  # fmt: skip


def _peak_mb(size: int, teacher: str) -> float:
    with ExitStack() as stack:
        folder = stack.enter_context(fresh_folder())
        asked = {"kind": "scripted"} if teacher == "scripted" else endpoint(stack.enter_context(running()).url, 128)
        config = write_configuration(configuration(made_up(folder, size), asked), folder)
        done = run_command(config, folder)
    kept, megabytes = done.yields["teacher"]["rationales"], done.peak_bytes / 1e6
    say(f"memory: {size:,} questions: {megabytes:.0f} MB, {done.seconds:.0f} s, {kept:,} kept")
    if kept != size:
        raise SystemExit(f"memory: {kept} of {size} rationales were kept")
    return megabytes
