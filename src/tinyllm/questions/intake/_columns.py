"""Which columns may be the question, the context and the answer, by their names and their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyllm.errors import did_you_mean, printable
from tinyllm.questions.intake._answers import Way, is_nothing, misfits_allowed
from tinyllm.questions.intake._cells import fold, is_scalar, number_of, text_of
from tinyllm.questions.intake._choices import Choices, ColumnChoices, labels_for
from tinyllm.questions.intake._names import has_role, is_wrong, rank
from tinyllm.questions.intake._types import Wishes

_LONG = 60  # average characters: a passage rather than a remark
_MOST_CLASSES = 100
_SAYS_YES = tuple(
    set(words.split())
    for words in (
        "yes no", "yes no maybe", "true false", "true false unknown", "ja nein", "oui non", "vrai faux", "wahr falsch",
        "richtig falsch", "si no", "sí no", "verdadero falso", "vero falso", "tak nie", "да нет", "是 否", "对 错",
        "はい いいえ",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picked:
    """The columns that belong to the choices.

    Attributes:
        answers: columns whose names sound like answers. `maybe`: names that can mean answers. `others`: unknown names.
        doubts: why there is no question, or what is unclear, with the option that settles it.
    """

    question: str | None
    context: str | None
    answers: tuple[str, ...] = ()
    maybe: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def pick(
    sample: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    taken: Sequence[str],
    wishes: Wishes,
    *,
    classify: bool = False,
) -> Picked:
    """Return the columns of question, context and answer.

    Args:
        taken: columns that hold the choices (or the label).
        classify: the question may be a text that belongs to a class.
    """
    free = [c for c in columns if c not in taken and not any(t.startswith(f"{c}.") for t in taken)]
    texts = [c for c in free if _is_text(sample, c) and not _inside(c, ("answer", "choices", "explanation", "about"))]
    question, doubt = _question(sample, texts, wishes, classify)
    free = [c for c in free if c != question]
    context, doubt_of_context = _context(sample, free, question, wishes)
    free = [c for c in free if c != context]
    scalar = [c for c in free if _any(sample, c)] if wishes.has_answers else []
    answers = [c for c in scalar if (has_role(c, "answer") or _is_part_of_answer(c)) and not is_wrong(c)]
    maybe = [c for c in scalar if c not in answers and has_role(c, "maybe answer")]
    known = {"explanation", "about", "id", "context", "question"}
    others = [c for c in scalar if c not in [*answers, *maybe] and not any(has_role(c, role) for role in known)]
    others = [c for c in others if not _inside(c, ("answer", "about"))]
    if wishes.answer:
        answers, maybe, others = [wishes.answer], [], []
    doubts = tuple(filter(None, (doubt, doubt_of_context)))
    return Picked(question, context, tuple(answers), tuple(maybe), tuple(others), doubts)


def _inside(column: str, roles: Sequence[str]) -> bool:
    """Tell whether a column is part of an object with one of the roles. So `answer.text` is not a question's text."""
    head = column.rpartition(".")[0]
    return bool(head) and any(has_role(head, role) for role in roles)


def _is_part_of_answer(column: str) -> bool:
    parts = {"text", "index", "idx", "id", "key", "label", "letter", "value"}
    return _inside(column, ("answer",)) and column.rpartition(".")[2].casefold() in parts


def _is_text(sample: Sequence[Mapping[str, Any]], column: str) -> bool:
    there = [row[column] for row in sample if row.get(column) is not None]
    texts = sum(isinstance(v, str) for v in there)
    return len(there) >= 0.5 * len(sample) and texts >= 0.9 * len(there) and texts > 0


def _any(sample: Sequence[Mapping[str, Any]], column: str) -> bool:
    return any(is_scalar(v) or isinstance(v, list) for row in sample if (v := row.get(column)) is not None)


def _question(
    sample: Sequence[Mapping[str, Any]], texts: Sequence[str], wishes: Wishes, classify: bool
) -> tuple[str | None, str]:
    if wishes.question:
        return wishes.question, ""
    named = sorted((c for c in texts if has_role(c, "question")), key=lambda c: rank(c, "question"))
    if classify and not named:
        named = sorted((c for c in texts if has_role(c, "text")), key=lambda c: rank(c, "text"))
    if named:
        return named[0], ""
    plain = [c for c in texts if not any(has_role(c, r) for r in ("explanation", "about", "id", "answer", "context"))]
    asking = [c for c in plain if _share_of_questions(sample, c) >= 0.5]
    for those in (plain, asking):
        if len(those) == 1:
            return those[0], ""
    contexts = [c for c in texts if has_role(c, "context")]
    if not plain and len(contexts) == 1:
        return contexts[0], ""
    if not plain and (rest := [c for c in texts if not has_role(c, "id")]) and len(rest) == 1:
        return rest[0], ""
    listed = ", ".join(f"'{c}'" for c in plain or texts)
    why = f"any of {listed} may be it" if listed else "no column holds texts"
    return None, f"it is unclear which column is the question: {why}. Name it with --question COL"


