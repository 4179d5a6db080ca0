"""Questions files: read as a stream of rows (JSONL, CSV or Parquet, by extension), and written.

No file is ever completely in memory. `_rows.py` interprets the cells. Reading raises nothing: a problem with the file
or with a line is an item of the stream, so that one message can list the problems of all splits.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tinyllm.errors import DataError, did_you_mean, first_line
from tinyllm.questions.types import Question
from tinyllm.system.files import well_formed, write_text

Format = Literal["jsonl", "csv", "parquet"]
EXTENSIONS: Mapping[str, Format] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_EMPTY = "empty file; write one question per row, or leave this split out"
LEFT_OUT = "left_out"
"""The only key of a line that stands for a row that `init` left out. It says which row, and why."""
_BUFFER_BYTES = 1 << 18
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where: `data/train.csv, line 17`.

    Attributes:
        fatal: the whole file is unusable. Then none of its rows counts, not even the earlier ones.
    """

    where: str
    text: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(slots=True)
class Row:
    """One row of a file.

    Attributes:
        number: 1-based, counts rows (not lines), including those that could not be parsed.
        source: the file (or dataset and split), for messages.
        place: 1-based line where the row starts; in Parquet the row.
        format: tells which cells may hold numbers and lists as text (CSV).
    """

    number: int
    source: str
    place: int
    cells: Mapping[str, Any]
    format: Format

    @property
    def where(self) -> str:
        """File and line (Parquet: row), for messages."""
        return f"{self.source}, {self.unit} {self.place}"

    @property
    def unit(self) -> str:
        """What `place` counts."""
        return "row" if self.format == "parquet" else "line"


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The content of one split's file.

    Attributes:
        items: its rows, and problems in place of lines that are not rows. Iterate over it once.
    """

    where: str
    items: Iterable[Row | Problem]


class _UnreadableError(Exception):
    """The whole file cannot be read. It never leaves this module."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def read_file(path: Path) -> SplitRows:
    """Return the rows of a file. They are read during iteration.

    Files are UTF-8. A byte order mark is allowed, and blank lines are skipped.
    """
    return SplitRows(str(path), _items(path))


def _items(path: Path) -> Iterator[Row | Problem]:
    number = 0
    try:
        for number, item in enumerate(_READERS[_format_of(path)](path), 1):  # noqa: B007 - used below
            yield item
    except _UnreadableError as error:
        at = str(path) if error.line is None else f"{path}, line {error.line}"
        yield Problem(at, str(error), fatal=True)
    except OSError as error:
        yield Problem(str(path), f"cannot be read: {error.strerror or error}", fatal=True)
    else:
        if not number:
            text = "has no rows; write one question per row, or leave this split out"
            yield Problem(str(path), text, fatal=True)


def _format_of(path: Path) -> Format:
    if path.is_dir():
        raise _UnreadableError("is a folder; give a file, or give the folder as `data.folder`")
    if not path.exists():
        if not path.parent.is_dir():
            raise _UnreadableError(f"no such file, and no folder {path.parent}")
        here = sorted(p.name for p in path.parent.iterdir() if p.is_file())
        here = [name for name in here if Path(name).suffix in EXTENSIONS] or here
        listed = (", ".join(here[:10]) or "nothing") + (", …" if len(here) > 10 else "")
        relative = "" if path.is_absolute() else " Paths are relative to the current folder."
        raise _UnreadableError(
            f"no such file.{did_you_mean(path.name, here)}{relative} In {path.parent.resolve()}: {listed}"
        )
    if path.suffix.lower() not in EXTENSIONS:
        known = ", ".join(EXTENSIONS)
        raise _UnreadableError(
            f"unknown extension '{path.suffix}'; known: {known}; `tinyllm init {path}` converts many more"
        )
    return EXTENSIONS[path.suffix.lower()]


