"""Do teachers help a student that learns to choose? `python -m benchmarks.goals` reads it from the kept experiments.

It trains nothing: `results/choose` and `results/few-labels` have every answer (`make bench-results` makes them anew).
Each row is an accuracy on test questions beside another one; which method counts as the best is decided on validation
questions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import common
from benchmarks.common import ROOT, Reach, Result, Row, row, say
from tinyllm.comparison.results import Place, read_results

_ABOUT = """\
Accuracy in per cent on the test questions, the mean over seeds; the ratio is of two accuracies, seed by seed. *Best* is
the method with the highest accuracy on validation questions. Intervals and tests of the same answers: docs/results.md.
What each method is: `configs/experiments/choose.yaml` (all labels) and `few-labels.yaml` (a hundred labels; the other
training questions without)."""
_WITHOUT, _WITH = ("fine-tuning", "choices"), ("opinions", "no-labels")


class _Methods:
    """The accuracies of an experiment's methods on its only dataset."""

    def __init__(self, folder: Path) -> None:
        self._results = read_results(folder)
        (self._student,), (self.dataset,) = self._results.outline.students, self._results.outline.datasets

    def _place(self, method: str) -> Place:
        return Place(self._student, self.dataset, method)

    def has(self, method: str) -> bool:
        return bool(self._results.of(self._place(method)))

    def on_test(self, method: str) -> dict[int, float]:
        """Return per cent by seed. An untrained method has the same for every seed."""
        runs = self._results.runs(self._place(method), self._results.outline.scorer)
        assert runs is not None, method
        seeds = runs.seeds or self._results.outline.method("choices").sweep.seeds
        return dict(zip(seeds, (100 * runs.on(seeds).mean(axis=1)).tolist(), strict=True))

    def on_valid(self, method: str) -> float:
        found = [r.accuracy("valid", self._results.outline.scorer) for r in self._results.of(self._place(method))]
        return float(np.mean([a for a in found if a is not None]))

    def best(self, methods: Iterable[str]) -> str:
        """Return the method with the highest accuracy on validation questions."""
        return max(filter(self.has, methods), key=self.on_valid)

    def label(self, method: str) -> str:
        return self._results.outline.method(method).label

    def calibration_error(self, method: str) -> float:
        found = self._results.calibration(self._place(method))
        assert found is not None, method
        return found.error


def _beside(name: str, ours: dict[int, float], peer: dict[int, float], peer_name: str, least: float | None) -> Row:
    seeds = sorted(ours.keys() & peer.keys())
    reach = None if least is None else Reach("ratio", "at least", least)
    of = [[side[seed] for seed in seeds] for side in (ours, peer)]
    return row(name, of[0], of[1], unit="%", peer_name=peer_name, reach=reach)


def _rows(all_labels: _Methods, few: _Methods | None) -> Iterator[Row]:
    m, where = all_labels, all_labels.dataset
    yield _beside(f"{where}: choosing", m.on_test("choices"), m.on_test("fine-tuning"), m.label("fine-tuning"), 1.10)
    taught, alone = m.best(_WITH), m.best(_WITHOUT)
    best = f"{where}: best with opinions ({m.label(taught)})"
    yield _beside(best, m.on_test(taught), m.on_test(alone), f"best without ({m.label(alone)})", 1.05)
    yield _beside(best + ", control", m.on_test(taught), m.on_test("opinions-shuffled"), "opinions shuffled", None)
    yield _beside(f"{where}: with opinions", m.on_test(taught), m.on_test("fine-tuning"), m.label("fine-tuning"), None)
    before, none, every = (m.on_test(name) for name in ("inference", "no-labels", "choices"))
    shares = [(none[s] - before[s]) / (every[s] - before[s]) for s in sorted(none.keys() & every.keys())]
    yield row(
        f"{where}: opinions only, share of the gain of all labels",
        shares,
        unit="",
        reach=Reach("ours", "at least", 0.85),
    )
    errors = [m.calibration_error(taught)]
    yield row(f"{where}: calibration error (ECE)", errors, unit="", reach=Reach("ours", "at most", 0.05))
    if few is not None:
        where, more = few.dataset, few.on_test("opinions")
        yield _beside(f"{where}: opinions on the rest", more, few.on_test("choices"), "a hundred labels alone", 1.15)
        yield _beside(f"{where}: control", more, few.on_test("opinions-shuffled"), "opinions shuffled", None)
        yield _beside(f"{where}: against all labels", more, m.on_test("choices"), "all labels, no teacher", 1.0)


def goals(folder: Path) -> Result:
    """Compare the kept answers of both experiments."""
    few = folder / "few-labels"
    rows = list(_rows(_Methods(folder / "choose"), _Methods(few) if few.is_dir() else None))
    for r in rows:
        say(f"{r.name}: {r.ours} {r.unit} beside {r.peer} ({r.peer_name}), ratio {r.ratio}; {r.reach} {r.met}")
    return Result(
        name="goals-choose",
        title="Do teachers help a student that learns to choose?",
        about=_ABOUT,
        command="python -m benchmarks.goals",
        rows=rows,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="Folder of both experiments.")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="Folder of the result.")
    parser.add_argument("--note", help="Why something falls short, and what was tried; without it the old note stays.")
    options = parser.parse_args(arguments)
    common.write(goals(options.results), options.out, options.note)


if __name__ == "__main__":
    main()
