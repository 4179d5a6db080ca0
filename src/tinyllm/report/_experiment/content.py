"""From an experiment's results to what its page shows: all counting and wording that is not in a table."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.outline import MethodOutline
from tinyllm.comparison.records import Record
from tinyllm.comparison.results import Place, Results
from tinyllm.comparison.selection import FAILED
from tinyllm.config import ANSWER_TASK
from tinyllm.report._experiment.tables import settings_text
from tinyllm.report._plots import Line, Point, smooth, thin, window
from tinyllm.report._words import NONE, count, duration, p_value, percent, plural, points, size

_CURVE_POINTS = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """What a method takes on a dataset, a mean over its seeds."""

    where: str
    method: str
    train: str
    ask: str
    tokens: str
    padding: str
    memory: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A method against the baseline in numbers."""

    where: str
    method: str
    gain: str
    interval: str
    relative: str
    p: str
    holm: str
    seeds: str


@dataclass(frozen=True, slots=True)
class Checked:
    """An accuracy held against another way of asking or counting."""

    where: str
    method: str
    asked: str
    other: str
    change: str
    note: str


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate of a method's settings.

    Attributes:
        again: of the chosen one, its accuracy on the validation questions with the other seeds, by which it was not
            chosen; empty where there is none.
    """

    where: str
    method: str
    settings: str
    valid: str
    is_chosen: bool
    again: str


@dataclass(frozen=True, slots=True)
class Given:
    """What a teacher gave for a dataset."""

    dataset: str
    teacher: str
    kept: str
    missing: str
    repaired: str
    rejected: str
    tokens: str


def where(results: Results, place: Place) -> str:
    """Return the dataset, with the student where there are several."""
    return f"{place.dataset}, {place.student}" if len(results.outline.students) > 1 else place.dataset


# --- lines --------------------------------------------------------------------------------------------------------


def alpha_lines(results: Results, student: str, dataset: str, scorer: Scorer) -> list[Line]:
    """Return accuracy in per cent by α, one line a method (the paper's Figure 2)."""
    lines = []
    for colour, method in enumerate(m for m in _on(results, dataset) if m.sweep.alphas):
        curve = results.alpha_curve(Place(student, dataset, method.id), scorer)
        found = tuple(Point(a, 100 * e.value, 100 * e.ci95[0], 100 * e.ci95[1]) for a, e in sorted(curve, key=_first))
        if found:
            lines.append(Line(method.label, found, colour))
    return lines


def _first(pair: tuple[float, Any]) -> float:
    return pair[0]


def loss_lines(results: Results, student: str, dataset: str) -> list[Line]:
    """Return the loss of each task of TinyLLM, and of the baseline's answers, the mean over seeds by step."""
    lines: list[Line] = []
    for method in _on(results, dataset):
        if method.like != "tinyllm" and method.id != results.outline.baseline:
            continue
        runs = results.of(Place(student, dataset, method.id))
        for task, curve in _mean_losses(runs).items():
            label = f"{method.label}: {'answer' if task == ANSWER_TASK else task}"
            mean = thin(smooth(curve, window(len(curve))), _CURVE_POINTS)
            lines.append(Line(label, tuple(Point(x, y) for x, y in mean), len(lines)))
    return lines


def _mean_losses(runs: Sequence[Record]) -> Mapping[str, list[tuple[float, float]]]:
    sums: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for line in run.log:
            for task, loss in (line.get("losses") or {}).items():
                if loss is not None and math.isfinite(loss):
                    sums[task][int(line["step"])].append(float(loss))
    return {t: [(float(step), sum(v) / len(v)) for step, v in sorted(by.items())] for t, by in sums.items()}


def calibration_lines(results: Results, student: str, dataset: str, *, calibrated: bool = True) -> list[Line]:
    """Return accuracy by confidence in per cent, of the untrained student, the baseline and TinyLLM."""
    lines: list[Line] = []
    for method in _on(results, dataset):
        found = results.calibration(Place(student, dataset, method.id), calibrated=calibrated)
        is_shown = method.like in ("inference", "tinyllm") or method.id == results.outline.baseline
        if is_shown and found is not None:
            curve = tuple(Point(100 * b.confidence, 100 * b.accuracy) for b in found.bins)
            lines.append(Line(f"{method.label} (error {100 * found.error:.1f} points)", curve, len(lines)))
    return lines


def _on(results: Results, dataset: str) -> Iterator[MethodOutline]:
    return (m for m in results.outline.methods if dataset in m.datasets)


# --- rows ---------------------------------------------------------------------------------------------------------


def costs(results: Results) -> list[Cost]:
    """Return what each method takes."""
    rows = []
    for place in results.places():
        runs, timed, seconds = results.of(place), results.timed(place), results.seconds(place)
        if not runs:
            continue
        trained = [r.figures["train"] for r in runs if r.figures.get("train")]
        rows.append(
            Cost(
                where=where(results, place),
                method=results.outline.method(place.method).label,
                train=duration(seconds[0]) if trained and seconds else NONE,
                ask=duration(seconds[1]) if seconds else NONE,
                tokens=count(_mean(trained, "tokens")),
                padding=percent(_mean(trained, "padding_fraction")),
                memory=size(_mean([r.figures.get("train") or {} for r in timed], "peak_memory_bytes")),
            )
        )
    return rows


def _mean(figures: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [float(f[key]) for f in figures if f.get(key) is not None]
    return sum(values) / len(values) if values else None


def comparisons(results: Results, scorer: Scorer) -> list[Comparison]:
    """Return every method's difference from the baseline, those of averages included."""
    return [
        Comparison(
            where=where(results, place),
            method=results.outline.method(place.method).label,
            gain=points(gain.value),
            interval=" to ".join(f"{100 * end:+.1f}".replace("-", "−") for end in gain.ci95),
            relative=NONE if gain.relative is None else f"{gain.relative:+.1f} %".replace("-", "−"),
            p=NONE if figure.holm is None or gain.p is None else p_value(gain.p),  # what is not tested has none
            holm=NONE if figure.holm is None else p_value(figure.holm),
            seeds=count(gain.seeds) if results.is_trained(place.method) else NONE,
        )
        for place, figure in results.figures(scorer).items()
        if (gain := figure.gain) is not None
    ]


def rotations(results: Results) -> list[Checked]:
    """Return accuracies with the choices moved by one: what changes rests on where an answer stands.

    A student that is not shown the choices (`layout: cloze`) cannot see that they moved.
    """
    return list(_viewed(results, "rotated"))


def without_questions(results: Results) -> list[Checked]:
    """Return accuracies with the question withheld: what is left of them is in the choices alone."""
    return list(_viewed(results, "choices-only"))


def _viewed(results: Results, view: Any) -> Iterator[Checked]:
    for place in results.places():
        found = results.views(place, view)
        if found is None:
            continue
        low, high = found.viewed.ci95
        yield Checked(
            where(results, place),
            results.outline.method(place.method).label,
            percent(found.asked),
            f"{percent(found.viewed.value)} ({100 * low:.1f} to {100 * high:.1f})",
            points(found.viewed.value - found.asked),
            f"{percent(found.same)} of the answers stay the same",
        )


def tried(results: Results) -> list[Tried]:
    """Return every candidate of settings with the accuracy on validation questions by which it was chosen, or not."""
    return [
        Tried(
            where(results, place),
            results.outline.method(place.method).label,
            settings_text(settings),
            "failed" if valid == FAILED else percent(valid),
            results.settings[place] == settings,
            "" if results.settings[place] != settings or (again := results.again(place)) is None else percent(again),
        )
        for place in results.places()
        for settings, valid in results.tried(place)
    ]


def met_in_training(results: Results) -> list[tuple[str, ...]]:
    """Return, by dataset, the test questions, and how many are met in training and in validation, and how."""
    return [
        (name, *map(count, (d.questions["test"], *map(len, (d.exact, d.ngram, d.valid_exact, d.valid_ngram)))))
        for name, d in results.outline.datasets.items()
    ]


def overlaps(results: Results, scorer: Scorer) -> list[Checked]:
    """Return accuracies without the test questions that are met in training or validation."""
    rows = []
    for place in results.places():
        clean, runs = results.clean(place, scorer), results.runs(place, scorer)
        if clean is not None and runs is not None:
            whole = float(runs.right.mean())
            rows.append(
                Checked(
                    where(results, place),
                    results.outline.method(place.method).label,
                    percent(whole),
                    f"{percent(clean.value)} ({100 * clean.ci95[0]:.1f} to {100 * clean.ci95[1]:.1f})",
                    points(clean.value - whole),
                    plural(clean.questions, "clean question"),
                )
            )
    return rows


def given(results: Results) -> list[Given]:
    """Return what each teacher gave for each dataset."""
    return [_given(dataset, t, y) for dataset, d in results.outline.datasets.items() for t, y in d.teachers.items()]


def _given(dataset: str, teacher: str, found: Mapping[str, Any]) -> Given:
    rejected = found.get("rejected") or {}
    tokens = (found.get("prompt_tokens") or 0) + (found.get("completion_tokens") or 0)
    return Given(
        dataset,
        teacher,
        count(found.get("rationales")),
        count(found.get("missing")),
        count(sum((found.get("repaired") or {}).values())),
        ", ".join(f"{n:,} {reason}" for reason, n in sorted(rejected.items(), key=lambda i: -i[1])) or "0",
        count(tokens) if tokens else NONE,
    )
