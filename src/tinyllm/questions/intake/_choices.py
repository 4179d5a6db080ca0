"""Where the choices of a question may stand in a row: a list, objects, columns, one text, the right one apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tinyllm.questions.intake._cells import fold, is_scalar, number_of, text_of

LETTERS = "ABCDEFGHIJKLMNOPQRST"
MARKED = re.compile(r"^\s*[(\[（]?\s*([^\W_]{1,3}|[①-⑧])\s*[)\].:、．）]\s*(.+)$", re.DOTALL)
FLAGS: Mapping[str, bool] = {
    "1": True, "0": False, "true": True, "false": False, "yes": True, "no": False, "x": True, "": False,
    "correct": True, "incorrect": False, "wrong": False, "right": True,
}  # fmt: skip


class Options(NamedTuple):
    """The choices of one row.

    Attributes:
        texts: none is empty.
        labels: by which an answer may name them; letters, where the data have none.
        places: of each in its row, from 0, empty ones counted: what a number in the answer's column means.
        right: the choice that the choices themselves mark as right; None: they mark none.
        marked_wrongly: they mark none or several, though they have marks.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    places: tuple[int, ...]
    right: int | None = None
    marked_wrongly: str = ""


class Choices(Protocol):
    """One way to find the choices in a row.

    Attributes:
        columns: that it uses.
        said: it in words.
        has_labels: the labels are the data's own, numbers among them.
        is_named: the columns are called like choices.
        answers_itself: the row's answer is where the right choice stands, so no column of answers is needed.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def said(self) -> str: ...
    @property
    def has_labels(self) -> bool: ...
    @property
    def is_named(self) -> bool: ...
    @property
    def answers_itself(self) -> bool: ...

    def of(self, cells: Mapping[str, Any]) -> Options | str:
        """Return the choices of a row, or why there are none."""
        ...


def _options(texts: Sequence[str], labels: Sequence[str] | None = None) -> Options | str:
    """Return choices without empty ones; labels stay with their texts."""
    labels = list(labels) if labels is not None else list(LETTERS[: len(texts)])
    if len(texts) > len(LETTERS) or len(labels) != len(texts):
        return f"{len(texts)} choices and {len(labels)} labels"
    kept = [(t, x, k) for k, (t, x) in enumerate(zip(texts, labels, strict=True)) if t]
    if len(kept) < 2:
        return f"{len(kept)} choice{'' if len(kept) == 1 else 's'}; a question needs at least two"
    texts, marks, places = zip(*kept, strict=True)
    return Options(texts, marks, places)


def flag_of(value: Any) -> bool | None:
    """Return what a mark says of a choice: true, 1, x, correct, or a weight of 100; None: it is no mark."""
    text = text_of(value).casefold()
    if text in FLAGS:
        return FLAGS[text]
    number = number_of(value)
    return None if number is None or 0 < number < 100 else number >= 100


def _with_flags(options: Options, flags: Sequence[Any]) -> Options:
    found = [flag_of(f) for f in flags]
    right = [k for k, flag in enumerate(found) if flag]
    if len(found) == len(options.texts) and None not in found and len(right) == 1:
        return options._replace(right=right[0])
    return options._replace(marked_wrongly=f"{len(right)} of its choices are marked as right")


@dataclass(frozen=True)
class ListChoices:
    """A column with a list of texts; labels and marks of the right one may stand in lists beside it."""

    column: str
    labels: str | None = None
    flags: str | None = None
    strip: bool = False  # texts begin with their marks: "A) x"
    is_named: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.column, self.labels, self.flags)))

    @property
    def has_labels(self) -> bool:
        return self.labels is not None or self.strip

    @property
    def answers_itself(self) -> bool:
        return self.flags is not None

    @property
    def said(self) -> str:
        marks = " (the marks before the texts, as `A)`, are taken off)" if self.strip else ""
        return f"the lists in '{self.column}'" + (f" with the labels in '{self.labels}'" if self.labels else "") + marks

    def of(self, cells: Mapping[str, Any]) -> Options | str:
        value = cells.get(self.column)
        if not isinstance(value, list):
            return f"no list in '{self.column}'"
        texts = [text_of(v) for v in value]
        labels: list[str] | None = None
        if self.strip:
            marked = [MARKED.match(t) for t in texts]
            if not all(marked):
                return f"a choice in '{self.column}' has no mark like `A)`"
            labels = [m[1] for m in marked if m]
            texts = [m[2].strip() for m in marked if m]
        if self.labels is not None:
            found = cells.get(self.labels)
            labels = [text_of(v) for v in found] if isinstance(found, list) else []
        options = _options(texts, labels)
        if isinstance(options, str) or self.flags is None:
            return options
        flags = cells.get(self.flags)
        return _with_flags(options, flags if isinstance(flags, list) else [])


@dataclass(frozen=True)
class ObjectChoices:
    """A column with a list of objects, one a choice: text, and perhaps label and a mark of the right one."""

    column: str
    text: str
    label: str | None = None
    flag: str | None = None
    is_named: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def has_labels(self) -> bool:
        return self.label is not None

    @property
    def answers_itself(self) -> bool:
        return self.flag is not None

    @property
    def said(self) -> str:
        label = f", labelled by '{self.label}'" if self.label else ""
        flag = f", the right one marked in '{self.flag}'" if self.flag else ""
        return f"'{self.text}' of the objects in '{self.column}'{label}{flag}"

    def of(self, cells: Mapping[str, Any]) -> Options | str:
        value = cells.get(self.column)
        if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
            return f"no list of objects in '{self.column}'"
        labels = [text_of(v.get(self.label)) for v in value] if self.label else None
        options = _options([text_of(v.get(self.text)) for v in value], labels)
        if isinstance(options, str) or self.flag is None:
            return options
        return _with_flags(options, [v.get(self.flag) for v in value])


@dataclass(frozen=True)
class ColumnChoices:
    """A column for each choice."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    has_labels: bool = False
    is_named: bool = True
    flags: tuple[str, ...] = ()

    @property
    def answers_itself(self) -> bool:
        return bool(self.flags)

    @property
    def said(self) -> str:
        return "the columns " + ", ".join(f"'{c}'" for c in self.columns)

    def of(self, cells: Mapping[str, Any]) -> Options | str:
        values = [cells.get(c) for c in self.columns]
        if not all(v is None or is_scalar(v) for v in values):
            return "a choice is a list or an object"
        options = _options([text_of(v) for v in values], self.labels)
        if isinstance(options, str) or not self.flags:
            return options
        return _with_flags(options, [cells.get(f) for f, v in zip(self.flags, values, strict=True) if text_of(v)])


