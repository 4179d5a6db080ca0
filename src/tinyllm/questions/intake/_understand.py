"""Find out what each column is and how the answer is given. Without proof by the rows, refuse with the reasons."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyllm.errors import DataError, did_you_mean
from tinyllm.questions.intake import _columns as roles
from tinyllm.questions.intake._cells import flat, is_scalar, opened
from tinyllm.questions.intake._choices import Choices, ColumnChoices, FixedChoices
from tinyllm.questions.intake._finding import find_choices
from tinyllm.questions.intake._names import groups
from tinyllm.questions.intake._proof import Candidate, Doubt, Meaning, settle
from tinyllm.questions.intake._reading import Reading
from tinyllm.questions.intake._reshape import taken_apart, tidied
from tinyllm.questions.intake._types import Bad, Line, Shape, Wishes
from tinyllm.questions.types import Question

_SAMPLE = 500
_MOST_ANSWERS = 10  # at most so many columns are tried as answers
_DEEPEST = 3  # levels of nested questions


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no reading of a table is proven.

    Attributes:
        depth: 0 no rows, 1 no choices, 2 choices were found, but something else is missing.
        reasons: each with the option that settles it.
    """

    depth: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Looked:
    """The first rows of a table, flattened, and what is known about its columns."""

    sample: Sequence[Mapping[str, Any]]
    columns: Sequence[str]
    opens: frozenset[str]
    bad: Sequence[str]


def understand(shape: Shape, wishes: Wishes, depth: int = 0) -> tuple[Reading, Shape] | Refusal:
    """Return the reading that the rows prove, and its shape, in which rows with several questions are split.

    Raises:
        DataError: a column that the user named does not exist.
    """
    shape = tidied(shape)
    looked = _look(shape)
    if not looked.sample:
        return Refusal(0, (looked.bad[0],)) if looked.bad else Refusal(2, ("the file has no rows under its header",))
    if shape.named:
        _check_wishes(wishes, looked.columns)
    found = find_choices(looked.sample, looked.columns, wishes.choices) if shape.named and not wishes.classes else []
    if not found and not wishes.classes:
        found = roles.by_position(looked.sample, looked.columns, shape.named)
    if not found and depth < _DEEPEST and (apart := taken_apart(shape, looked.sample, looked.columns)):
        return understand(apart, wishes, depth + 1)
    if not found:
        return _classes(shape, looked, wishes)
    candidates = [_candidate(choices, looked, shape, wishes) for choices in found]
    rows = _try_all(shape, looked, candidates)
    outcome = _best(candidates, rows, wishes)
    if isinstance(outcome, Refusal) and all(isinstance(c, roles.PositionedChoices) for c in found):
        return _classes(shape, looked, wishes)
    is_answered = not isinstance(outcome, Refusal) and (outcome[1].column or outcome[0].choices.answers_itself)
    if not is_answered and depth < _DEEPEST and (apart := taken_apart(shape, looked.sample, looked.columns)):
        inside = understand(apart, wishes, depth + 1)
        if not isinstance(inside, Refusal):
            return inside
    if isinstance(outcome, Refusal):
        return outcome
    if not is_answered and wishes.has_answers and (wishes.answers_as or wishes.answers_from is not None):
        told = f"--answers-as {wishes.answers_as}" if wishes.answers_as else f"--answers-from {wishes.answers_from}"
        reason = f"no column of answers can be read as {told} says. Name the column with --answer COL, or"
        return Refusal(2, (f"{reason} leave that option out",))
    if not is_answered and shape.apart and wishes.has_answers:
        kept = ", ".join(f"`{name}`" for name in shape.apart)
        reason = f"the answers may be in {kept}: put each answer into its question, or use --no-answers"
        return Refusal(2, (reason,))
    reading = _reading(*outcome, looked)
    header = reading.of({c: c for c in looked.columns}, "")
    if shape.named and reading.answer is not None and isinstance(header.kept, Question):
        return Refusal(1, ("the first row is a question itself, so it is not a header",))
    return reading, shape


