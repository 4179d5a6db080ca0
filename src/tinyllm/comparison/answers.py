"""Answers: the choices of a student for each question, as columns of a Parquet file, without the questions' texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinyllm.errors import RunFolderError
from tinyllm.system.files import replacing

if TYPE_CHECKING:
    from tinyllm.scoring.predictions import View

Scorer = Literal["likelihood", "likelihood_normalised", "generation"]
Split = Literal["valid", "test"]
SCORERS: tuple[Scorer, ...] = ("likelihood", "likelihood_normalised", "generation")
_FILE = "predictions.parquet"
_SPLITS: tuple[Split, ...] = ("valid", "test")
_UNPARSED = -1
"""The choice of a text that matches none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One student's answer to one question. Choices are in the order of the data.

    Attributes:
        total, mean: log-likelihood of each choice, and the same per token; None where they were not measured.
        text: what the student wrote; None where it wrote nothing.
        written: the choice that the text matches, if any.
        probabilities: of each choice, at the temperature of the run; None where they were not measured.
    """

    split: Split
    view: View
    id: str
    answer: int
    total: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    text: str | None = None
    written: int | None = None
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Scored:
    """The answers of one student by one scorer, in the order of the questions.

    Attributes:
        ids: ids of the questions, (n,).
        chosen: the choice for each, (n,): the first one where several tie, and -1 where the text matches no choice.
        key: the right choice of each, (n,).
        right: the mark of each, (n,): 1, 0, or 1/k where k choices tie and the right one is among them.
        tied: the number of choices with the highest score, (n,); 1 without a tie.
    """

    ids: NDArray[np.str_]
    chosen: NDArray[np.int64]
    key: NDArray[np.int64]
    right: NDArray[np.float64]
    tied: NDArray[np.int64]

    @property
    def unparsed(self) -> int:
        """The number of texts that match no choice."""
        return int((self.chosen == _UNPARSED).sum())


class Answers:
    """All answers of one run, as columns: split, view, id, answer, total, mean, text, written, probabilities."""

    def __init__(self, table: Any) -> None:
        self.table = table

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> Answers:
        """Return answers as columns."""
        import pyarrow as pa

        rows = list(answers)
        word, numbers = pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.float32())
        kinds = {"split": word, "view": word, "id": pa.string(), "answer": pa.int16(), "total": numbers}
        kinds |= {"mean": numbers, "text": pa.string(), "written": pa.int16(), "probabilities": numbers}
        return cls(pa.table({name: pa.array([getattr(r, name) for r in rows], kind) for name, kind in kinds.items()}))

    @classmethod
    def read(cls, folder: Path) -> Answers:
        """Read `predictions.parquet`.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        file, advice = folder / _FILE, f"remove {folder}, and the experiment runs it again."
        try:
            table = pq.read_table(file)
            if "probabilities" not in table.column_names:  # an earlier version did not keep them
                table = table.append_column("probabilities", pa.nulls(len(table), pa.list_(pa.float32())))
            return cls(table.select([f.name for f in fields(Answer)]))
        except FileNotFoundError:
            raise RunFolderError(f"{file} is not there; {advice}") from None
        except (pa.ArrowException, KeyError, TypeError) as error:
            raise RunFolderError(f"{file} is damaged ({error}); {advice}") from None

    def write(self, folder: Path) -> None:
        """Write `predictions.parquet`."""
        import pyarrow.parquet as pq

        with replacing(folder / _FILE) as draft:
            pq.write_table(self.table, draft, compression="zstd", compression_level=19)

    def scored(self, scorer: Scorer, split: Split = "test", view: View = "asked") -> _Scored | None:
        """Return the answers by one scorer; None where it was not used."""
        rows = self._rows(split, view)
        seen = rows["text" if scorer == "generation" else "total" if scorer == "likelihood" else "mean"]
        if not rows.num_rows or seen.null_count:
            return None
        key, ids = rows["answer"].to_numpy().astype(np.int64), np.array(rows["id"].to_pylist())
        if scorer == "generation":
            chosen = rows["written"].fill_null(_UNPARSED).to_numpy().astype(np.int64)
            return _Scored(ids, chosen, key, (chosen == key).astype(np.float64), np.ones(len(key), np.int64))
        scores = _matrix(seen)
        likeliest = scores == scores.max(axis=1, keepdims=True)
        tied = likeliest.sum(axis=1)
        right = likeliest[np.arange(len(key)), key] / tied
        return _Scored(ids, scores.argmax(axis=1), key, right, tied)

    @property
    def views(self) -> set[str]:
        """The views in which the test questions were asked."""
        rows = zip(self.table["split"].to_pylist(), self.table["view"].to_pylist(), strict=True)
        return {view for split, view in rows if split == "test"}

    def confidence(self, ranked_by: Literal["total", "mean"], temperature: float) -> NDArray[np.float64] | None:
        """Return how likely the student finds the choice it takes of a test question (n,); None without likelihoods."""
        rows = self._rows("test", "asked")
        if not rows.num_rows or rows[ranked_by].null_count:
            return None
        values = _matrix(rows[ranked_by]) / temperature
        shifted = np.exp(values - values.max(axis=1, keepdims=True))
        top: NDArray[np.float64] = 1.0 / shifted.sum(axis=1)
        return top

    def accuracies(self) -> dict[str, dict[str, float]]:
        """Return the share of right answers by split and scorer, in the view `asked`."""
        found: dict[str, dict[str, float]] = {}
        for split in _SPLITS:
            scored = ((scorer, self.scored(scorer, split)) for scorer in SCORERS)
            found[split] = {scorer: float(s.right.mean()) for scorer, s in scored if s is not None}
        return found

    def _rows(self, split: Split, view: View) -> Any:
        import pyarrow.compute as pc

        table = self.table
        return table.filter(pc.and_(pc.equal(table["split"], split), pc.equal(table["view"], view)))


def _matrix(column: Any) -> NDArray[np.float64]:
    """Return lists of numbers as the rows of a matrix. Shorter rows are filled with minus infinity."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().to_numpy()
    matrix = np.full((len(lists), int(lengths.max())), -np.inf)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = lists.flatten().to_numpy()
    return matrix
