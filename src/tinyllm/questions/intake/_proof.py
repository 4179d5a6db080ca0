"""What the rows prove about the answers, and what they leave open."""

from __future__ import annotations

import hashlib
import shlex
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyllm.questions.intake._answers import NOTHING, SAID, SEVERAL, UNFIT, WAYS, Trial, Way
from tinyllm.questions.intake._cells import is_scalar, number_of, text_of
from tinyllm.questions.intake._choices import Choices, TextChoices
from tinyllm.questions.intake._columns import Picked, PositionedChoices
from tinyllm.questions.intake._names import has_role
from tinyllm.questions.intake._types import Wishes

_ENOUGH_ROWS = 20  # texts that equal a choice in so many rows are not equal by chance
_WEAK = (" / ", "/", ",")  # separators that may also be inside a choice
_LEFT_OUT = 0.34  # at most this share of rows may have no choices, or several answers
_BOTH = 0.5  # of the rows two columns have to answer both, to be compared
_SHOWN = 5
_COMPARED = 200  # rows by which two readings are compared
_ASKED: Mapping[str, tuple[Way, ...]] = {
    "letter": ("label",), "text": ("text",), "number": ("from 0", "from 1"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meaning:
    """How the answer is given. Without a column, the choices mark it, or there is none."""

    column: str | None
    way: Way | None
    proof: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Doubt:
    """What the rows leave open. A doubt with a higher rank was closer to a reading."""

    reason: str
    rank: int
    about_answer: bool = False


class Candidate:
    """One way to find the choices, and what the rows say about it.

    Args:
        classes: names of the classes, by column of class numbers.
        names: the columns of the choices, if each choice has one.
        most: try at most this many columns as the answer.
    """

    def __init__(
        self, choices: Choices, picked: Picked, classes: Mapping[str, tuple[str, ...]], names: Sequence[str], most: int
    ) -> None:
        self.choices = choices
        self.picked = picked
        tried = [*picked.answers, *picked.maybe, *picked.others][:most]
        self.trials = {c: Trial(c, tuple(names), tuple(classes.get(c, ()))) for c in tried}
        self.names = classes
        self.first_why_not = ""
        self.right = array("h")  # of each row with choices: the choice that is marked as right
        self.withheld: set[str] = set()  # columns with a -1
        self._named: str | None = None
        self._ids = array("q")
        self._texts: list[str] = []

    def see(self, place: str, cells: Mapping[str, Any], split: str) -> None:
        """Look at a row."""
        question = cells.get(self.picked.question or "")
        text = text_of(question) if is_scalar(question) else ""
        options = self.choices.of(cells)
        if self.picked.question and not text:
            options = f"no question in '{self.picked.question}'"
        if isinstance(options, str):
            self.first_why_not = self.first_why_not or f"{place}: {options}"
            return
        if self._named is None:
            self._named = next((c for c in cells if has_role(c, "id") and is_scalar(cells[c])), "")
        name = cells.get(self._named)
        if (isinstance(name, str) and text_of(name)) or number_of(name) is not None:
            self._ids.append(hash((split, text_of(name))))
        else:
            self._named = ""  # some rows have no id
        if len(self._texts) < _COMPARED:
            self._texts.append("\x1f".join((text, *options.texts)))
        marked = SEVERAL if options.marked_wrongly else NOTHING
        self.right.append(options.right if options.right is not None else marked)
        for trial in self.trials.values():
            trial.see(place, cells, options)
            if number_of(cells.get(trial.column)) == -1:
                self.withheld.add(trial.column)

    @property
    def identity(self) -> str | None:
        """The column with a unique id for each question, if there is one."""
        return self._named if self._named and len(np.unique(np.asarray(self._ids))) == len(self.right) else None

    def digest(self, meaning: Meaning) -> bytes:
        """Return a hash of the first questions and answers as this candidate reads them."""
        answers = self.right[:_COMPARED].tolist()
        if meaning.column is not None:
            answers = self.trials[meaning.column].results(meaning.way or "label")[:_COMPARED].tolist() or answers
        return hashlib.sha256(repr((self._texts, answers)).encode("utf-8", "replace")).digest()


def settle(candidate: Candidate, rows: int, wishes: Wishes) -> Meaning | Doubt:
    """Return how the answers are given, if the rows prove it."""
    choices, picked, trials = candidate.choices, candidate.picked, candidate.trials
    fit = len(candidate.right)
    if fit < (1 - _LEFT_OUT) * rows or not fit:
        return Doubt(f"the choices are not {choices.said}: {candidate.first_why_not}", rank=0)
    if picked.doubts:
        return Doubt(" ".join(picked.doubts), rank=3)
    if choices.answers_itself:
        right = np.frombuffer(candidate.right, np.int16)
        if (right >= 0).sum() < (1 - _LEFT_OUT) * fit:
            return Doubt(f"the choices are not {choices.said}: most rows mark none or several as right", rank=0)
        return Meaning(None, None, (f"each row marks the right choice itself ({choices.said})",))
    strong = [trials[c] for c in picked.answers if c in trials and not trials[c].is_empty]
    weak_separator = isinstance(choices, TextChoices) and choices.separator in _WEAK
    found = _agreed(strong, candidate, wishes)
    if isinstance(found, Meaning):
        if isinstance(choices, PositionedChoices) and not _reaches_ends(found, candidate):
            return Doubt("columns without names: the first and the last possible choice are never right", rank=1)
        if found.way == "text" or not weak_separator:
            return _contradicted(found, candidate, wishes) or found
    elif found is not None and strong:
        return found
    if weak_separator:
        return Doubt(
            f"the choices may be {choices.said}, but a choice may contain this sign. Only answers that are texts of "
            "choices would prove it. Give each choice a column, or separate them with `|`",
            rank=2,
            about_answer=True,
        )
    weak = [trials[c] for c in picked.maybe if c in trials and _fits_any(trials[c], "label", "text")]
    if weak and isinstance(found := _agreed(weak, candidate, wishes), Meaning):
        return _contradicted(found, candidate, wishes) or found
    others = [trials[c] for c in picked.others if c in trials]
    telling = [t for t in others if _fits_any(t, "text", "label") and _varies(t)]
    if telling:
        return _agreed(telling, candidate, wishes) or Doubt("no answers", rank=1)
    unsaid = [*(trials[c] for c in picked.maybe if c in trials and not has_role(c, "id")), *others]
    numbers = [t for t in unsaid if _fits_any(t, "from 0", "from 1") and not _counts_rows(t)]
    if numbers:
        listed = ", ".join(f"'{t.column}'" for t in numbers)
        column = shlex.quote(numbers[0].column) if len(numbers) == 1 else "COL"
        return Doubt(
            f"the numbers in {listed} may be answers, but the name does not say so. If they are, use --answer "
            f"{column}, otherwise --no-answers",
            rank=2,
            about_answer=True,
        )
    empty = [trials[c] for c in picked.answers if c in trials]
    said = f"'{empty[0].column}' is empty, or -1, in every row" if empty else "there is no column of answers"
    return Meaning(None, None, (f"no answers: {said if wishes.has_answers else '--no-answers was given'}",))


def _contradicted(meaning: Meaning, candidate: Candidate, wishes: Wishes) -> Doubt | None:
    """Return a doubt if another column names the same choices in most rows, and other ones in some."""
    if wishes.answer is not None or meaning.column is None:
        return None
    ours = candidate.trials[meaning.column].results(meaning.way or "label")
    for column, trial in candidate.trials.items():
        for way in ("label", "text"):
            theirs = trial.results(way)
            if column == meaning.column or not trial.fits(way) or not _varies(trial):
                continue
            both = (ours >= 0) & (theirs >= 0)
            differ = np.flatnonzero(both & (ours != theirs))
            if len(differ) and both.sum() > max(2 * len(differ), _BOTH * len(ours)):
                shown = ", ".join(str(at + 1) for at in differ[:_SHOWN]) + (", …" if len(differ) > _SHOWN else "")
                return Doubt(
                    f"'{meaning.column}' and '{column}' both name a choice, and contradict each other in "
                    f"{len(differ)} of {int(both.sum())} rows: {shown} (of those with choices). Correct them, or say "
                    f"which is right: --answer '{meaning.column}' or --answer '{column}'",
                    rank=5,
                    about_answer=True,
                )
    return None


def _reaches_ends(meaning: Meaning, candidate: Candidate) -> bool:
    """Tell whether the first and the last possible choice are right in some row, and every row has an answer."""
    results = candidate.trials[meaning.column or ""].results(meaning.way or "label")
    return NOTHING not in results and {0, len(candidate.choices.columns) - 1} <= set(results.tolist())


def _fits_any(trial: Trial, *ways: Way) -> bool:
    return any(trial.fits(way) for way in ways)


def _varies(trial: Trial) -> bool:
    results = trial.results("text" if trial.fits("text") else "label")
    return len(results) > 1 and len(set(results[results >= 0].tolist())) > 1


def _counts_rows(trial: Trial) -> bool:
    results = trial.results("from 0")
    return len(results) > 1 and bool((np.diff(results) == 1).all())


def _agreed(trials: Sequence[Trial], candidate: Candidate, wishes: Wishes) -> Meaning | Doubt | None:
    """Return the common meaning of several columns of answers; a doubt if they contradict each other."""
    read = [(trial, _meaning(trial, candidate, wishes)) for trial in trials]
    proven = [(t, m) for t, m in read if isinstance(m, Meaning)]
    if not proven:
        doubts = [m for _, m in read if isinstance(m, Doubt)]
        if not doubts:
            return None
        top = max(d.rank for d in doubts)
        return Doubt("; ".join(d.reason for d in doubts if d.rank == top), rank=top, about_answer=True)
    first, meaning = proven[0]
    results = first.results(meaning.way or "label")
    proofs = list(meaning.proof)
    for trial, other in read:
        if trial is first:
            continue
        ways = [other.way] if isinstance(other, Meaning) else [w for w in WAYS if trial.fits(w)]
        if not ways:
            continue  # this column is about something else
        differences = [_differ(results, trial.results(way or "label")) for way in ways]
        if all(d is not None for d in differences):
            place = differences[0] or 0
            return Doubt(
                f"'{first.column}' and '{trial.column}' contradict each other. In row {place + 1} (of those with "
                f"choices), '{first.column}' means choice {int(results[place]) + 1}, and '{trial.column}' means choice "
                f"{int(trial.results(ways[0] or 'label')[place]) + 1}. Use --answer COL for the right one",
                rank=5,
                about_answer=True,
            )
        proofs.append(f"'{trial.column}' says the same in every row")
    return Meaning(meaning.column, meaning.way, tuple(proofs))


def _differ(ours: Any, theirs: Any) -> int | None:
    """Return the first row in which two results name different choices."""
    different = np.flatnonzero((ours >= 0) & (theirs >= 0) & (ours != theirs))
    return int(different[0]) if len(different) else None


def _meaning(trial: Trial, candidate: Candidate, wishes: Wishes) -> Meaning | Doubt:
    """Return how one column gives the answers, if its cells prove it."""
    name = f"'{trial.column}'"
    for way in ("label", "text"):
        results = trial.results(way)
        there = results[results != NOTHING]
        if len(there) and (there == SEVERAL).sum() > _LEFT_OUT * len(there):
            text = f"{name} names several right choices in most rows; TinyLLM's questions have one"
            return Doubt(text, 4, about_answer=True)
    fits = [w for w in WAYS if trial.fits(w)]
    if wishes.answers_as is not None:
        fits = [w for w in fits if w in _ASKED[wishes.answers_as]]
    words = [w for w in fits if w in ("label", "text")]
    numbers = [w for w in fits if w.startswith("from")]
    if wishes.answers_from is not None:
        numbers = [w for w in numbers if w == f"from {wishes.answers_from}"]
    else:
        # A single 0 proves that counting does not start at 1. The number of choices proves that it does not start at 0.
        refuted = {w for w, at in (("from 1", trial.zero), ("from 0", trial.last)) if at is not None}
        numbers = [w for w in numbers if w not in refuted]
    if len(words) == 2 and (at := _differ(trial.results("label"), trial.results("text"))) is not None:
        return _ambiguous(trial, ("label", "text"), at)
    if words and numbers and not (words[0] == "label" and candidate.choices.has_labels):
        # If the data have labels, these may be numbers. Texts that fit row after row are not numbers.
        at = _differ(trial.results(words[0]), trial.results(numbers[0]))
        told = len(trial.results(words[0])) >= _ENOUGH_ROWS and UNFIT not in trial.results(words[0])
        if at is not None and not told and wishes.answers_as is None:
            return _ambiguous(trial, (words[0], numbers[0]), at)
    if words:
        rows = int((trial.results(words[0]) >= 0).sum())
        return Meaning(trial.column, words[0], (f"{name} is {SAID[words[0]]} in {rows} rows{_but(trial, words[0])}",))
    if trial.names and "from 0" in numbers:
        return Meaning(trial.column, "from 0", (f"{name} holds class numbers, which count from 0",))
    return _of_numbers(trial, numbers, wishes)


def _of_numbers(trial: Trial, numbers: Sequence[Way], wishes: Wishes) -> Meaning | Doubt:
    name = f"'{trial.column}'"
    if len(numbers) == 1:
        way = numbers[0]
        if wishes.answers_from is not None:
            said = "as --answers-from says"
        elif way == "from 0":
            said = f"there is a 0 ({trial.zero})"
        else:
            said = f"{trial.last} holds the number of choices, and no row holds 0"
        return Meaning(trial.column, way, (f"{name} is {SAID[way]}: {said}{_but(trial, way)}",))
    if numbers:
        reason = (
            f"{name} holds numbers that may be counted from 0 or from 1: there is no 0, and none equals the number of "
            "choices. Use --answers-from 0 or --answers-from 1"
        )
    elif trial.zero is not None and trial.last is not None:
        reason = (
            f"{name} has a 0 ({trial.zero}), as if counted from 0, and a number that equals the number of choices "
            f"({trial.last}), as if counted from 1. Correct the rows, or use --answers-from 0 or --answers-from 1"
        )
    else:
        best = max(WAYS, key=lambda w: int((trial.results(w) >= 0).sum()))
        results = trial.results(best)
        asked, fits = wishes.answers_as, int((results >= 0).sum())
        read = f"Read as {SAID[best]}, it fits {fits} of {int((results != NOTHING).sum())} rows"
        if asked is not None and trial.fits(best) and best not in _ASKED[asked]:
            reason = f"{name} does not name a choice by {asked}, as --answers-as says. {read}: leave --answers-as out"
            return Doubt(reason, rank=5, about_answer=True)
        reason = (
            f"{name} does not name a choice by letter, number or text in every row. {read}"
            + (f", and not {', '.join(trial.misfits[best])}" if trial.misfits[best] else "")
            + ". Correct or remove the rows that do not fit, give another column with --answer COL, or use --no-answers"
        )
        return Doubt(reason, rank=4, about_answer=True)
    return Doubt(reason, rank=5, about_answer=True)


def _but(trial: Trial, way: Way) -> str:
    results = trial.results(way)
    parts = []
    if nothing := int((results == NOTHING).sum()):
        parts.append(f"{nothing} row{' has' if nothing == 1 else 's have'} no answer")
    if bad := int((results < NOTHING).sum()):
        parts.append(f"{bad} match{'es' if bad == 1 else ''} no choice or several")
    return f" ({', '.join(parts)})" if parts else ""


def _ambiguous(trial: Trial, ways: tuple[Way, Way], at: int) -> Doubt:
    first, second = (int(trial.results(w)[at]) + 1 for w in ways)
    return Doubt(
        f"'{trial.column}' may be {SAID[ways[0]]} or {SAID[ways[1]]}: in row {at + 1} (of those with choices) the "
        f"first means choice {first}, the second means choice {second}. Use --answers-as letter, --answers-as number "
        "or --answers-as text",
        rank=5,
        about_answer=True,
    )