def _look(shape: Shape) -> _Looked:
    """Read the first rows of all tables."""
    raw: list[Mapping[str, Any]] = []
    bad: list[str] = []
    for table in shape.tables:
        for item in itertools.islice(table.rows(), _SAMPLE):
            if isinstance(item, Line):
                raw.append(item.cells)
            else:
                bad.append(f"{table.unit} {item.place}: {item.reason}")
    names = list(dict.fromkeys(name for cells in raw for name in cells))
    grouped = {c for group in groups(names) for c in group.columns}
    opens = frozenset(n for n in names if n not in grouped and _stands_as_text([r.get(n) for r in raw]))
    sample: list[Mapping[str, Any]] = [flat(cells, opens) for cells in raw]
    return _Looked(sample, list(dict.fromkeys(name for cells in sample for name in cells)), opens, bad)


def _stands_as_text(values: Sequence[Any]) -> bool:
    there = [v for v in values if v is not None and v != ""]
    return bool(there) and sum(not isinstance(opened(v), str) for v in there if isinstance(v, str)) > 0.9 * len(there)


def _check_wishes(wishes: Wishes, columns: Sequence[str]) -> None:
    asked = {
        "--question": wishes.question, "--answer": wishes.answer, "--context": wishes.context,
        **{f"--choices ({c})": c for c in wishes.choices},
    }  # fmt: skip
    missing = [
        f"{flag}: no column '{c}'.{did_you_mean(c, columns)}" for flag, c in asked.items() if c and c not in columns
    ]
    if missing:
        raise DataError("; ".join(missing) + " Columns: " + ", ".join(columns), page="questions.md")


# --- trying ------------------------------------------------------------------------------------------------------


def _candidate(choices: Choices, looked: _Looked, shape: Shape, wishes: Wishes) -> Candidate:
    """Return a way to find the choices, with the columns that belong to it."""
    if isinstance(choices, roles.PositionedChoices):
        picked = roles.Picked(choices.position[0], None, (choices.position[1],))
    else:
        picked = roles.pick(looked.sample, looked.columns, choices.columns, wishes)
    names = choices.columns if isinstance(choices, ColumnChoices) else ()
    return Candidate(choices, picked, _class_names(shape), names, most=_MOST_ANSWERS)


def _class_names(shape: Shape) -> dict[str, tuple[str, ...]]:
    return {name: classes for table in shape.tables for name, classes in table.classes.items()}


def _try_all(shape: Shape, looked: _Looked, candidates: Sequence[Candidate]) -> int:
    """Show all rows to all candidates, in one pass. Return the number of rows."""
    count = 0
    for place, cells, split in _rows_of(shape, looked.opens):
        count += 1
        for candidate in candidates:
            candidate.see(place, cells, split)
    return count


