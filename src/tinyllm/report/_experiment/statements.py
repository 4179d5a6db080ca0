"""What an experiment shows, in words: what helped, what hurt, what can be noise, and what is too small to detect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinyllm.comparison import Difference, findable
from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.outline import MethodOutline
from tinyllm.comparison.results import Figure, Place, Results
from tinyllm.report._experiment.tables import SIGNIFICANT, sign
from tinyllm.report._words import p_value, percent, plural, points, signed

_NAMED = 4  # longer lists of methods are shortened

_ADVICE = (
    " Where choices differ in length and are not shown (`layout: cloze`), `scorer: likelihood_normalised` is the fair "
    "one."
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `kind` is `helped`, `hurt`, `noise` or `note`."""

    kind: str
    text: str


def statements(results: Results, scorer: Scorer) -> list[Statement]:
    """Return the statements about an experiment, by student and dataset."""
    figures = results.figures(scorer)
    said: list[Statement] = []
    for student in results.outline.students:
        for dataset in results.outline.datasets:
            said += _of_dataset(results, figures, student, dataset)
            said += map(_note, _controls(results, student, dataset))
            said += map(_note, _against_majority(results, figures, student, dataset))
            said += map(_note, _below_chance(results, figures, student, dataset, scorer))
    return [*said, *map(_note, [*_ties(results, scorer), *_cautions(results), *_unequal_search(results)])]


def headline(results: Results, scorer: Scorer) -> str:
    """Answer the question of the experiment in one or two sentences: is a method better than the baseline?

    Controls do not count as methods here. They are compared with their twins in `statements`.
    """
    outline, figures = results.outline, results.figures(scorer)
    baseline = f"“{outline.method(outline.baseline).label}”"  # a name may have a comma
    compared = [
        (figure, figure.gain, f"“{method.label}” on {outline.where(student, dataset)}")
        for student in outline.students
        for dataset in outline.datasets
        for method in outline.methods
        if method.kind != "control"
        and results.is_trained(method.id)
        and (figure := figures.get(Place(student, dataset, method.id))) is not None
        and figure.gain is not None
    ]
    if not compared:
        return f"There is no answer yet: no method has finished the same seed as {baseline}."
    tested = [of for of in compared if of[0].holm is not None]
    compared = sorted(tested or compared, key=lambda of: of[1].value if tested else abs(of[1].value), reverse=True)
    better, worse = ([name for figure, _, name in compared if sign(figure) == to] for to in (1, -1))
    _, gain, name = compared[0]
    most = f"{name}, at {_change(gain)}"
    if better:
        said = f"Better than {baseline}, beyond noise: {_few(better)}. The largest difference is that of {most}."
    elif tested:
        said = f"No method is shown to be better than {baseline}. The largest difference is that of {most}."
    else:
        return f"Nothing is tested, because there is only one seed. The largest difference from {baseline}: {most}."
    return f"{said} Worse: {_few(worse)}." if worse else said


def _note(text: str) -> Statement:
    return Statement("note", text)


def _of_dataset(results: Results, figures: Mapping[Place, Figure], student: str, dataset: str) -> Iterator[Statement]:
    outline = results.outline
    baseline, where = outline.method(outline.baseline).label, outline.where(student, dataset)
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
        change = _change(figure.gain)
        if figure.holm is None:
            untested.append(f"{method.label} {change}")
        elif sign(figure) == 0:
            noise.append((method, figure.gain))
        else:
            verb = "helped" if sign(figure) > 0 else "hurt"
            corrected = f"{p_value(figure.holm)} after Holm's correction"
            yield Statement(verb, f"{where}: {method.label} {verb}: {change} against {baseline}, {corrected}.")
    if noise:
        yield _nothing_shown(where, baseline, noise, results.planned())
    if untested:
        yield _note(
            f"{where}: against {baseline}: {'; '.join(untested)}. Only one seed is common to both, so these are "
            "differences between two trainings, with intervals over questions only. They do not compare methods. A "
            "test needs more seeds."
        )
    if apart:
        yield _note(f"{where}: {', '.join(apart)} cannot be compared with {baseline}: no seed is finished for both.")


