"""Which column is what, and how the answer is given: accepted where the rows prove it, else refused with reasons."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tinyllm.errors import DataError, did_you_mean
from tinyllm.questions.intake import _columns as roles
from tinyllm.questions.intake._cells import flat, is_scalar, opened
from tinyllm.questions.intake._choices import Choices, ColumnChoices, FixedChoices
from tinyllm.questions.intake._finding import find_choices
from tinyllm.questions.intake._names import groups
from tinyllm.questions.intake._nested import taken_apart
from tinyllm.questions.intake._proof import Candidate, Doubt, Meaning, settle
from tinyllm.questions.intake._reading import Reading
from tinyllm.questions.intake._tidy import tidied
from tinyllm.questions.intake._types import Bad, Line, Shape, Wishes

_SAMPLE = 500
_MOST_ANSWERS = 10  # columns that are tried as answers


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no reading of a table is proven.

    Attributes:
        depth: how far it came: 0 nothing to work with, 1 no choices, 2 choices, but not all else.
        reasons: each with the option that settles it.
    """

    depth: int
    reasons: tuple[str, ...]


@dataclass
class Looked:
    """The first rows of a table, flattened, and what is known of its columns."""

    sample: list[Mapping[str, Any]]
    columns: list[str]
    opens: frozenset[str]
    bad: list[str] = field(default_factory=list)


def understand(shape: Shape, wishes: Wishes, depth: int = 0) -> tuple[Reading, Shape] | Refusal:
    """Return the one reading of a shape that its rows prove, with the shape it belongs to (rows may be taken apart).

    Raises:
        DataError: a column that the person named is not there.
    """
    shape = tidied(shape)
    looked = look(shape)
    if not looked.sample:
        return Refusal(0, (looked.bad[0],)) if looked.bad else Refusal(2, ("holds no rows under its header",))
    if shape.named:
        _check_wishes(wishes, looked.columns)
    found = find_choices(looked.sample, looked.columns, wishes.choices) if shape.named and not wishes.classes else []
    if not found and not wishes.classes:
        found = roles.by_position(looked.sample, looked.columns, shape.named)
    if not found and depth < 3 and (apart := taken_apart(shape, looked.sample, looked.columns)):
        return understand(apart, wishes, depth + 1)
    if not found:
        return _classes(shape, looked, wishes)
    candidates = [_candidate(choices, looked, shape, wishes) for choices in found]
    rows = _try_all(shape, looked, candidates)
    outcome = _best(candidates, rows, wishes)
    if isinstance(outcome, Refusal) and all(isinstance(c, roles.PositionedChoices) for c in found):
        return _classes(shape, looked, wishes)
    is_answered = not isinstance(outcome, Refusal) and (outcome[1].column or outcome[0].choices.answers_itself)
    if not is_answered and depth < 3 and (apart := taken_apart(shape, looked.sample, looked.columns)):
        inside = understand(apart, wishes, depth + 1)
        if not isinstance(inside, Refusal):
            return inside
    if isinstance(outcome, Refusal):
        return outcome
    if not is_answered and shape.apart and wishes.has_answers:
        kept = ", ".join(f"`{name}`" for name in shape.apart)
        return Refusal(
            2,
            (f"the answers may be in {kept}, apart from the questions: put each into its own, or say --no-answers",),
        )
    reading = _reading(*outcome, looked)
    if (
        shape.named
        and reading.answer is not None
        and not isinstance(reading.of({c: c for c in looked.columns}, ""), str)
    ):
        return Refusal(1, ("the first row reads like a question itself, so it is no header",))
    return reading, shape


def look(shape: Shape) -> Looked:
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
    return Looked(sample, list(dict.fromkeys(name for cells in sample for name in cells)), opens, bad)


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
        raise DataError("; ".join(missing) + " Columns: " + ", ".join(columns))


# --- trying ------------------------------------------------------------------------------------------------------


