"""The verdict: what the accuracies of a run show, in words."""

from __future__ import annotations

from dataclasses import dataclass

from tinyllm.comparison import Accuracy
from tinyllm.report._words import interval, p_value, percent, plural, points, signed

_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Shown(Accuracy):
    """An accuracy on the page. `unparsed` counts written answers that match no choice; None if none were written."""

    unparsed: int | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The same test questions before and after training.

    Attributes:
        p: of the exact paired test.
        difference: of the accuracies, with its interval.
    """

    fixed: int
    broken: int
    right: int
    wrong: int
    p: float
    difference: float
    ci95: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Over:
    """The trained student against always giving the most frequent answer, on the same test questions.

    Attributes:
        better, worse: questions that only the student gets right, and that only that answer gets right.
        p: of the exact paired test.
    """

    better: int
    worse: int
    p: float


def headline(
    before: Shown | None,
    after: Shown | None,
    majority: float | None,
    outcomes: Outcomes | None,
    chance: float | None = None,
    over: Over | None = None,
) -> str:
    """Say in one sentence whether training changed an accuracy, by the exact paired test.

    A second sentence follows if the student is not shown to beat a trivial answer.
    """
    if before is None or after is None or outcomes is None:
        return verdict(before, after, majority, outcomes, chance, over)
    trivial = _against_trivial(after, majority, chance, over)
    return f"{_change(before, after, outcomes)} {'' if trivial.startswith('It beats') else trivial}".rstrip()


def verdict(
    before: Shown | None,
    after: Shown | None,
    majority: float | None,
    outcomes: Outcomes | None,
    chance: float | None = None,
    over: Over | None = None,
) -> str:
    """Say how training changed an accuracy, whether the change can be noise, and whether it beats a trivial answer.

    The trivial answer is guessing, whose expected accuracy is exact, or the most frequent answer, which is compared
    with the student in pairs. The better of the two counts.
    """
    if after is None:
        if before is None:
            return "The student has not been scored yet."
        return f"Before training the student gets {_full(before)} right; it has not been scored after training yet."
    if before is None:
        moved = f"The student gets {_full(after)} right; it was not scored before training."
    else:
        moved = _change(before, after, outcomes)
    sentences = (moved, _against_trivial(after, majority, chance, over), _unreadable(before, after))
    return " ".join(s for s in sentences if s)


def _full(accuracy: Shown) -> str:
    return (
        f"{percent(accuracy.value)} of {plural(accuracy.n, 'question')} (95\u00a0% interval {interval(*accuracy.ci95)})"
    )


def _change(before: Shown, after: Shown, outcomes: Outcomes | None) -> str:
    moved = f"{percent(before.value)} to {percent(after.value)}"
    if before.n != after.n:
        questions = f"{plural(before.n, 'question')} before, {after.n:,} after"
        return f"The accuracy went from {moved}, on different questions ({questions}), so the change is not tested."
    if outcomes is None:
        return f"The accuracy went from {moved}. The change is not tested: the answers to single questions are missing."
    if outcomes.p >= _SIGNIFICANT:
        shown = "is not shown to change the accuracy"
    else:
        shown = "helped" if outcomes.difference > 0 else "hurt"
    low, high = (signed(end) for end in outcomes.ci95)
    by = f"{points(outcomes.difference)}, 95\u00a0% interval {low} to {high}, {p_value(outcomes.p)}"
    return f"Training {shown}: {moved} ({by}) on {plural(after.n, 'test question')}."


def _against_trivial(after: Shown, majority: float | None, chance: float | None, over: Over | None) -> str:
    if majority is None:
        return ""
    if chance is not None and chance > majority:
        rate = f"guessing ({percent(chance)})"
        return _compared(rate, after.value > chance, after.ci95[0] > chance)
    rate = f"always giving the most frequent answer ({percent(majority)}{f', {p_value(over.p)}' if over else ''})"
    return _compared(rate, after.value > majority, over is not None and over.p < _SIGNIFICANT)


def _compared(rate: str, is_above: bool, is_shown: bool) -> str:
    if not is_above:
        return f"It does not beat {rate}."
    return f"It beats {rate}." if is_shown else f"It is not shown to beat {rate}."


def _unreadable(before: Shown | None, after: Shown) -> str:
    now, then = after.unparsed, before.unparsed if before else None
    if now is None:
        return ""
    sentence = f"Of {plural(after.n, 'generated answer')}, {now:,} could not be read as a choice"
    if before is not None and then is not None and then > now and after.value > before.value:
        return (
            f"{sentence}, against {then:,} before training: part of the gain may come from the format of the answers."
        )
    return f"{sentence}." if now else ""
