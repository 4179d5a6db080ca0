"""From a row to a question, or to all problems of the row. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tinyllm.config import FieldMap
from tinyllm.errors import did_you_mean
from tinyllm.questions._files import Format, Problem, Row, kind_of
from tinyllm.questions.types import Question

_MISSING = object()
_NO_ANSWERS = ", or `data.fields.answer: null` if none of the answers is known"
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class RowForm:
    """How the rows of a file are read: the columns, and what all rows share.

    Attributes:
        choices: the choices of every question; None: each row has its own.
        question: the question of every row, whose own text is then the context; None: each row has its own.
    """

    fields: FieldMap = field(default_factory=FieldMap)
    choices: tuple[str, ...] | None = None
    question: str | None = None


def to_question(row: Row, form: RowForm, split: str) -> Question | list[str]:
    """Return the question of a row, or all its problems with their remedies.

    White space at the ends of texts is removed. A row without an id gets the id `<split>-<row number>`. Columns that
    are not in `fields` are ignored. A null or blank rationale or answer counts as absent.
    """
    problems: list[str] = []
    fields = form.fields
    name = own_id(row, form, problems) or f"{split}-{row.number}"
    question = _question(row, fields, problems)
    choices = _choices(row, fields, problems) if form.choices is None else list(form.choices)
    answer = _answer(row, fields, choices, problems)
    context = _context(row, fields, problems)
    rationales = _rationales(row, fields, problems)
    opinions = _opinions(row, fields, len(choices or ()), problems)
    if problems:
        return problems
    if form.question is not None:
        question, context = form.question, "\n".join(filter(None, (context, question)))
    return Question(name, question, tuple(choices), answer, context, rationales, opinions)


def own_id(row: Row, form: RowForm, problems: list[str]) -> str:
    """Return the id that a row has; empty if it has none, or after adding a problem."""
    value = None if form.fields.id is None else _cell(row, form.fields.id)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else _text(value, "the id", problems)


def oddities(question: Question) -> list[str]:
    """Return the oddities of a question that do not make it invalid.

    `choice twice`: a wrong choice is there twice, or two choices differ only in white space.
    `no answer`: the answer is unknown.
    """
    folded = [fold(c) for c in question.choices]
    found = ["choice twice"] if len(set(folded)) < len(folded) else []
    return [*found, "no answer"] if question.answer is None else found


class MissingColumns:
    """The needed columns that no row of a file has had so far."""

    def __init__(self, form: RowForm) -> None:
        fields = form.fields
        choices = [fields.choices] if isinstance(fields.choices, str) else list(fields.choices)
        needed = {"question": [fields.question]}
        if form.choices is None:
            needed["choices"] = choices
        if fields.answer is not None:
            needed["answer"] = [fields.answer]
        if fields.answer_as == "label" and fields.labels is not None:
            needed["labels"] = [fields.labels]
        self._missing = [(key, column) for key, columns in needed.items() for column in columns]
        self._there: dict[str, None] = {}

    def see(self, row: Row) -> None:
        """Look at a row."""
        if self._missing:
            self._there.update(dict.fromkeys(row.cells))
            self._missing = [(key, column) for key, column in self._missing if _find(row, column) is _MISSING]

    def problems(self, where: str) -> list[Problem]:
        """Return a problem for each missing column; none if there were no rows."""
        there = ", ".join(self._there)
        several = " (or several, as in `[A, B, C, D]`)"
        return [
            Problem(
                where,
                f"no column '{column}' for the {key}.{did_you_mean(column, self._there)} Columns: {there}. "
                f"Name it with `data.fields.{key}`"
                f"{several if key == 'choices' else _NO_ANSWERS if key == 'answer' else ''}",
                fatal=True,
            )
            for key, column in self._missing
            if self._there
        ]


def fold(text: str) -> str:
    """Return a text with single blanks for white space, for comparisons."""
    return " ".join(text.split())


# --- cells -------------------------------------------------------------------------------------------------------


def _find(row: Row, path: str) -> Any:
    if path in row.cells:
        return row.cells[path]
    return _inside(row.cells, path, row) if "." in path else _MISSING


def _inside(value: Any, path: str, row: Row) -> Any:
    """Follow a dotted path, into each item of a list. A column whose name really has the dot comes first."""
    value = _opened(value, row)
    if value is None:
        return None
    if isinstance(value, list):
        found = [_inside(item, path, row) for item in value]
        return _MISSING if any(f is _MISSING for f in found) else found
    if not isinstance(value, Mapping):
        return _MISSING
    if path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    return _inside(value[head], rest, row) if dot and head in value else _MISSING


def _opened(value: Any, row: Row) -> Any:
    """Parse JSON in a text cell of CSV or Parquet. Other values are returned unchanged."""
    if row.format != "jsonl" and isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _cell(row: Row, path: str) -> Any:
    found = _find(row, path)
    return None if found is _MISSING else found


def _text(value: Any, what: str, problems: list[str]) -> str:
    """Return a text without white space at its ends; empty if it is missing or invalid."""
    if value is None:
        return ""
    if not isinstance(value, str):
        problems.append(f"{what} is {kind_of(value)} ({_shown(value)}), not text; put it in quotes")
        return ""
    half = None if value.isascii() else re.search(r"[\ud800-\udfff]", value)
    if half:
        problems.append(f"{what} holds half a character (\\u{ord(half[0]):04x} without its pair); correct the text")
        return ""
    return value.strip()


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


# --- the parts of a question -------------------------------------------------------------------------------------


def _question(row: Row, fields: FieldMap, problems: list[str]) -> str:
    before = len(problems)
    text = _text(_cell(row, fields.question), "the question", problems)
    if not text and len(problems) == before:
        problems.append(f"empty question (column '{fields.question}'); write its text")
    return text


def _context(row: Row, fields: FieldMap, problems: list[str]) -> str | None:
    """Return the context. The paragraphs of a list are joined with line breaks."""
    value = _cell(row, fields.context)
    paragraphs = value if isinstance(value, list) else [value]
    return "\n".join(filter(None, (_text(p, "the context", problems) for p in paragraphs))) or None


def _choices(row: Row, fields: FieldMap, problems: list[str]) -> list[str]:
    """Return the choices; if there is a problem, add it and return an empty list."""
    found: list[str] = []
    raw = _raw_choices(row, fields, found)
    if raw is not None:
        texts = []
        for index, value in enumerate(raw):
            before = len(found)
            texts.append(_text(value, f"choices[{index}]", found))
            if not texts[-1] and len(found) == before:
                found.append(f"choices[{index}] is empty; write its text, or remove it and renumber the answer")
        if len(raw) < 2:
            count = "1 choice" if len(raw) == 1 else f"{len(raw)} choices"
            found.append(f"{count}; a question needs at least two; add one, or remove the row")
        if not found:
            return texts
    problems += found
    return []


def _raw_choices(row: Row, fields: FieldMap, problems: list[str]) -> Sequence[Any] | None:
    if not isinstance(fields.choices, str):
        values = [_cell(row, column) for column in fields.choices]
        while values and (values[-1] is None or values[-1] == ""):
            values.pop()  # an empty cell at the end: this question has fewer choices
        return values
    value = _opened(_cell(row, fields.choices), row)
    if isinstance(value, list):
        return value
    if value is None:
        problems.append(
            f"no choices (column '{fields.choices}'); a question needs at least two; add them, or remove the row"
        )
    elif row.format == "csv":
        problems.append(
            f'choices are {_shown(value)}, not a JSON list; write ["first", "second"] with double quotes, '
            "or give each choice a column and name them: `data.fields.choices: [A, B, C, D]`"
        )
    else:
        problems.append(f"choices are {kind_of(value)} ({_shown(value)}), not a list of texts")
    return None


def _by_teacher(row: Row, column: str, what: str, held: str, problems: list[str]) -> Mapping[Any, Any]:
    value = _opened(_cell(row, column), row)
    if isinstance(value, list) and all(isinstance(p, tuple) and len(p) == 2 for p in value):
        value = dict(value)  # Parquet's map type
    if value is not None and not isinstance(value, Mapping):
        problems.append(f"{what} are {kind_of(value)} ({_shown(value)}), not a mapping from teacher to {held}")
    return value if isinstance(value, Mapping) else {}


def _rationales(row: Row, fields: FieldMap, problems: list[str]) -> dict[str, str]:
    given = _by_teacher(row, fields.rationales, "rationales", "text", problems)
    texts = {str(teacher): _text(text, f"the rationale of '{teacher}'", problems) for teacher, text in given.items()}
    return {teacher: text for teacher, text in texts.items() if text}


def _opinions(row: Row, fields: FieldMap, choices: int, problems: list[str]) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for teacher, scores in _by_teacher(row, fields.opinions, "opinions", "scores", problems).items():
        if scores is None:
            continue
        numbers = isinstance(scores, list) and all(
            isinstance(s, int | float) and not isinstance(s, bool) and math.isfinite(s) for s in scores
        )
        if numbers and len(scores) == choices and any(scores):
            found[str(teacher)] = tuple(map(float, scores))
        else:
            problems.append(
                f"the opinion of '{teacher}' is {_shown(scores)}; give one number per choice ({choices}), not all 0"
            )
    return found


# --- the answer --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """What a row holds about its answer. `labels` are the labels of the choices, from the column `labels_in`."""

    value: Any
    choices: list[str]
    format: Format
    labels: Any
    labels_in: str | None


def _answer(row: Row, fields: FieldMap, choices: list[str], problems: list[str]) -> int | None:
    """Return the 0-based index of the answer; None if it is unknown, or after adding a problem."""
    value = None if fields.answer is None else _cell(row, fields.answer)
    if value is None or (isinstance(value, str) and not value.strip()) or not choices:
        return None
    if fields.no_answer is not None and str(value).strip() == str(fields.no_answer).strip():
        return None
    labels = _opened(_cell(row, fields.labels), row) if fields.labels else None
    index = _READ_ANSWER[fields.answer_as](_Given(value, choices, row.format, labels, fields.labels), problems)
    if index is not None:
        # Choices that differ only in white space count as different (PIQA has such a pair), but as odd.
        same = [f"choices[{i}]" for i, choice in enumerate(choices) if choice == choices[index]]
        if len(same) > 1:
            problems.append(
                f"the answer's choice {_shown(choices[index])} is there {len(same)} times "
                f"({', '.join(same)}), so the right answer is ambiguous; change or remove the others"
            )
    return index


def _in_range(index: int, value: Any, first: int, choices: list[str], problems: list[str]) -> int | None:
    if 0 <= index < len(choices):
        return index
    counted = f"the {len(choices)} choices are numbered {first} to {len(choices) - 1 + first}"
    hint = ""
    if str(value).strip() == "-1":
        hint = "; in test sets, -1 often means that the answer is withheld: set `data.fields.no_answer: -1`"
    problems.append(f"answer {_shown(value)} is out of range: {counted}{hint}")
    return None


def _by_index(given: _Given, problems: list[str], first: int = 0) -> int | None:
    value, choices = given.value, given.choices
    if (given.format == "csv" or first) and re.fullmatch(r"\s*-?\d{1,9}\s*", str(value)):
        return _in_range(int(value) - first, value, first, choices, problems)
    if isinstance(value, int) and not isinstance(value, bool):
        return _in_range(value - first, value, first, choices, problems)
    if first:
        problems.append(f"answer {_shown(value)} is {kind_of(value)}; give {_WANTED['number']}")
        return None
    if isinstance(value, str) and not re.fullmatch(r"\s*-?\d+\.\d*\s*", value):
        problems.append(_answer_is_text(value.strip(), choices))
    else:
        problems.append(f"answer {_shown(value)} is {kind_of(value)}; give {_WANTED['index']} as a whole number")
    return None


def _answer_is_text(text: str, choices: list[str]) -> str:
    """Say what an answer given as text matches, and which setting reads it."""
    said = f"answer {_shown(text)} is text, not an index"
    equal = [i for i, choice in enumerate(choices) if fold(choice) == fold(text)]
    if equal:
        return f"{said}; it equals choices[{equal[0]}], which `data.fields.answer_as: text` reads"
    if re.fullmatch(r"[A-Za-z]", text) and ord(text.upper()) - ord("A") < len(choices):
        index = ord(text.upper()) - ord("A")
        return f"{said}; as a letter it means choices[{index}], which `data.fields.answer_as: letter` reads"
    if re.fullmatch(r"-?\d+", text):
        return f"{said}; write the number {text} without quotes"
    near = did_you_mean(text, choices)
    return f"{said}, and equals none of the choices.{near} Give {_WANTED['index']}, or set `data.fields.answer_as`"


def _by_letter(given: _Given, problems: list[str]) -> int | None:
    value, choices = given.value, given.choices
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(r"[A-Za-z]", text):
        index = ord(text.upper()) - ord("A")
        if index >= len(choices):
            last = chr(ord("A") + len(choices) - 1)
            problems.append(f"answer '{text}' is out of range: the {len(choices)} choices are A to {last}")
            return None
        return index
    if re.fullmatch(r"\d{1,9}", text):
        return _in_range(int(text) - 1, text, 1, choices, problems)
    hint = "; `data.fields.answer_as: text` reads a choice's text" if text in choices else ""
    if isinstance(value, int) and not isinstance(value, bool):
        hint = "; `data.fields.answer_as: number` reads numbers that start at 1, `index` numbers that start at 0"
    problems.append(f"answer {_shown(value)} is not a letter; give {_WANTED['letter']}{hint}")
    return None


def _by_text(given: _Given, problems: list[str]) -> int | None:
    value, choices = given.value, given.choices
    if isinstance(value, str):
        equal = [i for i, choice in enumerate(choices) if choice == value.strip()]
        equal = equal or [i for i, choice in enumerate(choices) if fold(choice) == fold(value)]
        if equal:
            return equal[0]
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    problems.append(f"answer {_shown(value)} equals none of the choices.{near} Give {_WANTED['text']}")
    return None


def _by_label(given: _Given, problems: list[str]) -> int | None:
    value, choices = given.value, given.choices
    labels = given.labels
    if not isinstance(labels, list) or len(labels) != len(choices):
        count = len(labels) if isinstance(labels, list) else "no list of"
        problems.append(f"{count} labels for {len(choices)} choices (column '{given.labels_in}'); each needs one")
        return None
    names = [str(label).strip() for label in labels]
    if isinstance(value, bool | float) or names.count(str(value).strip()) != 1:
        problems.append(f"answer {_shown(value)} is not one of the labels {', '.join(names)}")
        return None
    return names.index(str(value).strip())


_WANTED: Mapping[str, str] = {
    "index": "the 0-based index of the right choice",
    "number": "the number of the right choice, 1 for the first",
    "letter": "the letter of the right choice, A for the first (or its number, 1 for the first, in quotes)",
    "text": "the text of the right choice, exactly as it is among the choices",
    "label": "the label of the right choice",
}
_READ_ANSWER: Mapping[str, Callable[[_Given, list[str]], int | None]] = {
    "index": _by_index,
    "number": partial(_by_index, first=1),
    "letter": _by_letter,
    "text": _by_text,
    "label": _by_label,
}
