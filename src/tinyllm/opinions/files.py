"""`opinions.parquet` in a run folder: one row for each question and teacher."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tinyllm.errors import RunFolderError
from tinyllm.opinions.types import Opinion
from tinyllm.system.files import replacing

OPINIONS = "opinions.parquet"
_ROWS_AT_ONCE = 4096


class _Writer:
    """Writes opinions as they come."""

    def __init__(self, table: Any, schema: Any) -> None:
        self._table, self._schema = table, schema
        self._rows: list[dict[str, Any]] = []

    def add(self, split: str, opinions: Mapping[str, Opinion]) -> None:
        """Write what the teachers think of one question."""
        self._rows += [
            {"split": split, **{f.name: getattr(o, f.name) for f in fields(Opinion)}} for o in opinions.values()
        ]
        if len(self._rows) >= _ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        import pyarrow as pa

        self._table.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()


@contextlib.contextmanager
def writing_opinions(folder: Path) -> Iterator[_Writer]:
    """Give what opinions are written with; the file appears whole at the end of the block, or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written; a file that was there before is as it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    schema = pa.schema(
        [
            ("split", text), ("question_id", text), ("teacher", text), ("probabilities", pa.list_(number)),
            ("way", text), ("orders", pa.int32()), ("mass", number),
        ]
    )  # fmt: skip
    with replacing(folder / OPINIONS) as draft, pq.ParquetWriter(draft, schema) as table:
        writer = _Writer(table, schema)
        yield writer
        writer.flush()


def read_opinions(folder: Path, split: str = "train") -> Iterator[Opinion]:
    """Yield the opinions of a run about the questions of a split, in their order.

    Raises:
        RunFolderError: they are not there, or the file is damaged; names it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / OPINIONS
    if not file.is_file():
        raise RunFolderError(f"No {OPINIONS} in {folder}: name teachers in `opinions`, and run `tinyllm generate`.")
    names = [f.name for f in fields(Opinion)]
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=["split", *names]):
                for row in batch.to_pylist():
                    if row["split"] == split:
                        yield Opinion(
                            **{name: row[name] for name in names} | {"probabilities": tuple(row["probabilities"])}
                        )
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{file} is damaged ({error}). Run `tinyllm generate` again: stored replies cost nothing."
        ) from None