_FEW_SEEDS = " Two seeds hardly tell how much seeds vary, so this difference is a guess."


def _nothing_shown(
    where: str, baseline: str, noise: list[tuple[MethodOutline, Difference]], comparisons: int
) -> Statement:
    """Name the methods without a significant difference, and say which difference the experiment can detect."""
    excludes = [m for m, gain in noise if not gain.ci95[0] <= 0 <= gain.ci95[1]]
    corrected = (
        f" Intervals without 0 among these: {len(excludes)}. They are not significant after the correction for all "
        f"{comparisons} comparisons."
        if excludes
        else ""
    )
    is_short = len(noise) <= _NAMED
    named = [(m, gain) for m, gain in noise if is_short or m.like == "tinyllm" or m in excludes]
    told = "; ".join(f"{m.label} {_change(gain)}" for m, gain in named)
    others = [gain.value for m, gain in noise if (m, gain) not in named]
    if others:
        ends = f"{signed(min(others))} to {points(max(others))}"
        told += f"{'; ' if told else ''}{plural(len(others), 'other')} ({ends}, intervals in the tables)"
    found = findable([gain.spread for _, gain in noise], comparisons)
    return Statement(
        "noise",
        f"{where}: no difference from {baseline} is shown for {told}.{corrected} If questions and seeds vary as they "
        f"do here, a true difference of {100 * found:.1f} points is found with a probability of 0.8. Smaller ones are "
        f"found less often.{_FEW_SEEDS if min(gain.spread.freedom for _, gain in noise) == 1 else ''}",
    )


def _controls(results: Results, student: str, dataset: str) -> Iterator[str]:
    """Say whether it matters what the teachers say, by comparing each control with its twin."""
    where = results.outline.where(student, dataset)
    for control, twin in results.controls():
        tested = results.against_twin(control, twin, student, dataset)
        if tested is None or tested.holm is None:
            continue
        told = f"({_change(tested.gain)}, {p_value(tested.holm)} after Holm's correction)"
        if tested.holm >= SIGNIFICANT:
            yield (
                f"{where}: no difference between {control.label} and {twin.label} is shown {told}. So nothing here "
                "shows that the student learns from what the teachers say."
            )
        elif tested.gain.value < 0:
            yield f"{where}: it matters what the teachers say: {control.label} is worse than {twin.label} {told}."
        else:
            yield f"{where}: the control is better: {control.label} is better than {twin.label} {told}."


def _against_majority(results: Results, figures: Mapping[Place, Figure], student: str, dataset: str) -> Iterator[str]:
    """Name the methods that are not significantly better than always giving the most frequent answer."""
    outline = results.outline
    where = outline.where(student, dataset)
    whom = f"always giving the most frequent answer ({percent(outline.datasets[dataset].majority)})"
    own = [(p, m.label) for m in outline.methods if (p := Place(student, dataset, m.id)) in figures]
    not_shown: list[str] = []
    untested: list[str] = []
    for place, label in own:
        tested = results.against_majority.get(place)
        if tested is None or tested.holm is None:
            untested.append(label)
        elif tested.gain.value <= 0 or tested.holm >= SIGNIFICANT:
            not_shown.append(f"{label} {_change(tested.gain)}")
    if not_shown:
        is_all = len(not_shown) == len(own) > _NAMED
        family = f"all {plural(len(list(results.places())), 'comparison')} with that answer"
        told = f"no method is shown to beat {whom}" if is_all else f"not shown to beat {whom}: {'; '.join(not_shown)}"
        yield f"{where}: {told} (paired by question, Holm-corrected over {family})."
    if untested:
        yield f"{where}: not tested against {whom}, because there is only one seed: {_few(untested)}."


