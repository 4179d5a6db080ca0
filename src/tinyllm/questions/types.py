"""What a question is, apart from where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tinyllm.errors import DataError


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question, with or without its answer.

    Attributes:
        answer: 0-based index into `choices`; None: not known.
        context: text that the question is about, if any; the only part that is ever cut to fit.
        rationales: rationales that came with the data, by teacher.
        opinions: scores of the choices that came with the data, by teacher: weights, or log-probabilities where one is
            below 0. Not shown by `repr`, of which fingerprints of earlier versions were made.
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
        """The index of the right choice, for work that cannot do without it.

        Raises:
            DataError: it is not known.
        """
        if self.answer is None:
            raise DataError(
                f"The question '{self.id}' has no answer, and its answer is needed here; give it, or leave it out"
            )
        return self.answer

    @property
    def answer_text(self) -> str:
        """The text of the right choice; raises like `known_answer`."""
        return self.choices[self.known_answer]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that was left out (`data.on_invalid: drop`), and why."""

    split: str
    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Splits:
    """The questions of a run; many of them are on disk (`_spool._Spool`), so go through them rather than copy them.

    Attributes:
        more: for training only; without a known answer they are learnt from opinions.
        warnings: counts oddities that are no reason to leave a row out, `no answer` among them.
        overlaps: questions of `data.more` that are left out because they are a validation or test question, by how near
            they are.
    """

    train: Sequence[Question]
    valid: Sequence[Question] = ()
    test: Sequence[Question] = ()
    dropped: tuple[Dropped, ...] = ()
    warnings: Mapping[str, int] = field(default_factory=dict)
    more: Sequence[Question] = ()
    overlaps: Mapping[str, int] = field(default_factory=dict)