def _share_of_questions(sample: Sequence[Mapping[str, Any]], column: str) -> float:
    there = [text_of(row[column]) for row in sample if row.get(column) is not None]
    return sum(t.endswith(("?", "？", "؟", ":", "…", "...", "___")) for t in there) / max(1, len(there))


def _context(
    sample: Sequence[Mapping[str, Any]], free: Sequence[str], question: str | None, wishes: Wishes
) -> tuple[str | None, str]:
    if wishes.context or not wishes.has_context:
        return wishes.context, ""
    texts = [
        c for c in free if _is_paragraphs(sample, c) and not _inside(c, ("answer", "choices", "explanation", "about"))
    ]
    named = sorted((c for c in texts if has_role(c, "context")), key=lambda c: rank(c, "context"))
    if named:
        return named[0], ""
    roles = ("explanation", "about", "id", "answer", "maybe answer", "class", "wrong")
    unknown = [c for c in texts if not any(has_role(c, role) for role in roles) and not is_wrong(c)]
    mean = 0.0 if question is None else _length(sample, question)
    long = [c for c in unknown if _length(sample, c) >= max(_LONG, mean)]
    if long:
        listed = ", ".join(f"'{c}'" for c in long)
        return None, (
            f"{listed} hold{'s' if len(long) == 1 else ''} long texts. If the questions are about them, use "
            "--context COL, otherwise --no-context"
        )
    return None, ""


def _is_paragraphs(sample: Sequence[Mapping[str, Any]], column: str) -> bool:
    there = [row[column] for row in sample if row.get(column) is not None]
    fits = [isinstance(v, str) or (isinstance(v, list) and all(isinstance(p, str) for p in v)) for v in there]
    return bool(there) and all(fits)


def _length(sample: Sequence[Mapping[str, Any]], column: str) -> float:
    lengths = [
        len("".join(v) if isinstance(v, list) else text_of(v)) for row in sample if (v := row.get(column)) is not None
    ]
    return sum(lengths) / max(1, len(lengths))


# --- columns without names, or with names that tell nothing ----------------------------------------------------------


@dataclass(frozen=True)
class PositionedChoices(ColumnChoices):
    """Choices in columns that are found by position. `position`: the columns of question and answer."""

    position: tuple[str, str] = ("", "")


def by_position(sample: Sequence[Mapping[str, Any]], columns: Sequence[str], named: bool) -> list[Choices]:
    """Return the ways to assign question, choices and answer to the columns by position. Every column must be used."""
    known = ("explanation", "about", "id", "context")
    left = [c for c in columns if not (named and any(has_role(c, role) for role in known))]
    left = [c for c in left if any(row.get(c) is not None for row in sample)]
    if left and _counts(sample, left[0]):
        left = left[1:]
    if len(left) < 4 or not all(row.get(c) is None or is_scalar(row[c]) for row in sample for c in left):
        return []
    found: list[Choices] = []
    ways = ((left[0], left[1:-1], left[-1]), (left[1], left[2:], left[0]), (left[0], left[2:], left[1]))
    for question, inside, answer in ways:
        misnamed = named and (
            any(has_role(c, r) for c in inside for r in ("question", "answer")) or has_role(answer, "question")
        )
        if len(inside) > 1 and _is_text(sample, question) and not misnamed:
            labels = labels_for(len(inside))
            found.append(PositionedChoices(tuple(inside), labels, is_named=False, position=(question, answer)))
    return found


def _counts(sample: Sequence[Mapping[str, Any]], column: str) -> bool:
    numbers = [number_of(row.get(column)) for row in sample]
    first = numbers[0]
    return len(numbers) > 1 and first is not None and numbers == list(range(first, first + len(numbers)))


# --- classes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Classes:
    """The names of classes. `numbered`: the names by number, if the column holds numbers counted from 0."""

    names: tuple[str, ...]
    way: Way | None
    proof: str
    numbered: tuple[str, ...] = ()


def class_columns(
    sample: Sequence[Mapping[str, Any]], columns: Sequence[str], known: Mapping[str, Sequence[str]], named: bool
) -> list[str]:
    """Return the columns that may hold the class of a text, the most likely first."""
    if not named:
        return list(columns[::-1]) if len(columns) == 2 else []
    there = [c for c in columns if any(is_scalar(row.get(c)) for row in sample)]
    likely = [c for c in there if has_role(c, "answer")] + [c for c in there if has_role(c, "class")]
    numbered = [c for c in there if c in known]
    likely += [c for c in there if _is_closed({fold(text_of(v)) for row in sample if (v := row.get(c)) is not None})]
    return list(dict.fromkeys([*(c for c in numbered if c in likely), *likely, *numbered]))


