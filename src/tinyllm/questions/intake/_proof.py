"""What the rows prove of an answer, and what they leave open."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyllm.questions.intake._answers import NOTHING, SAID, SEVERAL, UNFIT, WAYS, Trial, Way
from tinyllm.questions.intake._cells import is_scalar, number_of, text_of
from tinyllm.questions.intake._choices import Choices, TextChoices
from tinyllm.questions.intake._columns import Picked, PositionedChoices
from tinyllm.questions.intake._names import has_role
from tinyllm.questions.intake._types import Wishes

_ENOUGH_ROWS = 20  # in which a text equals a choice: by chance numbers would not
_WEAK = (" / ", "/", ",")  # separators of choices that texts hold themselves
_LEFT_OUT = 0.34  # share of rows that may have no choices, or several answers


@dataclass(frozen=True, slots=True)
class Meaning:
    """How the answer is given; without a column it is in the choices, or there is none."""

    column: str | None
    way: Way | None
    proof: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Doubt:
    """What the rows leave open; the higher the rank, the nearer it was to a reading."""

    reason: str
    rank: int
    about_answer: bool = False


@dataclass
class Candidate:
    """One way to find the choices, with what the rows say about it."""

    choices: Choices
    picked: Picked
    trials: dict[str, Trial]
    names: dict[str, tuple[str, ...]]
    rows: int = 0
    first_why_not: str = ""
    right: array[int] = field(default_factory=lambda: array("h"))
    _named: str | None = None
    _ids: array[int] = field(default_factory=lambda: array("q"))
    _digests: list[str] = field(default_factory=list)
    _withheld: set[str] = field(default_factory=set)

    @classmethod
    def made(
        cls, choices: Choices, picked: Picked, classes: Mapping[str, tuple[str, ...]], names: Sequence[str], most: int
    ) -> Candidate:
        """Return a candidate that has seen no rows yet."""
        tried = [*picked.answers, *picked.maybe, *picked.others][:most]
        trials = {c: Trial(c, tuple(names), tuple(classes.get(c, ()))) for c in tried}
        return cls(choices, picked, trials, dict(classes))

    def see(self, place: str, cells: Mapping[str, Any], split: str) -> None:
        """Take in a row."""
        self.rows += 1
        question = cells.get(self.picked.question or "")
        if self.picked.question and not (is_scalar(question) and text_of(question)):
            self._no(place, f"no question in '{self.picked.question}'")
            return
        options = self.choices.of(cells)
        if isinstance(options, str):
            self._no(place, options)
            return
        self._note_identity(cells, split)
        if len(self._digests) < 200:
            self._digests.append("\x1f".join((text_of(question) if is_scalar(question) else "", *options.texts)))
        self.right.append(
            options.right if options.right is not None else SEVERAL if options.marked_wrongly else NOTHING
        )
        for trial in self.trials.values():
            trial.see(place, cells, options)
            if number_of(cells.get(trial.column)) == -1:
                self._withheld.add(trial.column)

    def _no(self, place: str, reason: str) -> None:
        self.first_why_not = self.first_why_not or f"{place}: {reason}"

    def _note_identity(self, cells: Mapping[str, Any], split: str) -> None:
        if self._named is None:
            self._named = next((c for c in cells if has_role(c, "id") and is_scalar(cells[c])), "")
        value = cells.get(self._named)
        if isinstance(value, str | int) and not isinstance(value, bool) and text_of(value):
            self._ids.append(hash((split, text_of(value))))
        else:
            self._named = ""  # some have no name

    @property
    def identity(self) -> str | None:
        """The column that gives each question a name of its own, if there is one."""
        return self._named if self._named and len(np.unique(np.asarray(self._ids))) == len(self.right) else None

    def names_of(self, column: str | None) -> tuple[str, ...]:
        """Return the names of the classes whose numbers a column holds."""
        return self.names.get(column or "", ())

    def withheld(self, column: str | None) -> bool:
        """Tell whether -1 stands in a column."""
        return column in self._withheld

    def digest(self, meaning: Meaning) -> bytes:
        """Return a hash of what the first questions are, read so."""
        answers = (
            [] if meaning.column is None else self.trials[meaning.column].results(meaning.way or "label")[:200].tolist()
        )
        return hashlib.sha256(
            repr((self._digests, answers or self.right[:200].tolist())).encode("utf-8", "replace")
        ).digest()


def settle(candidate: Candidate, rows: int, wishes: Wishes) -> Meaning | Doubt:
    """Return how the answers are given, if the rows prove it."""
    choices, fit = candidate.choices, len(candidate.right)
    if fit < (1 - _LEFT_OUT) * rows or not fit:
        return Doubt(f"the choices are not {choices.said}: {candidate.first_why_not}", rank=0)
    if candidate.picked.doubts:
        return Doubt(" ".join(candidate.picked.doubts), rank=3)
    trials = candidate.trials
    if choices.answers_itself:
        right = np.frombuffer(candidate.right, np.int16)
        if (right >= 0).sum() < (1 - _LEFT_OUT) * len(right):
            return Doubt(f"the choices are not {choices.said}: most rows mark none or several as right", rank=0)
        return Meaning(None, None, (f"each row says itself which choice is right ({choices.said})",))
    strong = [trials[c] for c in candidate.picked.answers if c in trials and not trials[c].is_empty]
    found = _agreed(strong, candidate, wishes)
    if isinstance(found, Meaning) and isinstance(choices, PositionedChoices) and not _reaches_ends(found, candidate):
        return Doubt(
            "columns without names: the first and the last of them that may be choices are never right", rank=1
        )
    if isinstance(found, Meaning) and found.way != "text" and isinstance(choices, TextChoices):
        found = found if choices.separator not in _WEAK else None
    if isinstance(found, Meaning) or (found is not None and strong):
        return found
    if isinstance(choices, TextChoices) and choices.separator in _WEAK:
        return Doubt(
            f"the choices may be {choices.said}, but a choice may hold that sign itself: only answers that are "
            "texts of choices would prove it. Give each choice a column, or separate them with `|`",
            rank=2,
            about_answer=True,
        )
    weak = [trials[c] for c in candidate.picked.maybe if c in trials and _may_be(trials[c], ("label", "text"))]
    if weak and isinstance(found := _agreed(weak, candidate, wishes), Meaning):
        return found
    others = [trials[c] for c in candidate.picked.others if c in trials]
    telling = [t for t in others if _may_be(t, ("text", "label")) and _varies(t)]
    if telling:
        return _agreed(telling, candidate, wishes) or Doubt("no answers", rank=1)
    numbers = [t for t in others if _may_be(t, ("from 0", "from 1")) and not _counts_rows(t)]
    if numbers:
        listed = ", ".join(f"'{t.column}'" for t in numbers)
        return Doubt(
            f"the numbers in {listed} may be answers, and no name says so. Give the column with --answer "
            "COL, or say with "
            "--no-answers that there are none",
            rank=2,
            about_answer=True,
        )
    empty = [trials[c] for c in candidate.picked.answers if c in trials]
    said = f"'{empty[0].column}' is empty, or -1, in every row" if empty else "there is no column of answers"
    said = said if wishes.has_answers else "--no-answers says so"
    return Meaning(None, None, (f"no answers: {said}",))


def _reaches_ends(meaning: Meaning, candidate: Candidate) -> bool:
    """The first and the last column that are taken for choices are right in some row, and every row has an answer."""
    results = candidate.trials[meaning.column or ""].results(meaning.way or "label")
    return NOTHING not in results and {0, len(candidate.choices.columns) - 1} <= set(results.tolist())


def _may_be(trial: Trial, ways: Sequence[Way]) -> bool:
    return any(trial.fits(way) for way in ways)


def _varies(trial: Trial) -> bool:
    way: Way = "text" if trial.fits("text") else "label"
    results = trial.results(way)
    return len(results) > 1 and len(set(results[results >= 0].tolist())) > 1


def _counts_rows(trial: Trial) -> bool:
    results = trial.results("from 0")
    return len(results) > 1 and bool((np.diff(results) == 1).all())


def _agreed(trials: Sequence[Trial], candidate: Candidate, wishes: Wishes) -> Meaning | Doubt | None:
    """Return what columns of answers say, if those that are proven say the same."""
    read = [(trial, ways_of(trial, candidate, wishes)) for trial in trials]
    proven = [(t, w) for t, w in read if isinstance(w, Meaning)]
    if not proven:
        open_ = [d for _, d in read if isinstance(d, Doubt)]
        if not open_:
            return None
        top = max(d.rank for d in open_)
        return Doubt("; ".join(d.reason for d in open_ if d.rank == top), rank=top, about_answer=True)
    first, meaning = proven[0]
    results = first.results(meaning.way or "label")
    proofs = list(meaning.proof)
    for trial, other in read:
        if trial is first:
            continue
        ways = [other.way] if isinstance(other, Meaning) else [w for w in WAYS if trial.fits(w)]
        if not ways:
            continue  # it speaks of something else
        differences = [_differ(results, trial.results(way or "label")) for way in ways]
        if all(d is not None for d in differences):
            place = differences[0] or 0
            return Doubt(
                f"'{first.column}' and '{trial.column}' contradict each other, first in row {place + 1} that has "
                "choices: "
                f"'{first.column}' means choice {int(results[place]) + 1}, '{trial.column}' choice "
                f"{int(trial.results(ways[0] or 'label')[place]) + 1}. Say with --answer COL which of them is right",
                rank=5,
                about_answer=True,
            )
        proofs.append(f"'{trial.column}' says the same in every row")
    return Meaning(meaning.column, meaning.way, tuple(proofs))


def _differ(ours: Any, theirs: Any) -> int | None:
    """Return the first row in which two results name different choices."""
    different = np.flatnonzero((ours >= 0) & (theirs >= 0) & (ours != theirs))
    return int(different[0]) if len(different) else None


def ways_of(trial: Trial, candidate: Candidate, wishes: Wishes) -> Meaning | Doubt:
    """Return how one column gives the answers, if its cells prove it."""
    name = f"'{trial.column}'"
    fits = [w for w in WAYS if trial.fits(w)]
    if wishes.answers_as is not None:
        fits = [w for w in fits if w in _ASKED[wishes.answers_as]]
    numbers = [w for w in fits if w.startswith("from")]
    if wishes.answers_from is not None:
        numbers = [w for w in numbers if w == f"from {wishes.answers_from}"]
    else:
        # One 0 refutes that the first choice is 1, however many rows there are; and the other way round.
        refuted = {w for w, at in (("from 1", trial.zero), ("from 0", trial.last)) if at is not None}
        numbers = [w for w in numbers if w not in refuted]
    for way in ("label", "text"):
        several = trial.results(way)
        there = several[several != NOTHING]
        if len(there) and (there == SEVERAL).sum() > _LEFT_OUT * len(there):
            return Doubt(
                f"{name} names several right choices in most rows; TinyLLM's questions have one", 4, about_answer=True
            )
    words = [w for w in ("label", "text") if w in fits]
    if len(words) == 2 and (at := _differ(trial.results("label"), trial.results("text"))) is not None:
        return _ambiguous(name, trial, ("label", "text"), at)
    if words and numbers:
        # A label of the data's own is what a number names; a text that fits row after row is no number.
        if words[0] == "label" and candidate.choices.has_labels:
            numbers = []
        else:
            at = _differ(trial.results(words[0]), trial.results(numbers[0]))
            told = len(trial.results(words[0])) >= _ENOUGH_ROWS and UNFIT not in trial.results(words[0])
            if at is not None and not told and wishes.answers_as is None:
                return _ambiguous(name, trial, (words[0], numbers[0]), at)
            numbers = []
    if words:
        rows = int((trial.results(words[0]) >= 0).sum())
        return Meaning(trial.column, words[0], (f"{name} is {SAID[words[0]]} in {rows} rows{_but(trial, words[0])}",))
    if trial.names and "from 0" in numbers:
        return Meaning(trial.column, "from 0", (f"{name} holds class numbers, which count from 0",))
    return _of_numbers(trial, name, numbers, wishes)


_ASKED: Mapping[str, tuple[Way, ...]] = {
    "letter": ("label",), "text": ("text",), "number": ("from 0", "from 1"),
}  # fmt: skip


def _of_numbers(trial: Trial, name: str, numbers: Sequence[Way], wishes: Wishes) -> Meaning | Doubt:
    if len(numbers) == 2:
        return Doubt(
            f"{name} holds numbers that may be counted from 0 or from 1: 0 never stands there, nor a row's "
            "number of choices. "
            "Say which with --answers-from 0 or --answers-from 1",
            rank=5,
            about_answer=True,
        )
    if numbers:
        way = numbers[0]
        if wishes.answers_from is not None:
            said = "as --answers-from says"
        elif way == "from 0":
            said = f"0 stands there ({trial.zero})"
        else:
            said = f"a row's number of choices stands there ({trial.last}), and 0 nowhere"
        return Meaning(trial.column, way, (f"{name} is {SAID[way]}: {said}{_but(trial, way)}",))
    if trial.zero is not None and trial.last is not None:
        return Doubt(
            f"{name} has a 0 ({trial.zero}), so it would be counted from 0, and a row's number of choices "
            f"({trial.last}), so "
            "it would be counted from 1. Mend the rows, or say which with --answers-from 0 or --answers-from 1",
            rank=5,
            about_answer=True,
        )
    shares = {w: int((trial.results(w) >= 0).sum()) for w in WAYS}
    best = max(shares, key=lambda w: shares[w])
    total = int((trial.results(best) != NOTHING).sum())
    bad = _first_bad(trial, best)
    return Doubt(
        f"{name} names no choice by letter, number or text in every row: read as {SAID[best]} it fits "
        f"{shares[best]} of {total} "
        f"rows{bad}. Give another column with --answer COL, or say --no-answers",
        rank=4,
        about_answer=True,
    )


def _first_bad(trial: Trial, way: Way) -> str:
    results = trial.results(way)
    bad = np.flatnonzero(results < NOTHING)
    return f", first not in row {int(bad[0]) + 1}" if len(bad) else ""


def _but(trial: Trial, way: Way) -> str:
    results = trial.results(way)
    parts = []
    if nothing := int((results == NOTHING).sum()):
        parts.append(f"{nothing} have none")
    if bad := int((results < NOTHING).sum()):
        parts.append(f"{bad} fit no choice or several, and are left out")
    return f" ({', '.join(parts)})" if parts else ""


def _ambiguous(name: str, trial: Trial, ways: tuple[Way, Way], at: int) -> Doubt:
    first, second = (int(trial.results(w)[at]) + 1 for w in ways)
    return Doubt(
        f"{name} may be {SAID[ways[0]]} or {SAID[ways[1]]}: in row {at + 1} that has choices the one "
        f"means choice {first}, the "
        f"other choice {second}. Say which with --answers-as letter, --answers-as number or --answers-as text",
        rank=5,
        about_answer=True,
    )
