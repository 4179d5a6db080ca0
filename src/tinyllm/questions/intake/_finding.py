"""Find all ways in which the rows of a file may hold the choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyllm.questions.intake._cells import is_scalar, number_of, text_of
from tinyllm.questions.intake._choices import (
    FLAGS,
    MARKED,
    ApartChoices,
    Choices,
    ColumnChoices,
    ListChoices,
    ObjectChoices,
    TextChoices,
    cut_at_marks,
    flag_of,
    labels_for,
)
from tinyllm.questions.intake._names import (
    Group,
    groups,
    has_role,
    is_correct,
    is_wrong,
    place_of_mark,
    plain,
    words_of,
)


@dataclass
class _Looking:
    sample: Sequence[Mapping[str, Any]]
    columns: Sequence[str]
    found: list[Choices] = field(default_factory=list)

    def most(self, column: str, fits: Any) -> bool:
        """Tell whether a column is filled in most rows, and nearly all its values fit."""
        values = [row[column] for row in self.sample if row.get(column) is not None]
        return len(values) > 0.5 * len(self.sample) and sum(map(fits, values)) >= 0.9 * len(values)


def find_choices(
    sample: Sequence[Mapping[str, Any]], columns: Sequence[str], wanted: Sequence[str] = ()
) -> list[Choices]:
    """Return the ways in which the rows may hold the choices, the most likely first.

    Args:
        wanted: the columns that the user named; if given, no others are used.
    """
    if len(wanted) > 1:
        marks = next((g for g in groups(columns) if set(g.columns) == set(wanted)), None)
        return [_of_group(marks)] if marks else [ColumnChoices(tuple(wanted), labels_for(len(wanted)))]
    looking = _Looking(sample, columns)
    for column in wanted or columns:
        _lists(looking, column)
        _objects(looking, column)
        if wanted or has_role(column, "choices"):
            _texts(looking, column)
    if not wanted:
        _apart(looking)
        for group in groups(columns):
            if not is_wrong(group.columns[0]) and all(looking.most(c, is_scalar) for c in group.columns[:2]):
                looking.found.append(_of_group(group, _flags_beside(looking, group)))
    return sorted(looking.found, key=lambda c: not c.is_named)


def _of_group(group: Group, flags: tuple[str, ...] = ()) -> ColumnChoices:
    letters = not group.marks[0].isdecimal()
    named = group.bare or has_role(group.stem.replace("•", " ").rpartition(". ")[2], "choice")
    if not named and "." in group.columns[0]:
        named = has_role(group.columns[0].rpartition(".")[0], "choices")
    # The number in `option1` is not a label: the answer 0 may mean `sol1`.
    labels = group.marks if group.bare or letters else labels_for(len(group.columns))
    return ColumnChoices(group.columns, labels, group.bare or letters, named, flags)


def _flags_beside(looking: _Looking, group: Group) -> tuple[str, ...]:
    """Return the columns that mark the right choice, one per choice: `is_correct_1`, `is_correct_2`, …"""
    for other in groups(looking.columns):
        if other.marks[: len(group.marks)] == group.marks and other.columns != group.columns:
            values = [text_of(row.get(c)).casefold() for row in looking.sample for c in other.columns]
            if set(values) <= FLAGS.keys() and len(set(values)) > 1 and is_correct(other.stem):
                return other.columns[: len(group.columns)]
    return ()


def _lists(looking: _Looking, column: str) -> None:
    if not looking.most(column, lambda v: isinstance(v, list) and len(v) > 1 and all(map(is_scalar, v))):
        return
    marks = looking.most(column, lambda v: all(text_of(x).casefold() in FLAGS for x in v))
    if marks and not has_role(column, "choices"):  # yes and no may be choices
        return
    head = column.rpartition(".")[0]
    labels = flags = None
    for other in looking.columns:
        if other == column or other.rpartition(".")[0] != head or not _as_long(looking, column, other):
            continue
        values = [text_of(v) for row in looking.sample for v in (row.get(other) or [])]
        if all(v.casefold() in FLAGS for v in values) and len(set(values)) == 2:
            flags = other
        elif all(len(v) <= 3 for v in values) and has_role(other, "answer") | (
            plain(other) in ("key", "keys", "labels")
        ):
            labels = other
    if looking.most(column, lambda v: _in_order([text_of(x) for x in v])):
        beside = [c for c in looking.columns if c != column and _as_long(looking, column, c)]
        if beside:
            return  # the labels of another list
    # Whether each text begins with its mark, as in `A) x`.
    strip = looking.most(
        column, lambda v: _in_order([m[1] if (m := MARKED.match(text_of(t))) else "" for t in v], firsts=(1,))
    )
    looking.found.append(ListChoices(column, labels, flags, strip, is_named=has_role(column, "choices") or bool(head)))


def _as_long(looking: _Looking, column: str, other: str) -> bool:
    pairs = [(row.get(column), row.get(other)) for row in looking.sample if row.get(column) is not None]
    return all(isinstance(a, list) and isinstance(b, list) and len(a) == len(b) for a, b in pairs)


def _in_order(marks: Sequence[str], firsts: Sequence[int] = (0, 1)) -> bool:
    """Tell whether marks are A, B, C, …, or numbers that begin with one of `firsts`."""
    places = [place_of_mark(mark) for mark in marks]
    numbered = [[str(k + first) for k in range(len(marks))] for first in firsts]
    return [p[1] if p else -1 for p in places] == list(range(len(marks))) or list(marks) in numbered


def _objects(looking: _Looking, column: str) -> None:
    if not looking.most(
        column, lambda v: isinstance(v, list) and len(v) > 1 and all(isinstance(x, Mapping) for x in v)
    ):
        return
    items = [item for row in looking.sample for item in row.get(column) or [] if isinstance(item, Mapping)]
    keys = list(dict.fromkeys(key for item in items for key in item))
    scalar = [k for k in keys if all(item.get(k) is None or is_scalar(item[k]) for item in items)]
    flags = [k for k in scalar if all(flag_of(i.get(k)) is not None for i in items)]
    flags = [k for k in flags if _is_flag_name(k) or _marks_one(looking, column, k)]
    rest = [k for k in scalar if k not in flags]
    labels = [
        k for k in rest if all(0 < len(text_of(i.get(k))) <= 3 for i in items) and _starts_alike(looking, column, k)
    ]
    texts = [k for k in rest if k not in labels and all(text_of(i.get(k)) for i in items)]
    texts = [k for k in texts if not has_role(k, "explanation") and not has_role(k, "id")] or texts
    if not texts and labels:  # short choices, for example numbers
        texts, labels = labels[-1:], labels[:-1]
    if not texts:
        return
    named = [k for k in texts if has_role(k, "text") or has_role(k, "choice") or plain(k) in ("choice text", "value")]
    label, flag = (next(iter(keys), None) for keys in (labels, flags))
    looking.found.append(ObjectChoices(column, (named or texts)[0], label, flag, has_role(column, "choices")))


def _marks_one(looking: _Looking, column: str, key: str) -> bool:
    """Tell whether true and false mark exactly one of the objects in every row."""
    rows = [row[column] for row in looking.sample if isinstance(row.get(column), list)]
    return all(all(isinstance(i.get(key), bool) for i in r) and sum(i[key] for i in r) == 1 for r in rows)


def _is_flag_name(name: str) -> bool:
    """Tell whether a name sounds like a mark of the right choice."""
    return is_correct(name) or has_role(name, "answer") or plain(name) in ("score", "fraction", "is answer", "weight")


def _starts_alike(looking: _Looking, column: str, key: str) -> bool:
    """Tell whether in every row the first label is a first mark (A, 0, 1, …), and all labels differ."""
    for row in looking.sample:
        marks = [text_of(item.get(key)) for item in row.get(column) or []]
        place = place_of_mark(marks[0]) if marks else None
        first = marks[:1] in (["0"], ["1"]) or (place is not None and place[1] == 0)
        if marks and (len(set(marks)) < len(marks) or not first):
            return False
    return True


def _texts(looking: _Looking, column: str) -> None:
    if not looking.most(column, lambda v: isinstance(v, str)):
        return
    if looking.most(column, lambda v: bool(cut_at_marks(v))):
        looking.found.append(TextChoices(column, None))
        return
    for separator in ("||", "|", "\n", ";", " / ", "/", ","):
        if looking.most(column, lambda v, s=separator: len([p for p in v.split(s) if p.strip()]) > 1):
            looking.found.append(TextChoices(column, separator))
            return


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
    ways = [
        ((_distance(right, wrong[0]), "best" not in words_of(right)), right, wrong)
        for right in rights
        for wrong in sets
        if right not in wrong and not _are_counts(looking, right, wrong)
    ]
    for rank, right, wrong in ways:
        if rank == min(rank for rank, _, _ in ways) and (separator := _separator_in(looking, wrong)) is not None:
            looking.found.append(ApartChoices(right, wrong, separator))


def _are_counts(looking: _Looking, right: str, wrong: Sequence[str]) -> bool:
    """Tell whether two columns hold numbers: how often people were right and wrong."""
    cells = [row.get(c) for row in looking.sample for c in (right, *wrong)]
    return len(wrong) == 1 and all(v is None or number_of(v) is not None for v in cells)


def _separator_in(looking: _Looking, wrong: Sequence[str]) -> str | None:
    """Return the separator of several wrong choices in one text; empty: there is one choice; None: it is unclear."""
    if len(wrong) > 1 or not looking.most(wrong[0], lambda v: isinstance(v, str)):
        return ""
    for separator in ("||", "|", "\n", ";"):
        if looking.most(wrong[0], lambda v, s=separator: s in v):
            return separator
    several = plain(wrong[0]).endswith("s") and looking.most(wrong[0], lambda v: "," in v)
    return None if several else ""


def _distance(right: str, wrong: str) -> int:
    """Return in how many words two names differ, without marks and words for right and wrong."""
    ours = {w for w in words_of(right) if not is_correct(w)}
    theirs = {w for w in words_of(wrong) if not is_wrong(w) and not w.isdecimal() and number_of(w) is None}
    return len({w.removesuffix("s") for w in ours} ^ {w.removesuffix("s") for w in theirs})
