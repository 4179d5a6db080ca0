"""Replies as files: a store's contents as JSON lines or Parquet, and back into a store."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
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
    """Write replies, each with what was asked, to a file; return how many. The file appears whole or not at all.

    Args:
        out: `.jsonl`: an object a line, the request an object in it. `.parquet`: a row each, the request as JSON.

    Raises:
        DataError: the file's name has another ending.
        TinyLLMError: the store holds nothing of the teacher.
        RunFolderError: the store cannot be read.
    """
    write = {".jsonl": _write_jsonl, ".parquet": _write_parquet}.get(out.suffix)
    if write is None:
        raise DataError(f"Replies are written as .jsonl or .parquet, which {out} does not end in.")
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
                asked = record.pop("request")  # JSON already
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


# --- and back -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Imported:
    """How many replies of a file are new in the store, and how many requests had a reply there already."""

    new: int
    known: int


def import_replies(file: Path, store: Path, tell: Tell = silent) -> Imported:
    """Take replies from a file that `export_replies` wrote into a store, which is made if it is not there.

    A request that the store has a reply to keeps that one. Replies are kept up to the first line that is wrong.

    Raises:
        DataError: the file is not there, or not such a file; names the first line that is wrong.
        RunFolderError: the store cannot be written.
    """
    read = {".jsonl": _read_jsonl, ".parquet": _read_parquet}.get(file.suffix)
    if read is None or not file.is_file():
        raise DataError(f"Replies are read from files .jsonl or .parquet that are there; got {file}.")
    new = done = 0
    with Store(store) as into:
        for group, gone, total in read(file):
            new += into.adopt([_row(record, f"{file}, line {done + n}") for n, record in enumerate(group, 1)])
            done += len(group)
            tell(gone, total)
    return Imported(new, done - new)


def _read_jsonl(file: Path) -> Iterator[tuple[list[Any], int, int]]:
    """Yield a few records at a time, with how far in the file they end, and its size."""
    total = file.stat().st_size
    group: list[Any] = []
    gone = 0
    with file.open("rb") as lines:
        for line in lines:
            gone += len(line)
            group.append(line)
            if len(group) == _ROWS_AT_ONCE:
                yield group, gone, total
                group = []
    yield group, gone, total


def _read_parquet(file: Path) -> Iterator[tuple[list[Any], int, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    gone = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_ROWS_AT_ONCE):
                gone += batch.num_rows
                yield batch.to_pylist(), gone, table.metadata.num_rows
    except pa.ArrowException as error:
        raise DataError(f"{file} cannot be read: {error}") from None


def _row(record: Any, where: str) -> Row:
    """Return a record of a file as a row of a store; what does not belong there is left out."""
    try:
        record = json.loads(record) if isinstance(record, bytes) else record
        asked = _canonical(record["request"])
        key = key_of(asked)
        _must_match(key, record.get("key", key))
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
        # Files of earlier versions have neither.
        message = record.get("message")
        more = _tokens(record.get("thinking_tokens")), None if message is None else _text(message)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is no reply as `tinyllm store export` writes it: {error}") from None
    checksum = crc_of(bytes.fromhex(key), *who, *said, *more)
    return (bytes.fromhex(key), *who, asked, *said, checksum, *more)


def _canonical(request: Any) -> str:
    """A request as the text of which the key is the checksum (`teachers.base.canonical`)."""
    request = json.loads(request) if isinstance(request, str) else request
    if set(request) != _ASKED:
        raise ValueError(f"a request has {', '.join(sorted(_ASKED))}; got {', '.join(sorted(request))}")
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _must_match(key: str, said: Any) -> None:
    if key != said:
        raise ValueError("its request has been changed, and no longer matches its key")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return well_formed(value)


def _one_of(known: Sequence[str], value: Any) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return str(value)


def _tokens(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 0 <= value < 1 << 63):
        raise ValueError(f"{value!r} is no number of tokens")
    return value


def _seconds(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is no number of seconds")
    return float(value)
