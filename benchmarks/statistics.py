"""How well intervals and tests of experiments keep their promises, by simulation: `python -m benchmarks.statistics`.

Made-up experiments of known truth go through the functions that make every table (`tinyllm.comparison._seeds`).
Writes `benchmarks/results/statistics.json` and the tables in `docs/statistics.md`; about 20 minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from benchmarks import common
from benchmarks.common import RESULTS, ROOT, Result, Row, say
from tinyllm.comparison._seeds import ALPHA, Runs, Spread, difference, estimate, findable, holm

PAGE = ROOT / "docs" / "statistics.md"
BEGIN, END = "<!-- made by python -m benchmarks.statistics -->", "<!-- end -->"
SEEDS, QUESTIONS, SHARED, COMPARISONS = (1, 2, 3, 4, 5), (100, 400, 1000, 3000), (0.0, 0.5, 1.0), (2, 5, 20)
NOISES: Mapping[str, tuple[float, ...]] = {"equal": (0.15,), "unequal": (0.05, 0.0, 0.3, 0.15, 0.05)}
"""How much seeds differ, by method in turn, the baseline first: 0.15 is about four points of accuracy."""
LEVEL, EASE, OWN = -0.4, 1.0, 0.3
_POWER, _MOST_EFFECT = 0.8, 0.25
_AGAIN = 4  # a cell that misses by more than twice its error is drawn anew, so many times as often, and that counts
_FOUND = 2000  # experiments of two methods: so many to know the noise, and so many to count what is found


@dataclass(frozen=True, slots=True)
class World:
    """What an experiment is drawn from: a probit model of right and wrong.

    An answer is right where level + ease of the question + the method's way with it + goodness of the seed + luck > 0.

    Attributes:
        shared: of the seeds' variance, the share that is common to all methods; of luck half of it.
        noise: standard deviation of the seeds' goodness, one a method.
        levels: of each method; the same for all where no method is better.
    """

    seeds: int
    questions: int
    shared: float
    noise: tuple[float, ...]
    levels: tuple[float, ...]

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return right and wrong, (methods, seeds, questions), and the true accuracy of each method.

        With one seed the truth is that of this training: nothing can be said of others.
        """
        shape = len(self.levels), self.seeds, self.questions
        noise, levels = np.array(self.noise)[:, None], np.array(self.levels)
        common_, own = rng.normal(size=self.seeds), rng.normal(size=shape[:2])
        goodness = noise * (math.sqrt(self.shared) * common_ + math.sqrt(1 - self.shared) * own)
        ease = rng.normal(0, EASE, self.questions) + rng.normal(0, OWN, (shape[0], 1, self.questions))
        luck = math.sqrt(self.shared / 2) * rng.normal(size=(1, *shape[1:]))
        luck = luck + math.sqrt(1 - self.shared / 2) * rng.normal(size=shape)
        right = (levels[:, None, None] + ease + goodness[:, :, None] + luck > 0).astype(np.float64)
        if self.seeds == 1:
            return right, self.accuracy(levels + goodness[:, 0], 0.0)
        return right, self.accuracy(levels, noise[:, 0])

    @staticmethod
    def accuracy(level: Any, noise: Any) -> NDArray[np.float64]:
        """Return the accuracy over all questions and seeds."""
        found: NDArray[np.float64] = ndtr(level / np.sqrt(1 + EASE**2 + OWN**2 + np.square(noise)))
        return found

    def runs(self, right: NDArray[np.float64]) -> list[Runs]:
        """Return the methods' answers as an experiment keeps them."""
        return [Runs(of, tuple(range(self.seeds))) for of in right]


def world(seeds: int, questions: int, shared: float, noise: str, methods: int, effect: float = 0.0) -> World:
    """Return a world in which no method is better, or in which the second is better than the first by `effect`."""
    of = tuple(itertools.islice(itertools.cycle(NOISES[noise]), methods))
    levels = np.full(methods, LEVEL)
    # Seeds that differ more pull an accuracy towards a half; levels make up for it, so that all are equally good.
    levels *= np.sqrt(1 + EASE**2 + OWN**2 + np.square(of)) / math.sqrt(1 + EASE**2 + OWN**2)
    if effect:
        low, high = 0.0, 10.0
        base = float(World.accuracy(levels[0], of[0]))
        for _ in range(60):
            middle = (low + high) / 2
            above = float(World.accuracy(levels[1] + middle, of[1])) - base >= effect
            low, high = (low, middle) if above else (middle, high)
        levels[1] += high
    return World(seeds, questions, shared, of, tuple(levels.tolist()))


