"""Results: the figures of an experiment, made from its records, with the tests of its comparisons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tinyllm.comparison._seeds import Calibration, Difference, Estimate, Runs, calibration, difference, estimate, holm
from tinyllm.comparison._stored import from_json
from tinyllm.comparison.answers import SCORERS, Scorer
from tinyllm.comparison.outline import AVERAGE, MethodOutline, Outline
from tinyllm.comparison.records import Failure, Record, failures, read_records
from tinyllm.comparison.selection import ALPHA, FAILED, Accuracies, Settings, accuracies, named
from tinyllm.config import compares_by_token
from tinyllm.errors import RunFolderError
from tinyllm.scoring.predictions import View
from tinyllm.system.files import read_json

_K = TypeVar("_K")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a figure in a table. `dataset` can be `AVERAGE`."""

    student: str
    dataset: str
    method: str


@dataclass(frozen=True, slots=True)
class Figure:
    """The accuracy of a method.

    Attributes:
        gain: the difference from the baseline on common seeds; None for the baseline, and without a common seed.
        holm: p-value of the gain, corrected for all planned comparisons (`Results.planned`). None where nothing is
            tested: for untrained methods, with one common seed, and for scorers other than the experiment's own.
        unparsed: the share of written answers that match no choice.
    """

    accuracy: Estimate
    gain: Difference | None = None
    holm: float | None = None
    unparsed: float | None = None


@dataclass(frozen=True, slots=True)
class _Tested:
    """A comparison with something else than the baseline. `holm` is its corrected p-value; None if it is not tested."""

    gain: Difference
    holm: float | None


@dataclass(frozen=True, slots=True)
class _Viewed:
    """Accuracies of the same runs in the view `asked` and in another view. `same` is the share of equal answers."""

    asked: float
    viewed: Estimate
    same: float