def _not_utf8(path: Path) -> _UnreadableError:
    """Say where the first byte is that is not UTF-8."""
    before = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                utf16 = number == 1 and line[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
                hint = " (it looks like UTF-16)" if utf16 else ""
                byte = f"byte {before + error.start} is 0x{line[error.start]:02x}"
                return _UnreadableError(f"not UTF-8: {byte}{hint}; save the file as UTF-8", number)
            before += len(line)
    return _UnreadableError("not UTF-8; save the file as UTF-8")


# --- JSONL -------------------------------------------------------------------------------------------------------


def _read_jsonl(path: Path) -> Iterator[Row | Problem]:
    lines = _text_lines(path)
    following = next(lines, None)
    if following is None:
        raise _UnreadableError(_EMPTY)
    if following[1].strip() in ("[", "{"):
        raise _UnreadableError("one JSON text over several lines; write each question as one object on one line", 1)
    k = 0
    while following is not None:
        k += 1
        (number, line), following = following, next(lines, None)
        yield _parse_line(path, k, number, line, following is None)


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line that is not blank, with its number."""
    # Only "\n" ends a line. `str.splitlines` would also split at U+2028, which JSON allows inside a text.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode("utf-8")
            except UnicodeDecodeError:
                raise _not_utf8(path) from None
            if text and not text.isspace():
                yield number, text.removesuffix("\n")


def _parse_line(path: Path, k: int, number: int, line: str, last: bool) -> Row | Problem:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        hint = "the file seems to be cut off here; fetch or write it again" if last else "correct the line"
        return Problem(f"{path}, line {number}", f"not JSON ({error.msg}, column {error.colno}); {hint}")
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, or very deep nesting
        return Problem(f"{path}, line {number}", f"not readable JSON ({error}); correct the line")
    if not isinstance(value, dict):
        expected = "{'question': …, 'choices': […], 'answer': …}"
        return Problem(f"{path}, line {number}", f"{kind_of(value)}, not an object; write {expected}")
    if [*value] == [LEFT_OUT]:
        return Problem(f"{path}, line {number}", str(value[LEFT_OUT]))
    return Row(k, str(path), number, value, "jsonl")


# --- CSV ---------------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> Iterator[Row | Problem]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv_rows(path, file)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None


def _csv_rows(path: Path, file: io.TextIOBase) -> Iterator[Row | Problem]:
    records = _csv_records(file)
    line, header = next(records, (0, []))
    if not header:
        raise _UnreadableError(_EMPTY)
    names = [name.strip() for name in header]
    for name in names:
        if name and names.count(name) > 1:
            raise _UnreadableError(f"there are two columns '{name}'; give each column its own name", line)
    if len(names) == 1 and (mark := next((m for m in ";\t" if m in names[0]), None)):
        shown = "semicolons" if mark == ";" else "tabs"
        raise _UnreadableError(
            f"the columns are separated by {shown}; save it with commas, or convert it with `tinyllm init`", line
        )
    for k, (number, cells) in enumerate(records, 1):
        if len(cells) > len(names):
            text = f"{len(cells)} cells for {len(names)} columns; put texts with commas in quotes"
            yield Problem(f"{path}, line {number}", text)
            continue
        padded = cells + [""] * (len(names) - len(cells))  # spreadsheets leave out empty cells at the end
        by_name = {name: cell if cell.strip() else None for name, cell in zip(names, padded, strict=True)}
        yield Row(k, str(path), number, by_name, "csv")


def _csv_records(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line where it starts. Skip blank lines and lines of empty cells."""
    reader = csv.reader(file, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "a quote is not closed, or not doubled inside a quoted text"
            if "limit" in str(error):
                hint = "one cell is too long for CSV readers; use JSONL for such texts, or close an open quote"
            raise _UnreadableError(f"not CSV ({error}): {hint}", line) from None
        if any(cell.strip() for cell in record):
            yield line, record


# --- Parquet -----------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Iterator[Row | Problem]:
    import pyarrow
    import pyarrow.parquet

    if path.stat().st_size == 0:
        raise _UnreadableError(_EMPTY)
    try:
        # Read a column page by page. The default reads whole row groups ahead, of up to a million rows.
        with pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            batches = file.iter_batches(_ROWS_AT_ONCE, use_threads=False)
            for k, cells in enumerate((cells for batch in batches for cells in batch.to_pylist()), 1):
                yield Row(k, str(path), k, cells, "parquet")
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _UnreadableError(f"not a readable Parquet file ({first_line(error)}); write it again") from None


_READERS: Mapping[Format, Callable[[Path], Iterator[Row | Problem]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "parquet": _read_parquet,
}


def kind_of(value: Any) -> str:
    """Return the JSON type of a value, in words for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "text", int: "a number", float: "a decimal number", dict: "an object"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else type(value).__name__)


# --- writing -----------------------------------------------------------------------------------------------------


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write a JSONL questions file atomically.

    Raises:
        DataError: the file cannot be written (no permission, disk full). The old file is then unchanged.
    """
    text = "".join(json.dumps(to_record(q), ensure_ascii=False) + "\n" for q in questions)
    try:
        write_text(path, well_formed(text))  # the check `encoding` finds what this replaces
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path} cannot be written: {reason}; make room or give another folder") from None


def to_record(question: Question) -> dict[str, Any]:
    """Return a question as a row of a questions file. Absent values have no key."""
    record: dict[str, Any] = {"id": question.id}
    if question.context is not None:
        record["context"] = question.context
    record |= {"question": question.question, "choices": list(question.choices), "answer": question.answer}
    if question.rationales:
        record["rationales"] = dict(question.rationales)
    if question.opinions:
        record["opinions"] = {teacher: list(scores) for teacher, scores in question.opinions.items()}
    return record
