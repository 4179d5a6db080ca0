"""Tables with types: Parquet, Arrow, workbooks, and folders that `datasets` saved."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tinyllm.errors import DataError, first_line
from tinyllm.questions.intake._delimited import with_headers
from tinyllm.questions.intake._documents import SPLITS
from tinyllm.questions.intake._files import Bytes
from tinyllm.questions.intake._types import Bad, Line, Shape, Table, Wishes

_ROWS_AT_ONCE = 1000


def columnar(file: Bytes) -> Shape:
    """Return a Parquet or Arrow file as a table.

    Raises:
        DataError: it cannot be read.
    """
    classes = _class_names(file)
    plain = file.kind == "parquet" and not file.packed and file.path.suffix.lower() == ".parquet"
    in_place = file.path if plain else None
    return Shape((Table(str(file.path), partial(_rows, (file,)), "row", classes=classes, file=in_place),))


def saved_folder(folder: Path, look_into: Any) -> Shape | None:
    """Return the tables that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; None: not such a folder.

    Raises:
        DataError: it is such a folder, but cannot be read.
    """
    if (folder / "dataset_dict.json").is_file():
        names = _read_json(folder / "dataset_dict.json").get("splits", [])
        unknown = [n for n in names if str(n).casefold() not in SPLITS]
        if unknown and len(names) > 1:
            raise DataError(
                f"{folder}: has the splits {', '.join(map(str, names))}; give the folder of one split, as "
                f"{folder / str(names[0])}"
            )
        tables = [_saved(folder / str(n), look_into, SPLITS.get(str(n).casefold())) for n in names]
        return Shape(tuple(tables), ("a folder that `datasets` saved",)) if tables else None
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return Shape((_saved(folder, look_into, None),), ("a folder that `datasets` saved",))
    return None


def _saved(folder: Path, look_into: Any, split: str | None) -> Table:
    state, info = _read_json(folder / "state.json"), _read_json(folder / "dataset_info.json")
    names = [str(f.get("filename")) for f in state.get("_data_files") or [] if isinstance(f, dict)]
    missing = [n for n in names if not (folder / n).is_file()]
    if missing or not names:
        raise DataError(
            f"{folder}: its state.json names files that are not there ({', '.join(missing) or 'none'}); save it again"
        )
    files = tuple(f for n in names for f in look_into(folder / n))
    return Table(str(folder), partial(_rows, files), "row", split, _classes_in(info.get("features") or {}))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save the dataset again") from None
    return found if isinstance(found, dict) else {}


def _rows(files: Sequence[Bytes]) -> Iterator[Line | Bad]:
    """Yield the rows of Parquet or Arrow files."""
    place = 0
    for file in files:
        with _readable(file):
            for batch in _batches(file):
                for cells in batch.to_pylist():
                    place += 1
                    yield Line(place, cells)


def _batches(file: Bytes) -> Iterator[Any]:
    import pyarrow.parquet

    with file.open() as stream:
        if file.kind == "parquet":
            source = io.BytesIO(stream.read()) if file.packed else stream
            yield from pyarrow.parquet.ParquetFile(source).iter_batches(_ROWS_AT_ONCE, use_threads=False)
            return
        reader = _arrow_reader(stream)
        if hasattr(reader, "num_record_batches"):
            yield from (reader.get_batch(k) for k in range(reader.num_record_batches))
        else:
            yield from reader


def _arrow_reader(stream: Any) -> Any:
    import pyarrow

    head = stream.read(6)
    stream.seek(0)
    return pyarrow.ipc.open_file(stream) if head == b"ARROW1" else pyarrow.ipc.open_stream(stream)


@contextlib.contextmanager
def _readable(file: Bytes) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file.path}: not a readable {file.kind} file ({first_line(error)}); write it again") from None


def _class_names(file: Bytes) -> dict[str, tuple[str, ...]]:
    import pyarrow.parquet

    with _readable(file), file.open() as stream:
        parquet = file.kind == "parquet"
        schema = pyarrow.parquet.ParquetFile(stream).schema_arrow if parquet else _arrow_reader(stream).schema
        metadata = schema.metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    return _classes_in(features)


def _classes_in(features: Mapping[str, Any], before: str = "") -> dict[str, tuple[str, ...]]:
    """Return the class names of the columns that hold class numbers."""
    found: dict[str, tuple[str, ...]] = {}
    for name, feature in features.items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            found[f"{before}{name}"] = tuple(map(str, feature.get("names") or ()))
        elif isinstance(feature, dict) and "_type" not in feature:
            found |= _classes_in(feature, f"{before}{name}.")
    return {name: names for name, names in found.items() if names}


# --- workbooks ---------------------------------------------------------------------------------------------------


def workbook(file: Bytes, wishes: Wishes) -> Iterator[list[Shape]]:
    """Yield the ways to read each sheet of a workbook (.xlsx, .xls, .xlsb, .ods), sheet by sheet.

    Raises:
        DataError: it cannot be read, or it has no such sheet.
    """
    import python_calamine

    try:
        with file.open() as stream:
            book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(stream.read()))
        names = book.sheet_names
        if wishes.sheet is not None and wishes.sheet not in names:
            raise DataError(f"--sheet: {file.path} has no sheet '{wishes.sheet}'. Sheets: {', '.join(names)}")
        for name in [wishes.sheet] if wishes.sheet is not None else names:
            rows = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
            records = [(k, list(row)) for k, row in enumerate(rows, 1) if any(c not in ("", None) for c in row)]
            if not records:
                continue
            # Leave out empty columns before the table.
            first = min(k for _, cells in records for k, c in enumerate(cells) if c not in ("", None))
            records = [(place, cells[first:]) for place, cells in records]
            how = (f"the sheet '{name}'",) if len(names) > 1 else ()
            where = f"{file.path}, sheet '{name}'" if len(names) > 1 else str(file.path)
            yield list(with_headers(partial(iter, records), where, "row", how, None, sheet=name))
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        raise DataError(f"{file.path}: not a readable workbook ({error}); save it again as .xlsx or CSV") from None