def _rows_of(shape: Shape, opens: frozenset[str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the place, the flattened cells and the split of every readable row."""
    for table in shape.tables:
        for item in table.rows():
            if not isinstance(item, Bad):
                yield f"{table.unit} {item.place}", flat(item.cells, opens), table.split or ""


def _best(candidates: Sequence[Candidate], rows: int, wishes: Wishes) -> tuple[Candidate, Meaning] | Refusal:
    settled = [(c, settle(c, rows, wishes)) for c in candidates]
    proven = [(c, m) for c, m in settled if isinstance(m, Meaning) and (m.column or c.choices.answers_itself)]
    unanswered = [(c, m) for c, m in settled if isinstance(m, Meaning) and not (m.column or c.choices.answers_itself)]
    doubts = [m for _, m in settled if isinstance(m, Doubt)]
    if proven:
        return _one_of(proven)
    if unanswered and not any(d.about_answer for d in doubts):
        named = [(c, m) for c, m in unanswered if c.choices.is_named]
        if named:
            return _one_of(named)
        doubts.append(
            Doubt(
                "there is no column of answers, and nothing proves that these are choices: "
                + "; ".join(c.choices.said for c, _ in unanswered)
                + ". Give the choices with --choices COL,COL, or the answers with --answer COL",
                rank=1,
            )
        )
    doubts.sort(key=lambda d: -d.rank)
    best = [d for d in doubts if d.rank == doubts[0].rank]
    return Refusal(2 if doubts[0].rank > 1 else 1, tuple(dict.fromkeys(d.reason for d in best)))


def _one_of(ways: Sequence[tuple[Candidate, Meaning]]) -> tuple[Candidate, Meaning] | Refusal:
    ways = [w for w in ways if w[0].choices.is_named] or list(ways)
    digests = {c.digest(m) for c, m in ways}
    if len(digests) > 1:
        listed = "; ".join(c.choices.said for c, _ in ways)
        return Refusal(2, (f"the choices are unclear: {listed}. Use --choices COL or --choices COL,COL",))
    return ways[0]


def _reading(candidate: Candidate, meaning: Meaning, looked: _Looked) -> Reading:
    picked = candidate.picked
    parts = {picked.question, picked.context, meaning.column, *candidate.choices.columns}
    identity = None if candidate.identity in parts else candidate.identity
    used = {*parts, identity}
    heads = {str(c).split(".")[0] for c in used if c}
    unused = tuple(c for c in looked.columns if c not in used and (c.split(".")[0] not in heads or "." in c))
    assert picked.question is not None  # noqa: S101 - a candidate without one is a doubt
    return Reading(
        question=picked.question,
        choices=candidate.choices,
        context=picked.context,
        answer=meaning.column,
        way=meaning.way,
        names=candidate.names.get(meaning.column or "", ()),
        identity=identity,
        proof=meaning.proof,
        unused=unused,
        opens=looked.opens,
        columns=tuple(looked.columns),
        withheld=meaning.column in candidate.withheld,
    )


# --- text classification -----------------------------------------------------------------------------------------


def _classes(shape: Shape, looked: _Looked, wishes: Wishes) -> tuple[Reading, Shape] | Refusal:
    """Read texts that belong to classes: a text, and a label that repeats."""
    known = _class_names(shape)
    named = roles.columns_of(looked.sample, looked.columns, wishes.classes)
    if not wishes.has_answers and wishes.classes:
        labels = [""]
    elif wishes.answer:
        labels = [wishes.answer]
    else:
        others = roles.class_columns(looked.sample, looked.columns, known, shape.named)
        labels = list(dict.fromkeys([*named, *others]))
    reasons = []
    for label in labels:
        picked = roles.pick(looked.sample, looked.columns, (label,), replace(wishes, answer=None), classify=True)
        if picked.question is None:
            reasons += [d for d in picked.doubts if d not in reasons]
            continue
        counts: dict[Any, int] = {}
        for _, cells, _ in _rows_of(shape, looked.opens):
            value = cells.get(label)
            if is_scalar(value) and len(counts) <= 1000:
                counts[value] = counts.get(value, 0) + 1
        if not shape.named and counts.get(looked.sample[0].get(label), 0) < 2:
            continue  # the first row may be a header
        found = roles.class_names(label, counts, known.get(label, ()), wishes, shape.named)
        if isinstance(found, str):
            reasons.append(found)
            continue
        choices = FixedChoices(found.names, (label,) if label else ())
        numbered = {label: found.numbered} if found.numbered else {}
        candidate = Candidate(choices, replace(picked, answers=(label,) if label else ()), numbered, (), most=1)
        _try_all(shape, looked, [candidate])
        trial = candidate.trials.get(label)
        if not len(candidate.right) or (trial is not None and found.way is not None and not trial.fits(found.way)):
            reasons.append(f"'{label}' is not one of the classes {', '.join(found.names)} in most rows")
            continue
        meaning = Meaning(label or None, found.way, (found.proof,))
        return _reading(candidate, meaning, looked), shape
    listed = ", ".join(f"'{c}'" for c in looked.columns) if shape.named else f"{len(looked.columns)} columns"
    if wishes.classes:
        if reasons and (named or wishes.answer):
            return Refusal(2, tuple(reasons))
        where = f"no column holds the classes {', '.join(wishes.classes)}. Columns: {listed}. Name it with --answer COL"
        return Refusal(1, (f"{where}; or correct --classes NAME,NAME; or use --no-answers where none is known",))
    nothing = (
        "no choices: no column holds lists of texts, and there are no columns with one choice each, as A, B, C. "
        f"Columns: {listed}. Name them with --choices COL,COL,COL (or one column of lists). If texts are to be "
        "classified, name the classes with --classes NAME,NAME"
    )
    return Refusal(1, (nothing, *reasons))
