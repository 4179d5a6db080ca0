"""From the records of an experiment to its figures: what each method reaches, and whether that is more than noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyllm.comparison._seeds import (
    Calibration,
    Difference,
    Estimate,
    Runs,
    calibration,
    difference,
    estimate,
    holm,
)
from tinyllm.comparison.answers import SCORERS, Scorer
from tinyllm.comparison.outline import AVERAGE, MethodOutline, Outline, read_outline
from tinyllm.comparison.records import Failure, Record, read_failures, read_records
from tinyllm.comparison.selection import ALPHA, FAILED, Accuracies, Settings, accuracies, chosen, named, tuned
from tinyllm.config import compares_by_token
from tinyllm.errors import RunFolderError
from tinyllm.scoring.views import View


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a table a figure stands; `dataset` may be `AVERAGE`."""

    student: str
    dataset: str
    method: str


@dataclass(frozen=True, slots=True)
class Figure:
    """What a method reaches.

    Attributes:
        gain: over the baseline, on the seeds that both have; None for the baseline itself, and where no seed is common.
        holm: the gain's p-value, corrected for the whole family of comparisons (`Results.planned`); None where it is
            not tested: what has no seeds is no hypothesis of anyone's, one common seed says nothing of methods, and of
            several scorers only the experiment's own is tested.
        unparsed: share of the answers in writing that are no choice.
    """

    accuracy: Estimate
    gain: Difference | None = None
    holm: float | None = None
    unparsed: float | None = None


@dataclass(frozen=True, slots=True)
class Tested:
    """A comparison besides those with the baseline.

    Attributes:
        holm: its p-value, corrected for its whole family; None where it is not tested.
    """

    gain: Difference
    holm: float | None


@dataclass(frozen=True, slots=True)
class _Viewed:
    """The same runs asked twice: as it is, and in another view, with an interval over questions.

    Attributes:
        same: share of the answers that are the same both times.
    """

    asked: float
    viewed: Estimate
    same: float