class Results:
    """The figures of an experiment. Each one is computed when it is asked for.

    Raises:
        RunFolderError: runs of one dataset and student have different questions.
    """

    def __init__(self, outline: Outline, records: Sequence[Record], failures: Sequence[Failure] = ()) -> None:
        self.outline = outline
        self.failures = failures
        self._groups: dict[Place, list[Record]] = {}
        for record in records:
            self._groups.setdefault(Place(record.student, record.dataset, record.method), []).append(record)
        self._check_questions(records)
        self._figures: dict[Scorer, dict[Place, Figure]] = {}
        self.settings = {
            place: self.outline.method(place.method).sweep.chosen(self._accuracies(place)) for place in self.places()
        }

    def places(self) -> Iterable[Place]:
        """Yield all places of the tables without averages, by student, method and dataset."""
        for student in self.outline.students:
            for method in self.outline.methods:
                for dataset in method.datasets:
                    yield Place(student, dataset, method.id)

    def of(self, place: Place) -> list[Record]:
        """Return the finished runs with the chosen settings, by seed; none while the settings are not known."""
        settings = self.settings.get(place)
        if settings is None:
            return []
        return sorted(self._with(place, settings), key=lambda r: r.seed)

    def _with(self, place: Place, settings: Settings) -> list[Record]:
        return [r for r in self.all_of(place) if named(r.settings) == named(settings)]

    def is_trained(self, method: str) -> bool:
        """Whether a method is trained, and so has seeds."""
        return self.outline.method(method).kind != "reference"

    def all_of(self, place: Place) -> list[Record]:
        """Return all finished runs of a method, with any settings."""
        return self._groups.get(place, [])

    @cached_property
    def scorers(self) -> tuple[Scorer, ...]:
        """The scorers that were used. The experiment's own scorer comes first."""
        some = [records[0].answers for records in self._groups.values()]
        order = sorted(SCORERS, key=lambda s: s != self.outline.scorer)
        return tuple(s for s in order if any(a.scored(s) is not None for a in some))

    # --- tables ---------------------------------------------------------------------------------------------------

    def figures(self, scorer: Scorer) -> dict[Place, Figure]:
        """Return all figures of the tables, with averages over datasets."""
        if scorer not in self._figures:
            places = list(self.places())
            if len(self.outline.datasets) > 1:
                places += [Place(s, AVERAGE, m.id) for s in self.outline.students for m in self.outline.methods]
            found = {place: self._figure(place, scorer) for place in places}
            self._figures[scorer] = {place: figure for place, figure in found.items() if figure is not None}
        return self._figures[scorer]

    def _figure(self, place: Place, scorer: Scorer) -> Figure | None:
        known, baseline = self._everywhere(place, scorer), self.outline.baseline
        accuracy = estimate(*known) if known else None
        if accuracy is None:
            return None
        return Figure(
            accuracy,
            None if place.method == baseline else self.compare(place, baseline, scorer),
            self._corrected.get((place, baseline)) if scorer == self.outline.scorer else None,
            self._unparsed(place) if scorer == "generation" else None,
        )

    def _everywhere(self, place: Place, scorer: Scorer) -> list[Runs]:
        """Return a method's answers on a place's dataset, or on all datasets for `AVERAGE`; empty if any is missing."""
        datasets = self.outline.datasets if place.dataset == AVERAGE else (place.dataset,)
        found = [self.runs(replace(place, dataset=dataset), scorer) for dataset in datasets]
        known = [runs for runs in found if runs is not None]
        return known if len(known) == len(found) else []

    def compare(self, place: Place, other: str, scorer: Scorer) -> Difference | None:
        """Return the difference of a method from another one on common seeds; None without any."""
        mine, others = self._everywhere(place, scorer), self._everywhere(replace(place, method=other), scorer)
        return difference(*zip(mine, others, strict=True)) if mine and others else None

    # --- tests ----------------------------------------------------------------------------------------------------

    @cached_property
    def _hypotheses(self) -> list[tuple[Place, str]]:
        """All planned comparisons, finished or not, as (place, the other method).

        They are each trained method with the baseline, on each dataset and on the average, and each control with its
        twin. Unfinished ones count, because a mark must not depend on which runs are finished.
        """
        average = (AVERAGE,) if len(self.outline.datasets) > 1 else ()
        found = [
            (Place(student, dataset, m.id), self.outline.baseline)
            for student in self.outline.students
            for m in self.outline.methods
            if self.is_trained(m.id) and m.id != self.outline.baseline
            for dataset in (*m.datasets, *(average if len(m.datasets) == len(self.outline.datasets) else ()))
        ]
        return found + [
            (Place(student, dataset, control.id), twin.id)
            for student in self.outline.students
            for control, twin in self.controls()
            for dataset in control.datasets
            if twin.id != self.outline.baseline and dataset in twin.datasets
        ]

    def controls(self) -> list[tuple[MethodOutline, MethodOutline]]:
        """Return each control with its twin (`Outline.twin`)."""
        pairs = [(m, self.outline.twin(m)) for m in self.outline.methods if m.kind == "control"]
        return [(control, twin) for control, twin in pairs if twin is not None]

    def planned(self) -> int:
        """Return the number of comparisons that Holm's correction counts. It does not change while runs finish."""
        return len(self._hypotheses)

    @cached_property
    def _corrected(self) -> dict[tuple[Place, str], float]:
        """The corrected p-value of each comparison that can be tested, by place and the other method."""
        gains = {h: self.compare(*h, self.outline.scorer) for h in self._hypotheses}
        return _holm(gains, self.planned())

    def against_twin(self, control: MethodOutline, twin: MethodOutline, student: str, dataset: str) -> _Tested | None:
        """Return the difference of a control from its twin; None without a common seed."""
        place = Place(student, dataset, control.id)
        gain = self.compare(place, twin.id, self.outline.scorer)
        return None if gain is None else _Tested(gain, self._corrected.get((place, twin.id)))

    @cached_property
    def against_majority(self) -> dict[Place, _Tested]:
        """The difference of each method from always giving the most frequent answer, paired by question.

        All methods on all datasets are corrected together. A place is missing where an old outline does not hold which
        questions that answer gets right.
        """
        gains = {place: gain for place in self.places() if (gain := self._over_majority(place)) is not None}
        corrected = _holm(gains, len(list(self.places())))
        return {place: _Tested(gain, corrected.get(place)) for place, gain in gains.items()}

    def _over_majority(self, place: Place) -> Difference | None:
        known, runs = self.outline.datasets[place.dataset].majority_right, self.runs(place, self.outline.scorer)
        scored = self.of(place)[0].answers.scored(self.outline.scorer) if runs is not None else None
        if known is None or runs is None or scored is None:
            return None
        return difference((runs, Runs(np.isin(scored.ids, known)[None].astype(np.float64), None)))

    def runs(
        self,
        place: Place,
        scorer: Scorer,
        view: View = "asked",
        only: NDArray[np.bool_] | None = None,
        settings: Settings | None = None,
    ) -> Runs | None:
        """Return the answers of a method's runs to the test questions; None without any.

        Args:
            only: which questions to keep, (questions,).
            settings: of the runs; None: the chosen ones.
        """
        records = self.of(place) if settings is None else self._with(place, settings)
        found = {r.seed: s.right for r in records if (s := r.answers.scored(scorer, "test", view)) is not None}
        if not found:
            return None
        is_trained = self.is_trained(place.method)
        rows = list(found.values()) if is_trained else list(found.values())[:1]  # an untrained method has no seeds
        right = np.stack(rows)
        return Runs(right if only is None else right[:, only], tuple(found) if is_trained else None)

    def ties(self, place: Place, scorer: Scorer) -> tuple[int, int]:
        """Return the number of ties among the answers of a method's runs, and the number of answers."""
        tied = [s.tied for r in self.of(place) if (s := r.answers.scored(scorer)) is not None]
        return sum(int((t > 1).sum()) for t in tied), sum(map(len, tied))

    def _unparsed(self, place: Place) -> float | None:
        scored = [s for r in self.of(place) if (s := r.answers.scored("generation")) is not None]
        return sum(s.unparsed for s in scored) / sum(len(s.ids) for s in scored) if scored else None

    # --- other figures --------------------------------------------------------------------------------------------

    def tried(self, place: Place) -> list[tuple[Settings, float | None]]:
        """Return a method's candidates with their validation accuracy by the first seed; empty without a choice.

        The accuracy is None for a run that is not finished, and `FAILED` for a run that failed.
        """
        sweep, found = self.outline.method(place.method).sweep, self._accuracies(place)
        candidates = [c for of in sweep.by_alpha() for c in of] if sweep.chooses else []
        return [(c, found.get((named(c), sweep.seeds[0]))) for c in candidates]

    def again(self, place: Place) -> float | None:
        """Return the validation accuracy of the chosen settings over the seeds that did not choose them.

        The accuracy of the first seed is optimistic, because it is the highest of several. None without another seed,
        or where all seeds were used (`alpha`).
        """
        sweep, records = self.outline.method(place.method).sweep, self.of(place)
        if sweep.alphas:
            return None
        others = (r.accuracy("valid", self.outline.scorer) for r in records if r.seed != sweep.seeds[0])
        found = [accuracy for accuracy in others if accuracy is not None]
        return float(np.mean(found)) if found else None

    def alpha_curve(self, place: Place, scorer: Scorer) -> list[tuple[float, Estimate]]:
        """Return the accuracy by α (the paper's Figure 2). Each α has the settings that were tuned for it."""
        curve = []
        for settings in self.outline.method(place.method).sweep.best_by_alpha(self._accuracies(place)):
            found = self.runs(place, scorer, settings=settings)
            accuracy = estimate(found) if found is not None else None
            if ALPHA in settings and accuracy is not None:
                curve.append((float(settings[ALPHA]), accuracy))
        return curve

    def views(self, place: Place, view: View) -> _Viewed | None:
        """Return the accuracy in a view, of the runs that were asked in it. No answers are written in views."""
        by: Scorer = "likelihood" if self.outline.scorer == "generation" else self.outline.scorer
        pairs = [(r.answers.scored(by), r.answers.scored(by, "test", view)) for r in self.of(place)]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        found = self.runs(place, by, view)
        viewed = estimate(found) if found is not None else None
        if viewed is None:
            return None
        return _Viewed(
            asked=float(np.mean([a.right.mean() for a, _ in both])),
            viewed=viewed,
            same=float(np.mean([(a.chosen == b.chosen).mean() for a, b in both])),
        )

    def clean(self, place: Place, scorer: Scorer) -> Estimate | None:
        """Return the accuracy on test questions without overlap; None where all or none of them overlap."""
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
        """Return the number of runs by machine: of all runs, or of a student and a dataset."""
        return Counter(
            record.machine
            for place, records in self._groups.items()
            if student in (None, place.student) and dataset in (None, place.dataset)
            for record in records
        )

    def timed(self, place: Place) -> list[Record]:
        """Return the runs whose times can be compared: those on the machine with most runs of their dataset."""
        ((most, _),) = self.machines(place.student, place.dataset).most_common(1) or [("", 0)]
        return [r for r in self.of(place) if r.machine == most]

    def seconds(self, place: Place) -> tuple[float, float] | None:
        """Return the mean seconds of training and of evaluation over the runs of `timed`; None without any."""
        runs = self.timed(place)
        if not runs:
            return None
        train = [float((r.figures.get("train") or {}).get("seconds") or 0.0) for r in runs]
        ask = [float(r.figures.get("evaluate_seconds") or 0.0) for r in runs]
        return float(np.mean(train)), float(np.mean(ask))

    def _accuracies(self, place: Place) -> Accuracies:
        """Return the validation accuracies of a method's runs; `FAILED` for those that failed."""
        lost = [f for f in self.failures if Place(f.student, f.dataset, f.method) == place]
        failed = {(named(f.settings), f.seed): FAILED for f in lost}
        return failed | accuracies(self.all_of(place), self.outline.scorer)

    def _check_questions(self, records: Sequence[Record]) -> None:
        first: dict[tuple[str, str, str], tuple[Record, str]] = {}
        for record in records:
            learnt = record.learnt if self.is_trained(record.method) else ""
            for what, of in (("were asked different", record.questions), ("learnt from different", learnt)):
                if not of:
                    continue
                known, its = first.setdefault((record.student, record.dataset, what), (record, of))
                if of != its:
                    raise RunFolderError(
                        f"{known.folder} and {record.folder} {what} questions, so they cannot be compared. "
                        "Remove the folders with the old questions, and the experiment runs them again."
                    )


def _holm(gains: Mapping[_K, Difference | None], planned: int) -> dict[_K, float]:
    """Return the corrected p-values of the comparisons that can be tested."""
    p_values = {key: gain.p for key, gain in gains.items() if gain is not None and gain.p is not None}
    return dict(zip(p_values, holm(list(p_values.values()), planned), strict=True))


def read_results(folder: Path) -> Results:
    """Read the records of an experiment that belong to its outline. Other records in its folder are ignored.

    Raises:
        RunFolderError: the folder holds no experiment, a damaged record, or runs that cannot be compared.
    """
    outline, records = Outline.read(folder), read_records(folder)
    known = {
        (student, dataset, m.id, seed)
        for student in outline.students for m in outline.methods for dataset in m.datasets for seed in m.sweep.seeds
    }  # fmt: skip
    mine = [r for r in records if (r.student, r.dataset, r.method, r.seed) in known]
    advice = "remove it, and start the experiment again."
    files = sorted(failures(folder).glob("*.json"))
    return Results(outline, mine, [from_json(Failure, read_json(f), f, advice) for f in files])