def _candidate(choices: Choices, looked: Looked, shape: Shape, wishes: Wishes) -> Candidate:
    """Return the columns that go with a way to find the choices, or the doubts about them."""
    position = choices.position if isinstance(choices, roles.PositionedChoices) else None
    if position is not None:
        picked = roles.Picked(position[0], None, (position[1],), (), (), ())
    else:
        picked = roles.pick(looked.sample, looked.columns, choices.columns, wishes)
    classes = {n: c for table in shape.tables for n, c in table.classes.items()}
    names = choices.columns if isinstance(choices, ColumnChoices) else ()
    return Candidate.made(choices, picked, classes, names, most=_MOST_ANSWERS)


def _try_all(shape: Shape, looked: Looked, candidates: Sequence[Candidate]) -> int:
    """Go through all rows once; every candidate sees each, and whether ids repeat is noted."""
    count = 0
    for place, cells, split in rows_of(shape, looked.opens):
        count += 1
        for candidate in candidates:
            candidate.see(place, cells, split)
    return count


def rows_of(shape: Shape, opens: frozenset[str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield place, flattened cells and the split of every row that can be read."""
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
                "no column of answers, and nothing proves that these are choices: "
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
        return Refusal(
            2, (f"the choices may be several things: {listed}. Give them with --choices COL or --choices COL,COL",)
        )
    return ways[0]


def _reading(candidate: Candidate, meaning: Meaning, looked: Looked) -> Reading:
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
        names=candidate.names_of(meaning.column),
        identity=identity,
        proof=meaning.proof,
        unused=unused,
        opens=looked.opens,
        columns=tuple(looked.columns),
        withheld=candidate.withheld(meaning.column),
    )


# --- the same choices for every text -----------------------------------------------------------------------------


def _classes(shape: Shape, looked: Looked, wishes: Wishes) -> tuple[Reading, Shape] | Refusal:
    """Read texts that belong to classes: a text, and a label that repeats."""
    known = {n: c for table in shape.tables for n, c in table.classes.items()}
    labels = (
        [wishes.answer] if wishes.answer else roles.class_columns(looked.sample, looked.columns, known, shape.named)
    )
    if not wishes.has_answers and wishes.classes:
        labels = [""]
    reasons = []
    for label in labels:
        picked = roles.pick(looked.sample, looked.columns, (label,), replace(wishes, answer=None), classify=True)
        if picked.question is None:
            reasons += [d for d in picked.doubts if d not in reasons]
            continue
        counts: dict[Any, int] = {}
        for _, cells, _ in rows_of(shape, looked.opens):
            value = cells.get(label)
            if is_scalar(value) and len(counts) <= 1000:
                counts[value] = counts.get(value, 0) + 1
        if not shape.named and counts.get(looked.sample[0].get(label), 0) < 2:
            continue  # nothing shows that the first row is no header
        found = roles.class_names(label, counts, known.get(label, ()), wishes, shape.named)
        if isinstance(found, str):
            reasons.append(found)
            continue
        choices = FixedChoices(found.names, (label,) if label else ())
        numbered = {label: found.numbered} if found.numbered else {}
        candidate = Candidate.made(choices, replace(picked, answers=(label,) if label else ()), numbered, (), most=1)
        _try_all(shape, looked, [candidate])
        trial = candidate.trials.get(label)
        if not len(candidate.right) or (trial is not None and found.way is not None and not trial.fits(found.way)):
            reasons.append(f"'{label}' is none of the classes {', '.join(found.names)} in most rows")
            continue
        meaning = Meaning(label or None, found.way, (found.proof,))
        return _reading(candidate, meaning, looked), shape
    listed = ", ".join(f"'{c}'" for c in looked.columns) if shape.named else f"{len(looked.columns)} columns"
    nothing = (
        "no choices: no column holds lists of texts, and no columns hold one choice each, as A, B, C. "
        f"Columns: {listed}. "
        "Name them with --choices COL,COL,COL (or one column of lists), or, if every text belongs to one of the same "
        "classes, name the classes with --classes NAME,NAME"
    )
    return Refusal(1, (nothing, *reasons))
