"""Guess which column of a questions file holds what, for `tinyllm init`. The guess is written out, not acted on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyllm.errors import DataError
from tinyllm.questions.files import Row, read_file

_NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "question_stem", "stem", "prompt", "query", "goal", "text"),
    "context": ("context", "passage", "abstract"),
    "answer": ("answer", "label", "answerkey", "answer_key", "correct", "correct_answer", "gold", "target"),
    "id": ("id", "qid", "question_id", "uid"),
}
_CHOICE_LISTS = ("choices", "options", "answers", "endings")
_CHOICE_COLUMN = re.compile(r"(?:(?:choice|option|answer|opt|sol|ending)[ _-]?)?([a-h]|[0-9])", re.IGNORECASE)
_SAMPLE = 200


def guess_fields(path: Path) -> dict[str, str | list[str]]:
    """Return what `data.fields` has to say about a file, as YAML; empty where the columns are named as expected.

    Raises:
        DataError: the file cannot be read.
    """
    columns, sample = _look_at(path)
    by_name = {c.casefold(): c for c in columns}
    found = {key: next((by_name[n] for n in names if n in by_name), None) for key, names in _NAMES.items()}
    fields: dict[str, str | list[str]] = {
        key: column for key, column in found.items() if column is not None and column != key
    }
    choices = _choices(columns, by_name, taken={c for c in found.values() if c})
    if choices is None:
        raise DataError(
            f"{path}: no column of choices, got the columns {', '.join(columns)}. Give a column `choices` with lists, "
            "or a column for each choice: A, B, C, …"
        )
    if choices != "choices":
        fields["choices"] = choices
    if found["answer"] is not None:
        answers = [row.cells.get(found["answer"]) for row in sample]
        those = [choices] if isinstance(choices, str) else choices
        rows = [[row.cells.get(c) for c in those] for row in sample]
        kind = _answer_kind(answers, rows, len(those) if len(those) > 1 else None)
        if kind != "index":
            fields["answer_as"] = kind
    return fields


def _look_at(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Return the names of all columns that any row has, in order of appearance, and the first rows."""
    columns: dict[str, None] = {}
    sample: list[Row] = []
    for item in read_file(path).items:
        if isinstance(item, Row):
            columns.update(dict.fromkeys(item.cells))
            if len(sample) < _SAMPLE:
                sample.append(item)
        elif item.fatal:
            raise DataError(str(item))
    return tuple(columns), sample


def _choices(columns: Sequence[str], by_name: Mapping[str, str], taken: set[str]) -> str | list[str] | None:
    for name in _CHOICE_LISTS:
        if name in by_name:
            return by_name[name]
    single = [c for c in columns if c not in taken and _CHOICE_COLUMN.fullmatch(c)]
    return single if len(single) > 1 else None


def _answer_kind(answers: Sequence[Any], choices: Sequence[Sequence[Any]], count: int | None) -> str:
    texts = [str(a).strip() for a in answers if a is not None]

    def most(pattern: str) -> bool:  # of them: a few bad rows are for `tinyllm check` to name
        return sum(bool(re.fullmatch(pattern, t)) for t in texts) > 0.8 * len(texts)

    if texts and most(r"\d+"):
        numbers = {int(t) for t in texts if t.isdecimal()}
        # Counted from 1 if 0 never stands there and the number of choices does; `letter` reads such numbers.
        return "letter" if count is not None and 0 not in numbers and count in numbers else "index"
    if texts and most("[A-Za-z]"):
        return "letter"
    is_choice = [str(a).strip() in {str(c).strip() for c in row} for a, row in zip(answers, choices, strict=True)]
    return "text" if any(is_choice) or texts else "index"
