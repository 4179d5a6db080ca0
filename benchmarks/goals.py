"""Do teachers help a student that learns to choose? `python -m benchmarks.goals` reads it from the kept experiments.

It trains nothing: `results/choose`, `results/few-labels` and those beside them have every answer (`make bench-results`
makes a part anew).
Each row is an accuracy on test questions beside another one; which method counts as the best is decided on validation
questions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import common
from benchmarks.common import ROOT, Reach, Result, Row, say
from tinyllm.comparison.results import Place, Results, read_results

_ABOUT = """\
Accuracy in per cent on the test questions, the mean over seeds. The ratio is of two means, in brackets with its 95 %
interval; the difference in points is paired by question, and p includes how much seeds differ. With one seed nothing is
tested, and no goal counts as met. A goal is met only if its ratio is reached and p is below 0.05 after the correction:
Holm's for the comparisons that an experiment planned, Bonferroni's over one more than these for any other. *Best* is
the method with the highest accuracy on validation questions. What each method is: `configs/experiments/choose.yaml`
(ARC, all labels; `choose-more.yaml`: RiddleSense and PIQA; `text-or-choices.yaml`: OBQA, PubMedQA and BioASQ, without
opinions; a dataset without a finished run has no row), `few-labels.yaml` and `few-labels-obqa.yaml` (a hundred labels
to learn from and a hundred to validate with; the other training questions without; `few-labels-more.yaml`: the same on
RiddleSense and PIQA) and `qwen-student.yaml` (a larger student). Each dataset has one learning rate, where the goals
speak of six datasets and of tuned rates."""
_ALL = ("choose", "choose-more", "text-or-choices")
_FEW = ("few-labels", "few-labels-obqa", "few-labels-more")
_WHOLE = {"arc-100": "arc", "riddle-100": "riddle-800", "piqa-100": "piqa-800", "obqa-100": "obqa-800"}
"""The dataset with the labels that one with few labels lacks."""
_WITHOUT, _FEW_WITHOUT = ("fine-tuning", "choices", "both"), ("choices", "choices-short")
_WITH, _FEW_WITH = ("opinions",), ("opinions", "no-labels")
_ALPHA = 0.05
_GAIN = 3.0  # points; a share of a smaller gain is a share of noise


class _Methods:
    """The accuracies of an experiment's methods on one dataset; on its only one, if none is named."""

    def __init__(self, results: Results, dataset: str | None = None) -> None:
        self._results = results
        (self._student,) = results.outline.students
        self.dataset = dataset or next(iter(results.outline.datasets))

    def place(self, method: str) -> Place:
        return Place(self._student, self.dataset, method)

    def has(self, method: str) -> bool:
        return bool(self._results.of(self.place(method)))

    def seeds(self, method: str) -> int:
        return len(self._results.of(self.place(method)))

    def on_test(self, method: str, beside: str | None = None) -> float:
        """Return per cent, the mean over seeds; over the seeds that another method has, too, if one is given."""
        runs = self._results.runs(self.place(method), self._results.outline.scorer)
        assert runs is not None, method
        if beside is None:
            return 100 * float(runs.right.mean())
        other = self._results.runs(self.place(beside), self._results.outline.scorer)
        assert other is not None, beside
        if runs.seeds is None or other.seeds is None:  # one of them was not trained, so it has no seed
            return 100 * float(runs.right.mean())
        return 100 * float(runs.right[[seed in other.seeds for seed in runs.seeds]].mean())

    def on_valid(self, method: str) -> float:
        found = [r.accuracy("valid", self._results.outline.scorer) for r in self._results.of(self.place(method))]
        return float(np.mean([a for a in found if a is not None]))

    def best(self, methods: Iterable[str]) -> str:
        """Return the method with the highest accuracy on validation questions."""
        return max(filter(self.has, methods), key=self.on_valid)

    def label(self, method: str) -> str:
        return self._results.outline.method(method).label

    def calibration_error(self, method: str) -> float:
        found = self._results.calibration(self.place(method))
        assert found is not None, method
        return found.error

    def beside(self, name: str, method: str, other: str, least: float | None, what: str = "") -> Row:
        """Return the row of a method beside another one.

        Args:
            least: the goal of the ratio, which is met where the difference is significant as well; None: no goal.
            what: the other method in words.
        """
        gain = self._results.compare(self.place(method), other, self._results.outline.scorer)
        assert gain is not None, (method, other)
        assert gain.relative is not None
        assert gain.relative_ci95 is not None
        low, high = (100 * end for end in gain.ci95)
        p = "one seed, not tested" if gain.p is None else f"p = {gain.p:.2g}"
        shown = self._corrected(method, other)
        if shown is not None:
            p += f", after Holm {shown:.2g}"
        elif gain.p is not None:  # not planned, so it is corrected as if there were one planned comparison more
            shown = min(1.0, gain.p * (1 + self._results.planned()))
            p += f", after Bonferroni {shown:.2g}"
        ratio = 1 + gain.relative / 100
        reach = Reach("ratio", "at least", least) if least is not None else None
        return Row(
            name=f"{self.dataset}: {name}",
            ours=round(self.on_test(method, other), 2),
            peer=round(self.on_test(other, method), 2),
            peer_name=f"{what or self.label(other)}: {100 * gain.value:+.1f} points ({low:+.1f} to {high:+.1f}; {p})",
            ratio=round(ratio, 3),
            reach=str(reach or ""),
            met=None if reach is None or shown is None else reach.met(0, ratio) and shown < _ALPHA,
            unit="%",
            spread=(round(1 + gain.relative_ci95[0] / 100, 3), round(1 + gain.relative_ci95[1] / 100, 3)),
            rounds=gain.seeds,
        )

    def _corrected(self, method: str, other: str) -> float | None:
        """Return p after Holm's correction; None if the experiment did not plan to compare the two."""
        pair, outline = {method, other}, self._results.outline
        if outline.baseline in pair:
            (compared,) = pair - {outline.baseline}
            return self._results.figures(outline.scorer)[self.place(compared)].holm
        twins = ((c, t) for c, t in self._results.controls() if {c.id, t.id} == pair)
        tested = [self._results.against_twin(c, t, self._student, self.dataset) for c, t in twins]
        return tested[0].holm if tested and tested[0] is not None else None

    def share(self, name: str, method: str, every: float, before: float, least: float = 0.85) -> Iterator[Row]:
        """Yield the row of the part that a method has of the gain from `before` to `every` (per cent), if any."""
        if every - before < _GAIN:
            return
        found = (self.on_test(method) - before) / (every - before)
        seeds, reach = self.seeds(method), Reach("ours", "at least", least)
        met = reach.met(found, None) if seeds > 1 else None
        found = round(found, 3)
        yield Row(f"{self.dataset}: {name}", found, None, "", None, str(reach), met, "", (found, found), seeds)


