"""Replies as files: export a store to JSON lines or Parquet, and import such a file into a store."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from tinyllm.errors import DataError
from tinyllm.replies._store import Row, Store, crc_of
from tinyllm.replies._tools import EVERYTHING, Selection, Tell, moment, must_know, reading, rows, silent
from tinyllm.system.files import replacing, well_formed
from tinyllm.teachers.base import FinishReason, key_of

_COLUMNS = (
    "key", "teacher", "question_id", "request", "text", "finish_reason", "prompt_tokens", "completion_tokens",
    "cached_tokens", "latency_s", "created", "thinking_tokens", "message",
)  # fmt: skip
_ASKED = {"identity", "prompt", "sampling", "sample"}
_ROWS_AT_ONCE = 1000

_Record = dict[str, Any]


def export_replies(path: Path, out: Path, selection: Selection = EVERYTHING, tell: Tell = silent) -> int:
    """Write replies with their requests to a file, and return how many. The file appears complete or not at all.

    Args:
        out: `.jsonl`: one object per line, with the request as an object in it. `.parquet`: the request is JSON text.

    Raises:
        DataError: the file name has another ending.
        TinyLLMError: the store has nothing of the teacher.
        RunFolderError: the store cannot be read.
    """
    write = {".jsonl": _write_jsonl, ".parquet": _write_parquet}.get(out.suffix)
    if write is None:
        raise DataError(f"Cannot export replies to {out}. Give a name that ends in .jsonl or .parquet.")
    with replacing(out) as draft, reading(path) as db:
        must_know(db, selection.teacher)
        return write(draft, (list(map(_record, some)) for some in rows(db, ", ".join(_COLUMNS), selection, tell)))


def _record(row: tuple[Any, ...]) -> _Record:
    record = dict(zip(_COLUMNS, row, strict=True))
    return record | {"key": record["key"].hex(), "created": moment(record["created"])}


def _write_jsonl(file: Path, groups: Iterable[list[_Record]]) -> int:
    count = 0
    with file.open("w", encoding="utf-8") as lines:
        for group in groups:
            for record in group:
                asked = record.pop("request")  # it is JSON already
                lines.write(f'{json.dumps(record, ensure_ascii=False)[:-1]}, "request": {asked}}}\n')
            count += len(group)
    return count


def _write_parquet(file: Path, groups: Iterable[list[_Record]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = {"latency_s": pa.float64()} | {c: pa.int64() for c in _COLUMNS if c.endswith("_tokens")}
    schema = pa.schema([(name, numbers.get(name, pa.string())) for name in _COLUMNS])
    count = 0
    with pq.ParquetWriter(file, schema) as table:
        for group in groups:
            table.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count


# --- import -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Imported:
    """How many replies of a file are new in the store, and how many of its requests had a reply there already."""

    new: int
    known: int


def import_replies(file: Path, store: Path, tell: Tell = silent) -> _Imported:
    """Import a file that `export_replies` wrote into a store. The store is created if missing.

    If the store has a reply to a request already, that reply stays. Replies before the first wrong line are kept.

    Raises:
        DataError: the file is missing, or a line is wrong; the message names the line.
        RunFolderError: the store cannot be written.
    """
    read = {".jsonl": _read_jsonl, ".parquet": _read_parquet}.get(file.suffix)
    if read is None or not file.is_file():
        raise DataError(f"Replies are read from files .jsonl or .parquet that are there; got {file}.")
    new = done = 0
    with Store(store) as into:
        for group, position, size in read(file):
            new += into.adopt([_row(record, f"{file}, line {done + n}") for n, record in enumerate(group, 1)])
            done += len(group)
            tell(position, size)
    return _Imported(new, done - new)


def _read_jsonl(file: Path) -> Iterator[tuple[list[Any], int, int]]:
    """Yield records in groups, with the position in the file after each group, and the file's size."""
    size, position = file.stat().st_size, 0
    with file.open("rb") as lines:
        while group := list(islice(lines, _ROWS_AT_ONCE)):
            position += sum(map(len, group))
            yield group, position, size


def _read_parquet(file: Path) -> Iterator[tuple[list[Any], int, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    position = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_ROWS_AT_ONCE):
                position += batch.num_rows
                yield batch.to_pylist(), position, table.metadata.num_rows
    except pa.ArrowException as error:
        raise DataError(f"{file} cannot be read: {error}") from None


def _row(record: Any, where: str) -> Row:
    """Return a record of a file as a row of a store. Unknown fields are ignored."""
    try:
        record = json.loads(record) if isinstance(record, bytes) else record
        asked = _canonical(record["request"])
        key = key_of(asked)
        if record.get("key", key) != key:
            raise ValueError("its request has been changed, and no longer matches its key")  # noqa: TRY301
        who = _text(record["teacher"]), _text(record["question_id"])
        said = (
            _text(record["text"]),
            _one_of(get_args(FinishReason), record["finish_reason"]),
            _tokens(record["prompt_tokens"]),
            _tokens(record["completion_tokens"]),
            _tokens(record["cached_tokens"]),
            _seconds(record["latency_s"]),
            _seconds(datetime.fromisoformat(record["created"]).timestamp()),
        )
        message = record.get("message")  # files of earlier versions have neither this nor the thinking tokens
        more = _tokens(record.get("thinking_tokens")), None if message is None else _text(message)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is no reply as `tinyllm store export` writes it: {error}") from None
    checksum = crc_of(bytes.fromhex(key), *who, *said, *more)
    return (bytes.fromhex(key), *who, asked, *said, checksum, *more)


def _canonical(request: Any) -> str:
    """Return a request as the text whose checksum is the key (`teachers.base.canonical`)."""
    request = json.loads(request) if isinstance(request, str) else request
    if set(request) - {"options"} != _ASKED:
        raise ValueError(f"a request has {', '.join(sorted(_ASKED))}; got {', '.join(sorted(request))}")
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _one_of(known: Sequence[str], value: Any) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return well_formed(value)


def _tokens(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 0 <= value < 1 << 63):
        raise ValueError(f"{value!r} is no number of tokens")
    return value


def _seconds(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is no number of seconds")
    return float(value)