def columns_of(sample: Sequence[Mapping[str, Any]], columns: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return the columns in which most values are one of these classes."""
    names = {fold(name) for name in classes}
    values = {c: [v for row in sample if is_scalar(v := row.get(c)) and not is_nothing(v)] for c in columns}
    return [c for c, of in values.items() if 2 * sum(fold(text_of(v)) in names for v in of) > len(of)]


def _is_closed(folded: set[str]) -> bool:
    """Tell whether values are yes and no, true and false, or similar."""
    return len(folded) > 1 and any(folded <= words for words in _SAYS_YES)


def class_names(
    column: str, counts: Mapping[Any, int], known: Sequence[str], wishes: Wishes, named: bool
) -> Classes | str:
    """Return the classes in a column, or why its values are not classes.

    Args:
        counts: how often the column has each value.
    """
    if wishes.classes:
        return _given(column, counts, wishes)
    values = list(counts)
    if known and all((n := number_of(v)) is not None and -1 <= n < len(known) for v in values):
        return Classes(
            tuple(known), "text", f"'{column}' holds class numbers, and the file has their names", tuple(known)
        )
    texts: dict[str, int] = {}
    for value, count in counts.items():
        texts[fold(text_of(value))] = texts.get(fold(text_of(value)), 0) + count
    folded = set(texts)
    total = sum(texts.values())
    if values and all(isinstance(v, bool) for v in values):
        return Classes(("yes", "no"), "text", f"'{column}' holds true or false in every row: yes or no")
    if all(number_of(v) is not None for v in values):
        shown = ", ".join(sorted(map(text_of, values))[:10])
        return (
            f"'{column}' holds the numbers {shown}, and their meaning is unknown. If they are classes, name them in "
            "the order of their numbers with --classes NAME,NAME"
        )
    if named and fold(column) in folded:
        return f"'{column}' is a class itself, so the first row is not a header"
    distinct, repeated = len(texts), sum(n > 1 for n in texts.values())
    is_closed = _is_closed(folded)
    enough = total >= 1.5 * distinct and repeated >= 0.5 * distinct and all(len(t) <= _LONG for t in texts)
    if has_role(column, "answer") and not has_role(column, "class"):
        enough = enough and total >= 4 * distinct  # a short answer repeats by chance
    if not 1 < distinct <= _MOST_CLASSES or not (enough or is_closed):
        return (
            f"'{column}' holds {distinct} different texts in {total} rows: too many for classes. If they are classes, "
            "name them with --classes NAME,NAME"
        )
    first: dict[str, str] = {}
    for value in values:
        first.setdefault(fold(text_of(value)), text_of(value))
    names = tuple(sorted(first.values()))
    return Classes(names, "text", f"'{column}' holds one of {distinct} texts in each of {total} rows: the class")


def _given(column: str, counts: Mapping[Any, int], wishes: Wishes) -> Classes | str:
    names = wishes.classes
    if not column:
        return Classes(names, None, "the classes are given by --classes")
    known = {fold(n) for n in names}
    others = {text_of(v): n for v, n in counts.items() if not is_nothing(v) and fold(text_of(v)) not in known}
    total, unfit = sum(n for v, n in counts.items() if not is_nothing(v)), sum(others.values())
    if unfit <= misfits_allowed(total):
        rows = f"{total - unfit} of {total} rows" if unfit else "every row"
        return Classes(names, "text", f"'{column}' holds one of the classes given by --classes in {rows}")
    numbers = [number_of(v) for v in counts]
    first = wishes.answers_from if wishes.answers_from is not None else (0 if 0 in numbers else None)
    if first is None and len(names) in numbers:
        first = 1
    if first is not None and all(n is not None and first <= n < len(names) + first for n in numbers if n != -1):
        return Classes(
            names, "from 0" if first == 0 else "from 1", f"'{column}' holds their numbers, counted from {first}"
        )
    often = sorted(others, key=lambda text: (-others[text], text))
    shown = ", ".join(f"{others[text]} × '{printable(text)}'" for text in often[:10])
    if all(n is not None for n in numbers):
        how = "Give the number of the first class with --answers-from 0 or --answers-from 1"
    else:
        how = "Correct --classes NAME,NAME, or the file"
    return (
        f"'{column}' holds values that are none of the classes {', '.join(names)}: {shown}."
        f"{did_you_mean(often[0], names)} {how}"
    )
