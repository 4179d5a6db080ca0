"""What an experiment shows, in plain words: what helped, what hurt, what is noise, what could not have been seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinyllm.comparison import Difference, findable
from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.outline import MethodOutline
from tinyllm.comparison.results import Figure, Place, Results
from tinyllm.report._experiment.tables import SIGNIFICANT, sign
from tinyllm.report._words import p_value, percent, plural, points

_NAMED = 4  # so many methods without a difference are all named


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
            said += _controls(results, student, dataset)
            said += _against_nothing(results, figures, student, dataset)
            said += _below_chance(results, figures, student, dataset, scorer)
    return [*said, *_ties(results, scorer), *_cautions(results)]


def _of_dataset(results: Results, figures: Mapping[Place, Figure], student: str, dataset: str) -> Iterator[Statement]:
    outline = results.outline
    baseline, where = outline.method(outline.baseline).label, _where(results, student, dataset)
    noise: list[tuple[MethodOutline, Difference]] = []
    untested: list[str] = []
    apart: list[str] = []
    for method in outline.methods:
        figure = figures.get(Place(student, dataset, method.id))
        if figure is None or not results.is_trained(method.id) or method.id == outline.baseline:
            continue
        if figure.gain is None:
            apart.append(method.label)
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
            f"{where}: against {baseline}: {'; '.join(untested)}. They have one seed in common with it: these are "
            "differences of two trainings, with intervals over questions alone, and not of methods. More `seeds` "
            "make it a test.",
        )
    if apart:
        yield Statement(
            "note",
            f"{where}: {', '.join(apart)} cannot be compared with {baseline}: no seed is finished for both.",
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
    found = findable([gain.spread for _, gain in noise], comparisons)
    return Statement(
        "noise",
        f"{where}: no difference from {baseline} is shown for {told}.{corrected} "
        f"If questions and seeds vary as they do here, a true difference of {100 * found:.1f} points is found with a "
        "probability of 0.8, a smaller one less often.",
    )


def _controls(results: Results, student: str, dataset: str) -> Iterator[Statement]:
    """Say whether the rationales' content matters: each control against what it is identical to but for the mixture."""
    where = _where(results, student, dataset)
    for control, twin in results.controls():
        tested = results.against_twin(control, twin, student, dataset)
        if tested is None or tested.holm is None:
            continue
        told = f"({_change(tested.gain)}, {p_value(tested.holm)} after Holm's correction)"
        if tested.holm < SIGNIFICANT:
            how = "worse than" if tested.gain.value < 0 else "better than"
            content = "the rationales' content matters" if tested.gain.value < 0 else "the control is better"
            yield Statement("note", f"{where}: {content}: {control.label} is {how} {twin.label} {told}.")
        else:
            yield Statement(
                "note",
                f"{where}: {control.label} is not shown to differ from {twin.label} {told}, so nothing here shows that "
                "the student learns from what rationales say.",
            )


def _against_nothing(
    results: Results, figures: Mapping[Place, Figure], student: str, dataset: str
) -> Iterator[Statement]:
    """Say what is not shown to be above always giving the most frequent answer, in pairs on the same questions."""
    facts, where = results.outline.datasets[dataset], _where(results, student, dataset)
    whom = f"always giving the most frequent answer ({percent(facts.majority)})"
    not_shown: list[str] = []
    untested: list[str] = []
    places = [Place(student, dataset, m.id) for m in results.outline.methods]
    own = [p for p in places if p in figures]
    for place in own:
        tested, label = results.against_majority.get(place), results.outline.method(place.method).label
        if tested is None or tested.holm is None:
            untested.append(label)
        elif tested.gain.value <= 0 or tested.holm >= SIGNIFICANT:
            not_shown.append(f"{label} {_change(tested.gain)}")
    if not_shown:
        is_all = len(not_shown) == len(own) > _NAMED
        told = f"no method is shown to beat {whom}" if is_all else f"not shown to beat {whom}: {'; '.join(not_shown)}"
        yield Statement("note", f"{where}: {told} (paired by question, Holm-corrected over {_compared(results)}).")
    if untested:
        named = ", ".join(untested) if len(untested) <= _NAMED else plural(len(untested), "method")
        yield Statement("note", f"{where}: not tested against {whom}, for want of a second seed: {named}.")


def _compared(results: Results) -> str:
    return f"all {plural(len(list(results.places())), 'comparison')} with that answer"


def _below_chance(
    results: Results, figures: Mapping[Place, Figure], student: str, dataset: str, scorer: Scorer
) -> Iterator[Statement]:
    """Say what is below guessing, whose expected accuracy is known exactly."""
    chance = results.outline.datasets[dataset].chance
    own = [(m, f) for m in results.outline.methods if (f := figures.get(Place(student, dataset, m.id))) is not None]
    where = _where(results, student, dataset)
    below = [_unparsed(m.label, f) for m, f in own if f.accuracy.ci95[1] < chance]
    beside = [m.label for m, f in own if f.accuracy.ci95[0] <= chance <= f.accuracy.ci95[1]]
    if below:
        yield Statement("note", f"{where}: below chance ({percent(chance)}): {', '.join(below)}.{_advice(scorer)}")
    if beside:
        named = ", ".join(beside) if len(beside) <= _NAMED else plural(len(beside), "method")
        yield Statement("note", f"{where}: guessing ({percent(chance)}) lies within the interval of {named}.")


def _ties(results: Results, scorer: Scorer) -> Iterator[Statement]:
    """Say how many answers are ties, which count by their share, and where there are most."""
    of_place = {place: results.ties(place, scorer) for place in results.places()}
    ties, answers = (sum(counts) for counts in zip(*of_place.values(), strict=True))
    if not ties:
        return
    place = max(of_place, key=lambda p: of_place[p][0] / max(1, of_place[p][1]))
    most, of = of_place[place]
    yield Statement(
        "note",
        f"{ties:,} of {plural(answers, 'answer')} are ties; where the right choice is one of k that tie, the answer "
        f"counts 1/k. Most: {_where(results, place.student, place.dataset)}, "
        f"{results.outline.method(place.method).label}, {percent(most / of)}.",
    )


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
            f"{plural(len(single), 'cell')} rest on one seed: how much another would change is not known. The interval "
            "is over questions alone, for that one training, and nothing is tested.",
        )
    if any(m.sweep.chooses for m in results.outline.methods):
        yield Statement(
            "note",
            "The validation accuracy by which settings were chosen is the highest of several, so it is optimistic. The "
            "table of candidates gives the winner's accuracy with the other seeds, which did not choose, where there "
            "are any. Test questions choose nothing.",
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
