"""What a question is, wherever it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from tinyllm.errors import DataError, RunFolderError
from tinyllm.system.files import replacing

Content = tuple[str, str, tuple[str, ...]]

_LEARNT = "learnt.npy"


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question, with or without its answer.

    Attributes:
        answer: 0-based index into `choices`; None: unknown.
        context: text that the question is about, if any. Only the context is ever cut to fit.
        rationales: rationales that came with the data, by teacher.
        opinions: scores of the choices that came with the data, by teacher: weights, or log-probabilities if one is
            below 0. `repr` leaves them out, because fingerprints of earlier versions were made from it.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int | None
    context: str | None = None
    rationales: Mapping[str, str] = field(default_factory=dict)
    opinions: Mapping[str, tuple[float, ...]] = field(default_factory=dict, repr=False)

    @property
    def known_answer(self) -> int:
        """The index of the right choice.

        Raises:
            DataError: it is unknown.
        """
        if self.answer is None:
            raise DataError(f"The question '{self.id}' has no answer, but one is needed here; add it, or leave it out")
        return self.answer

    @property
    def answer_text(self) -> str:
        """The text of the right choice. Raises like `known_answer`."""
        return self.choices[self.known_answer]

    @property
    def content(self) -> Content:
        """The context, the question and the choices, without differences of case, white space and order of choices.

        The context belongs to it: where texts are classified, the same is asked about many.
        """
        folded = [" ".join(text.casefold().split()) for text in (self.context or "", self.question, *self.choices)]
        return folded[0], folded[1], tuple(sorted(folded[2:]))

    @property
    def content_hash(self) -> int:
        """A number of 64 bits that is equal for questions of the same content, in every process.

        A million of them need less memory than the texts.
        """
        digest = hashlib.blake2b(json.dumps(self.content).encode("ascii"), digest_size=8).digest()
        return int.from_bytes(digest, "little")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that was left out (`data.on_invalid: drop`, a copy), and why."""

    split: str
    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Splits:
    """The questions of a run. Large splits are on disk (`_spool`), so iterate over them instead of copying them.

    Attributes:
        warnings: counts of oddities that do not make a row invalid, `no answer` among them.
        more: for training only; without a known answer they are learnt from opinions.
        overlaps: counts of questions of `data.more` that are left out because they are among the other questions
            already, by reason.
    """

    train: Sequence[Question]
    valid: Sequence[Question] = ()
    test: Sequence[Question] = ()
    dropped: tuple[Dropped, ...] = ()
    warnings: Mapping[str, int] = field(default_factory=dict)
    more: Sequence[Question] = ()
    overlaps: Mapping[str, int] = field(default_factory=dict)

    def write_learnt(self, run: Path) -> None:
        """Record in the folder of a run which questions its student was trained on, and which its settings came from.

        The record has a hash of eight bytes for each training and validation question, and no text. With it, a later
        accuracy can leave these questions out.
        """
        import numpy as np

        hashes = np.unique(np.fromiter((q.content_hash for q in chain(self.train, self.more, self.valid)), "<u8"))
        with replacing(run / _LEARNT) as draft, draft.open("wb") as file:
            np.save(file, hashes, allow_pickle=False)

    @staticmethod
    def read_learnt(run: Path) -> Callable[[Question], bool] | None:
        """Return what says whether a question is in the record of `write_learnt`; None if the run has no record.

        A question is in the record if its context, text and choices are the same. The order of the choices, upper case
        and spaces do not count.

        Raises:
            RunFolderError: the record is damaged.
        """
        import numpy as np

        file = run / _LEARNT
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
            code = np.uint64(question.content_hash)
            place = np.searchsorted(hashes, code)
            return bool(place < len(hashes) and hashes[place] == code)

        return is_learnt
