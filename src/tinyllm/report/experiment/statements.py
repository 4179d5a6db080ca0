"""What an experiment shows, in plain words: what helped, what hurt, what is noise, what could not have been seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tinyllm.evaluation.comparison import Difference
from tinyllm.evidence.answers import Scorer
from tinyllm.evidence.outline import MethodOutline
from tinyllm.evidence.results import Figure, Place, Results
from tinyllm.report.experiment.tables import SIGNIFICANT, sign
from tinyllm.report.words import p_value, percent, plural, points

_POWER = 0.8
_NAMED = 4  # so many methods without a difference are all named
_NORMAL = NormalDist()


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
            said += _against_nothing(results, figures, student, dataset, scorer)
    return [*said, *_cautions(results)]


def _of_dataset(results: Results, figures: Mapping[Place, Figure], student: str, dataset: str) -> Iterator[Statement]:
    outline = results.outline
    baseline, where = outline.method(outline.baseline).label, _where(results, student, dataset)
    noise: list[tuple[MethodOutline, Difference]] = []
    untested: list[str] = []
    for method in outline.methods:
        figure = figures.get(Place(student, dataset, method.id))
        if figure is None or figure.gain is None or not results.is_trained(method.id):
            continue
        told = f"{method.label} {_change(figure.gain)}"
        if figure.holm is None:
            untested.append(told)
        elif sign(figure) == 0:
            noise.append((method, figure.gain))
        else:
            verb = "helped" if sign(figure) > 0 else "hurt"
            told = f"{where}: {method.label} {verb}: {_change(figure.gain)} against {baseline}, {_p(figure)}."
            yield Statement(verb, told)
    if noise:
        yield _nothing_shown(where, baseline, noise, results.planned())
    if untested:
        yield Statement(
            "note",
            f"{where}: against {baseline}: {'; '.join(untested)}. One seed of each: these are differences of two "
            "trainings, with intervals over questions alone, and not of methods. More `seeds` make it a test.",
        )


def _nothing_shown(
    where: str, baseline: str, noise: list[tuple[MethodOutline, Difference]], comparisons: int
) -> Statement:
    """Say what is not shown to differ, and what difference would have been; of many methods name those of interest."""
    excludes = [m for m, gain in noise if not gain.ci95[0] <= 0 <= gain.ci95[1]]
    corrected = (
        f" {plural(len(excludes), 'interval')} without 0 among them: not enough once all {comparisons} comparisons are "
        "corrected for."
        if excludes
        else ""
    )
    is_short = len(noise) <= _NAMED
    named = [(m, gain) for m, gain in noise if is_short or m.like == "tinyllm" or m in excludes]
    told = "; ".join(f"{m.label} {_change(gain)}" for m, gain in named)
    others = [gain.value for m, gain in noise if (m, gain) not in named]
    if others:
        told += f"{'; ' if told else ''}{plural(len(others), 'other')} ({_ends(others)}, intervals in the tables)"
    found = max(_findable(gain, comparisons) for _, gain in noise)
    return Statement(
        "noise",
        f"{where}: no difference from {baseline} is shown for {told}.{corrected} "
        f"One of {100 * found:.1f} points would be found in four of five such experiments, a smaller one less often.",
    )


def _findable(gain: Difference, comparisons: int) -> float:
    """Return the true difference that is found with a probability of `_POWER`: normal, in Holm's first step."""
    error = (gain.ci95[1] - gain.ci95[0]) / 2 / _NORMAL.inv_cdf(0.975)
    return error * (_NORMAL.inv_cdf(1 - SIGNIFICANT / 2 / max(1, comparisons)) + _NORMAL.inv_cdf(_POWER))


def _control(results: Results, student: str, dataset: str, scorer: Scorer) -> Iterator[Statement]:
    """Say whether the rationales' content matters: TinyLLM against the same texts under the wrong questions."""
    tinyllm, shuffled = (results.outline.first_like(known) for known in ("tinyllm", "shuffled"))
    if tinyllm is None or shuffled is None:
        return
    compared = results.compare(Place(student, dataset, tinyllm.id), shuffled.id, scorer)
    if compared is None or not compared.knows_seeds:
        return
    where, told = _where(results, student, dataset), f"({_change(compared)}, {p_value(compared.p)}, not corrected)"
    if compared.p < SIGNIFICANT:
        better = "better than" if compared.value > 0 else "worse than"
        yield Statement(
            "note",
            f"{where}: the rationales' content matters: {tinyllm.label} is {better} the same texts under other "
            f"questions {told}.",
        )
    else:
        yield Statement(
            "note",
            f"{where}: {tinyllm.label} is not shown to differ from the same texts under other questions {told}, so "
            "nothing here shows that the student learns from what rationales say.",
        )