class Results:
    """The figures of an experiment, each made when it is asked for, from the kept answers.

    Raises:
        RunFolderError: runs of one dataset and student were not asked the same questions.
    """

    def __init__(self, outline: Outline, records: Sequence[Record], failures: Sequence[Failure] = ()) -> None:
        self.outline = outline
        self.failures = failures
        self._groups: dict[Place, list[Record]] = {}
        for record in records:
            self._groups.setdefault(Place(record.student, record.dataset, record.method), []).append(record)
        self._check_questions(records)
        self._figures: dict[Scorer, dict[Place, Figure]] = {}
        self.settings = {place: self._chosen(place) for place in self.places()}

    def places(self) -> Iterable[Place]:
        """Yield all places of the tables, without averages: students, then methods, then datasets."""
        for student in self.outline.students:
            for method in self.outline.methods:
                for dataset in method.datasets:
                    yield Place(student, dataset, method.id)

    def of(self, place: Place) -> list[Record]:
        """Return the finished runs with a method's chosen settings, by seed; none as long as these are not known."""
        settings = self.settings.get(place)
        if settings is None:
            return []
        runs = (r for r in self._groups.get(place, []) if named(r.settings) == named(settings))
        return sorted(runs, key=lambda r: r.seed)

    def is_trained(self, method: str) -> bool:
        """Whether a method is one that has seeds at all."""
        return self.outline.method(method).kind != "reference"

    def all_of(self, place: Place) -> list[Record]:
        """Return all finished runs of a method, whatever their settings."""
        return self._groups.get(place, [])

    @cached_property
    def scorers(self) -> tuple[Scorer, ...]:
        """The scorers of which there are figures, the chief one first."""
        some = [records[0].answers for records in self._groups.values()]
        order = sorted(SCORERS, key=lambda s: s != self.outline.scorer)
        return tuple(s for s in order if any(a.scored(s) is not None for a in some))

    # --- tables ---------------------------------------------------------------------------------------------------

    def figures(self, scorer: Scorer) -> dict[Place, Figure]:
        """Return every figure of the tables, averages over datasets included; made once."""
        if scorer not in self._figures:
            self._figures[scorer] = self._made(scorer)
        return self._figures[scorer]

    def _made(self, scorer: Scorer) -> dict[Place, Figure]:
        found = {place: figure for place in self.places() if (figure := self._figure(place, scorer)) is not None}
        found |= dict(self._averages(scorer))
        corrected = self._corrected if scorer == self.outline.scorer else {}
        return {p: replace(f, holm=corrected.get((p, self.outline.baseline))) for p, f in found.items()}

    def _figure(self, place: Place, scorer: Scorer) -> Figure | None:
        runs = self.runs(place, scorer)
        accuracy = estimate(runs) if runs is not None else None
        if accuracy is None:
            return None
        unparsed = self._unparsed(place) if scorer == "generation" else None
        return Figure(accuracy, self._gain(place, scorer), unparsed=unparsed)

    def _gain(self, place: Place, scorer: Scorer) -> Difference | None:
        """Return how much a method is above the baseline; on the mean over datasets where the place is `AVERAGE`."""
        is_baseline = place.method == self.outline.baseline
        return None if is_baseline else self.compare(place, self.outline.baseline, scorer)

    def _averages(self, scorer: Scorer) -> Iterable[tuple[Place, Figure]]:
        if len(self.outline.datasets) < 2:
            return
        for student in self.outline.students:
            for method in self.outline.methods:
                place = Place(student, AVERAGE, method.id)
                known = self._everywhere(place, scorer)
                accuracy = estimate(*known) if known else None
                if accuracy is not None:
                    yield place, Figure(accuracy, self._gain(place, scorer))

    def _everywhere(self, place: Place, scorer: Scorer) -> list[Runs]:
        """Return the answers of a method on the dataset of a place, or on all datasets; empty where any lacks."""
        datasets = self.outline.datasets if place.dataset == AVERAGE else (place.dataset,)
        found = [self.runs(replace(place, dataset=dataset), scorer) for dataset in datasets]
        known = [runs for runs in found if runs is not None]
        return known if len(known) == len(found) else []

    def compare(self, place: Place, other: str, scorer: Scorer) -> Difference | None:
        """Return how much a method is above any other one, on the seeds that both have; None where there are none."""
        mine, others = self._everywhere(place, scorer), self._everywhere(replace(place, method=other), scorer)
        return difference(*zip(mine, others, strict=True)) if mine and others else None

    # --- what is tested -------------------------------------------------------------------------------------------

    def _hypotheses(self) -> list[tuple[Place, str]]:
        """Return every comparison that the experiment is out for, finished or not, as (place, the other method).

        Trained methods with the baseline on each dataset and on the average, and controls with their twins; whether a
        mark is shown must not depend on which of them happen to be done.
        """
        asked = [m for m in self.outline.methods if self.is_trained(m.id)]
        pairs = [(m, self.outline.baseline) for m in asked if m.id != self.outline.baseline]
        several = len(self.outline.datasets) > 1
        found = [
            (Place(student, dataset, m.id), other)
            for student in self.outline.students
            for m, other in pairs
            for dataset in (
                *m.datasets,
                *((AVERAGE,) if several and len(m.datasets) == len(self.outline.datasets) else ()),
            )
        ]
        return found + [
            (Place(student, dataset, control.id), twin.id)
            for student in self.outline.students
            for control, twin in self.controls()
            for dataset in control.datasets
            if twin.id != self.outline.baseline and dataset in twin.datasets
        ]

    def controls(self) -> list[tuple[MethodOutline, MethodOutline]]:
        """Return each control with the method that it is identical to but for the mixture."""
        pairs = [(m, self.outline.twin(m)) for m in self.outline.methods if m.kind == "control"]
        return [(control, twin) for control, twin in pairs if twin is not None]

    def planned(self) -> int:
        """Return how many comparisons Holm's method corrects for: the family is the same at any time."""
        return len(self._hypotheses())

    @cached_property
    def _corrected(self) -> dict[tuple[Place, str], float]:
        """The corrected p-value of each comparison that can be tested, by place and the other method."""
        scorer = self.outline.scorer
        gains = {h: self.compare(*h, scorer) for h in self._hypotheses()}
        p_values = {h: gain.p for h, gain in gains.items() if gain is not None and gain.p is not None}
        return dict(zip(p_values, holm(list(p_values.values()), self.planned()), strict=True))

    def against_twin(self, control: MethodOutline, twin: MethodOutline, student: str, dataset: str) -> Tested | None:
        """Return how much a control is above its twin; None where no seed is common."""
        place = Place(student, dataset, control.id)
        gain = self.compare(place, twin.id, self.outline.scorer)
        return None if gain is None else Tested(gain, self._corrected.get((place, twin.id)))

    @cached_property
    def against_majority(self) -> dict[Place, Tested]:
        """How much each method is above always giving the most frequent answer, in pairs on the same questions.

        A family of its own: all methods on all datasets. Without the places of which it is not known which questions
        that answer gets right.
        """
        gains = {place: gain for place in self.places() if (gain := self._over_majority(place)) is not None}
        p_values = {place: gain.p for place, gain in gains.items() if gain.p is not None}
        corrected = dict(zip(p_values, holm(list(p_values.values()), len(list(self.places()))), strict=True))
        return {place: Tested(gain, corrected.get(place)) for place, gain in gains.items()}

    def _over_majority(self, place: Place) -> Difference | None:
        known, runs = self.outline.datasets[place.dataset].majority_right, self.runs(place, self.outline.scorer)
        scored = self.of(place)[0].answers.scored(self.outline.scorer) if runs is not None else None
        if known is None or runs is None or scored is None:
            return None
        return difference((runs, Runs(np.isin(scored.ids, known)[None].astype(np.float64), None)))

    def runs(
        self, place: Place, scorer: Scorer, view: View = "asked", only: NDArray[np.bool_] | None = None
    ) -> Runs | None:
        """Return the answers of a method's runs to the test questions; None without any.

        Args:
            only: which questions to keep, (questions,).
        """
        return _runs(self.of(place), scorer, view, only, is_trained=self.is_trained(place.method))

    def ties(self, place: Place, scorer: Scorer) -> tuple[int, int]:
        """Return how many answers of a method's runs are ties, and of how many."""
        tied = [s.tied for r in self.of(place) if (s := r.answers.scored(scorer)) is not None]
        return sum(int((t > 1).sum()) for t in tied), sum(map(len, tied))

    def _unparsed(self, place: Place) -> float | None:
        scored = [s for r in self.of(place) if (s := r.answers.scored("generation")) is not None]
        return sum(s.unparsed for s in scored) / sum(len(s.ids) for s in scored) if scored else None

    # --- what lies behind the tables ------------------------------------------------------------------------------

    def tried(self, place: Place) -> list[tuple[Settings, float | None]]:
        """Return what a method could choose from, with what it chose by: accuracy on validation questions, first seed.

        None: not done yet; `FAILED`: it failed. Empty where there is nothing to choose.
        """
        sweep, found = self.outline.method(place.method).sweep, self._accuracies(place)
        candidates = [c for of in sweep.by_alpha() for c in of] if sweep.chooses else []
        return [(c, found.get((named(c), sweep.seeds[0]))) for c in candidates]

    def again(self, place: Place) -> float | None:
        """Return the validation accuracy of what was chosen, over the seeds by which it was not chosen.

        The accuracy by which it won is optimistic: it is the highest of several. None where there is no other seed, or
        where all of them were used (`alpha`).
        """
        sweep, records = self.outline.method(place.method).sweep, self.of(place)
        if sweep.alphas:
            return None
        others = (r.accuracy("valid", self.outline.scorer) for r in records if r.seed != sweep.seeds[0])
        found = [accuracy for accuracy in others if accuracy is not None]
        return float(np.mean(found)) if found else None

    def alpha_curve(self, place: Place, scorer: Scorer) -> list[tuple[float, Estimate]]:
        """Return the accuracy by α (the paper's Figure 2), each with the settings tuned for it."""
        method = self.outline.method(place.method)
        curve = []
        for settings in tuned(method.sweep, self._accuracies(place)):
            runs = [r for r in self.all_of(place) if named(r.settings) == named(settings)]
            found = _runs(runs, scorer, "asked", None)
            accuracy = estimate(found) if found is not None else None
            if ALPHA in settings and accuracy is not None:
                curve.append((float(settings[ALPHA]), accuracy))
        return curve

    @property
    def view_scorer(self) -> Scorer:
        """The scorer of the views, in which nothing is written."""
        return "likelihood" if self.outline.scorer == "generation" else self.outline.scorer

    def views(self, place: Place, view: View) -> _Viewed | None:
        """Return the accuracy in a view, by `view_scorer`, of the runs that were asked in it."""
        by = self.view_scorer
        runs = [r for r in self.of(place) if r.answers.scored(by, "test", view) is not None]
        found = _runs(runs, by, view, None, is_trained=self.is_trained(place.method))
        viewed = estimate(found) if found is not None else None
        if viewed is None:
            return None
        pairs = [(r.answers.scored(by), r.answers.scored(by, "test", view)) for r in runs]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        return _Viewed(
            asked=float(np.mean([a.right.mean() for a, _ in both])),
            viewed=viewed,
            same=float(np.mean([(a.chosen == b.chosen).mean() for a, b in both])),
        )

    def clean(self, place: Place, scorer: Scorer) -> Estimate | None:
        """Return the accuracy on the test questions that are met neither in training nor in validation.

        None where all or none are such.
        """
        facts = self.outline.datasets[place.dataset]
        met = {*facts.exact, *facts.ngram, *facts.valid_exact, *facts.valid_ngram}
        runs = self.of(place)
        scored = runs[0].answers.scored(scorer) if runs else None
        if not met or scored is None:
            return None
        only = np.array([i not in met for i in scored.ids])
        found = self.runs(place, scorer, only=only) if only.any() else None
        return None if found is None else estimate(found)

    def calibration(self, place: Place, *, calibrated: bool = True) -> Calibration | None:
        """Return how far the student's confidence can be believed, over all seeds; at each run's temperature, or at 1.

        Confidence is of the score that ranks: by token where the student is not shown the choices.
        """
        confidence, right = [], []
        for record in self.of(place):
            by_token = compares_by_token((record.config.get("student") or {}).get("layout", "labelled"))
            temperature = float(record.figures.get("temperature") or 1.0) if calibrated else 1.0
            of = record.answers.confidence("mean" if by_token else "total", temperature)
            scored = record.answers.scored("likelihood_normalised" if by_token else "likelihood")
            if of is not None and scored is not None:
                confidence.append(of)
                right.append(scored.right)
        return calibration(np.concatenate(confidence), np.concatenate(right)) if confidence else None

    def machines(self, student: str | None = None, dataset: str | None = None) -> Counter[str]:
        """Return how many runs were made on which machine; all, or those of a student and a dataset."""
        return Counter(
            record.machine
            for place, records in self._groups.items()
            if student in (None, place.student) and dataset in (None, place.dataset)
            for record in records
        )

    def timed(self, place: Place) -> list[Record]:
        """Return the runs whose times may be compared: those on the machine that made most of their dataset's."""
        ((most, _),) = self.machines(place.student, place.dataset).most_common(1) or [("", 0)]
        return [r for r in self.of(place) if r.machine == most]

    def seconds(self, place: Place) -> tuple[float, float] | None:
        """Return the mean seconds of training and of evaluation of the runs `timed`; None without any."""
        runs = self.timed(place)
        if not runs:
            return None
        train = [float((r.figures.get("train") or {}).get("seconds") or 0.0) for r in runs]
        ask = [float(r.figures.get("evaluate_seconds") or 0.0) for r in runs]
        return float(np.mean(train)), float(np.mean(ask))

    def _accuracies(self, place: Place) -> Accuracies:
        """Return the validation accuracies of a method's runs; those that failed have lost."""
        lost = [f for f in self.failures if Place(f.student, f.dataset, f.method) == place]
        failed = {(named(f.settings), f.seed): FAILED for f in lost}
        return failed | accuracies(self.all_of(place), self.outline.scorer)

    def _chosen(self, place: Place) -> Settings | None:
        method: MethodOutline = self.outline.method(place.method)
        return chosen(method.sweep, self._accuracies(place))

    def _check_questions(self, records: Sequence[Record]) -> None:
        first: dict[tuple[str, str, str], tuple[Record, str]] = {}
        for record in records:
            learnt = record.learnt if self.is_trained(record.method) else ""
            for what, of in (("were asked different", record.questions), ("learnt from different", learnt)):
                known, its = (
                    first.setdefault((record.student, record.dataset, what), (record, of)) if of else (record, of)
                )
                if of != its:
                    raise RunFolderError(
                        f"{known.folder} and {record.folder} {what} questions, so they cannot be compared. "
                        "Remove those of the older questions, and the experiment runs them again."
                    )


def _runs(
    records: Sequence[Record],
    scorer: Scorer,
    view: View,
    only: NDArray[np.bool_] | None,
    *,
    is_trained: bool = True,
) -> Runs | None:
    found = {r.seed: s.right for r in records if (s := r.answers.scored(scorer, "test", view)) is not None}
    if not found:
        return None
    if not is_trained:  # it has no seeds; one row stands for all
        found = dict([next(iter(found.items()))])
    right = np.stack(list(found.values()))
    return Runs(right if only is None else right[:, only], tuple(found) if is_trained else None)


def read_results(folder: Path) -> Results:
    """Read the records of an experiment that belong to its outline; its folder may hold more.

    Raises:
        RunFolderError: the folder holds no experiment, or a damaged record, or runs that cannot be compared.
    """
    outline, records = read_outline(folder), read_records(folder)
    known = {
        (student, dataset, m.id, seed)
        for student in outline.students for m in outline.methods for dataset in m.datasets for seed in m.sweep.seeds
    }  # fmt: skip
    mine = [r for r in records if (r.student, r.dataset, r.method, r.seed) in known]
    return Results(outline, mine, read_failures(folder))
