"""Where the choices of a question are in a row: a list, objects, columns, one text, or the right choice separately."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tinyllm.questions.intake._cells import fold, is_scalar, number_of, text_of

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOST_CHOICES = 64
MARKED = re.compile(r"^\s*[(\[（]?\s*([^\W_]{1,3}|[①-⑧])\s*[)\].:、．）]\s*(.+)$", re.DOTALL)
FLAGS: Mapping[str, bool] = {
    "1": True, "0": False, "true": True, "false": False, "yes": True, "no": False, "x": True, "": False,
    "correct": True, "incorrect": False, "wrong": False, "right": True,
}  # fmt: skip


class Options(NamedTuple):
    """The choices of one row.

    Attributes:
        texts: none of them is empty.
        labels: by which an answer may name them; letters if the data have no labels.
        places: their 0-based places in the row. Empty choices count, because numbers in the answer's column count them.
        right: the choice that is marked as right; None: none is.
        empty: labels and places of the empty choices.
        marked_wrongly: why the marks are unusable, if none or several choices are marked.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    places: tuple[int, ...]
    right: int | None = None
    marked_wrongly: str = ""
    empty: tuple[tuple[str, int], ...] = ()


class Choices(Protocol):
    """One way to find the choices in a row.

    Attributes:
        columns: the columns that it uses.
        said: its description for the user.
        has_labels: whether the data have labels for the choices. Labels may be numbers.
        is_named: whether the names of the columns sound like choices.
        answers_itself: whether the choices mark the right one, so that no column of answers is needed.
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


def labels_for(count: int) -> tuple[str, ...]:
    """Return labels for choices that have none: letters, and after Z the number of the choice, counted from 1."""
    return (*_LETTERS[:count], *(str(k + 1) for k in range(len(_LETTERS), count)))


def _options(
    texts: Sequence[str], labels: Sequence[str] | None = None, flags: Sequence[Any] | None = None
) -> Options | str:
    """Return the choices without the empty ones, or why there are none.

    Args:
        labels: one per text; None: letters.
        flags: one per remaining choice, marks of the right one; None: there are no marks.
    """
    labels = labels_for(len(texts)) if labels is None else list(labels)
    if len(texts) > _MOST_CHOICES:
        return f"{len(texts)} choices; a question has at most {_MOST_CHOICES}"
    if len(labels) != len(texts):
        return f"{len(texts)} choices and {len(labels)} labels"
    kept = [(t, x, k) for k, (t, x) in enumerate(zip(texts, labels, strict=True)) if t]
    if len(kept) < 2:
        count = "1 choice" if kept else "0 choices"
        return f"{count}; a question needs at least two; add one, or remove the row"
    empty = tuple((x, k) for k, (t, x) in enumerate(zip(texts, labels, strict=True)) if not t)
    texts, marks, places = zip(*kept, strict=True)
    options = Options(texts, marks, places, empty=empty)
    if flags is None:
        return options
    found = [flag_of(f) for f in flags]
    right = [k for k, flag in enumerate(found) if flag]
    if len(found) == len(texts) and None not in found and len(right) == 1:
        return options._replace(right=right[0])
    return options._replace(marked_wrongly=f"{len(right)} of its choices are marked as right")


def flag_of(value: Any) -> bool | None:
    """Return whether a mark means right: true, 1, x, correct, a weight of 100; None: it is not a mark."""
    text = text_of(value).casefold()
    if text in FLAGS:
        return FLAGS[text]
    number = number_of(value)
    return None if number is None or 0 < number < 100 else number >= 100


@dataclass(frozen=True)
class ListChoices:
    """A column with a list of texts. Labels and marks of the right one may be in parallel lists.

    Attributes:
        strip: the texts begin with their marks, as in "A) x".
    """

    column: str
    labels: str | None = None
    flags: str | None = None
    strip: bool = False
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
        marks = " (without the marks before the texts, as `A)`)" if self.strip else ""
        return f"the lists in '{self.column}'" + (f" with the labels in '{self.labels}'" if self.labels else "") + marks

    def of(self, cells: Mapping[str, Any]) -> Options | str:
        value = cells.get(self.column)
        if not isinstance(value, list):
            return f"no list in '{self.column}'"
        texts = [text_of(v) for v in value]
        labels: list[str] | None = None
        if self.strip:
            marked = [m for t in texts if (m := MARKED.match(t))]
            if len(marked) < len(texts):
                return f"a choice in '{self.column}' has no mark like `A)`"
            labels, texts = [m[1] for m in marked], [m[2].strip() for m in marked]
        if self.labels is not None:
            found = cells.get(self.labels)
            labels = [text_of(v) for v in found] if isinstance(found, list) else []
        flags = None if self.flags is None else cells.get(self.flags)
        return _options(texts, labels, flags if isinstance(flags, list) or self.flags is None else [])


@dataclass(frozen=True)
class ObjectChoices:
    """A column with a list of objects, one per choice: its text, and perhaps a label and a mark of the right one."""

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
        flags = [v.get(self.flag) for v in value] if self.flag is not None else None
        return _options([text_of(v.get(self.text)) for v in value], labels, flags)


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
        texts = [text_of(v) for v in values]
        flags = [cells.get(f) for f, t in zip(self.flags, texts, strict=True) if t] if self.flags else None
        return _options(texts, self.labels, flags)


@dataclass(frozen=True)
class TextChoices:
    """One text with all choices, split at a separator, or at marks (None): `A) x  B) y`."""

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
        return f"the texts in '{self.column}', split at {shown}"

    def of(self, cells: Mapping[str, Any]) -> Options | str:
        value = cells.get(self.column)
        if not isinstance(value, str):
            return f"no text in '{self.column}'"
        if self.separator is not None:
            return _options([part.strip() for part in value.split(self.separator)])
        parts = cut_at_marks(value)
        if not parts:
            return f"no marks A, B, … in '{self.column}'"
        return _options([text for _, text in parts], [mark for mark, _ in parts])


@dataclass(frozen=True)
class ApartChoices:
    """The right choice in its own column, the wrong ones in others (or in a list).

    A hash of the texts gives the order. If the right choice always came first, a student would learn its place.

    Attributes:
        separator: separates several wrong choices in one text; empty: there is only one.
    """

    right: str
    wrong: tuple[str, ...]
    separator: str = ""
    is_named: bool = True
    has_labels: bool = False
    answers_itself: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.right, *self.wrong)

    @property
    def said(self) -> str:
        shown = f"`{self.separator}`" if self.separator.strip() else "line breaks"
        cut = f", split at {shown}" if self.separator else ""
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
        return _options(texts, flags=[text == right for text in texts])


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
    """Split a text at its marks A), B), … or 1), 2), …, and return marks and texts; empty if a mark is missing."""
    marks = list(re.finditer(r"(?:^|(?<=[\s,;|]))[(\[（]?\s?([A-Za-z]|\d{1,2})\s?[)\].:、．）]\s*", text))
    for names in (list(_LETTERS), [str(k) for k in range(1, 21)]):
        places: list[re.Match[str]] = []
        for mark in marks:
            if len(places) < len(names) and mark[1].upper() == names[len(places)]:
                places.append(mark)
        if len(places) > 1 and not text[: places[0].start()].strip():
            ends = [m.start() for m in places[1:]] + [len(text)]
            cut = (text[m.end() : end].strip().rstrip(",;|").strip() for m, end in zip(places, ends, strict=True))
            return [(m[1], part) for m, part in zip(places, cut, strict=True)]
    return []