@dataclass(frozen=True)
class TextChoices:
    """One text that holds all choices, cut at a separator, or at its marks: `A) x  B) y`."""

    column: str
    separator: str | None
    is_named: bool = True
    answers_itself: bool = False

    @property
    def has_labels(self) -> bool:
        return self.separator is None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def said(self) -> str:
        shown = {"\n": "line breaks", None: "their marks, as `A)`"}.get(self.separator, f"`{self.separator}`")
        return f"the texts in '{self.column}', cut at {shown}"

    def of(self, cells: Mapping[str, Any]) -> Options | str:
        value = cells.get(self.column)
        if not isinstance(value, str):
            return f"no text in '{self.column}'"
        if self.separator is not None:
            return _options([part.strip() for part in value.split(self.separator)])
        parts = cut_at_marks(value)
        return (
            _options([t for _, t in parts], [m for m, _ in parts]) if parts else f"no marks A, B, … in '{self.column}'"
        )


@dataclass(frozen=True)
class ApartChoices:
    """The right choice in a column of its own, the wrong ones in others (or in a list).

    The order is free, so it is drawn by a hash of the texts: a right choice that always comes first teaches its place.
    """

    right: str
    wrong: tuple[str, ...]
    separator: str = ""  # of several in one text
    is_named: bool = True
    has_labels: bool = False
    answers_itself: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.right, *self.wrong)

    @property
    def said(self) -> str:
        cut = (
            f", cut at `{self.separator}`"
            if self.separator.strip()
            else ", cut at line breaks"
            if self.separator
            else ""
        )
        return f"the right one in '{self.right}', the wrong ones in " + ", ".join(f"'{c}'" for c in self.wrong) + cut

    def of(self, cells: Mapping[str, Any]) -> Options | str:
        found = cells.get(self.right)
        found = found[0] if isinstance(found, list) and len(found) == 1 else found
        right = text_of(found) if is_scalar(found) else ""
        wrong: list[str] = []
        for column in self.wrong:
            value = cells.get(column)
            if self.separator and isinstance(value, str):
                value = [part.strip() for part in value.split(self.separator)]
            wrong += [text_of(v) for v in (value if isinstance(value, list) else [value])]
        wrong = [w for w in wrong if w]
        if not right or not wrong:
            return f"no text in '{self.right}'" if not right else "no wrong choice"
        if fold(right) in map(fold, wrong):
            return f"the right choice {right!r} is one of the wrong ones, too"
        texts = sorted([right, *wrong], key=lambda t: hashlib.sha256("\x1f".join([right, *wrong, t]).encode()).digest())
        options = _options(texts)
        return options if isinstance(options, str) else options._replace(right=options.texts.index(right))


@dataclass(frozen=True)
class FixedChoices:
    """The same choices for every row: the names of classes."""

    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    has_labels: bool = False
    is_named: bool = True
    answers_itself: bool = False

    @property
    def said(self) -> str:
        return "the same for every text: " + ", ".join(self.classes)

    def of(self, cells: Mapping[str, Any]) -> Options | str:  # noqa: ARG002 - they do not depend on the row
        count = len(self.classes)
        return Options(self.classes, ("",) * count, tuple(range(count)))


def cut_at_marks(text: str) -> list[tuple[str, str]]:
    """Return marks and texts where one text has the marks A), B), … or 1), 2), …; empty where one is missing."""
    marks = list(re.finditer(r"(?:^|(?<=[\s,;|]))[(\[（]?\s?([A-Ta-t]|\d{1,2})\s?[)\].:、．）]\s*", text))
    wanted: list[tuple[str, list[str]]] = [
        ("letters", list(LETTERS)), ("numbers", [str(k) for k in range(1, 21)]),
    ]  # fmt: skip
    for _, names in wanted:
        places: list[re.Match[str]] = []
        for mark in marks:
            if len(places) < len(names) and mark[1].upper() == names[len(places)]:
                places.append(mark)
        if len(places) > 1 and not text[: places[0].start()].strip():
            ends = [m.start() for m in places[1:]] + [len(text)]
            cut = (text[m.end() : end].strip().rstrip(",;|").strip() for m, end in zip(places, ends, strict=True))
            return [(m[1], part) for m, part in zip(places, cut, strict=True)]
    return []