def _all_labels(m: _Methods) -> Iterator[Row]:
    yield m.beside("choosing", "choices", "fine-tuning", 1.10)
    if m.has("both"):
        yield m.beside("writing and choosing", "both", "fine-tuning", None)
    alone = m.best(_WITHOUT)
    if m.has("opinions"):
        taught = m.best(_WITH)
        best = f"best with opinions ({m.label(taught)})"
        yield m.beside(best, taught, alone, 1.05, f"best without ({m.label(alone)})")
        if m.has("opinions-shuffled"):
            yield m.beside(f"{best}, control", taught, "opinions-shuffled", None)
        yield m.beside("with opinions", taught, "fine-tuning", None)
    if m.has("auto"):
        yield m.beside("auto", "auto", "fine-tuning", 1.1257)
    if m.has("no-labels"):
        every, before = m.on_test("choices"), m.on_test("inference")
        yield from m.share("opinions only, share of the gain of all labels", "no-labels", every, before)
    error, reach = round(m.calibration_error(alone), 4), Reach("ours", "at most", 0.05)
    name = f"{m.dataset}: calibration error (ECE) of {m.label(alone)}"
    met = reach.met(error, None) if m.seeds(alone) > 1 else None
    yield Row(name, error, None, "", None, str(reach), met, "", (error, error), m.seeds(alone))


def _few_labels(m: _Methods, whole: _Methods | None) -> Iterator[Row]:
    taught, alone = m.best(_FEW_WITH), m.best(_FEW_WITHOUT)
    best = f"opinions on the rest, best ({m.label(taught)})"
    yield m.beside(best, taught, alone, 1.15, f"best of a hundred labels alone ({m.label(alone)})")
    yield m.beside("opinions on the rest, control", "opinions", "opinions-shuffled", None)
    if whole is not None:
        name = f"opinions on the rest, best ({m.label(taught)}), share of what the missing labels give"
        yield from m.share(name, taught, whole.on_test("choices"), m.on_test(alone), 1.0)
    if m.has("no-labels"):
        yield m.beside("opinions alone", "no-labels", alone, None)
    if m.has("no-labels") and whole is not None:
        name = "opinions only and a hundred validation labels, share of the gain of all labels"
        yield from m.share(name, "no-labels", whole.on_test("choices"), whole.on_test("inference"))


def goals(folder: Path) -> Result:
    """Compare the kept answers of the experiments that are in a folder."""
    found = {name: read_results(at) for name in (*_ALL, *_FEW, "qwen-student") if (at := folder / name).is_dir()}

    def each(*names: str) -> Iterator[_Methods]:
        """Every dataset of some experiments of which a run is finished."""
        for results in (found[name] for name in names if name in found):
            yield from (m for d in results.outline.datasets if (m := _Methods(results, d)).has("choices"))

    whole = {m.dataset: m for m in each(*_ALL)}
    rows = [line for m in whole.values() for line in _all_labels(m)]
    for few in each(*_FEW):
        rows += _few_labels(few, whole.get(_WHOLE.get(few.dataset, "")))
    rows += [
        m.beside("a student of 0.5B parameters, choosing", "choices", "inference", None) for m in each("qwen-student")
    ]
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
