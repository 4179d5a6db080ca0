"""From a path to its one proven reading, to the questions it gives, and to what `data` says of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tinyllm.config import DataSection
from tinyllm.errors import DataError
from tinyllm.questions._files import Row, read_file
from tinyllm.questions._rows import RowForm, to_question
from tinyllm.questions._write import to_record
from tinyllm.questions.intake._choices import LETTERS, FixedChoices
from tinyllm.questions.intake._reading import Reading
from tinyllm.questions.intake._shapes import shapes_of
from tinyllm.questions.intake._types import Bad, Shape, Table, Wishes
from tinyllm.questions.intake._understand import Refusal, understand
from tinyllm.questions.types import Question

_NOTHING = "it holds no table, no JSON, and no quiz with lettered choices (Aiken, GIFT) that is known"
FEW = 3  # different questions; fewer cannot be cut into three splits
_SHOWN = 3  # reasons for rows left out


@dataclass(frozen=True, slots=True)
class Found:
    """A proven reading and the rows it reads.

    Attributes:
        others: sheets that are not read, and why.
    """

    reading: Reading
    shape: Shape
    others: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """What went by: questions by split, right answers by place or class, rows left out with their reasons."""

    splits: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    left_out: int = 0
    different: set[int] = field(default_factory=set)  # hashes of the first few questions that differ
    reasons: dict[str, str] = field(default_factory=dict)
    first: Question | None = None

    @property
    def questions(self) -> int:
        """How many there are in all splits."""
        return sum(self.splits.values())


def find_reading(path: Path, wishes: Wishes) -> Found:
    """Return the reading that the rows of a file (or folder) prove.

    Raises:
        DataError: none is proven, or several are; with the reasons and the option that settles each.
    """
    proven: list[tuple[Reading, Shape]] = []
    refused: list[tuple[Shape, Refusal]] = []
    for group in shapes_of(path, wishes):
        for shape in group:
            outcome = understand(shape, wishes)
            if not isinstance(outcome, Refusal):
                proven.append(outcome)
                break
            refused.append((shape, outcome))
            if outcome.depth > 1:
                break  # the columns are known; another way to cut the file would be an accident
    if len(proven) > 1:
        names = ", ".join(f"'{shape.sheet}'" for _, shape in proven)
        raise DataError(f"{path}: several sheets hold questions: {names}. Say which with --sheet NAME")
    if not proven:
        deepest = max((r.depth for _, r in refused), default=0)
        reasons = list(dict.fromkeys(reason for _, r in refused if r.depth == deepest for reason in r.reasons))
        # Other ways to cut the same file say the same again, of columns that are none.
        listed = reasons[:1] if deepest < 2 else reasons
        raise DataError(
            f"{path}: no reading of it is proven by its rows.\n" + "\n".join(f"  - {r}" for r in listed or [_NOTHING])
        )
    others = tuple(
        f"the sheet '{s.sheet}': {r.reasons[0]}" for s, r in refused if s.sheet and s.sheet != proven[0][1].sheet
    )
    return Found(*proven[0], tuple(dict.fromkeys(others)))


def questions_of(found: Found, tally: Tally) -> Iterator[tuple[str, Question, Mapping[str, Any]]]:
    """Yield split, question and cells of every row that is a question, and note the others."""
    for split, place, question, cells in every_row(found):
        if isinstance(question, str):
            tally.left_out += 1
            if len(tally.reasons) < _SHOWN or question in tally.reasons:
                tally.reasons.setdefault(question, f"{place}: {question}")
            continue
        tally.splits[split] += 1
        tally.first = tally.first or question
        if len(tally.different) < FEW:
            tally.different.add(hash((question.question, question.context, *sorted(question.choices))))
        if question.answer is None:
            tally.unanswered += 1
        else:
            by_class = isinstance(found.reading.choices, FixedChoices)
            tally.answers[question.choices[question.answer] if by_class else LETTERS[question.answer]] += 1
        yield split, question, cells


def every_row(found: Found) -> Iterator[tuple[str, str, Question | str, Mapping[str, Any]]]:
    """Yield split, place, question (or why it is none) and cells of every row, in the order of the file."""
    numbers: Counter[str] = Counter()  # a split may have several files
    for table in found.shape.tables:
        split = table.split or "train"
        for item in table.rows():
            numbers[split] += 1
            place = f"{table.unit} {item.place}"
            if isinstance(item, Bad):
                yield split, place, item.reason, {}
            else:
                yield split, place, found.reading.of(item.cells, f"{split}-{numbers[split]}"), item.cells


def in_place(found: Found, tally: Tally) -> dict[str, Any] | None:
    """Return what `data` has to say for a run to read the same questions from the file itself; None: it cannot.

    Args:
        tally: notes what went by, up to the first question that a run would read differently.
    """
    if len(found.shape.tables) != 1 or (table := found.shape.tables[0]).file is None:
        return None
    settings = found.reading.settings()
    if settings is None or not _reads_alike(found, table, settings, tally):
        return None
    return settings


def _reads_alike(found: Found, table: Table, settings: Mapping[str, Any], tally: Tally) -> bool:
    """Hold the questions that a run would read against the proven ones, one by one."""
    assert table.file is not None  # noqa: S101
    data = DataSection.model_validate({"train": table.file, **settings})
    form = RowForm(data.fields, data.choices, data.question)
    theirs = (
        question
        for item in read_file(table.file).items
        if isinstance(question := to_question(item, form, "train") if isinstance(item, Row) else item, Question)
    )
    ours = (question for _, question, _ in questions_of(found, tally))
    return all(a is not None and b is not None and _core(a) == _core(b) for a, b in zip_longest(ours, theirs))


def _core(q: Question) -> tuple[Any, ...]:
    return q.id, q.question, q.choices, q.answer, q.context


def record(question: Question, cells: Mapping[str, Any]) -> str:
    """Return a line of a questions file; rationales that the row has by teacher go along."""
    row = to_record(question)
    given = cells.get("rationales")
    if isinstance(given, dict) and (texts := {k: v for k, v in given.items() if isinstance(v, str) and v.strip()}):
        row["rationales"] = texts
    return json.dumps(row, ensure_ascii=False) + "\n"
