"""The content of an experiment's page that is not in a table: lines of plots, and rows of numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinyllm.comparison import Estimate
from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.outline import MethodOutline
from tinyllm.comparison.records import Record
from tinyllm.comparison.results import Place, Results
from tinyllm.comparison.selection import FAILED
from tinyllm.config import ANSWER_TASK
from tinyllm.report._experiment.tables import settings_text
from tinyllm.report._plots import Line, Point, smooth, thin, window
from tinyllm.report._words import NONE, count, duration, p_value, percent, plural, points, signed, size
from tinyllm.scoring.predictions import View

_CURVE_POINTS = 200


class Comparison(NamedTuple):
    """A method against the baseline, in the order of the columns."""

    where: str
    method: str
    seeds: str
    gain: str
    interval: str
    relative: str
    p: str
    holm: str


class Checked(NamedTuple):
    """An accuracy beside the same accuracy with other questions or another view, in the order of the columns."""

    where: str
    method: str
    asked: str
    other: str
    change: str
    note: str


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate of a method's settings. `again` is the winner's validation accuracy with the other seeds."""

    where: str
    method: str
    settings: str
    valid: str
    is_chosen: bool
    again: str


def _named(results: Results, place: Place) -> tuple[str, str]:
    """Return dataset and method of a place as text."""
    return results.outline.where(place.student, place.dataset), results.outline.method(place.method).label


# --- lines --------------------------------------------------------------------------------------------------------


def alpha_lines(results: Results, student: str, dataset: str, scorer: Scorer) -> list[Line]:
    """Return accuracy in per cent by α, one line for each method (the paper's Figure 2)."""
    lines = []
    for colour, method in enumerate(m for m in _on(results, dataset) if m.sweep.alphas):
        curve = results.alpha_curve(Place(student, dataset, method.id), scorer)
        found = sorted(Point(a, 100 * e.value, 100 * e.ci95[0], 100 * e.ci95[1]) for a, e in curve)
        if found:
            lines.append(Line(method.label, tuple(found), colour))
    return lines


def loss_lines(results: Results, student: str, dataset: str) -> list[Line]:
    """Return the losses of TinyLLM and of the baseline by task: the mean over seeds at each step."""
    lines: list[Line] = []
    for method in _on(results, dataset):
        if method.like != "tinyllm" and method.id != results.outline.baseline:
            continue
        runs = results.of(Place(student, dataset, method.id))
        for task, curve in _mean_losses(runs).items():
            label = f"{method.label}: {'answer' if task == ANSWER_TASK else task}"
            lines.append(Line(label, tuple(thin(smooth(curve, window(len(curve))), _CURVE_POINTS)), len(lines)))
    return lines


def _mean_losses(runs: Sequence[Record]) -> Mapping[str, list[Point]]:
    losses: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for line in run.log:
            for task, loss in (line.get("losses") or {}).items():
                if loss is not None and math.isfinite(loss):
                    losses[task][int(line["step"])].append(float(loss))
    return {t: [Point(step, sum(v) / len(v)) for step, v in sorted(by.items())] for t, by in losses.items()}


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


def costs(results: Results) -> list[tuple[str, ...]]:
    """Return dataset, method, times of training and evaluation, tokens, padding and memory: means over seeds."""
    rows: list[tuple[str, ...]] = []
    for place in (p for p in results.places() if results.of(p)):
        seconds = results.seconds(place)
        trained = [r.figures["train"] for r in results.of(place) if r.figures.get("train")]
        timed = [r.figures.get("train") or {} for r in results.timed(place)]
        times = duration(seconds[0]) if trained and seconds else NONE, duration(seconds[1]) if seconds else NONE
        padding, memory = _mean(trained, "padding_fraction"), _mean(timed, "peak_memory_bytes")
        rows.append((*_named(results, place), *times, count(_mean(trained, "tokens")), percent(padding), size(memory)))
    return rows


def _mean(figures: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [float(f[key]) for f in figures if f.get(key) is not None]
    return sum(values) / len(values) if values else None


def comparisons(results: Results, scorer: Scorer) -> list[Comparison]:
    """Return the difference of each method from the baseline, on each dataset and on the average."""
    return [
        Comparison(
            *_named(results, place),
            gain=points(gain.value),
            interval=" to ".join(map(signed, gain.ci95)),
            relative=NONE if gain.relative is None else f"{gain.relative:+.1f} %".replace("-", "−"),
            p=NONE if figure.holm is None or gain.p is None else p_value(gain.p),  # only tested differences have one
            holm=NONE if figure.holm is None else p_value(figure.holm),
            seeds=count(gain.seeds) if results.is_trained(place.method) else NONE,
        )
        for place, figure in results.figures(scorer).items()
        if (gain := figure.gain) is not None
    ]


def viewed(results: Results, view: View) -> list[Checked]:
    """Return accuracies in a view.

    With the choices moved by one place (`rotated`), a change shows an effect of the position. A student that is not
    shown the choices (`layout: cloze`) cannot see the move. `choices-only` shows what the choices alone tell.
    """
    return [
        _checked(results, place, found.asked, found.viewed, f"{percent(found.same)} of the answers stay the same")
        for place in results.places()
        if (found := results.views(place, view)) is not None
    ]


def _checked(results: Results, place: Place, asked: float, other: Estimate, note: str) -> Checked:
    low, high = other.ci95
    told = f"{percent(other.value)} ({100 * low:.1f} to {100 * high:.1f})"
    return Checked(*_named(results, place), percent(asked), told, points(other.value - asked), note)


def tried(results: Results) -> list[Tried]:
    """Return all candidates of settings with their accuracy on the validation questions."""
    return [
        Tried(
            *_named(results, place),
            settings_text(settings),
            "failed" if valid == FAILED else percent(valid),
            results.settings[place] == settings,
            "" if results.settings[place] != settings or (again := results.again(place)) is None else percent(again),
        )
        for place in results.places()
        for settings, valid in results.tried(place)
    ]


def met_in_training(results: Results) -> list[tuple[str, ...]]:
    """Return for each dataset its number of test questions, and how many overlap with training and validation."""
    return [
        (name, *map(count, (d.questions["test"], *map(len, (d.exact, d.ngram, d.valid_exact, d.valid_ngram)))))
        for name, d in results.outline.datasets.items()
    ]


def overlaps(results: Results, scorer: Scorer) -> list[Checked]:
    """Return accuracies on the test questions without overlap."""
    rows = []
    for place in results.places():
        clean, runs = results.clean(place, scorer), results.runs(place, scorer)
        if clean is not None and runs is not None:
            note = plural(clean.questions, "clean question")
            rows.append(_checked(results, place, float(runs.right.mean()), clean, note))
    return rows


def given(results: Results) -> list[tuple[str, ...]]:
    """Return dataset, teacher, kept, missing, repaired and rejected texts, and tokens."""
    return [_given(dataset, t, y) for dataset, d in results.outline.datasets.items() for t, y in d.teachers.items()]


def _given(dataset: str, teacher: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    rejected = found.get("rejected") or {}
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(rejected.items(), key=lambda i: -i[1]))
    repaired = sum((found.get("repaired") or {}).values())
    tokens = (found.get("prompt_tokens") or 0) + (found.get("completion_tokens") or 0)
    kept, missing = count(found.get("rationales")), count(found.get("missing"))
    return dataset, teacher, kept, missing, count(repaired), reasons or "0", count(tokens) if tokens else NONE