@dataclass(frozen=True)
class CellRow(Row):
    """A row with the cell that it is of."""

    seeds: int = 0
    questions: int = 0
    shared: float = 0.0
    noise: str = ""
    measure: str = ""
    comparisons: int | None = None
    points: float | None = None


def _row(
    cell: tuple[int, int, float, str], measure: str, value: float, times: int, met: bool | None, reach: str, **more: Any
) -> CellRow:
    seeds, questions, shared, noise = cell
    error = 2 * math.sqrt(max(value * (1 - value), 1 / times) / times)
    of = f", {more['comparisons']} comparisons" if "comparisons" in more else ""
    name = f"{measure}: {seeds} seeds, {questions} questions, {shared:g} shared, {noise} noise{of}"
    return CellRow(
        name, round(value, 4), None, "", None, reach, met, "", (round(value - error, 4), round(value + error, 4)),
        times, seeds, questions, shared, noise, measure, **more,
    )  # fmt: skip


def honest(cell: tuple[int, int, float, str], tables: int, rng: np.random.Generator) -> Iterator[CellRow]:
    """Yield how often intervals hold the truth, and how often an experiment has a wrong mark."""
    made = world(*cell, methods=max(COMPARISONS) + 1)
    held = np.zeros(2)
    wrong = dict.fromkeys(COMPARISONS, 0)
    for _ in range(tables):
        right, truth = made.draw(rng)
        baseline, *others = made.runs(right)
        p_values = []
        for runs, true in zip(others, truth[1:], strict=True):
            accuracy, gain = estimate(runs), difference((runs, baseline))
            assert accuracy is not None
            assert gain is not None
            held += (
                accuracy.ci95[0] <= true <= accuracy.ci95[1],
                gain.ci95[0] <= true - truth[0] <= gain.ci95[1],
            )
            p_values.append(gain.p)
        known = [p for p in p_values if p is not None]
        for count in COMPARISONS:
            wrong[count] += bool(known) and min(holm(known[:count])) < ALPHA
    for measure, share in zip(("coverage of an accuracy", "coverage of a difference"), held, strict=True):
        value = float(share) / tables / max(COMPARISONS)
        yield _row(cell, measure, value, tables, 0.93 <= value <= 0.97, "0.93 to 0.97")
    for count, times in wrong.items():
        rate, error = times / tables, 2 * math.sqrt(ALPHA * (1 - ALPHA) / tables)
        met = rate <= ALPHA + error
        yield _row(cell, "wrong marks", rate, tables, met, f"at most 0.05 + {error:.3f}", comparisons=count)


def powerful(cell: tuple[int, int, float, str], times: int, rng: np.random.Generator) -> Iterator[CellRow]:
    """Yield how often a difference is found of which it is said that it is found with a probability of 0.8."""
    made = world(*cell, methods=2)
    spreads: list[Spread] = []
    for _ in range(times):
        first, second = made.runs(made.draw(rng)[0])
        gain = difference((second, first))
        assert gain is not None
        spreads.append(gain.spread)
    for count in COMPARISONS:
        effect = findable(spreads, count, _POWER)
        if effect > _MOST_EFFECT:  # it would change the very noise that it is held against
            continue
        better, found = world(*cell, methods=2, effect=effect), 0
        for _ in range(times):
            first, second = better.runs(better.draw(rng)[0])
            gain = difference((second, first))
            found += gain is not None and gain.p is not None and gain.p * count < ALPHA
        value = found / times
        met = abs(value - _POWER) <= 0.05
        yield _row(
            cell,
            "power where 0.8 is stated",
            value,
            times,
            met,
            "0.75 to 0.85",
            comparisons=count,
            points=100 * effect,
        )


def simulate(tables: int, cells: Sequence[tuple[int, int, float, str]]) -> list[CellRow]:
    """Return the rows of all cells; each cell draws from a stream of its own."""
    rows: list[CellRow] = []
    for number, cell in enumerate(cells):
        began, rng = time.perf_counter(), np.random.default_rng([15, number])
        told = list(honest(cell, tables, rng))
        if any(row.met is False for row in told):  # of hundreds of rows some are beyond two standard errors by chance
            told = list(honest(cell, _AGAIN * tables, np.random.default_rng([15, number, 1])))
        rows += told
        if cell[0] > 1:
            rows += powerful(cell, min(_FOUND, 4 * tables), rng)
        say(f"{cell}: {time.perf_counter() - began:.0f} s; " + "; ".join(r.name for r in rows if r.met is False)[-300:])
    return rows


