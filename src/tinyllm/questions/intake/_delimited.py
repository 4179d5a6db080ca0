"""Tables of text: CSV, TSV and their like; where the header is, and what separates the cells."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.questions.intake._files import Bytes, Text, as_text
from tinyllm.questions.intake._types import Bad, Line, Shape, Table, Wishes

_LOOKED_AT = 1 << 15  # characters that a separator is detected from
_TITLE_ROWS = 12  # above a header, at most
_SEPARATORS = (",", ";", "\t", "|")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "`|`", ":": "colons", " ": "blanks"}

Record = tuple[int, list[Any]]
Records = Callable[[], Iterator[Record | Bad]]


def delimited(file: Bytes, wishes: Wishes) -> Iterator[Shape]:
    """Yield the ways to read a text as a table, the likeliest first."""
    text = as_text(file, wishes.encoding)
    told = _told_separator(text)
    separators = _separators(file, text, wishes, told)
    for separator in separators:
        ways = (_Records(text, separator, quoting, skip_told=told is not None) for quoting in (True, False))
        # Quotes are part of the texts only where they cannot be quotes.
        records = next((r for r in ways if _is_table(r, even=separator != separators[0])), None)
        if records is None:
            continue
        quoting = records.quoting
        how = [h for h in (text.how,) if h]
        if separator != ",":
            how.append(f"cells separated by {_NAMES.get(separator, repr(separator))}")
        if not quoting:
            how.append("quotes are part of the texts")
        in_place = (
            file.path
            if text.encoding in ("utf-8", "utf-8-sig") and separator == "," and told is None and quoting
            and not file.packed and file.path.suffix.lower() == ".csv"
            else None
        )  # fmt: skip
        yield from with_headers(records, str(file.path), "line", tuple(how), in_place)


def _told_separator(text: Text) -> str | None:
    """Return the separator that Excel's first line `sep=;` tells."""
    with text.open() as stream:
        line = stream.readline().strip().strip('"')
    return line[4:] or "\t" if line[:4].lower() == "sep=" and len(line) <= 5 else None


def _separators(file: Bytes, text: Text, wishes: Wishes, told: str | None) -> list[str]:
    """Return the separators to try, the likeliest first."""
    if wishes.separator is not None:
        return [{"\\t": "\t", "tab": "\t"}.get(wishes.separator, wishes.separator)]
    if told is not None:
        return [told]
    import clevercsv

    with text.open() as stream:
        sample = stream.read(_LOOKED_AT)
    if len(sample) == _LOOKED_AT and "\n" in sample:
        sample = sample[: sample.rindex("\n") + 1]
    try:
        dialect = clevercsv.Sniffer().sniff(sample)
    except clevercsv.Error:
        dialect = None
    guess = "" if dialect is None else dialect.delimiter
    likely = ["\t"] if Path(file.name).suffix.lower() in (".tsv", ".tab") else []
    likely += [guess] if guess in (*_SEPARATORS, "^", "~", ":", "#") else []
    return list(dict.fromkeys([*likely, *_SEPARATORS]))


@dataclass(frozen=True)
class _Records:
    """The records of a text, cut at a separator; called for each pass."""

    text: Text
    separator: str
    quoting: bool
    skip_told: bool

    def __call__(self) -> Iterator[Record | Bad]:
        with self.text.open() as stream:
            lines: Iterable[str] = stream
            if self.skip_told:
                stream.readline()
            options: dict[str, Any] = {"delimiter": self.separator, "strict": True}
            if not self.quoting:
                options = {"delimiter": self.separator, "quoting": csv.QUOTE_NONE}
            # QUOTE_NONE keeps the quotes; a text's own line breaks then end its record.
            reader = csv.reader((line.replace("\0", "") for line in lines), **options)
            while True:
                place = reader.line_num + (2 if self.skip_told else 1)
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield Bad(place, f"not to be cut into cells ({error}); a quote may not be closed")
                    return
                if any(cell.strip() for cell in cells):
                    yield place, cells


def _is_table(records: Records, *, even: bool) -> bool:
    """Tell whether most of the first records have several cells; with `even`, all of them equally many."""
    first = list(itertools.islice(records(), 200))
    counts = [0 if isinstance(r, Bad) else len(r[1]) for r in first]
    several = sum(count > 1 for count in counts)
    return several > 0.5 * len(counts) and 0 not in counts and not (even and len(set(counts)) > 1)


# --- headers -----------------------------------------------------------------------------------------------------


def with_headers(
    records: Records, where: str, unit: str, how: tuple[str, ...], in_place: Path | None, sheet: str | None = None
) -> Iterator[Shape]:
    """Yield the records as tables: under the first record as header, under a later one, and without a header.

    Args:
        in_place: where a run can read them itself, if the first record is the header.
    """
    first = [r for r in itertools.islice(records(), _TITLE_ROWS) if not isinstance(r, Bad)]
    widest = 0
    for number, (_, cells) in enumerate(first):
        filled = sum(_filled(c) for c in cells)
        if filled < 2 or filled < 2 * widest:
            widest = max(widest, filled)
            continue  # a header has far more cells than the title rows above it
        widest = filled
        names = _names([c if _filled(c) else None for c in cells])
        plain = number == 0 and names == [str(c).strip() for c in cells]
        said = how if number == 0 else (*how, f"the header is the {_nth(number + 1)} row")
        table = Table(where, _Cells(records, names, number + 1), unit, file=in_place if plain else None)
        yield Shape((table,), said, sheet=sheet)
    width = max((len(cells) for _, cells in first), default=0)
    names = [f"column {k + 1}" for k in range(width)]
    said = (*how, "the file has no header")
    yield Shape((Table(where, _Cells(records, names, 0), unit),), said, named=False, sheet=sheet)


def _nth(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _filled(cell: Any) -> bool:
    return cell is not None and bool(str(cell).strip())


def _names(header: Sequence[Any]) -> list[str]:
    """Return a name for each column: its own, with a number where it is not the first of that name."""
    names: list[str] = []
    counts: dict[str, int] = {}
    for k, cell in enumerate(header):
        name = str(cell).strip() if cell is not None else f"unnamed {k}"
        counts[name] = counts.get(name, 0) + 1
        names.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    repeated = {name for name, count in counts.items() if count > 1}
    # The first of several is numbered, too: they may be choices.
    return [f"{n} (1)" if n in repeated else n for n in names]


@dataclass(frozen=True)
class _Cells:
    """The rows under a header; called for each pass."""

    records: Records
    names: Sequence[str]
    skip: int

    def __call__(self) -> Iterator[Line | Bad]:
        for record in itertools.islice(self.records(), self.skip, None):
            if isinstance(record, Bad):
                yield record
                continue
            place, cells = record
            while len(cells) > len(self.names) and not _filled(cells[-1]):
                cells = cells[:-1]
            if len(cells) > len(self.names):
                yield Bad(
                    place, f"{len(cells)} cells for {len(self.names)} columns; put texts with separators in quotes"
                )
                continue
            padded = [*cells, *[None] * (len(self.names) - len(cells))]
            found = {n: c if _filled(c) else None for n, c in zip(self.names, padded, strict=True)}
            yield Line(place, {n: c for n, c in found.items() if c is not None or not n.startswith("unnamed ")})


def text_lines(text: Text) -> Iterator[str]:
    """Yield the lines of a text without their ends."""
    with text.open() as stream:
        for line in io.StringIO(stream.read(), newline=None):
            yield line.rstrip("\n")