def _against_nothing(
    results: Results, figures: Mapping[Place, Figure], student: str, dataset: str, scorer: Scorer
) -> Iterator[Statement]:
    """Say what is not above answering by lot, or always the same; and what is below."""
    facts = results.outline.datasets[dataset]
    nothing = max(facts.chance, facts.majority)
    own = [(m, f) for m in results.outline.methods if (f := figures.get(Place(student, dataset, m.id))) is not None]
    below = [(m.label, f) for m, f in own if f.accuracy.ci95[1] < facts.chance]
    beside = [m.label for m, f in own if f.accuracy.ci95[0] <= nothing and f.accuracy.ci95[1] >= facts.chance]
    where = _where(results, student, dataset)
    if beside:
        whom = f"chance and always the majority answer ({percent(nothing)})"
        is_none = len(beside) == len(own) > _NAMED
        told = f"no method is shown to beat {whom}" if is_none else f"not shown to beat {whom}: {', '.join(beside)}"
        yield Statement("note", f"{where}: {told}.")
    if below:
        yield Statement("note", f"{where}: below chance: {', '.join(_unparsed(*b) for b in below)}.{_advice(scorer)}")


def _unparsed(label: str, figure: Figure) -> str:
    return label if figure.unparsed is None else f"{label} ({percent(figure.unparsed)} of what it wrote is no choice)"


def _advice(scorer: Scorer) -> str:
    if scorer != "likelihood":
        return ""
    return (
        " Where choices differ in length and are not shown (`layout: cloze`), `scorer: likelihood_normalised` is the "
        "fair one."
    )


def _cautions(results: Results) -> Iterator[Statement]:
    trained = [p for p in results.places() if results.is_trained(p.method)]
    waiting = [p for p in results.places() if not results.of(p)]
    undecided = [p for p in waiting if results.all_of(p)]
    single = [p for p in trained if len(results.of(p)) == 1]
    if results.failures:
        first = results.failures[0]
        yield Statement(
            "note",
            f"{plural(len(results.failures), 'run')} failed, as {first.method} on {first.dataset} with seed "
            f"{first.seed}: {first.error.splitlines()[0]}{_lost(results)}",
        )
    if missing := len(waiting) - len(undecided):
        yield Statement("note", f"{plural(missing, 'cell')} of the tables without a finished run.")
    if undecided:
        yield Statement(
            "note", f"{plural(len(undecided), 'cell')} whose settings are not chosen yet: candidates are to come."
        )
    if single:
        yield Statement(
            "note",
            f"{plural(len(single), 'cell')} rest on one seed: how much another would change is taken from other "
            "methods' seeds where there are any, and is not known where there are none.",
        )
    yield from _unequal_search(results)


def _lost(results: Results) -> str:
    beaten = any(results.of(Place(f.student, f.dataset, f.method)) for f in results.failures)
    return " What failed has lost against other candidates." if beaten else ""


def _unequal_search(results: Results) -> Iterator[Statement]:
    """Say whose settings were searched less than the baseline's, or more."""
    baseline = results.outline.method(results.outline.baseline)
    others = [m for m in results.outline.methods if results.is_trained(m.id)]
    had = baseline.sweep.candidates()
    less = [f"{m.label} ({m.sweep.candidates()})" for m in others if m.sweep.candidates() < had]
    more = [f"{m.label} ({m.sweep.candidates()})" for m in others if m.sweep.candidates() > had]
    for which, verb in ((less, "fewer"), (more, "more")):
        if which:
            whose = ", ".join(which) if len(which) <= _NAMED else f"{len(which)} methods"
            yield Statement(
                "note",
                f"{whose} had {verb} candidates of settings to choose from than {baseline.label} ({had}), "
                "so part of a difference may be that.",
            )


def _where(results: Results, student: str, dataset: str) -> str:
    return f"{dataset}, {student}" if len(results.outline.students) > 1 else dataset


def _change(gain: Difference) -> str:
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in gain.ci95)
    return f"{points(gain.value)} ({low} to {high})"


def _ends(gains: Sequence[float]) -> str:
    return f"{100 * min(gains):+.1f}".replace("-", "−") + " to " + points(max(gains))


def _p(figure: Figure) -> str:
    return f"{p_value(figure.holm)} after Holm's correction" if figure.holm is not None else ""