# --- the table ----------------------------------------------------------------------------------------------------


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of `docs/statistics.md`: a line for each number of seeds, with the ends of its cells."""
    head = (
        "seeds",
        "cells",
        "an accuracy's interval holds the truth",
        "a difference's",
        "wrong marks: 2, 5, 20 comparisons",
    )
    lines = [f"| {' | '.join(head)} | found where 80 % is stated |", "|---:|---:|---:|---:|---:|---:|"]
    for seeds in sorted({r["seeds"] for r in rows}):
        own = [r for r in rows if r["seeds"] == seeds]
        wrong = ", ".join(
            f"{100 * max(r['ours'] for r in own if r['measure'] == 'wrong marks' and r['comparisons'] == n):.1f} %"
            for n in COMPARISONS
        )
        cells = len({(r["questions"], r["shared"], r["noise"]) for r in own})
        holds = [_ends(own, f"coverage of {what}") for what in ("an accuracy", "a difference")]
        power = _ends(own, "power where 0.8 is stated") or "–"
        lines.append(
            f"| {seeds} | {cells} | {holds[0]} | {holds[1]} | {'no marks' if seeds == 1 else wrong} | {power} |"
        )
    return "\n".join(lines)


def _ends(rows: Sequence[Mapping[str, Any]], measure: str) -> str:
    values = [100 * r["ours"] for r in rows if r["measure"] == measure]
    return f"{min(values):.1f} to {max(values):.1f} %" if values else ""


def differences_found(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how large a difference has to be to be found in four of five experiments, by seeds and questions."""
    lines = [
        "| seeds | " + " | ".join(f"{q:,} questions" for q in QUESTIONS) + " |",
        f"|---:|{'---:|' * len(QUESTIONS)}",
    ]
    of = [r for r in rows if r["points"] is not None and (r["noise"], r["comparisons"]) == ("equal", 5)]
    for seeds in SEEDS[1:]:
        cells = []
        for questions in QUESTIONS:
            found = [r["points"] for r in of if (r["seeds"], r["questions"]) == (seeds, questions)]
            most = f"{max(found):.1f}" if len(found) == len(SHARED) else f"over {100 * _MOST_EFFECT:.0f}"
            cells.append(f"{min(found):.1f} to {most} points" if found else most)
        lines.append(f"| {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: Sequence[Mapping[str, Any]], tables: int) -> str:
    """Return `docs/statistics.md` with its tables made anew."""
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    rounds = {(r["seeds"], r["questions"], r["shared"], r["noise"]): r["rounds"] for r in rows if r["points"] is None}
    anew = sum(times == _AGAIN * tables for times in rounds.values())
    made = (
        f"{table(rows)}\n\nEach line is the worst and the best of its cells; each cell is {tables:,} experiments. What "
        f"missed by more\nthan the simulation's own error was drawn anew, {_AGAIN * tables:,} times, and that counts: "
        f"{anew} of {len(rounds)} cells.\n\n"
        f"{differences_found(rows)}\n\n"
        "From seeds that are wholly shared to seeds that are not shared, with five comparisons."
    )
    return f"{before}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}"


def read(folder: Path) -> dict[str, Any]:
    """Read what was found."""
    found: dict[str, Any] = json.loads((folder / "statistics.json").read_text("utf-8"))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and write, or only write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=1000, help="experiments a cell")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--page", action="store_true", help="only make the page anew of the results")
    options = parser.parse_args(arguments)
    if not options.page:
        cells = list(itertools.product(SEEDS, QUESTIONS, SHARED, NOISES))
        rows = simulate(options.tables, cells)
        missed = [r for r in rows if r.met is False]
        result = Result(
            name="statistics",
            title="What intervals and tests promise, and what they hold",
            about="Made-up experiments of known truth; see docs/statistics.md.",
            command="python -m benchmarks.statistics",
            rows=rows,
            settings={
                "tables": options.tables, "level": LEVEL, "ease": EASE, "own": OWN,
                "noises": {k: list(v) for k, v in NOISES.items()},
            },
        )  # fmt: skip
        common.write(result, options.results, None)
        for r in missed:
            say(f"missed: {r.name}: {r.ours} ({r.reach})")
    if options.results == RESULTS:
        found = read(options.results)
        PAGE.write_text(page(found["rows"], found["settings"]["tables"]), "utf-8")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
