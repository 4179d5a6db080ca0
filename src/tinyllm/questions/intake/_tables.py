"""Tables that have types: Parquet, Arrow, workbooks, and folders that `datasets` saved."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.errors import DataError
from tinyllm.questions.intake._delimited import Record, with_headers
from tinyllm.questions.intake._documents import SPLITS
from tinyllm.questions.intake._files import Bytes
from tinyllm.questions.intake._types import Bad, Line, Shape, Table, Wishes

_ROWS_AT_ONCE = 1000


def columnar(file: Bytes) -> Shape:
    """Return a Parquet or Arrow file as a table.

    Raises:
        DataError: it cannot be read.
    """
    rows = _Arrow((file,))
    metadata = rows.metadata()
    in_place = (
        file.path if file.kind == "parquet" and not file.packed and file.path.suffix.lower() == ".parquet" else None
    )
    return Shape((Table(str(file.path), rows, "row", classes=_class_names(metadata), file=in_place),))


def saved_folder(folder: Path, look_into: Any) -> Shape | None:
    """Return what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; None: the folder is none of these.

    Raises:
        DataError: it is one, and cannot be read.
    """
    if (folder / "dataset_dict.json").is_file():
        names = _read_json(folder / "dataset_dict.json").get("splits", [])
        unknown = [n for n in names if str(n).casefold() not in SPLITS]
        if unknown and len(names) > 1:
            raise DataError(
                f"{folder}: has the splits {', '.join(map(str, names))}; give the folder of the one that is to "
                "be read, as "
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
    return Table(str(folder), _Arrow(files), "row", split, _classes_in(info.get("features") or {}))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save the dataset again") from None
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class _Arrow:
    """The rows of Parquet or Arrow files; called for each pass."""

    files: tuple[Bytes, ...]

    def __call__(self) -> Iterator[Line | Bad]:
        place = 0
        for file in self.files:
            with _readable(file):
                for batch in self._batches(file):
                    for cells in batch.to_pylist():
                        place += 1
                        yield Line(place, cells)

    def metadata(self) -> Mapping[bytes, bytes]:
        import pyarrow.parquet

        with _readable(self.files[0]):
            if self.files[0].kind == "parquet":
                with self.files[0].open() as stream:
                    return pyarrow.parquet.ParquetFile(stream).schema_arrow.metadata or {}
            with self.files[0].open() as stream:
                return _reader(stream).schema.metadata or {}

    def _batches(self, file: Bytes) -> Iterator[Any]:
        import pyarrow.parquet

        with file.open() as stream:
            if file.kind == "parquet":
                source = io.BytesIO(stream.read()) if file.packed else stream
                yield from pyarrow.parquet.ParquetFile(source).iter_batches(_ROWS_AT_ONCE, use_threads=False)
                return
            reader = _reader(stream)
            if hasattr(reader, "num_record_batches"):
                yield from (reader.get_batch(k) for k in range(reader.num_record_batches))
            else:
                yield from reader


def _reader(stream: Any) -> Any:
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
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{file.path}: not a {file.kind} file that can be read ({reason}); write it again") from None


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    return _classes_in(features)


def _classes_in(features: Mapping[str, Any], before: str = "") -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of columns that are class numbers."""
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
            records = _Sheet([(k, list(row)) for k, row in enumerate(rows, 1) if any(c not in ("", None) for c in row)])
            if not records.rows:
                continue
            how = (f"the sheet '{name}'",) if len(names) > 1 else ()
            where = f"{file.path}, sheet '{name}'" if len(names) > 1 else str(file.path)
            yield list(with_headers(records, where, "row", how, None, sheet=name))
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        raise DataError(
            f"{file.path}: not a workbook that can be read ({error}); save it again as .xlsx or CSV"
        ) from None


@dataclass(frozen=True)
class _Sheet:
    """The rows of a sheet, without empty columns before the table; called for each pass."""

    rows: Sequence[Record]

    def __call__(self) -> Iterator[Record | Bad]:
        first = min(k for _, cells in self.rows for k, c in enumerate(cells) if c not in ("", None))
        for place, cells in self.rows:
            yield place, cells[first:]
