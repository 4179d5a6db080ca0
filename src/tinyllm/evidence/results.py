"""From the records of an experiment to its figures: what each method reaches, and whether that is more than noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tinyllm.errors import RunFolderError
from tinyllm.evaluation.comparison import (
    Calibration,
    Difference,
    Estimate,
    Right,
    SeedNoise,
    calibration,
    difference,
    estimate,
    holm,
)
from tinyllm.evaluation.views import View
from tinyllm.evidence.answers import SCORERS, Scorer
from tinyllm.evidence.outline import AVERAGE, MethodOutline, Outline, read_outline
from tinyllm.evidence.records import Failure, Record, read_failures, read_records
from tinyllm.evidence.selection import ALPHA, FAILED, Accuracies, Settings, accuracies, chosen, named, tuned

_DRAWS, _DRAWS_A_COMPARISON = 20_000, 1_000


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
        gain: over the baseline; None for the baseline itself, and where one of the two is lacking.
        holm: the gain's p-value, corrected for all comparisons of its kind; None where it is not tested: what has no
            seeds is no hypothesis of anyone's, and one seed of each says nothing of methods.
        unparsed: share of the answers in writing that are no choice.
    """

    accuracy: Estimate
    gain: Difference | None = None
    holm: float | None = None
    unparsed: float | None = None


