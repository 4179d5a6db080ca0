"""Answers a file of questions as a stream. An interrupted command can be continued.

Rows are answered in blocks, because rows of similar length are computed together. A block takes about half a minute and
has at most 256 rows. Its rows are appended to `OUT.part`, in the order of the file, and written to the disk before the
next block begins. A stop loses the block that is computed. The same command removes an incomplete row at the end, and
continues after the last complete one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tinyllm.comparison import Accuracy
from tinyllm.errors import DataError
from tinyllm.inference._rows import (
    MOST_ROWS_OF_WORKBOOK,
    WORKBOOK,
    WRITERS,
    Count,
    answered_row,
    problem_row,
    read_rows,
)
from tinyllm.inference._student import Chosen, LoadedStudent
from tinyllm.questions.intake import Asked, Found, Tally, Wishes, find_reading
from tinyllm.questions.types import Question, Splits
from tinyllm.system.files import read_json, replacing, write_json
from tinyllm.system.news import News, Task
from tinyllm.system.packaged import file_checksum

_FIRST_BLOCK = 32  # rows; the speed of the student is not known yet
_SMALLEST_BLOCK = 8
_LARGEST_BLOCK = 256  # computing more rows together is hardly faster
_BLOCK_S = 30.0
_PLAIN = ".jsonl"


@dataclass(frozen=True, slots=True)
class Predictions:
    """The result of answering a file.

    Attributes:
        file: the file of predictions. It has one row for each row of the questions file, in the same order.
        rows: number of rows.
        answered: number of rows with a choice.
        abstained: number of rows without a choice because the probability is below the minimum confidence.
        problems: number of rows that are not a question, or a question that the student cannot be asked.
        unused_answers: number of rows whose known answer cannot be used, because it is not one of their choices.
        kept: number of rows that an earlier, interrupted call answered.
        accuracy: the accuracy on the answered rows with a known answer that are new to the student; None if there are
            none. If the run does not record its training questions, all rows count as new.
        accuracy_learnt: the accuracy on the other rows with a known answer: the student was trained on them, or its
            settings were chosen by them. None if there are none.
        records_learnt: whether the run records its training questions.
        seconds: time that this call needed for its answers.
    """

    file: Path
    rows: int
    answered: int
    abstained: int
    problems: int
    unused_answers: int
    kept: int
    accuracy: Accuracy | None
    accuracy_learnt: Accuracy | None
    records_learnt: bool
    seconds: float


def predict_file(
    student: Callable[[], LoadedStudent],
    file: Path,
    out: Path,
    news: News,
    *,
    wishes: Wishes | None = None,
    styles: Callable[[LoadedStudent], tuple[str, ...]] = lambda _: (),
    min_confidence: float = 0.0,
) -> Predictions:
    """Answer every question of a file, and write the answers. The file may have any shape that `tinyllm init` reads.

    Args:
        student: loads the student. It is called when the files are checked.
        out: the file to write. It ends in .jsonl, .csv, .parquet or .xlsx.
        wishes: how the questions file is to be read.
        styles: returns the teachers in whose style the student explains each answer (`LoadedStudent.styles`).
        min_confidence: the smallest probability at which a choice is taken.

    Raises:
        DataError: the file cannot be read, `out` exists already or has an unknown ending, or `OUT.part` has answers of
            another student, file or setting.
    """
    if out.suffix.lower() not in (known := (_PLAIN, *WRITERS)):
        raise DataError(
            f"{out} has the unknown ending '{out.suffix}'. Known: {', '.join(known)}. Give another name with -o."
        )
    _check_free(out)
    wishes, tally = wishes or Wishes(), Tally()
    with news.task(f"Reading {file}"):
        found = find_reading(file, wishes)
        total = sum(1 for _ in found.counted(tally))
    news.say("\n".join([*found.read_as(), *found.not_read(), *tally.shown()]))
    if out.suffix.lower() == WORKBOOK and total > MOST_ROWS_OF_WORKBOOK:
        raise DataError(
            f"{file} has {total:,} rows, and a workbook can have {MOST_ROWS_OF_WORKBOOK:,} below its heading. "
            "Give a .parquet, .csv or .jsonl file with -o."
        )
    with news.task("Loading the student"):
        loaded = student()
    teachers, is_learnt = styles(loaded), _learnt(loaded.folder)
    asked = {
        "student": loaded.identity, "questions": _checksum(file), "wishes": repr(wishes),
        "teachers": list(teachers), "min_confidence": min_confidence,
        **({} if is_learnt is None else {"training": "known"}),
    }  # fmt: skip
    with _journal(out, asked) as (part, count):
        kept, began = count.rows, time.monotonic()
        if kept:
            news.say(f"  {kept} rows are answered already; continuing after them")
        with _told_what_is_kept(out, count, total, news), news.task(f"Answering {file.name}", total) as task:
            _answer(loaded, found, part, count, teachers, min_confidence, is_learnt, task)
        seconds = time.monotonic() - began
        _finish(out, teachers, found.shape.dialect)  # no other process may finish the same file
    return Predictions(
        file=out,
        rows=count.rows,
        answered=count.answered,
        abstained=count.abstained,
        problems=count.problems,
        unused_answers=count.unused_answers,
        kept=kept,
        accuracy=Accuracy.of(count.right, count.labelled) if count.labelled else None,
        accuracy_learnt=Accuracy.of(count.right_learnt, count.learnt) if count.learnt else None,
        records_learnt=is_learnt is not None,
        seconds=round(seconds, 3),
    )


def _learnt(folder: Path | None) -> Callable[[Question], bool] | None:
    """Return what says whether the student has used a question, by the record of its run; None without a record."""
    around = folder.resolve().parents[:2] if folder is not None else ()  # it is RUN/student or RUN/export/NAME
    return next((found for run in around if (found := Splits.read_learnt(run)) is not None), None)


def _answer(
    student: LoadedStudent,
    found: Found,
    part: IO[bytes],
    count: Count,
    teachers: tuple[str, ...],
    min_confidence: float,
    is_learnt: Callable[[Question], bool] | None,
    task: Task,
) -> None:
    """Answer the remaining rows and append them, one block after the other."""
    began, before = time.monotonic(), count.rows
    left = islice(found.rows(named=False), count.rows, None)
    size = _FIRST_BLOCK
    task.update(before)
    while block := [(place, asked) for _, place, asked, _ in islice(left, size)]:
        started = time.monotonic()
        rows = _answered(student, block, count.rows, teachers, min_confidence, is_learnt, task)
        part.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        part.flush()
        os.fsync(part.fileno())
        for row in rows:
            count.add(row)
        now = time.monotonic()
        task.update(count.rows, note=f"{(count.rows - before) / max(now - began, 1e-9):,.1f} questions/s")
        fitting = len(block) * _BLOCK_S / max(now - started, 1e-9)
        size = round(min(max(fitting, _SMALLEST_BLOCK), _LARGEST_BLOCK))


def _answered(
    student: LoadedStudent,
    block: Sequence[tuple[str, Asked]],
    before: int,
    teachers: tuple[str, ...],
    min_confidence: float,
    is_learnt: Callable[[Question], bool] | None,
    task: Task,
) -> list[dict[str, Any]]:
    """Return the rows of the answers to a block. `task` counts a row by the share of its texts that are done.

    Args:
        block: the place of each row, and what it asks.
        before: number of rows before the block.
    """
    ranked = 1 / (1 + len(teachers))  # the share of the answers in all texts

    def seen(done: float, note: str) -> None:
        task.update(max(task.done, before + int(done * len(block))), note=note)

    asked = [a.question for _, a in block if isinstance(a.question, Question)]
    answers = student.answers(asked, lambda done, of, note: seen(ranked * done / of, note))
    sound = [q for q, a in zip(asked, answers, strict=True) if isinstance(a, Chosen)]
    written = student.rationales(
        sound, teachers, progress=lambda done, of, note: seen(ranked + (1 - ranked) * done / of, note)
    )
    explained = iter(written)
    said = iter(answers)
    rows: list[dict[str, Any]] = []
    for number, (place, of) in enumerate(block, before + 1):
        question = of.question
        if isinstance(question, str):
            rows.append(problem_row(number, None, f"{place}: {question}"))
            continue
        answer = next(said)
        if isinstance(answer, str):
            rows.append(problem_row(number, question.id or None, answer, question.question))
        else:
            row = answered_row(number, question, of.letters, answer, next(explained), min_confidence)
            row |= {"answer_problem": f"{place}: {of.unused}"} if of.unused else {}
            rows.append(row if is_learnt is None else row | {"learnt": is_learnt(question)})
    return rows


# --- the unfinished file -----------------------------------------------------------------------------------------


def _check_free(out: Path) -> None:
    if out.exists():
        raise DataError(f"{out} exists already. Give another name with -o, or remove it.")


def _part(out: Path) -> Path:
    return out.with_name(f"{out.name}.part")


def _asked_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.part.json")


@contextlib.contextmanager
def _journal(out: Path, asked: dict[str, Any]) -> Iterator[tuple[IO[bytes], Count]]:
    """Open and count the rows that are answered so far. Other processes cannot open them until the block ends."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part, said = _part(out), _asked_file(out)
    with part.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"Another process is writing {out}. Wait until it ends, or give another name with -o."
            ) from None
        if not part.stat().st_size and out.exists():  # another process has finished it since
            part.unlink()
        _check_free(out)
        began = read_json(said) if said.is_file() else {}
        if began != asked:
            if part.stat().st_size:
                different = ", ".join(name.replace("_", " ") for name in asked if began.get(name) != asked[name])
                raise DataError(
                    f"{part} has answers from a command with other settings ({different}), and answers of both cannot "
                    "be mixed. Remove that file to start again, or give another name with -o."
                )
            write_json(said, asked)
        yield file, _counted(file)


