"""What generation leaves in a run folder: `rationales.parquet`, `rejected.jsonl`, `yields.json`."""

from __future__ import annotations

import json
from collections.abc import Collection as Container
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from tinyllm.errors import RunFolderError
from tinyllm.rationales.collect import Collection
from tinyllm.rationales.types import Rationale, Rejection, TeacherYield
from tinyllm.system.files import replacing, write_json

RATIONALES = "rationales.parquet"
REJECTED = "rejected.jsonl"
_YIELDS = "yields.json"
_ROWS_AT_ONCE = 4096


def write_rationales(folder: Path, collection: Collection, pooled: Container[str] = ()) -> None:
    """Write the three files, as the collection streams by; each appears whole or not at all, the rationales last.

    Args:
        pooled: ids of the questions whose answer is that of the teachers' pooled opinion.

    Raises:
        OSError: the disk is full, or the folder cannot be written; files that were there before are as they were.
    """
    with replacing(folder / RATIONALES) as parquet:
        with replacing(folder / REJECTED) as rejected:
            _stream(collection, pooled, parquet, rejected)
        write_json(folder / _YIELDS, {name: asdict(y) for name, y in collection.yields.items()})


def _stream(collection: Collection, pooled: Container[str], parquet: Path, rejected: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema(
        [("question_id", text), ("teacher", text), ("text", text), ("repaired", pa.list_(text)), ("pooled", pa.bool_())]
    )
    group: list[Rationale] = []

    def write(table: pq.ParquetWriter) -> None:
        columns = {name: [getattr(r, name) for r in group] for name in schema.names}
        table.write_table(pa.Table.from_pydict(columns, schema=schema))
        group.clear()

    with pq.ParquetWriter(parquet, schema) as table, rejected.open("w", encoding="utf-8") as lines:
        for outcome in collection:
            if isinstance(outcome, Rejection):
                lines.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")
                continue
            group.append(replace(outcome, pooled=outcome.question_id in pooled))
            if len(group) == _ROWS_AT_ONCE:
                write(table)
        write(table)


def read_rationales(folder: Path) -> tuple[Rationale, ...]:
    """Read the rationales of a run folder.

    Raises:
        RunFolderError: they are not there, or the file is damaged; names it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / RATIONALES
    _must_exist(file)
    try:
        rows = pq.read_table(file).to_pylist()
        return tuple(
            Rationale(r["question_id"], r["teacher"], r["text"], tuple(r["repaired"]), bool(r.get("pooled")))
            for r in rows
        )
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise _damaged(file, error) from None


def read_yields(folder: Path) -> dict[str, TeacherYield]:
    """Read what each teacher gave, by name. Keys that this version does not know are left out.

    Raises:
        RunFolderError: the file is not there, or damaged; names it.
    """
    file = folder / _YIELDS
    _must_exist(file)
    known = {f.name for f in fields(TeacherYield)}
    try:
        records: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8"))
        return {name: TeacherYield(**{k: v for k, v in r.items() if k in known}) for name, r in records.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise _damaged(file, error) from None


def _must_exist(file: Path) -> None:
    if not file.is_file():
        raise RunFolderError(f"No {file.name} in {file.parent}: run `tinyllm generate` for this run first.")


def _damaged(file: Path, error: Exception) -> RunFolderError:
    return RunFolderError(f"{file} is damaged ({error}). Run `tinyllm generate` again: stored replies cost nothing.")
