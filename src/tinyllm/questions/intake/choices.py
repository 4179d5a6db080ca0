"""Where the choices of a question may stand in a row: a list, objects, columns, one text, or apart from the right one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from tinyllm.questions.intake.cells import fold, is_scalar, number_of, text_of
from tinyllm.questions.intake.names import (
    Group,
    groups,
    has_role,
    is_correct,
    is_wrong,
    place_of_mark,
    plain,
    words_of,
)

LETTERS = "ABCDEFGHIJKLMNOPQRST"
_MARKED = re.compile(r"^\s*[(\[（]?\s*([^\W_]{1,3}|[①-⑧])\s*[)\].:、．）]\s*(.+)$", re.DOTALL)
_FLAGS: Mapping[str, bool] = {
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

    columns: tuple[str, ...]
    said: str
    has_labels: bool
    is_named: bool
    answers_itself: bool

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


def _with_flags(options: Options, flags: Sequence[Any]) -> Options:
    found = [_FLAGS.get(text_of(f).casefold()) for f in flags]
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
        return self.labels is not None

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
        labels = None
        if self.strip:
            marked = [_MARKED.match(t) for t in texts]
            if not all(marked):
                return f"a choice in '{self.column}' has no mark like `A)`"
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
    has_labels: bool = False
    answers_itself: bool = False

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
        texts = cut_at_marks(value)
        return _options(texts) if texts else f"no marks A, B, … in '{self.column}'"


@dataclass(frozen=True)
class ApartChoices:
    """The right choice in a column of its own, the wrong ones in others (or in a list).

    The order is free, so it is drawn by a hash of the texts: a right choice that always comes first teaches its place.
    """

    right: str
    wrong: tuple[str, ...]
    is_named: bool = True
    has_labels: bool = False
    answers_itself: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.right, *self.wrong)

    @property
    def said(self) -> str:
        return f"the right one in '{self.right}', the wrong ones in " + ", ".join(f"'{c}'" for c in self.wrong)

    def of(self, cells: Mapping[str, Any]) -> Options | str:
        found = cells.get(self.right)
        found = found[0] if isinstance(found, list) and len(found) == 1 else found
        right = text_of(found) if is_scalar(found) else ""
        wrong: list[str] = []
        for column in self.wrong:
            value = cells.get(column)
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


# --- finding them ------------------------------------------------------------------------------------------------


@dataclass
class _Looking:
    sample: Sequence[Mapping[str, Any]]
    columns: Sequence[str]
    found: list[Choices] = field(default_factory=list)

    def most(self, column: str, fits: Any) -> bool:
        """Tell whether nearly all cells of a column that are there fit, and there are some."""
        values = [row[column] for row in self.sample if row.get(column) is not None]
        return len(values) > 0.5 * len(self.sample) and sum(map(fits, values)) >= 0.9 * len(values)


def find_choices(
    sample: Sequence[Mapping[str, Any]], columns: Sequence[str], wanted: Sequence[str] = ()
) -> list[Choices]:
    """Return the ways in which the choices may stand in the rows, the likelier ones first.

    Args:
        wanted: the columns that the person named; then no others.
    """
    if len(wanted) > 1:
        marks = next((g for g in groups(columns) if set(g.columns) == set(wanted)), None)
        return [_of_group(marks)] if marks else [ColumnChoices(tuple(wanted), tuple(LETTERS[: len(wanted)]))]
    looking = _Looking(sample, columns)
    for column in wanted or columns:
        _lists(looking, column)
        _objects(looking, column)
        if wanted or has_role(column, "choices"):
            _texts(looking, column)
    if not wanted:
        _apart(looking)
        for group in groups(columns):
            if not is_wrong(group.columns[0]) and _holds_texts(looking, group):
                looking.found.append(_of_group(group, _flags_beside(looking, group)))
    return sorted(looking.found, key=lambda c: not c.is_named)


def _of_group(group: Group, flags: tuple[str, ...] = ()) -> ColumnChoices:
    letters = not group.marks[0].isdecimal()
    named = group.bare or has_role(group.stem.replace("•", " ").rpartition(". ")[2], "choice")
    if not named and "." in group.columns[0]:
        named = has_role(group.columns[0].rpartition(".")[0], "choices")
    # The number in `option1` is no label: in `sol1` 0 may mean it.
    labels = group.marks if group.bare or letters else tuple(LETTERS[: len(group.columns)])
    return ColumnChoices(group.columns, labels, group.bare or letters, named, flags)


def _holds_texts(looking: _Looking, group: Group) -> bool:
    return all(looking.most(c, is_scalar) for c in group.columns[:2])


def _flags_beside(looking: _Looking, group: Group) -> tuple[str, ...]:
    """Return the columns that mark the right choice, one for each choice: `is_correct_1`, `is_correct_2`, …"""
    for other in groups(looking.columns):
        if other.marks[: len(group.marks)] == group.marks and other.columns != group.columns:
            values = [text_of(row.get(c)).casefold() for row in looking.sample for c in other.columns]
            if set(values) <= set(_FLAGS) and len(set(values)) > 1 and is_correct(other.stem):
                return other.columns[: len(group.columns)]
    return ()


def _lists(looking: _Looking, column: str) -> None:
    if not looking.most(column, lambda v: isinstance(v, list) and len(v) > 1 and all(map(is_scalar, v))):
        return
    if looking.most(column, lambda v: isinstance(v, list) and all(text_of(x).casefold() in _FLAGS for x in v)):
        return  # marks of the right choice
    head = column.rpartition(".")[0]
    labels = flags = None
    for other in looking.columns:
        if other == column or other.rpartition(".")[0] != head or not _as_long(looking, column, other):
            continue
        values = [text_of(v) for row in looking.sample for v in (row.get(other) or [])]
        if all(v.casefold() in _FLAGS for v in values) and len(set(values)) == 2:
            flags = other
        elif all(len(v) <= 3 for v in values) and has_role(other, "answer") | (
            plain(other) in ("key", "keys", "labels")
        ):
            labels = other
    if looking.most(column, lambda v: _are_marks([text_of(x) for x in v])):
        beside = [c for c in looking.columns if c != column and _as_long(looking, column, c)]
        if beside:
            return  # the labels of another list
    strip = looking.most(column, lambda v: _marks_follow([text_of(t) for t in v]))
    looking.found.append(ListChoices(column, labels, flags, strip, is_named=has_role(column, "choices") or bool(head)))


def _as_long(looking: _Looking, column: str, other: str) -> bool:
    pairs = [(row.get(column), row.get(other)) for row in looking.sample if row.get(column) is not None]
    return all(isinstance(a, list) and isinstance(b, list) and len(a) == len(b) for a, b in pairs)


def _are_marks(texts: Sequence[str]) -> bool:
    places = [place_of_mark(t) for t in texts]
    numbered = [[str(k + first) for k in range(len(texts))] for first in (0, 1)]
    return [p[1] if p else -1 for p in places] == list(range(len(texts))) or list(texts) in numbered


def _marks_follow(texts: Sequence[str]) -> bool:
    found = [_MARKED.match(t) for t in texts]
    places = [place_of_mark(m[1]) if m else None for m in found]
    numbers = [m[1] if m else "" for m in found]
    return [p[1] if p else -1 for p in places] == list(range(len(texts))) or numbers == [
        str(k) for k in range(1, len(texts) + 1)
    ]


def _objects(looking: _Looking, column: str) -> None:
    if not looking.most(
        column, lambda v: isinstance(v, list) and len(v) > 1 and all(isinstance(x, Mapping) for x in v)
    ):
        return
    items = [item for row in looking.sample for item in row.get(column) or [] if isinstance(item, Mapping)]
    keys = list(dict.fromkeys(key for item in items for key in item))
    scalar = [k for k in keys if all(item.get(k) is None or is_scalar(item[k]) for item in items)]
    flags = [k for k in scalar if all(text_of(i.get(k)).casefold() in _FLAGS for i in items) and is_flag_name(k)]
    rest = [k for k in scalar if k not in flags]
    labels = [
        k for k in rest if all(0 < len(text_of(i.get(k))) <= 3 for i in items) and _starts_alike(looking, column, k)
    ]
    texts = [k for k in rest if k not in labels and all(text_of(i.get(k)) for i in items)]
    texts = [k for k in texts if not has_role(k, "explanation") and not has_role(k, "id")] or texts
    if not texts and len(labels) > 1:  # short choices, as numbers are
        texts, labels = labels[1:], labels[:1]
    best = next(
        (k for k in texts if has_role(k, "text") or has_role(k, "choice") or plain(k) in ("choice text", "value")), None
    )
    if texts:
        chosen = best or texts[0]
        named = has_role(column, "choices")
        looking.found.append(
            ObjectChoices(column, chosen, labels[0] if labels else None, flags[0] if flags else None, named)
        )


def is_flag_name(name: str) -> bool:
    """Tell whether a name may be that of a mark of the right choice."""
    return is_correct(name) or has_role(name, "answer") or plain(name) in ("score", "fraction", "is answer", "weight")


def _starts_alike(looking: _Looking, column: str, key: str) -> bool:
    """The first object's label is a first mark, and labels of a row differ."""
    for row in looking.sample:
        marks = [text_of(item.get(key)) for item in row.get(column) or []]
        if marks and (len(set(marks)) < len(marks) or not _is_first(marks[0])):
            return False
    return True


