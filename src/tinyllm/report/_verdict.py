"""The verdict: what the accuracies of a run show, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinyllm.comparison import Accuracy
from tinyllm.report._words import interval, p_value, percent, plural, points, signed

_SIGNIFICANT = 0.05
_LITTLE = 3  # a gain by the other way that is less than a third of this one
_COMPARING = {"likelihood": "likelihood_normalised", "likelihood_normalised": "likelihood"}
"""The two ways to compare choices: each with the other."""


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


class Gain(NamedTuple):
    """Two accuracies, as shares, and p of their paired test."""

    before: float
    after: float
    p: float


class Verdict(NamedTuple):
    """What the accuracies show. The headline is one sentence, or two if the student may not beat a trivial answer."""

    headline: str
    text: str


def training_in_words(soft: Mapping[str, Any]) -> str:
    """Return the subject of a sentence about a training, by the soft targets that it learnt (`train.soft`)."""
    if soft.get("shuffled"):
        return "Training on opinions about other questions (train.soft.shuffle)"
    if soft.get("learnt_without_answer") and not soft["with_answer"]:
        return "Training on the teachers' opinions, without an answer,"
    return "Training"


def verdict(
    before: Shown | None,
    after: Shown | None,
    majority: float | None,
    outcomes: Outcomes | None,
    chance: float | None = None,
    over_majority: float | None = None,
    what: str = "Training",
    caution: str = "",
) -> Verdict:
    """Say how training changed an accuracy, whether the change can be noise, and whether it beats a trivial answer.

    The trivial answer is guessing, whose expected accuracy is exact, or the most frequent answer, which is compared
    with the student in pairs. The better of the two counts.

    Args:
        over_majority: p of the exact paired test of the student against the most frequent answer.
        what: the training in words.
        caution: what another scorer shows, in words (`by_other_scorer`).
    """
    if after is None:
        said = "The student has not been scored yet."
        if before is not None:
            said = f"Before training the student gets {_full(before)} right; it has not been scored after training yet."
        return Verdict(said, said)
    if before is None:
        moved = f"The student gets {_full(after)} right; it was not scored before training."
    else:
        moved = _change(before, after, outcomes, what)
    trivial = _against_trivial(after.value, after.ci95[0], majority, chance, over_majority)
    text = " ".join(filter(None, (moved, trivial, caution, _unreadable(before, after))))
    if before is None or outcomes is None:
        return Verdict(text, text)
    doubts = ("" if trivial.startswith("It beats") else trivial, caution)
    return Verdict(" ".join(filter(None, (moved, *doubts))), text)


def verdict_in_words(metrics: Mapping[str, Any], scorer: str, label: str) -> str:
    """Return what `metrics.json` shows, for a terminal: the change with its test, and what the student may not beat.

    Args:
        label: the scorer in words.
    """
    after, gain = metrics["accuracy"][scorer], (metrics.get("gain") or {}).get(scorer)
    if gain is None:
        said = f"The student answers {100 * after['value']:.1f} % of {after['n']} test questions right"
    else:
        change, low, high = (f"{100 * share:+.1f}" for share in (gain["difference"], *gain["ci95"]))
        said = training_in_words((metrics.get("train") or {}).get("soft") or {})
        if gain["p"] >= _SIGNIFICANT:
            said += " is not shown to change the accuracy"
        else:
            said += f" {'helped' if gain['difference'] > 0 else 'hurt'}"
        said += f": {change} points (95 % interval {low} to {high}, p = {gain['p']:.2g}) on {gain['n']} test questions"
    p = ((metrics.get("over_majority") or {}).get(scorer) or {}).get("p")
    trivial = _against_trivial(after["value"], after["ci95"][0], metrics["majority"], metrics["chance"], p)
    before, tested = (metrics.get(key) or {} for key in ("before", "gain"))
    both = before.keys() & tested.keys()
    gains = {s: Gain(before[s]["value"], metrics["accuracy"][s]["value"], tested[s]["p"]) for s in both}
    caution = by_other_scorer(gains, scorer)
    doubts = ("" if trivial.startswith("It beats") else trivial, caution)
    return " ".join([f"{said}, scored by {label.lower()}.", *filter(None, doubts)]).replace("\u00a0", " ")


def by_other_scorer(gains: Mapping[str, Gain], scorer: str) -> str:
    """Say if the other way to compare choices starts higher and shows no gain. Else return nothing.

    Then a part of the gain may only be that the student learnt how this scorer looks at it. A gain that is not shown is
    doubted only where the untrained student is as good by the other way as the trained one is by this.
    """
    own, other = gains.get(scorer), gains.get(_COMPARING.get(scorer, ""))
    if own is None or other is None or own.after <= own.before:
        return ""
    if other.p < _SIGNIFICANT or other.before <= own.before or (own.p >= _SIGNIFICANT and other.before < own.after):
        return ""
    share = "most" if _LITTLE * (other.after - other.before) < own.after - own.before else "part"
    way = "by the whole text of a choice" if scorer == "likelihood_normalised" else "per token"
    return (
        f"Compared {way}, the student gets {percent(other.before)} right untrained and {percent(other.after)} trained "
        f"({p_value(other.p)}). So {share} of the gain may be that it learnt to be compared in one way."
    )


def _full(accuracy: Shown) -> str:
    return (
        f"{percent(accuracy.value)} of {plural(accuracy.n, 'question')} (95\u00a0% interval {interval(*accuracy.ci95)})"
    )


def _change(before: Shown, after: Shown, outcomes: Outcomes | None, what: str) -> str:
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
    return f"{what} {shown}: {moved} ({by}) on {plural(after.n, 'test question')}."


def _against_trivial(value: float, low: float, majority: float | None, chance: float | None, p: float | None) -> str:
    if majority is None:
        return ""
    if chance is not None and chance > majority:
        rate = f"guessing ({percent(chance)})"
        is_above, is_shown = value > chance, low > chance
    else:
        rate = f"always giving the most frequent answer ({percent(majority)}{'' if p is None else f', {p_value(p)}'})"
        is_above, is_shown = value > majority, p is not None and p < _SIGNIFICANT
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
