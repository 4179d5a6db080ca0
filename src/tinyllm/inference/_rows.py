"""Rows of predictions: kept as JSON Lines while the work goes on, written in the format asked for at its end."""

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


def answered_row(
    number: int, question: Question, chosen: Chosen, rationales: Mapping[str, str], min_confidence: float
) -> dict[str, Any]:
    """Return the row of a question that was answered; without a choice where it is less sure than it has to be."""
    sure = round(chosen.probability, _DIGITS)
    abstains = sure < min_confidence
    row: dict[str, Any] = {
        "row": number,
        "id": question.id,
        "question": question.question,
        "choice": None if abstains else chosen.choice,
        "text": None if abstains else chosen.text,
        "probability": sure,
        "probabilities": [round(p, _DIGITS) for p in chosen.probabilities],
    }
    if question.answer is not None:
        row["answer"] = question.answer
        best = chosen.tied or (chosen.choice,)
        row["mark"] = 1 / len(best) if question.answer in best else 0.0
    row |= {"abstained": True} if abstains else {}
    row |= {"tied": list(chosen.tied)} if chosen.tied else {}
    row |= {"context_cut": True} if chosen.context_cut else {}
    row |= {"rationales": dict(rationales)} if rationales else {}
    return row


def problem_row(number: int, name: str, problem: str) -> dict[str, Any]:
    """Return the row of what is no question, or none that the student can be asked."""
    return {"row": number, "id": name, "choice": None, "text": None, "problem": problem}


@dataclass(slots=True)
class Count:
    """What went by, row by row; its size does not grow with the rows.

    Attributes:
        labelled: rows with a known answer that were answered.
        right: of these, the sum of marks: 1 right, 0 wrong, 1/k where k choices tie and the right one is among them.
    """

    rows: int = 0
    answered: int = 0
    abstained: int = 0
    problems: int = 0
    labelled: int = 0
    right: float = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        self.rows += 1
        if "problem" in row:
            self.problems += 1
        elif row["choice"] is None:
            self.abstained += 1
        else:
            self.answered += 1
            if "mark" in row:
                self.labelled += 1
                self.right += row["mark"]


def read_rows(part: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that `write_rows` can take."""
    with part.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _csv(rows: Iterable[Mapping[str, Any]], file: Path, teachers: Sequence[str]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, _columns(teachers))
        writer.writeheader()
        for row in rows:
            flat = _flat(row, teachers)
            lists = {k: json.dumps(v) for k, v in flat.items() if isinstance(v, list)}
            writer.writerow(flat | lists)


def _parquet(rows: Iterable[Mapping[str, Any]], file: Path, teachers: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "row": pa.int64(), "choice": pa.int32(), "answer": pa.int32(), "probability": pa.float64(),
        "mark": pa.float64(), "probabilities": pa.list_(pa.float64()), "tied": pa.list_(pa.int32()),
        "abstained": pa.bool_(), "context_cut": pa.bool_(),
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


Writer = Callable[[Iterable[Mapping[str, Any]], Path, Sequence[str]], None]
WRITERS: Mapping[str, Writer] = {".csv": _csv, ".parquet": _parquet}
"""By the ending of the file. Rationales get a column for each teacher. JSON Lines are what is kept anyway."""


def _columns(teachers: Sequence[str]) -> list[str]:
    return [
        "row", "id", "question", "choice", "text", "probability", "probabilities", "answer", "mark", "abstained",
        "tied", "context_cut", *map(_rationale, teachers), "problem",
    ]  # fmt: skip


def _rationale(teacher: str) -> str:
    return f"rationale_{teacher}"


def _flat(row: Mapping[str, Any], teachers: Sequence[str]) -> dict[str, Any]:
    """Return a row as columns hold it: every column, and false where JSON Lines say nothing."""
    given = row.get("rationales", {})
    texts = {_rationale(t): given.get(t) for t in teachers}
    flags = {name: bool(row.get(name)) for name in ("abstained", "context_cut")}
    plain = {name: row.get(name) for name in _columns(()) if name not in flags}
    return plain | flags | texts
