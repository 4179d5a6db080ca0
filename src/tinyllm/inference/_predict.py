"""A file of questions is answered: as a stream, with flat memory, and on from where it was stopped.

Rows are answered a window at a time. A window's rows are appended to `OUT.part` in the order of the file and put on the
disk before the next window begins. A process that is killed leaves whole windows and at most one torn one, which is cut
off. The same command then goes on with the row after the last whole one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tinyllm.comparison import Accuracy
from tinyllm.errors import DataError
from tinyllm.inference._rows import WRITERS, Count, answered_row, problem_row, read_rows
from tinyllm.inference._student import Chosen, LoadedStudent
from tinyllm.questions.intake import Found, Wishes, find_reading
from tinyllm.questions.types import Question
from tinyllm.system.files import read_json, replacing, write_json
from tinyllm.system.news import News, Task
from tinyllm.system.packaged import file_checksum

_WINDOW = 256  # questions that are sorted by length together, and the most that a kill can lose
_PLAIN = ".jsonl"


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a file of predictions holds.

    Attributes:
        rows: of the questions file; each has one row in `file`, in the same order.
        abstained: rows whose probability is below the confidence asked for.
        problems: rows that are no questions, or none that the student can be asked.
        kept: rows that an earlier, interrupted call had answered.
        accuracy: on the rows that were answered and whose answer is known; None where there is none.
        seconds: that this call took to answer.
    """

    file: Path
    rows: int
    answered: int
    abstained: int
    problems: int
    kept: int
    accuracy: Accuracy | None
    seconds: float


def predict_file(
    student: LoadedStudent,
    file: Path,
    out: Path,
    news: News,
    *,
    wishes: Wishes | None = None,
    teachers: tuple[str, ...] = (),
    min_confidence: float = 0.0,
) -> Predictions:
    """Answer every question of a file of any shape that `tinyllm init` reads, and write the answers.

    Args:
        out: ends in .jsonl, .csv or .parquet.
        wishes: what is settled about the questions file.
        teachers: in whose manner the student explains each answer (`LoadedStudent.voices`).
        min_confidence: a choice whose probability is less is not taken.

    Raises:
        DataError: the file cannot be read, `out` is there already or has another ending, or what was begun there is of
            another student, file or setting.
    """
    if out.suffix.lower() not in (known := (_PLAIN, *WRITERS)):
        raise DataError(f"{out}: unknown ending '{out.suffix}'; known: {', '.join(known)}.")
    if out.exists():
        raise DataError(f"{out} is there already. Give another name with -o, or remove it.")
    wishes = wishes or Wishes()
    with news.task(f"Reading {file}"):
        found = find_reading(file, wishes)
        total = sum(1 for table in found.shape.tables for _ in table.rows())
    asked = {
        "student": student.identity, "questions": _checksum(file), "wishes": repr(wishes),
        "teachers": list(teachers), "min_confidence": min_confidence,
    }  # fmt: skip
    with _journal(out, asked) as (part, count):
        kept, began = count.rows, time.monotonic()
        if kept:
            news.say(f"  going on after {kept} rows that are answered already")
        with news.task(f"Answering {file.name}", total) as task:
            _answer(student, found, part, count, teachers, min_confidence, task)
        seconds = time.monotonic() - began
    _finish(out, teachers)
    accuracy = Accuracy.of(count.right, count.labelled) if count.labelled else None
    return Predictions(
        out, count.rows, count.answered, count.abstained, count.problems, kept, accuracy, round(seconds, 3)
    )


def _answer(
    student: LoadedStudent,
    found: Found,
    part: IO[bytes],
    count: Count,
    teachers: tuple[str, ...],
    min_confidence: float,
    task: Task,
) -> None:
    """Append the rows that are left, a window at a time."""
    began, before = time.monotonic(), count.rows
    left = islice(found.rows(), count.rows, None)
    while window := list(islice(left, _WINDOW)):
        asked = [q for _, _, q, _ in window if isinstance(q, Question)]
        answers = student.answers(asked)
        sound = [q for q, a in zip(asked, answers, strict=True) if isinstance(a, Chosen)]
        explained = iter(student.rationales(sound, teachers))
        said = iter(answers)
        rows: list[dict[str, Any]] = []
        for number, (_, place, question, _) in enumerate(window, count.rows + 1):
            if isinstance(question, str):
                rows.append(problem_row(number, place, question))
                continue
            answer = next(said)
            if isinstance(answer, str):
                rows.append(problem_row(number, question.id, answer))
            else:
                rows.append(answered_row(number, question, answer, next(explained), min_confidence))
        part.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        part.flush()
        os.fsync(part.fileno())
        for row in rows:
            count.add(row)
        rate = (count.rows - before) / max(time.monotonic() - began, 1e-9)
        task.update(count.rows, note=f"{rate:,.1f} questions/s")


# --- what is kept while the work goes on --------------------------------------------------------------------------


def _part(out: Path) -> Path:
    return out.with_name(f"{out.name}.part")


def _asked_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.part.json")


@contextlib.contextmanager
def _journal(out: Path, asked: dict[str, Any]) -> Iterator[tuple[IO[bytes], Count]]:
    """Open the rows answered so far, for this process only, and count them.

    Raises:
        DataError: another process is at work there, or the rows are of another student, file or setting.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    part, said = _part(out), _asked_file(out)
    with part.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"Another process is writing {out}. Wait for it, or give another name with -o.") from None
        if part.stat().st_size and (not said.is_file() or (began := read_json(said)) != asked):
            different = [k for k in asked if said.is_file() and began.get(k) != asked[k]] or ["settings"]
            raise DataError(
                f"{part} holds answers that were begun with other {', '.join(different)}, and mixing the two would "
                "make them meaningless. Remove it to begin anew, or give another name with -o."
            )
        if not said.is_file():
            write_json(said, asked)
        count = _counted(file)
        yield file, count


def _counted(file: IO[bytes]) -> Count:
    """Count the whole rows of a journal, and cut off what a killed process left behind them."""
    count, whole = Count(), 0
    file.seek(0)
    for line in file:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(row, dict) or row.get("row") != count.rows + 1:
            break
        count.add(row)
        whole += len(line)
    file.truncate(whole)
    file.seek(whole)
    return count


def _finish(out: Path, teachers: tuple[str, ...]) -> None:
    """Give the answers their name, in the format asked for."""
    part = _part(out)
    if out.suffix.lower() == _PLAIN:
        part.replace(out)
    else:
        with replacing(out) as draft:
            WRITERS[out.suffix.lower()](read_rows(part), draft, teachers)
        part.unlink()
    _asked_file(out).unlink(missing_ok=True)


def _checksum(file: Path) -> str:
    """Return a checksum of a questions file, or of the files of a folder."""
    if file.is_file():
        return file_checksum(file)
    files = sorted(f for f in file.rglob("*") if f.is_file())
    named = "".join(f"{f.relative_to(file)} {file_checksum(f)}\n" for f in files)
    return hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()
