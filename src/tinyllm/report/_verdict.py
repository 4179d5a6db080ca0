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
    """The same test questions before and after training. `p` is from the exact paired test."""

    fixed: int
    broken: int
    right: int
    wrong: int
    p: float


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
    gain: tuple[float, float] | None = None,
) -> str:
    """Say in one sentence whether training changed an accuracy, by the exact paired test.

    A second sentence follows if the student is not shown to beat a trivial answer.

    Args:
        gain: the 95 % interval of the change.
    """
    if before is None or after is None or outcomes is None:
        return verdict(before, after, majority, outcomes, chance, over)
    by = points(after.value - before.value)
    ends = f", 95\u00a0% interval {signed(gain[0])} to {signed(gain[1])}" if gain else ""
    told = f"{percent(before.value)} to {percent(after.value)} ({by}{ends}, {p_value(outcomes.p)})"
    shown = "helped" if after.value > before.value else "hurt"
    if outcomes.p >= _SIGNIFICANT:
        shown = "is not shown to change the accuracy"
    trivial = _against_trivial(after, majority, chance, over)
    warning = "" if trivial.startswith("It beats") else trivial
    return f"Training {shown}: {told} on {plural(after.n, 'test question')}. {warning}".rstrip()


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
        moved = (
            f"The student gets {_full(after)} right. It was not scored before training, "
            "so this page cannot say what training did."
        )
    else:
        moved = f"{_moved(before, after)} {_noise(before, after, outcomes)}"
    sentences = (moved, _against_trivial(after, majority, chance, over), _unreadable(before, after))
    return " ".join(s for s in sentences if s)


def _full(accuracy: Shown) -> str:
    return (
        f"{percent(accuracy.value)} of {plural(accuracy.n, 'question')} (95\u00a0% interval {interval(*accuracy.ci95)})"
    )


def _moved(before: Shown, after: Shown) -> str:
    numbers = plural(after.n, "question")
    if before.n != after.n:
        numbers = f"{plural(before.n, 'question')} before, {after.n:,} after: not the same test"
    if percent(before.value) == percent(after.value):
        return f"Training left accuracy at {percent(after.value)} ({numbers})."
    change = points(after.value - before.value)
    return f"Training moved accuracy from {percent(before.value)} to {percent(after.value)} ({change}, {numbers})."


def _noise(before: Shown, after: Shown, outcomes: Outcomes | None) -> str:
    ranges = f"{interval(*before.ci95)} and {interval(*after.ci95)}"
    overlaps = before.ci95[0] <= after.ci95[1] and after.ci95[0] <= before.ci95[1]
    same = percent(before.value) == percent(after.value)
    if outcomes is None:
        if same:
            return f"The 95\u00a0% intervals are {ranges}."
        if overlaps:
            return f"The 95\u00a0% intervals ({ranges}) overlap, so this may be noise."
        return f"The 95\u00a0% intervals ({ranges}) do not overlap, so noise is an unlikely explanation."
    changes = f"it fixed {outcomes.fixed:,} and broke {outcomes.broken:,} (exact paired test, {p_value(outcomes.p)})"
    real = outcomes.p < _SIGNIFICANT
    if same:
        return f"Question by question, {changes}."
    if not overlaps:
        found = "" if real else ", but the paired test does not exclude noise"
        return f"The 95\u00a0% intervals ({ranges}) do not overlap; question by question, {changes}{found}."
    if real:
        return (
            f"The 95\u00a0% intervals ({ranges}) overlap, so by these alone this may be noise; "
            f"but question by question {changes}, which noise rarely does."
        )
    return f"The 95\u00a0% intervals ({ranges}) overlap, so this may be noise: question by question, {changes}."


def _against_trivial(after: Shown, majority: float | None, chance: float | None, over: Over | None) -> str:
    if majority is None:
        return ""
    if chance is not None and chance > majority:
        rate = f"guessing ({percent(chance)})"
        if after.ci95[0] > chance:
            return f"It beats {rate}: the whole interval is above it."
        if after.value > chance:
            return f"It is above {rate}, but the interval includes that value, so a real difference is not shown."
        return f"It does not beat {rate}."
    rate = f"always giving the most frequent answer ({percent(majority)})"
    if after.value <= majority:
        return f"It does not beat {rate}."
    if over is None:
        return f"It is above {rate}; whether by more than noise was not tested when it was evaluated."
    told = (
        f"it alone is right on {plural(over.better, 'question')}, that answer alone on {over.worse:,} (exact paired "
        f"test, {p_value(over.p)})"
    )
    if over.p < _SIGNIFICANT:
        return f"It beats {rate}: {told}."
    return f"It is above {rate}, but not shown to beat it: {told}."


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
