"""Read one split file into rows: JSONL, CSV or Parquet, by extension.

What the cells of a row mean is the business of `rows.py`. Nothing is raised here: what is wrong with the file as a
whole, or with one line of it, is collected, so that one message can name the problems of all splits.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tinyllm.errors import did_you_mean

Format = Literal["jsonl", "csv", "parquet"]
EXTENSIONS: Mapping[str, Format] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_EMPTY_REMEDY = "write one question a row, or leave this split out"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where: `data/train.csv, line 17`."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes:
        number: 1-based, counting rows (not lines), those that could not be parsed included.
        where: file and line (Parquet: row) for messages.
        format: tells which cells may be text that stands for something else (numbers and lists in CSV).
    """

    number: int
    where: str
    cells: Mapping[str, Any]
    format: Format


@dataclass(frozen=True, slots=True)
class SplitRows:
    """What one split's file holds.

    Attributes:
        columns: names of all columns that any row has, in order of appearance.
        bad: lines that are no rows at all; they can be left out.
        fatal: what is wrong with the file as a whole; nothing to leave out.
    """

    where: str
    rows: tuple[Row, ...] = ()
    columns: tuple[str, ...] = ()
    bad: tuple[Problem, ...] = ()
    fatal: tuple[Problem, ...] = ()


class _UnreadableError(Exception):
    """The file as a whole cannot be read; never leaves this module."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def read_file(path: Path) -> SplitRows:
    """Read all rows of a file. UTF-8, a byte order mark is tolerated, blank lines are skipped."""
    where = str(path)
    try:
        kind = _format_of(path)
        items = _READERS[kind](path)
    except _UnreadableError as error:
        at = where if error.line is None else f"{where}, line {error.line}"
        return SplitRows(where, fatal=(Problem(at, str(error)),))
    if not items:
        return SplitRows(where, fatal=(Problem(where, "holds no rows; " + _EMPTY_REMEDY),))
    rows = [i for i in items if isinstance(i, Row)]
    bad = [i for i in items if isinstance(i, Problem)]
    columns = tuple(dict.fromkeys(name for row in rows for name in row.cells))
    return SplitRows(where, tuple(rows), columns, tuple(bad))


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
        hint = "; write the list's objects one a line and call it .jsonl" if path.suffix.lower() == ".json" else ""
        raise _UnreadableError(f"unknown extension '{path.suffix}'; known: {known}{hint}")
    return EXTENSIONS[path.suffix.lower()]


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror or error}") from None
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.start + len(data) - len(body)
        line = data.count(b"\n", 0, byte) + 1
        hint = " (it looks like UTF-16)" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
        raise _UnreadableError(
            f"not UTF-8: byte {byte} is 0x{data[byte]:02x}{hint}; save the file as UTF-8", line
        ) from None
    if not text.strip():
        raise _UnreadableError("empty file; " + _EMPTY_REMEDY)
    return text


# --- JSONL -------------------------------------------------------------------------------------------------------


def _read_jsonl(path: Path) -> list[Row | Problem]:
    # Only "\n" ends a line: str.splitlines would also cut at U+2028, which may stand inside a JSON text.
    lines = [(number, line) for number, line in enumerate(_read_text(path).split("\n"), 1) if line.strip()]
    if lines[0][1].strip() in ("[", "{"):
        raise _UnreadableError("one JSON text over several lines; write each question as one object on one line", 1)
    parsed = (_parse_line(path, k, number, line, k == len(lines)) for k, (number, line) in enumerate(lines, 1))
    return list(parsed)


def _parse_line(path: Path, k: int, number: int, line: str, last: bool) -> Row | Problem:
    where = f"{path}, line {number}"
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        cut = "; the file seems to be cut off here, fetch or write it again" if last else "; mend the line"
        return Problem(where, f"not JSON ({error.msg}, column {error.colno}){cut}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        return Problem(where, f"not JSON that can be read ({error}); mend the line")
    if not isinstance(value, dict):
        return Problem(where, f"{kind_of(value)}, not an object; write {{'question': …, 'choices': […], 'answer': …}}")
    return Row(k, where, value, "jsonl")


# --- CSV ---------------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> list[Row | Problem]:
    records = _csv_records(_read_text(path))
    line, header = next(records)
    names = [name.strip() for name in header]
    for name in names:
        if name and names.count(name) > 1:
            raise _UnreadableError(f"the column '{name}' stands there twice; give each column a name of its own", line)
    if len(names) == 1 and (mark := next((m for m in ";\t" if m in names[0]), None)):
        shown = "semicolons" if mark == ";" else "tabs"
        raise _UnreadableError(f"the columns are separated by {shown}; save it with commas", line)
    return [_csv_row(path, k, number, names, cells) for k, (number, cells) in enumerate(records, 1)]


def _csv_records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line it starts on; blank lines and lines of empty cells are no records."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
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
    where = f"{path}, line {line}"
    if len(cells) > len(names):
        return Problem(where, f"{len(cells)} cells for {len(names)} columns; put texts with commas in quotes")
    padded = cells + [""] * (len(names) - len(cells))  # spreadsheets leave out empty cells at the end
    return Row(
        k, where, {name: cell if cell.strip() else None for name, cell in zip(names, padded, strict=True)}, "csv"
    )


# --- Parquet -----------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> list[Row | Problem]:
    import pyarrow
    import pyarrow.parquet

    if path.stat().st_size == 0:
        raise _UnreadableError("empty file; " + _EMPTY_REMEDY)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows: list[dict[str, Any]] = file.read().to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise _UnreadableError(f"not a Parquet file that can be read ({reason}); write it again") from None
    return [Row(k, f"{path}, row {k}", cells, "parquet") for k, cells in enumerate(rows, 1)]


_READERS = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in words for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "text", int: "a number", float: "a decimal number", dict: "an object"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else type(value).__name__)