@contextlib.contextmanager
def _told_what_is_kept(out: Path, count: Count, total: int, news: News) -> Iterator[None]:
    """Say after Ctrl-C how many rows are kept."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{count.rows} of {total} rows are kept, in {_part(out)}. Rows that were being computed are not."
        news.say(f"  {kept if count.rows else 'No row is kept: the first block of rows was not finished.'}")
        raise


def _counted(file: IO[bytes]) -> Count:
    """Count the complete rows, and remove the incomplete row that a killed process may have left at the end."""
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


def _finish(out: Path, teachers: tuple[str, ...], dialect: tuple[str, str]) -> None:
    """Turn the unfinished file into `out`, in the format of its ending."""
    part = _part(out)
    if out.suffix.lower() == _PLAIN:
        part.replace(out)
    else:
        with replacing(out) as draft:
            WRITERS[out.suffix.lower()](read_rows(part), draft, teachers, dialect)
        part.unlink()
    _asked_file(out).unlink(missing_ok=True)


def _checksum(file: Path) -> str:
    """Return a checksum of a questions file, or of the files of a folder."""
    if file.is_file():
        return file_checksum(file)
    files = sorted(f for f in file.rglob("*") if f.is_file())
    named = "".join(f"{f.relative_to(file)} {file_checksum(f)}\n" for f in files)
    return hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()