def _is_first(mark: str) -> bool:
    place = place_of_mark(mark)
    return mark in ("0", "1") or (place is not None and place[1] == 0)


def _texts(looking: _Looking, column: str) -> None:
    if not looking.most(column, lambda v: isinstance(v, str)):
        return
    if looking.most(column, lambda v: bool(cut_at_marks(v))):
        looking.found.append(TextChoices(column, None))
        return
    for separator in ("||", "|", "\n", ";", " / ", "/", ","):
        if looking.most(column, lambda v, s=separator: len([p for p in v.split(s) if p.strip()]) > 1):
            looking.found.append(TextChoices(column, separator))


def cut_at_marks(text: str) -> list[str]:
    """Return the texts after the marks A), B), … (or 1), 2), …) of one text; empty where they do not follow each other."""
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
            return [text[m.end() : end].strip().rstrip(",;|").strip() for m, end in zip(places, ends, strict=True)]
    return []


def _apart(looking: _Looking) -> None:
    """Add the ways in which one column holds the right choice and others hold the wrong ones."""
    rights = [
        c for c in looking.columns if looking.most(c, lambda v: is_scalar(v) or (isinstance(v, list) and len(v) == 1))
    ]
    rights = [c for c in rights if is_correct(c) or (has_role(c, "answer") and not is_wrong(c))]
    sets: list[tuple[str, ...]] = [g.columns for g in groups(looking.columns) if is_wrong(g.columns[0])]
    grouped = {c for columns in sets for c in columns}
    singles = [c for c in looking.columns if is_wrong(c) and c not in grouped]
    sets += [(c,) for c in singles if looking.most(c, lambda v: isinstance(v, list) or is_scalar(v))]
    if not sets or not rights:
        return
    ranked = sorted(
        ((_distance(right, wrong[0]), right, wrong) for right in rights for wrong in sets if right not in wrong),
        key=lambda way: way[0],
    )
    for distance, right, wrong in ranked:
        if distance == ranked[0][0]:
            looking.found.append(ApartChoices(right, wrong))


def _distance(right: str, wrong: str) -> int:
    """Return how many words two names differ in, marks and the words for right and wrong aside."""
    ours = {w for w in words_of(right) if not is_correct(w)}
    theirs = {w for w in words_of(wrong) if not is_wrong(w) and not w.isdecimal() and number_of(w) is None}
    return len({w.removesuffix("s") for w in ours} ^ {w.removesuffix("s") for w in theirs})