@dataclass(frozen=True, slots=True)
class Viewed:
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
        self._noises: dict[tuple[str, str, Scorer], SeedNoise] = {}
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
        return self._corrected(found)

    def _figure(self, place: Place, scorer: Scorer) -> Figure | None:
        right = self.right(place, scorer)
        if right is None:
            return None
        other = self.right(replace(place, method=self.outline.baseline), scorer)
        is_compared = place.method != self.outline.baseline and other is not None
        noise = [self._noise(place.student, place.dataset, scorer)]
        gain = None
        if is_compared and other is not None:
            gain = difference((right, other), noise=noise, trained=self._trained(place.method), draws=self._draws)
        return Figure(
            estimate(right, noise=noise, is_trained=self.is_trained(place.method)),
            gain,
            unparsed=self._unparsed(place) if scorer == "generation" else None,
        )

    def _averages(self, scorer: Scorer) -> Iterable[tuple[Place, Figure]]:
        datasets = tuple(self.outline.datasets)
        if len(datasets) < 2:
            return
        for student in self.outline.students:
            base = [self.right(Place(student, d, self.outline.baseline), scorer) for d in datasets]
            noise = [self._noise(student, d, scorer) for d in datasets]
            for method in self.outline.methods:
                own = [self.right(Place(student, d, method.id), scorer) for d in datasets]
                known = [r for r in own if r is not None]
                if len(known) < len(datasets):
                    continue
                pairs = [(r, b) for r, b in zip(known, base, strict=True) if b is not None]
                is_compared = method.id != self.outline.baseline and len(pairs) == len(datasets)
                gain = None
                if is_compared:
                    gain = difference(*pairs, noise=noise, trained=self._trained(method.id), draws=self._draws)
                figure = estimate(*known, noise=noise, is_trained=self.is_trained(method.id))
                yield Place(student, AVERAGE, method.id), Figure(figure, gain)

    def _corrected(self, figures: dict[Place, Figure]) -> dict[Place, Figure]:
        """Correct the p-values of all single datasets together, and those of the averages together."""
        for are_averages in (False, True):
            tested = [
                (place, figure.gain)
                for place, figure in figures.items()
                if figure.gain is not None
                and figure.gain.knows_seeds
                and (place.dataset == AVERAGE) == are_averages
                and self.is_trained(place.method)
            ]
            p_values = holm([gain.p for _, gain in tested], self.planned(are_averages))
            for (place, _), p in zip(tested, p_values, strict=True):
                figures[place] = replace(figures[place], holm=p)
        return figures

    def planned(self, are_averages: bool = False) -> int:
        """Return how many comparisons with the baseline the experiment is out for: what Holm's method corrects for."""
        asked = [m for m in self.outline.methods if self.is_trained(m.id) and m.id != self.outline.baseline]
        columns = (
            int(len(m.datasets) == len(self.outline.datasets)) if are_averages else len(m.datasets) for m in asked
        )
        return len(self.outline.students) * sum(columns)

    def _trained(self, method: str, other: str | None = None) -> tuple[bool, bool]:
        """Whether the two that are compared have seeds."""
        return self.is_trained(method), self.is_trained(other or self.outline.baseline)

    def right(self, place: Place, scorer: Scorer, view: View = "asked", only: Right | None = None) -> Right | None:
        """Return right and wrong of a method's runs on the test questions, (seeds, questions); None without any.

        Args:
            only: which questions to keep, (questions,).
        """
        return _right(self.of(place), scorer, view, only)

    def _unparsed(self, place: Place) -> float | None:
        scored = [s for r in self.of(place) if (s := r.answers.scored("generation")) is not None]
        return sum(s.unparsed for s in scored) / sum(len(s.ids) for s in scored) if scored else None

    def compare(self, place: Place, other: str, scorer: Scorer) -> Difference | None:
        """Return how much a method is above any other one."""
        mine, others = self.right(place, scorer), self.right(replace(place, method=other), scorer)
        if mine is None or others is None:
            return None
        noise = [self._noise(place.student, place.dataset, scorer)]
        return difference((mine, others), noise=noise, trained=self._trained(place.method, other))

    @property
    def _draws(self) -> int:
        """So many draws that a p-value can be small enough to outlive the correction for all comparisons."""
        return max(_DRAWS, _DRAWS_A_COMPARISON * len(self.settings))

    def _noise(self, student: str, dataset: str, scorer: Scorer) -> SeedNoise:
        """Return how much seeds differ, as all methods on a dataset show it together."""
        name = student, dataset, scorer
        if name not in self._noises:
            places = [p for p in self.settings if (p.student, p.dataset) == (student, dataset)]
            rights = (self.right(p, scorer) for p in places)
            self._noises[name] = SeedNoise.of(*(r for r in rights if r is not None))
        return self._noises[name]

    # --- what lies behind the tables ------------------------------------------------------------------------------

    def tried(self, place: Place) -> list[tuple[Settings, float | None]]:
        """Return what a method could choose from, with what it chose by: accuracy on validation questions, first seed.

        None: not done yet; `FAILED`: it failed. Empty where there is nothing to choose.
        """
        sweep, found = self.outline.method(place.method).sweep, self._accuracies(place)
        candidates = [c for of in sweep.by_alpha() for c in of] if sweep.chooses else []
        return [(c, found.get((named(c), sweep.seeds[0]))) for c in candidates]

    def alpha_curve(self, place: Place, scorer: Scorer) -> list[tuple[float, Estimate]]:
        """Return the accuracy by α (the paper's Figure 2), each with the settings tuned for it."""
        method = self.outline.method(place.method)
        curve = []
        for settings in tuned(method.sweep, self._accuracies(place)):
            runs = [r for r in self.all_of(place) if named(r.settings) == named(settings)]
            right = _right(runs, scorer, "asked", None)
            if ALPHA in settings and right is not None:
                noise = [self._noise(place.student, place.dataset, scorer)]
                curve.append((float(settings[ALPHA]), estimate(right, noise=noise)))
        return curve

    @property
    def view_scorer(self) -> Scorer:
        """The scorer of the views, in which nothing is written."""
        return "likelihood" if self.outline.scorer == "generation" else self.outline.scorer

    def views(self, place: Place, view: View) -> Viewed | None:
        """Return the accuracy in a view, by `view_scorer`, of the runs that were asked in it."""
        by = self.view_scorer
        runs = [r for r in self.of(place) if r.answers.scored(by, "test", view) is not None]
        right = _right(runs, by, view, None)
        if right is None:
            return None
        pairs = [(r.answers.scored(by), r.answers.scored(by, "test", view)) for r in runs]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        return Viewed(
            asked=float(np.mean([a.right.mean() for a, _ in both])),
            viewed=estimate(right, noise=[SeedNoise()]),
            same=float(np.mean([(a.chosen == b.chosen).mean() for a, b in both])),
        )

    def clean(self, place: Place, scorer: Scorer) -> Estimate | None:
        """Return the accuracy on the test questions that are not met in training; None where all or none are such."""
        facts = self.outline.datasets[place.dataset]
        met = {*facts.exact, *facts.ngram}
        runs = self.of(place)
        scored = runs[0].answers.scored(scorer) if runs else None
        if not met or scored is None:
            return None
        only = np.array([i not in met for i in scored.ids])
        right = self.right(place, scorer, only=only)
        noise = [self._noise(place.student, place.dataset, scorer)]
        trained = self.is_trained(place.method)
        return None if right is None or not only.any() else estimate(right, noise=noise, is_trained=trained)

    def calibration(self, place: Place) -> Calibration | None:
        """Return how far the student's confidence can be believed, over all seeds."""
        confidence, right = [], []
        for record in self.of(place):
            of, scored = record.answers.confidence(), record.answers.scored("likelihood")
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
        asked: dict[tuple[str, str], Record] = {}
        for record in records:
            first = asked.setdefault((record.student, record.dataset), record)
            if first.questions != record.questions:
                raise RunFolderError(
                    f"{first.folder} and {record.folder} were asked different questions, so they cannot be compared. "
                    "Remove those of the older questions, and the experiment runs them again."
                )


def _right(records: Sequence[Record], scorer: Scorer, view: View, only: Right | None) -> Right | None:
    rows = [s.right for r in records if (s := r.answers.scored(scorer, "test", view)) is not None]
    if not rows:
        return None
    matrix: Right = np.stack(rows)
    return matrix if only is None else matrix[:, only]


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
