"""Check that questions have the answers that a stage needs."""

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
    """Return the splits without the unanswered questions of the `needed` splits.

    Args:
        needed: the splits whose answers are needed. The others are not changed.
        drop: whether questions without an answer may be left out. Otherwise they are an error.

    Raises:
        DataError: answers are missing; with `drop`: all answers of a split are missing. The message has the count, the
            first ids of each split, and what to do.
    """
    if not splits.warnings.get("no answer"):
        return splits
    parts: dict[str, Sequence[Question]] = {name: getattr(splits, name) for name in _NEEDED_TO}
    missing = {
        name: [place for place, question in enumerate(part) if question.answer is None]
        for name, part in parts.items()
        if name in needed
    }
    lines = []
    for name, places in missing.items():
        part = parts[name]
        if places and not (drop and len(places) < len(part)):
            shown = ", ".join(f"'{part[k].id}'" for k in places[:_SHOWN]) + (", …" if len(places) > _SHOWN else "")
            lines.append(f"  - {name}: {len(places)} of {len(part)} ({shown}), needed {_NEEDED_TO[name]}")
    if lines:
        remedy = "Add these answers, or give other questions as "
        remedy += ", ".join(f"data.{name}" for name, places in missing.items() if places)
        if missing.get("train"):
            remedy += "; or learn them from the teachers' opinions: `opinions: {teachers: [NAME]}`, `train: {soft: {}}`"
        remedy += "." if drop else "; `data.on_invalid: drop` leaves questions without an answer out."
        raise DataError(
            "\n".join(["questions without an answer:", *lines, remedy]), page="questions.md#questions-without-an-answer"
        )
    dropped = [
        Dropped(name, f"question '{parts[name][k].id}'", "no answer") for name, at in missing.items() for k in at
    ]
    train, valid, test = (leave_out(part, missing.get(name, [])) for name, part in parts.items())
    return replace(splits, train=train, valid=valid, test=test, dropped=(*splits.dropped, *dropped))


def answered(questions: Sequence[Question]) -> Sequence[Question]:
    """Return the questions whose answer is known."""
    return leave_out(questions, [place for place, question in enumerate(questions) if question.answer is None])
