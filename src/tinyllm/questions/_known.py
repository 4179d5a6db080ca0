"""Which questions have no answer, held against what is to be done with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tinyllm.errors import DataError
from tinyllm.questions._spool import leave_out
from tinyllm.questions.types import Dropped, Question, Splits

_SHOWN = 5
_NEEDED_TO = {
    "train": "to train on, and to tell the teachers",
    "valid": "to choose settings by",
    "test": "to score the student by",
}


def with_answers(splits: Splits, needed: Collection[str], *, drop: bool) -> Splits:
    """Return the splits, in the needed ones only questions whose answer is known.

    Args:
        needed: the splits whose answers are needed; the others stay as they are.
        drop: questions without an answer may be left out; else they are an error.

    Raises:
        DataError: answers are missing: how many of each split, the first questions, and what to do; with `drop`, where
            nothing is left of a split.
    """
    if not splits.warnings.get("no answer"):
        return splits
    wanted = [name for name in _NEEDED_TO if name in needed]
    missing = {name: _unanswered(getattr(splits, name)) for name in wanted}
    missing = {name: places for name, places in missing.items() if places}
    lines = []
    for name, places in missing.items():
        part: Sequence[Question] = getattr(splits, name)
        if drop and len(places) < len(part):
            continue
        shown = ", ".join(f"'{part[k].id}'" for k in places[:_SHOWN]) + (", …" if len(places) > _SHOWN else "")
        lines.append(f"  - {name}: {len(places)} of {len(part)} ({shown}), needed {_NEEDED_TO[name]}")
    if lines:
        remedy = "Give these answers, or give other questions as " + ", ".join(f"data.{name}" for name in missing)
        if "train" in missing:
            remedy += "; or learn them from the teachers' opinions: `opinions: {teachers: [NAME]}`, `train: {soft: {}}`"
        remedy += "." if drop else "; `data.on_invalid: drop` leaves questions without an answer out."
        raise DataError("questions without an answer:\n" + "\n".join(lines) + "\n" + remedy)
    dropped = [
        Dropped(n, f"question '{getattr(splits, n)[k].id}'", "no answer") for n, at in missing.items() for k in at
    ]
    train, valid, test = (leave_out(getattr(splits, name), missing.get(name, [])) for name in _NEEDED_TO)
    return replace(splits, train=train, valid=valid, test=test, dropped=(*splits.dropped, *dropped))


def answered(questions: Sequence[Question]) -> Sequence[Question]:
    """Return the questions whose answer is known."""
    return leave_out(questions, _unanswered(questions))


def _unanswered(questions: Sequence[Question]) -> list[int]:
    return [place for place, question in enumerate(questions) if question.answer is None]
