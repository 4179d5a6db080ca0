"""What an experiment shows, in plain words: what helped, what hurt, what is noise, what could not have been seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tinyllm.evaluation.comparison import Difference
from tinyllm.evidence.answers import Scorer
from tinyllm.evidence.results import Figure, Place, Results
from tinyllm.report.experiment.tables import SIGNIFICANT, sign
from tinyllm.report.words import p_value, plural, points


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that can be said; `kind` is `helped`, `hurt`, `noise` or `note`."""

    kind: str
    text: str


def statements(results: Results, scorer: Scorer) -> list[Statement]:
    """Return what can be said of an experiment, the chief things first."""
    figures = results.figures(scorer)
    said: list[Statement] = []
    for student in results.outline.students:
        for dataset in results.outline.datasets:
            said += _of_dataset(results, figures, student, dataset)
            said += _control(results, student, dataset, scorer)
            said += _below_chance(results, figures, student, dataset)
    return [*said, *_cautions(results)]


def _of_dataset(results: Results, figures: Mapping[Place, Figure], student: str, dataset: str) -> Iterator[Statement]:
    outline = results.outline
    baseline = outline.method(outline.baseline).label
    where = _where(results, student, dataset)
    noise, widest = [], 0.0
    for method in outline.methods:
        figure = figures.get(Place(student, dataset, method.id))
        if figure is None or figure.gain is None or figure.holm is None:
            continue
        told = f"{method.label} {_change(figure.gain)}"
        if sign(figure) == 0:
            noise.append(told)
            widest = max(widest, (figure.gain.ci95[1] - figure.gain.ci95[0]) / 2)
        else:
            kind, verb = ("helped", "helped") if sign(figure) > 0 else ("hurt", "hurt")
            yield Statement(
                kind, f"{where}: {method.label} {verb}: {_change(figure.gain)} against {baseline}, {_p(figure)}."
            )
    if noise:
        yield Statement(
            "noise",
            f"{where}: no difference from {baseline} is shown for {'; '.join(noise)}. Differences below about "
            f"{100 * widest:.1f} points could hardly have been seen with so many questions and seeds.",
        )


def _control(results: Results, student: str, dataset: str, scorer: Scorer) -> Iterator[Statement]:
    """Say whether the rationales' content matters: TinyLLM against the same texts under the wrong questions."""
    tinyllm, shuffled = (results.outline.first_like(known) for known in ("tinyllm", "shuffled"))
    if tinyllm is None or shuffled is None:
        return
    compared = results.compare(Place(student, dataset, tinyllm.id), shuffled.id, scorer)
    if compared is None:
        return
    where = _where(results, student, dataset)
    if compared.p < SIGNIFICANT:
        better = "better than" if compared.value > 0 else "worse than"
        yield Statement(
            "note",
            f"{where}: the rationales' content matters: {tinyllm.label} is {better} the same texts under other "
            f"questions ({_change(compared)}, {p_value(compared.p)}, not corrected).",
        )
    else:
        yield Statement(
            "note",
            f"{where}: {tinyllm.label} is not shown to differ from the same texts under other questions "
            f"({_change(compared)}, {p_value(compared.p)}), so nothing here shows that the student learns from what "
            "rationales say.",
        )


def _below_chance(results: Results, figures: Mapping[Place, Figure], student: str, dataset: str) -> Iterator[Statement]:
    """Say where answering by lot would be better: a sign that the score does not fit how the student is asked."""
    chance = results.outline.datasets[dataset].chance
    below = [
        method.label
        for method in results.outline.methods
        if (figure := figures.get(Place(student, dataset, method.id))) is not None and figure.accuracy.ci95[1] < chance
    ]
    if below:
        yield Statement(
            "note",
            f"{_where(results, student, dataset)}: below chance: {', '.join(below)}. Where choices differ in length "
            "and are not shown (`layout: cloze`), `scorer: likelihood_normalised` is the fair one.",
        )


def _cautions(results: Results) -> Iterator[Statement]:
    trained = [p for p in results.places() if results.is_trained(p.method)]
    missing = [p for p in results.places() if not results.of(p)]
    single = [p for p in trained if len(results.of(p)) == 1]
    if results.failures:
        first = results.failures[0]
        yield Statement(
            "note",
            f"{plural(len(results.failures), 'run')} failed, as {first.method} on {first.dataset} with seed "
            f"{first.seed}: {first.error.splitlines()[0]} What failed has lost against other candidates.",
        )
    if missing:
        yield Statement("note", f"{plural(len(missing), 'cell')} of the tables have no finished run yet.")
    if single:
        yield Statement(
            "note",
            f"{plural(len(single), 'cell')} rest on one seed: how much another would change is taken from other "
            "methods' seeds where there are any, and is not known where there are none.",
        )
    yield from _unequal_search(results)


def _unequal_search(results: Results) -> Iterator[Statement]:
    """Say whose settings were searched less than the baseline's, or more."""
    baseline = results.outline.method(results.outline.baseline)
    others = [m for m in results.outline.methods if results.is_trained(m.id)]
    less = [m.label for m in others if len(m.sweep.tuned) < len(baseline.sweep.tuned)]
    more = [m.label for m in others if len(m.sweep.tuned) > len(baseline.sweep.tuned)]
    for which, verb in ((less, "fewer"), (more, "more")):
        if which:
            yield Statement(
                "note",
                f"{', '.join(which)} had {verb} candidates of settings to choose from than {baseline.label} "
                f"({len(baseline.sweep.tuned)}), so part of a difference may be that.",
            )


def _where(results: Results, student: str, dataset: str) -> str:
    return f"{dataset}, {student}" if len(results.outline.students) > 1 else dataset


def _change(gain: Difference) -> str:
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in gain.ci95)
    return f"{points(gain.value)} ({low} to {high})"


def _p(figure: Figure) -> str:
    return f"{p_value(figure.holm)} after Holm's correction" if figure.holm is not None else ""
