"""Rows of predictions. They are JSON Lines while the file is unfinished, and are converted at the end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.inference._student import Chosen
from tinyllm.questions.types import Question

_ROWS_AT_ONCE = 1000
_DIGITS = 6
_WIDTHS = {"question": 60, "text": 30, "probabilities": 30}  # of columns of a workbook, in characters
_LONGEST_CELL = 32_767  # characters; Excel's limit, as that of the rows
MOST_ROWS_OF_WORKBOOK = 1_048_575
WORKBOOK = ".xlsx"
_Dialect = tuple[str, str]  # separator and encoding of CSV


def answered_row(
    number: int,
    question: Question,
    letters: Sequence[str],
    chosen: Chosen,
    rationales: Mapping[str, str],
    min_confidence: float,
) -> dict[str, Any]:
    """Return the row of an answered question. It has no choice if the probability is below the minimum confidence.

    Args:
        letters: of the choices in the questions file.
    """
    probability = round(chosen.probability, _DIGITS)
    abstains = probability < min_confidence
    row: dict[str, Any] = {
        "row": number,
        "id": question.id or None,
        "question": question.question,
        "choice": None if abstains else chosen.choice,
        "letter": None if abstains else letters[chosen.choice],
        "text": None if abstains else chosen.text,
        "probability": probability,
        "probabilities": [round(p, _DIGITS) for p in chosen.probabilities],
    }
    if question.answer is not None:
        row |= {"answer": question.answer, "answer_letter": letters[question.answer]}
        if not abstains:
            best = chosen.tied or (chosen.choice,)
            row["mark"] = 1 / len(best) if question.answer in best else 0.0
    row |= {"abstained": True} if abstains else {}
    row |= {"tied": list(chosen.tied)} if chosen.tied else {}
    row |= {"context_cut": True} if chosen.context_cut else {}
    row |= {"rationales": dict(rationales)} if rationales else {}
    return row


def problem_row(number: int, name: str | None, problem: str, question: str | None = None) -> dict[str, Any]:
    """Return the row of something that is not a question, or of a question that the student cannot be asked."""
    return {
        "row": number,
        "id": name,
        "question": question,
        "choice": None,
        "letter": None,
        "text": None,
        "problem": problem,
    }


@dataclass(slots=True)
class Count:
    """Counts of rows.

    Attributes:
        labelled: number of answered rows with a known answer that are not marked as learnt.
        right: the sum of the marks of these rows. A mark is 1 if right, 0 if wrong, and 1/k if k choices tie and the
            right choice is one of them.
        learnt, right_learnt: the same two counts of the rows that are marked as learnt.
        unused_answers: number of rows whose known answer cannot be used.
    """

    rows: int = 0
    answered: int = 0
    abstained: int = 0
    problems: int = 0
    labelled: int = 0
    right: float = 0.0
    learnt: int = 0
    right_learnt: float = 0.0
    unused_answers: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        self.rows += 1
        self.unused_answers += "answer_problem" in row
        if "problem" in row:
            self.problems += 1
        elif row["choice"] is None:
            self.abstained += 1
        else:
            self.answered += 1
            if "mark" in row and row.get("learnt"):
                self.learnt += 1
                self.right_learnt += row["mark"]
            elif "mark" in row:
                self.labelled += 1
                self.right += row["mark"]


def read_rows(part: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of an unfinished file."""
    with part.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _csv(rows: Iterable[Mapping[str, Any]], file: Path, teachers: Sequence[str], dialect: _Dialect) -> None:
    separator, encoding = dialect
    with file.open("w", encoding=encoding, newline="") as out:
        writer = csv.DictWriter(out, _columns(teachers), delimiter=separator)
        writer.writeheader()
        for row in rows:
            writer.writerow(_cells(row, teachers))


def _workbook(rows: Iterable[Mapping[str, Any]], file: Path, teachers: Sequence[str], _: _Dialect) -> None:
    """Write a workbook. Texts are never formulas or links, and each row is written before the next is read."""
    import xlsxwriter

    plain = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(file, plain) as book:
        sheet = book.add_worksheet("predictions")
        sheet.freeze_panes(1, 0)
        for place, name in enumerate(_columns(teachers)):
            sheet.set_column(place, place, _WIDTHS.get(name, 13))
        sheet.write_row(0, 0, _columns(teachers), book.add_format({"bold": True}))
        for number, row in enumerate(rows, 1):
            cells = _cells(row, teachers).values()
            sheet.write_row(number, 0, [c[:_LONGEST_CELL] if isinstance(c, str) else c for c in cells])


def _parquet(rows: Iterable[Mapping[str, Any]], file: Path, teachers: Sequence[str], _: _Dialect) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "row": pa.int64(), "choice": pa.int32(), "answer": pa.int32(), "probability": pa.float64(),
        "mark": pa.float64(), "probabilities": pa.list_(pa.float64()), "tied": pa.list_(pa.int32()),
        "abstained": pa.bool_(), "context_cut": pa.bool_(), "learnt": pa.bool_(),
    }  # fmt: skip
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in _columns(teachers)])
    with pq.ParquetWriter(file, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(_flat(row, teachers))
            if len(batch) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch.clear()
        writer.write_table(pa.Table.from_pylist(batch, schema))


Writer = Callable[[Iterable[Mapping[str, Any]], Path, Sequence[str], _Dialect], None]
WRITERS: Mapping[str, Writer] = {".csv": _csv, ".parquet": _parquet, WORKBOOK: _workbook}
"""The writers by the ending of the file. They write a column for the rationales of each teacher. CSV is written in the
dialect of the questions file."""


def _cells(row: Mapping[str, Any], teachers: Sequence[str]) -> dict[str, Any]:
    """Return the cells of a table: lists are JSON texts, and a rationale is one line."""
    values = _flat(row, teachers)
    lines = {name: " ".join(text.split()) for name in map(_rationale, teachers) if (text := values[name])}
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in (values | lines).items()}


def _columns(teachers: Sequence[str]) -> list[str]:
    return [
        "row", "id", "question", "choice", "letter", "text", "probability", "probabilities", "answer", "answer_letter",
        "mark", "answer_problem",
        "abstained", "tied", "context_cut", "learnt", *map(_rationale, teachers), "problem",
    ]  # fmt: skip


def _rationale(teacher: str) -> str:
    return f"rationale_{teacher}"


def _flat(row: Mapping[str, Any], teachers: Sequence[str]) -> dict[str, Any]:
    """Return the values of all columns of a row, in their order. Flags that JSON Lines leave out are false."""
    given = row.get("rationales", {})
    texts = {_rationale(t): given.get(t) for t in teachers}
    flags = {name: bool(row.get(name)) for name in ("abstained", "context_cut")}
    values = {**row, **flags, **texts}
    return {name: values.get(name) for name in _columns(teachers)}