def _below_chance(
    results: Results, figures: Mapping[Place, Figure], student: str, dataset: str, scorer: Scorer
) -> Iterator[str]:
    """Name the methods below guessing, whose expected accuracy is exact."""
    chance = results.outline.datasets[dataset].chance
    own = [(m, f) for m in results.outline.methods if (f := figures.get(Place(student, dataset, m.id))) is not None]
    where = results.outline.where(student, dataset)
    below = [_unparsed(m.label, f) for m, f in own if f.accuracy.ci95[1] < chance]
    beside = [m.label for m, f in own if f.accuracy.ci95[0] <= chance <= f.accuracy.ci95[1]]
    if below:
        advice = _ADVICE if scorer == "likelihood" else ""
        yield f"{where}: below chance ({percent(chance)}): {', '.join(below)}.{advice}"
    if beside:
        yield f"{where}: guessing ({percent(chance)}) lies within the interval of {_few(beside)}."


def _unparsed(label: str, figure: Figure) -> str:
    if figure.unparsed is None:
        return label
    return f"{label} ({percent(figure.unparsed)} of its written answers match no choice)"


def _ties(results: Results, scorer: Scorer) -> Iterator[str]:
    """Say how many answers are ties, and which method has most of them."""
    of_place = {place: results.ties(place, scorer) for place in results.places()}
    ties, answers = (sum(counts) for counts in zip(*of_place.values(), strict=True))
    if ties:
        place = max(of_place, key=lambda p: of_place[p][0] / max(1, of_place[p][1]))
        most, of = of_place[place]
        yield (
            f"{ties:,} of {plural(answers, 'answer')} are ties. If the right choice is one of k that tie, the answer "
            f"counts 1/k. Most: {results.outline.where(place.student, place.dataset)}, "
            f"{results.outline.method(place.method).label}, {percent(most / of)}."
        )


def _cautions(results: Results) -> Iterator[str]:
    trained = [p for p in results.places() if results.is_trained(p.method)]
    waiting = [p for p in results.places() if not results.of(p)]
    undecided = [p for p in waiting if results.all_of(p)]
    single = [p for p in trained if len(results.of(p)) == 1]
    if results.failures:
        first = results.failures[0]
        lost = any(results.of(Place(f.student, f.dataset, f.method)) for f in results.failures)
        yield (
            f"{plural(len(results.failures), 'run')} failed, such as {first.method} on {first.dataset} with seed "
            f"{first.seed}: {first.error.splitlines()[0]}"
            + (" A failed candidate of settings counts as worse than the others." if lost else "")
        )
    if missing := len(waiting) - len(undecided):
        yield f"{plural(missing, 'cell')} of the tables without a finished run."
    if undecided:
        yield f"{plural(len(undecided), 'cell')} without chosen settings, because candidates are not finished."
    if single:
        yield (
            f"{plural(len(single), 'cell')} with one seed only, so the variance over seeds is not known. The interval "
            "is over questions, for that one training, and nothing is tested."
        )
    if any(m.sweep.chooses for m in results.outline.methods):
        yield (
            "Settings were chosen by the highest of several validation accuracies, so this accuracy is optimistic. The "
            "table of candidates also gives the winner's accuracy with the other seeds, which did not choose it. Test "
            "questions choose nothing."
        )


def _unequal_search(results: Results) -> Iterator[str]:
    """Name the methods with fewer or more candidates of settings than the baseline."""
    baseline = results.outline.method(results.outline.baseline)
    had = baseline.sweep.candidates()
    counts = [(m.label, m.sweep.candidates()) for m in results.outline.methods if results.is_trained(m.id)]
    fewer, more = [f"{m} ({n})" for m, n in counts if n < had], [f"{m} ({n})" for m, n in counts if n > had]
    for which, verb in ((fewer, "fewer"), (more, "more")):
        if which:
            yield (
                f"{_few(which)} had {verb} candidates of settings than {baseline.label} ({had}). This can be part of a "
                "difference."
            )


def _change(gain: Difference) -> str:
    low, high = map(signed, gain.ci95)
    return f"{points(gain.value)} ({low} to {high})"


def _few(labels: Sequence[str]) -> str:
    """Name a few methods, or count many."""
    return ", ".join(labels) if len(labels) <= _NAMED else plural(len(labels), "method")
