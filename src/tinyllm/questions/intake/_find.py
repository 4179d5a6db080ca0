"""From a path to its proven reading, to the questions, and to the settings of `data`."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tinyllm.config import DataSection
from tinyllm.errors import DataError
from tinyllm.questions._files import LEFT_OUT, Row, read_file, to_record
from tinyllm.questions._repeats import Repeats
from tinyllm.questions._rows import RowForm, to_question
from tinyllm.questions.intake._choices import FixedChoices
from tinyllm.questions.intake._reading import Asked, Reading
from tinyllm.questions.intake._shapes import shapes_of
from tinyllm.questions.intake._types import Bad, Line, Shape, Table, Wishes
from tinyllm.questions.intake._understand import Refusal, understand
from tinyllm.questions.types import Question

_NOTHING = (
    "it is not a table with several columns, not JSON, and not a quiz with lettered choices (Aiken, GIFT). Texts "
    "alone, in one column, are read to be classified: --classes NAME,NAME --no-answers"
)
_FEW = 3  # different questions that are needed for three splits
_SHOWN = 10  # reasons that are shown for rows left out, and rows for each reason
_SAMPLE = 1000  # questions whose texts are looked at
_LONGEST = 100  # characters of a text that is shown
_OF_PREDICTIONS = frozenset(("row", "id", "question", "choice", "letter", "text"))  # columns that `predict` writes


@dataclass(slots=True)
class Tally:
    """Counts: questions by split, right answers by place or class, and rows left out.

    Attributes:
        unit: what the places count.
        reasons: places of the first rows left out, by reason.
        texts: the first questions with their choices.
        repeats: finds questions that a split has more than once.
        lines: the lines of the questions of each split.
    """

    splits: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    left_out: int = 0
    unit: str = "row"
    reasons: dict[str, list[str]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    first: Question | None = None
    repeats: dict[str, Repeats] = field(default_factory=dict)
    lines: dict[str, array[int]] = field(default_factory=dict)

    @property
    def questions(self) -> int:
        """The number of questions in all splits."""
        return sum(self.splits.values())

    @property
    def can_be_cut(self) -> bool:
        """Whether there are enough different questions for three splits."""
        return self.different >= _FEW

    @property
    def different(self) -> int:
        """The number of different questions in each split, summed."""
        return sum(repeats.different for repeats in self.repeats.values())

    def repeated(self) -> Iterator[str]:
        """Yield the lines that say which questions are there more than once."""
        for split, repeats in self.repeats.items():
            unit = f"{split}, {self.unit}" if len(self.repeats) > 1 else self.unit
            for text, count in repeats.told(self.lines[split], unit):
                yield f"  note:     {count} × {text}"

    def shown(self) -> Iterator[str]:
        """Yield the lines that show the first question, as a person can check it."""
        if self.first is None:
            return
        yield "The first question:"
        if self.first.context:
            yield f"    {_short(self.first.context)}"
        yield f"    {_short(self.first.question)}"
        for k, choice in enumerate(self.first.choices):
            yield f"    {'→' if k == self.first.answer else ' '} {_short(choice)}"

    def add(self, split: str, place: str, asked: Asked, *, by_class: bool) -> None:
        """Count a row: its question, or why it is left out."""
        question = asked.kept
        if isinstance(question, str):
            self.left_out += 1
            if len(self.reasons) < _SHOWN or question in self.reasons:
                places = self.reasons.setdefault(question, [])
                places += [place] if len(places) < _SHOWN else []
            return
        self.splits[split] += 1
        self.repeats.setdefault(split, Repeats()).add(question)
        self.unit, _, number = place.partition(" ")
        self.lines.setdefault(split, array("I")).append(int(number))
        self.first = self.first or question
        if len(self.texts) < _SAMPLE:
            self.texts.append(" ".join((question.question, *question.choices)))
        if question.answer is None:
            self.unanswered += 1
        else:
            self.answers[(question.choices if by_class else asked.letters)[question.answer]] += 1


@dataclass(frozen=True, slots=True)
class Found:
    """A proven reading and the rows it reads.

    Attributes:
        others: sheets that are not read, and why.
    """

    reading: Reading
    shape: Shape
    others: tuple[str, ...] = ()

    def read_as(self) -> Iterator[str]:
        """Yield the lines that say how the file is read, and what proves it."""
        reading = self.reading
        for how in self.shape.how:
            yield f"  file:     {how}"
        about = f", about the text in '{reading.context}'" if reading.context else ""
        yield f"  question: '{reading.question}'{about}"
        yield f"  choices:  {reading.choices.said}"
        for proof in reading.proof:
            yield f"  answer:   {proof}"
        if reading.identity is not None:
            yield f"  id:       '{reading.identity}'"

    def not_read(self) -> Iterator[str]:
        """Yield the lines that say what of the file is not read."""
        for other in self.others:
            yield f"  not read: {other}"
        if self.reading.unused:
            columns = "column" if len(self.reading.unused) == 1 else "columns"
            yield f"  not used: the {columns} " + ", ".join(f"'{c}'" for c in self.reading.unused)

    def rows(self, *, named: bool = True) -> Iterator[tuple[str, str, Asked, Mapping[str, Any]]]:
        """Yield the split, the place, what it asks and the cells of every row, in file order.

        Args:
            named: whether a question without an id gets one (`train-7`); otherwise its id is empty.
        """
        numbers: Counter[str] = Counter()  # a split may have several files
        for table in self.shape.tables:
            split = table.split or "train"
            for item in table.rows():
                numbers[split] += 1
                place = f"{table.unit} {item.place}"
                if isinstance(item, Bad):
                    yield split, place, Asked(item.reason), {}
                else:
                    yield (
                        split,
                        place,
                        self.reading.of(item.cells, f"{split}-{numbers[split]}" if named else ""),
                        item.cells,
                    )

    def counted(self, tally: Tally) -> Iterator[tuple[str, str, Question | str, Mapping[str, Any]]]:
        """Yield the split, place, question (or why it is left out) and cells of every row, and count it in `tally`."""
        by_class = isinstance(self.reading.choices, FixedChoices)
        for split, place, asked, cells in self.rows():
            tally.add(split, place, asked, by_class=by_class)
            yield split, place, asked.kept, cells

    def settings(self, tally: Tally) -> dict[str, Any] | str:
        """Return the settings of `data` with which a run reads the same questions from the file; or why there are none.

        Every question that a run would read is compared with the proven one.

        Args:
            tally: counts the rows up to the first difference.
        """
        file, settings = self.shape.tables[0].file, self.reading.settings()
        if len(self.shape.tables) != 1:
            return "it has several splits"
        if file is None:
            return "a run reads only JSON Lines, Parquet, and CSV in UTF-8 with commas and a name for each column"
        if settings is None:
            return "no setting describes its choices"
        data = DataSection.model_validate({"train": file, **settings})
        form = RowForm(data.fields, data.choices, data.question)
        problems: dict[str, str] = {}  # of the rows since the last question

        def theirs() -> Iterator[Question]:
            for item in read_file(file).items:
                if not isinstance(item, Row):
                    continue
                question = to_question(item, form, "train")
                if isinstance(question, Question):
                    yield question
                    problems.clear()
                else:
                    problems[f"{item.unit} {item.place}"] = question[0].partition(";")[0]

        ours = ((place, q) for _, place, q, _ in self.counted(tally) if isinstance(q, Question))
        for (place, mine), other in zip_longest(ours, theirs(), fillvalue=("a row", None)):
            if not isinstance(mine, Question) or not isinstance(other, Question) or _compared(mine) != _compared(other):
                said = f" ({problems[place]})" if place in problems else ""
                return f"a run would read {place} in another way{said}"
        return settings

    @staticmethod
    def record(question: Question | str, cells: Mapping[str, Any], where: str) -> str:
        """Return a line of a questions file, with the rationales by teacher that the row has.

        Args:
            question: the question of the row, or why it is not a question. A run then reports the row as left out.
            where: the row.
        """
        if isinstance(question, str):
            return json.dumps({LEFT_OUT: f"{where}: {question}"}, ensure_ascii=False) + "\n"
        row = to_record(question)
        given = cells.get("rationales")
        if isinstance(given, dict) and (texts := {k: v for k, v in given.items() if isinstance(v, str) and v.strip()}):
            row["rationales"] = texts
        return json.dumps(row, ensure_ascii=False) + "\n"


def find_reading(path: Path, wishes: Wishes) -> Found:
    """Return the reading that the rows of a file (or folder) prove.

    Raises:
        DataError: no reading or several readings are proven, or `predict` wrote the file. The message has the reasons
            and the option for each.
    """
    proven: list[tuple[Reading, Shape]] = []
    refused: list[tuple[Shape, Refusal]] = []
    for group in shapes_of(path, wishes):
        for shape in group:
            if any(_is_predictions(table) for table in shape.tables):
                raise DataError(
                    f"{path} holds answers that `tinyllm predict` wrote, and not the choices of the questions. Give "
                    "the file of questions that they answer.",
                    page="questions.md",
                )
            outcome = understand(shape, wishes)
            if not isinstance(outcome, Refusal):
                proven.append(outcome)
                break
            refused.append((shape, outcome))
            if outcome.depth > 1:
                break  # the columns are known, so another way to split the file would only fit by chance
    if len(proven) > 1:
        names = ", ".join(f"'{shape.sheet}'" for _, shape in proven)
        raise DataError(
            f"{path}: several sheets hold questions: {names}. Choose one with --sheet NAME", page="questions.md"
        )
    if not proven:
        deepest = max((r.depth for _, r in refused), default=0)
        reasons = list(dict.fromkeys(reason for _, r in refused if r.depth == deepest for reason in r.reasons))
        # Other ways to split the same file would repeat these reasons for wrong columns.
        listed = (reasons[:1] if deepest < 2 else reasons) or [_NOTHING]
        if wishes.separator is not None and deepest < 2:
            listed = [*listed, f"cells were separated by --separator {wishes.separator!r}; without it, it is found"]
        raise DataError(
            f"{path}: its rows do not prove how to read it.\n" + "\n".join(f"  - {r}" for r in listed),
            page="questions.md",
        )
    read = proven[0][1].sheet
    sheets = [(s.sheet, r.reasons[0].partition(":")[0]) for s, r in refused if s.sheet and s.sheet != read]
    return Found(*proven[0], tuple(dict.fromkeys(f"the sheet '{name}': {why}" for name, why in sheets)))


def _is_predictions(table: Table) -> bool:
    first = next((item for item in table.rows() if isinstance(item, Line)), None)
    return first is not None and first.cells.keys() >= _OF_PREDICTIONS


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _compared(q: Question) -> tuple[Any, ...]:
    return q.id, q.question, q.choices, q.answer, q.context
