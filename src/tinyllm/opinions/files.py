"""`opinions.parquet` in a run folder. It has one row for each question and teacher."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tinyllm.errors import RunFolderError
from tinyllm.opinions.types import Opinion
from tinyllm.system.files import replacing

OPINIONS = "opinions.parquet"
_ROWS_AT_ONCE = 4096


@contextlib.contextmanager
def writing_opinions(folder: Path) -> Iterator[Callable[[str, Mapping[str, Opinion]], None]]:
    """Yield a function that adds the opinions on a question: its split, and the opinions by teacher.

    The file appears at the end of the block, complete. After an error, an earlier file stays unchanged.
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
    rows: list[dict[str, Any]] = []
    with replacing(folder / OPINIONS) as draft, pq.ParquetWriter(draft, schema) as table:

        def flush() -> None:
            table.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        def add(split: str, opinions: Mapping[str, Opinion]) -> None:
            rows.extend({"split": split} | {f.name: getattr(o, f.name) for f in fields(o)} for o in opinions.values())
            if len(rows) >= _ROWS_AT_ONCE:
                flush()

        yield add
        flush()


def read_opinions(folder: Path, split: str = "train") -> Iterator[Opinion]:
    """Yield the opinions of a run on the questions of a split, in the order of the questions.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / OPINIONS
    if not file.is_file():
        raise RunFolderError(
            f"There is no {OPINIONS} in {folder}. Name teachers in `opinions`, and run `tinyllm generate`."
        )
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
            f"{file} is damaged ({error}). Run `tinyllm generate` again. It uses the stored replies and costs nothing."
        ) from None
