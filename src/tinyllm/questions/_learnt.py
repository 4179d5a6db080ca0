"""The record of the questions that a student has used: eight bytes for each, so it holds no text.

With it, a later accuracy can leave these questions out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tinyllm.errors import RunFolderError
from tinyllm.questions._overlap import content_hash
from tinyllm.questions.types import Question
from tinyllm.system.files import replacing

_FILE = "learnt.npy"


def write_learnt(questions: Iterable[Question], folder: Path) -> None:
    """Write the hashes of the questions, in ascending order."""
    hashes = np.unique(np.fromiter(map(content_hash, questions), "<u8"))
    with replacing(folder / _FILE) as draft, draft.open("wb") as file:
        np.save(file, hashes, allow_pickle=False)


def read_learnt(folder: Path) -> Callable[[Question], bool] | None:
    """Return what says whether a question was used; None if the folder has no record.

    Raises:
        RunFolderError: the record is damaged.
    """
    file = folder / _FILE
    if not file.is_file():
        return None
    try:
        hashes = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunFolderError(
            f"{file}, the record of the questions that the student was trained on, is damaged ({error}). Train the "
            "student again, or remove the file: accuracies then include these questions."
        ) from None

    def is_learnt(question: Question) -> bool:
        code = np.uint64(content_hash(question))
        place = np.searchsorted(hashes, code)
        return bool(place < len(hashes) and hashes[place] == code)

    return is_learnt
