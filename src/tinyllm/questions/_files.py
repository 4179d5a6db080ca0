"""Read one split file as a stream of rows: JSONL, CSV or Parquet, by extension. No file is ever whole in memory.

What the cells of a row mean is the business of `_rows.py`. Nothing is raised here: what is wrong with the file as a
whole, or with one line of it, is in the stream, so that one message can name the problems of all splits.
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

from tinyllm.errors import did_you_mean

Format = Literal["jsonl", "csv", "parquet"]
EXTENSIONS: Mapping[str, Format] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_EMPTY_REMEDY = "write one question a row, or leave this split out"
_BUFFER_BYTES = 1 << 18
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where: `data/train.csv, line 17`.

    Attributes:
        fatal: it is the file as a whole that is wrong; then no row of it counts, those before included.
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
        number: 1-based, counting rows (not lines), those that could not be parsed included.
        source: the file (or dataset and split), for messages.
        place: 1-based, of the line it starts on; in Parquet of the row.
        format: tells which cells may be text that stands for something else (numbers and lists in CSV).
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
    """What one split's file holds.

    Attributes:
        items: its rows, and what is wrong with the lines that are no rows; to be gone through once.
    """

    where: str
    items: Iterable[Row | Problem]


class _UnreadableError(Exception):
    """The file as a whole cannot be read; never leaves this module."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def read_file(path: Path) -> SplitRows:
    """Return all rows of a file, read as they are gone through.

    UTF-8, a byte order mark is tolerated, blank lines are skipped.
    """
    return SplitRows(str(path), _items(path))


def _items(path: Path) -> Iterator[Row | Problem]:
    number = 0
    try:
        for number, item in enumerate(_READERS[_format_of(path)](path), 1):  # noqa: B007 - told below
            yield item
    except _UnreadableError as error:
        at = str(path) if error.line is None else f"{path}, line {error.line}"
        yield Problem(at, str(error), fatal=True)
    except OSError as error:
        yield Problem(str(path), f"cannot be read: {error.strerror or error}", fatal=True)
    else:
        if not number:
            yield Problem(str(path), "holds no rows; " + _EMPTY_REMEDY, fatal=True)


def _format_of(path: Path) -> Format:
    known = ", ".join(EXTENSIONS)
    if path.is_dir():
        raise _UnreadableError("is a folder; give a file, or the folder as `data.folder`")
    if not path.exists():
        here = sorted(p.name for p in path.parent.iterdir() if p.is_file()) if path.parent.is_dir() else None
        if here is None:
            raise _UnreadableError(f"no such file, and no folder {path.parent}")
        here = [name for name in here if Path(name).suffix in EXTENSIONS] or here
        listed = ", ".join(here[:10]) + (", …" if len(here) > 10 else "") if here else "nothing"
        raise _UnreadableError(f"no such file.{did_you_mean(path.name, here)} In {path.parent}: {listed}")
    if path.suffix.lower() not in EXTENSIONS:
        hint = f"; `tinyllm init {path}` reads many more, and converts them"
        raise _UnreadableError(f"unknown extension '{path.suffix}'; known: {known}{hint}")
    return EXTENSIONS[path.suffix.lower()]


def _not_utf8(path: Path) -> _UnreadableError:
    """Say where a file that is not UTF-8 stops being it."""
    before = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                looks = number == 1 and line[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
                hint = " (it looks like UTF-16)" if looks else ""
                byte = f"byte {before + error.start} is 0x{line[error.start]:02x}"
                return _UnreadableError(f"not UTF-8: {byte}{hint}; save the file as UTF-8", number)
            before += len(line)
    return _UnreadableError("not UTF-8; save the file as UTF-8")


# --- JSONL -------------------------------------------------------------------------------------------------------


def _read_jsonl(path: Path) -> Iterator[Row | Problem]:
    lines = _text_lines(path)
    waiting = next(lines, None)
    if waiting is None:
        raise _UnreadableError("empty file; " + _EMPTY_REMEDY)
    if waiting[1].strip() in ("[", "{"):
        raise _UnreadableError("one JSON text over several lines; write each question as one object on one line", 1)
    k = 0
    while waiting is not None:
        k += 1
        (number, line), waiting = waiting, next(lines, None)
        yield _parse_line(path, k, number, line, waiting is None)


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line that is not blank, with its number."""
    # Only "\n" ends a line: str.splitlines would also cut at U+2028, which may stand inside a JSON text.
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
        cut = "; the file seems to be cut off here, fetch or write it again" if last else "; mend the line"
        return Problem(f"{path}, line {number}", f"not JSON ({error.msg}, column {error.colno}){cut}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        return Problem(f"{path}, line {number}", f"not JSON that can be read ({error}); mend the line")
    if not isinstance(value, dict):
        wanted = "{'question': …, 'choices': […], 'answer': …}"
        return Problem(f"{path}, line {number}", f"{kind_of(value)}, not an object; write {wanted}")
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
        raise _UnreadableError("empty file; " + _EMPTY_REMEDY)
    names = [name.strip() for name in header]
    for name in names:
        if name and names.count(name) > 1:
            raise _UnreadableError(f"the column '{name}' stands there twice; give each column a name of its own", line)
    if len(names) == 1 and (mark := next((m for m in ";\t" if m in names[0]), None)):
        shown = "semicolons" if mark == ";" else "tabs"
        raise _UnreadableError(
            f"the columns are separated by {shown}; save it with commas, or have `tinyllm init` convert it", line
        )
    for k, (number, cells) in enumerate(records, 1):
        yield _csv_row(path, k, number, names, cells)


def _csv_records(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line it starts on; blank lines and lines of empty cells are no records."""
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
                hint = "one cell is longer than CSV readers take; use JSONL for such texts, or close an open quote"
            raise _UnreadableError(f"not CSV ({error}): {hint}", line) from None
        if any(cell.strip() for cell in record):
            yield line, record


def _csv_row(path: Path, k: int, line: int, names: list[str], cells: list[str]) -> Row | Problem:
    if len(cells) > len(names):
        text = f"{len(cells)} cells for {len(names)} columns; put texts with commas in quotes"
        return Problem(f"{path}, line {line}", text)
    padded = cells + [""] * (len(names) - len(cells))  # spreadsheets leave out empty cells at the end
    by_name = {name: cell if cell.strip() else None for name, cell in zip(names, padded, strict=True)}
    return Row(k, str(path), line, by_name, "csv")


# --- Parquet -----------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Iterator[Row | Problem]:
    import pyarrow
    import pyarrow.parquet

    if path.stat().st_size == 0:
        raise _UnreadableError("empty file; " + _EMPTY_REMEDY)
    try:
        # So a column is read page by page; by default whole row groups, of up to a million rows, are read ahead.
        with pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            batches = file.iter_batches(_ROWS_AT_ONCE, use_threads=False)
            for k, cells in enumerate((cells for batch in batches for cells in batch.to_pylist()), 1):
                yield Row(k, str(path), k, cells, "parquet")
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise _UnreadableError(f"not a Parquet file that can be read ({reason}); write it again") from None


_READERS: Mapping[Format, Callable[[Path], Iterator[Row | Problem]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "parquet": _read_parquet,
}


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in words for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "text", int: "a number", float: "a decimal number", dict: "an object"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else type(value).__name__)
