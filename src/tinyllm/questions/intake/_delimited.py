"""Tables of text (CSV, TSV, …): find the separator and the header."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tinyllm.questions.intake._files import Bytes, Text, as_text
from tinyllm.questions.intake._types import Bad, Line, Shape, Table, Wishes

_SNIFFED = 1 << 15  # characters from which a separator is detected
_TITLE_ROWS = 12  # at most so many rows are above a header
_SEPARATORS = (",", ";", "\t", "|")
_NO_SEPARATOR = "\x1f"
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "`|`", ":": "colons", " ": "blanks"}

Record = tuple[int, list[Any]]
Records = Callable[[], Iterator[Record | Bad]]


def delimited(file: Bytes, wishes: Wishes) -> Iterator[Shape]:
    """Yield the ways to read a text as a table, the most likely first."""
    text = as_text(file, wishes.encoding)
    with text.open() as stream:
        line = stream.readline().strip().strip('"')
    # Excel's first line `sep=;` gives the separator.
    told = line[4:] or "\t" if line[:4].lower() == "sep=" and len(line) <= 5 else None
    separators = _separators(file, text, wishes, told)
    is_table = False
    for separator in separators:
        # Quotes are part of the texts only if the text is not a table with quoted cells.
        for quoting in (True, False):
            records = partial(_records, text, separator, quoting=quoting, skip_first=told is not None)
            if _is_table(records, even=separator != separators[0]):
                break
            open_quote = next((r.place for r in records() if isinstance(r, Bad)), 0)
        else:
            continue
        how = [h for h in (text.how,) if h]
        if separator != ",":
            how.append(f"cells separated by {_NAMES.get(separator, repr(separator))}")
        if not quoting:
            unclosed = f": the quote that begins in line {open_quote} is not closed" if open_quote else ""
            how.append(f"quotes are part of the texts{unclosed}")
        csv_file = Path(file.name).suffix.lower() == ".csv"
        plain = text.encoding in ("utf-8", "utf-8-sig") and separator == "," and told is None and quoting
        in_place = file.path if plain and csv_file and not file.packed else None
        dialect = separator, "utf-8" if text.encoding == "utf-8" else "utf-8-sig"
        is_table = True
        for shape in with_headers(records, str(file.path), "line", tuple(how), in_place):
            yield replace(shape, dialect=dialect) if csv_file else shape
    if not is_table and wishes.classes and not wishes.has_answers:  # texts alone, to be classified
        records = partial(_records, text, _NO_SEPARATOR, quoting=True, skip_first=told is not None)
        header = next(records(), None)
        if header is not None and not isinstance(header, Bad):
            table = Table(str(file.path), partial(_rows, records, _names(header[1]), 1), "line")
            yield Shape((table,), (*([text.how] if text.how else []), "one column"))


def _separators(file: Bytes, text: Text, wishes: Wishes, told: str | None) -> list[str]:
    """Return the separators to try, the most likely first."""
    if wishes.separator is not None:
        return [{"\\t": "\t", "tab": "\t"}.get(wishes.separator, wishes.separator)]
    if told is not None:
        return [told]
    import clevercsv

    with text.open() as stream:
        sample = stream.read(_SNIFFED)
    if len(sample) == _SNIFFED and "\n" in sample:
        sample = sample[: sample.rindex("\n") + 1]
    try:
        dialect = clevercsv.Sniffer().sniff(sample)
    except clevercsv.Error:
        dialect = None
    guess = "" if dialect is None else dialect.delimiter
    likely = ["\t"] if Path(file.name).suffix.lower() in (".tsv", ".tab") else []
    likely += [guess] if guess in (*_SEPARATORS, "^", "~", ":", "#") else []
    return list(dict.fromkeys([*likely, *_SEPARATORS]))


def _records(text: Text, separator: str, *, quoting: bool, skip_first: bool) -> Iterator[Record | Bad]:
    with text.open() as stream:
        if skip_first:
            stream.readline()
        options: dict[str, Any] = {"strict": True} if quoting else {"quoting": csv.QUOTE_NONE}
        reader = csv.reader((line.replace("\0", "") for line in stream), delimiter=separator, **options)
        while True:
            place = reader.line_num + (2 if skip_first else 1)
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Bad(place, f"cannot be split into cells ({error}); a quote may not be closed")
                return
            if any(cell.strip() for cell in cells):
                yield place, cells


def _is_table(records: Records, *, even: bool) -> bool:
    """Tell whether most of the first records have several cells; with `even`, all of them the same number."""
    first = list(itertools.islice(records(), 200))
    counts = [0 if isinstance(r, Bad) else len(r[1]) for r in first]
    several = sum(count > 1 for count in counts)
    return several > 0.5 * len(counts) and 0 not in counts and not (even and len(set(counts)) > 1)


# --- headers -----------------------------------------------------------------------------------------------------


def with_headers(
    records: Records, where: str, unit: str, how: tuple[str, ...], in_place: Path | None, sheet: str | None = None
) -> Iterator[Shape]:
    """Yield the records as tables: with the first record as header, with a later one, and without a header.

    Args:
        in_place: the file, if a run can read it itself when the first record is the header.
    """
    first = [r for r in itertools.islice(records(), _TITLE_ROWS) if not isinstance(r, Bad)]
    widest = 0
    for number, (place, cells) in enumerate(first):
        filled = sum(_filled(c) for c in cells)
        if filled < 2 or filled < 2 * widest:
            widest = max(widest, filled)
            continue  # a header has many more cells than the title rows above it
        widest = filled
        names = _names([c if _filled(c) else None for c in cells])
        plain = number == 0 and all(n == str(c).strip() for n, c in zip(names, cells, strict=True) if _filled(c))
        said = how if number == 0 else (*how, f"the header is in {unit} {place}")
        table = Table(where, partial(_rows, records, names, number + 1), unit, file=in_place if plain else None)
        yield Shape((table,), said, sheet=sheet)
    names = [f"column {k + 1}" for k in range(max((len(cells) for _, cells in first), default=0))]
    table = Table(where, partial(_rows, records, names, 0), unit)
    yield Shape((table,), (*how, "the file has no header"), named=False, sheet=sheet)


def _filled(cell: Any) -> bool:
    return cell is not None and bool(str(cell).strip())


def _names(header: Sequence[Any]) -> list[str]:
    """Return a name for each column. Columns with the same name get numbers, because they may be choices."""
    names: list[str] = []
    counts: dict[str, int] = {}
    for k, cell in enumerate(header):
        name = str(cell).strip() if cell is not None else f"unnamed {k}"
        counts[name] = counts.get(name, 0) + 1
        names.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return [f"{n} (1)" if counts.get(n, 1) > 1 else n for n in names]


def _rows(records: Records, names: Sequence[str], skip: int) -> Iterator[Line | Bad]:
    """Yield the rows after `skip` records as cells by name."""
    for record in itertools.islice(records(), skip, None):
        if isinstance(record, Bad):
            yield record
            continue
        place, cells = record
        while len(cells) > len(names) and not _filled(cells[-1]):
            cells = cells[:-1]
        if len(cells) > len(names):
            yield Bad(place, f"{len(cells)} cells for {len(names)} columns; put texts with separators in quotes")
            continue
        padded = [*cells, *[None] * (len(names) - len(cells))]
        found = {n: c if _filled(c) else None for n, c in zip(names, padded, strict=True)}
        yield Line(place, {n: c for n, c in found.items() if c is not None or not n.startswith("unnamed ")})


def text_lines(text: Text) -> Iterator[str]:
    """Yield the lines of a text without their ends."""
    with text.open() as stream:
        for line in io.StringIO(stream.read(), newline=None):
            yield line.rstrip("\n")
