"""The files that generation writes into a run folder: `rationales.parquet`, `rejected.jsonl`, `yields.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from collections.abc import Collection as Container
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from tinyllm.errors import RunFolderError
from tinyllm.rationales.collect import Collection
from tinyllm.rationales.types import Rationale, Rejection, TeacherYield
from tinyllm.system.files import replacing, write_json

RATIONALES = "rationales.parquet"
_REJECTED = "rejected.jsonl"
_YIELDS = "yields.json"
_ROWS_AT_ONCE = 4096


def write_rationales(folder: Path, collection: Collection, pooled: Container[str] = ()) -> None:
    """Write the three files while reading the collection. Each appears complete or not at all, the rationales last.

    Args:
        pooled: ids of the questions whose answer is that of the teachers' pooled opinion.
    """
    with replacing(folder / RATIONALES) as parquet:
        with writing_rejections(folder, "rationale") as reject:
            _stream(collection, pooled, parquet, reject)
        write_json(folder / _YIELDS, {name: asdict(found) for name, found in collection.yields.items()})


@contextmanager
def writing_rejections(folder: Path, kind: str) -> Iterator[Callable[[Rejection], None]]:
    """Yield a function that adds a line of a kind to `rejected.jsonl`. Earlier lines of the kind go, others stay."""
    with replacing(folder / _REJECTED) as draft, draft.open("w", encoding="utf-8") as lines:
        if (folder / _REJECTED).is_file():
            with (folder / _REJECTED).open(encoding="utf-8", errors="replace") as earlier:
                lines.writelines(line for line in earlier if _kind_of(line) not in (kind, None))

        def reject(rejection: Rejection) -> None:
            lines.write(json.dumps(asdict(replace(rejection, kind=kind)), ensure_ascii=False) + "\n")

        yield reject
        lines.flush()


def _kind_of(line: str) -> str | None:
    """Return the kind of a line of `rejected.jsonl`; None if it is damaged."""
    try:
        return str(json.loads(line).get("kind", "rationale"))
    except (ValueError, AttributeError):
        return None


def _stream(collection: Collection, pooled: Container[str], parquet: Path, reject: Callable[[Rejection], None]) -> None:
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

    with pq.ParquetWriter(parquet, schema) as table:
        for outcome in collection:
            if isinstance(outcome, Rejection):
                reject(outcome)
                continue
            group.append(replace(outcome, pooled=outcome.question_id in pooled))
            if len(group) == _ROWS_AT_ONCE:
                write(table)
        write(table)


def read_rationales(folder: Path) -> tuple[Rationale, ...]:
    """Read the rationales of a run folder.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _explained(folder / RATIONALES, pa.ArrowException) as file:
        rows = pq.read_table(file).to_pylist()
        return tuple(
            Rationale(r["question_id"], r["teacher"], r["text"], tuple(r["repaired"]), bool(r.get("pooled")))
            for r in rows
        )


def read_yields(folder: Path) -> dict[str, TeacherYield]:
    """Read what each teacher gave, by name. Unknown keys are ignored.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    known = {f.name for f in fields(TeacherYield)}
    with _explained(folder / _YIELDS) as file:
        records: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8"))
        return {name: TeacherYield(**{k: v for k, v in r.items() if k in known}) for name, r in records.items()}


@contextmanager
def _explained(file: Path, *errors: type[Exception]) -> Iterator[Path]:
    """Turn errors of reading the file inside the block into messages for the user."""
    if not file.is_file():
        raise RunFolderError(f"No {file.name} in {file.parent}: run `tinyllm generate` for this run to its end first.")
    damage: tuple[type[Exception], ...] = (ValueError, KeyError, AttributeError, TypeError, *errors)
    try:
        yield file
    except damage as error:
        raise RunFolderError(
            f"{file} is damaged ({error}). Run `tinyllm generate` again: stored replies cost nothing."
        ) from None
