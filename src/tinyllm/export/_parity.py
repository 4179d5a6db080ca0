"""Parity: compares the answers of two programs to the same questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinyllm.comparison import Accuracy, Paired, paired
from tinyllm.errors import StudentError
from tinyllm.export._scores import Progress, silence
from tinyllm.questions.types import Question
from tinyllm.scoring.calibration import probabilities
from tinyllm.scoring.predictions import credit, leaders
from tinyllm.scoring.runtime import Runtime

_TOLERANCES: Mapping[str, tuple[float, float]] = {
    "fp32": (0.005, 0.01), "f32": (0.005, 0.01), "f16": (0.005, 0.03), "bf16": (0.1, 0.2),
    "q8_0": (0.1, 0.2), "int8": (0.15, 0.5), "q4_0": (0.25, 0.7), "q4_k_m": (0.25, 0.7),
}  # fmt: skip
"""The tolerances by precision: the share of choices that may differ, and the largest difference of a probability.

One choice may always differ: of few questions, the share is less than one. With probabilities this close it was a tie,
or nearly.
"""


@dataclass(frozen=True, slots=True)
class Parity:
    """The comparison of an export's answers with the student's own answers.

    Attributes:
        questions: number of questions that both programs answered.
        differing: number of these questions with different choices.
        largest_difference: the largest difference between the two probabilities of a choice.
        allowed_share, allowed_difference: the tolerance of the precision.
        before, after: the accuracy of the student and of the export; None if no answer is known.
        change: the change of the accuracy, paired by question; None if no answer is known.
        same_tokens: whether the tokenizer of the export gives the same tokens; None if the export has no tokenizer of
            its own.
        holds: whether the export is within the tolerance.
        learnt: number of the questions with a known answer that the student was trained on, or its settings chosen by;
            None if the run does not record them.
    """

    questions: int
    differing: int
    largest_difference: float
    allowed_share: float
    allowed_difference: float
    before: Accuracy | None
    after: Accuracy | None
    change: Paired | None
    same_tokens: bool | None
    holds: bool
    learnt: int | None = None


def compare(
    own: Runtime, exported: Runtime, questions: Sequence[Question], precision: str, progress: Progress = silence
) -> Parity:
    """Answer questions with both programs, and compare the answers.

    Args:
        precision: the precision of the export, which determines the tolerance.
        progress: as of `Runtime`. It counts the questions of each program by itself: they differ in speed.

    Raises:
        StudentError: a score of the export is not a finite number.
    """
    layout, temperature = own.card.layout, own.card.temperature

    def ranked(runtime: Runtime, note: str) -> list[tuple[float, ...]]:
        scores = runtime.scores(questions, lambda done, *_: progress(done, len(questions), note))
        return [s.ranking(layout) for s in scores]

    ours, theirs = ranked(own, "by the student"), ranked(exported, "by the export")
    if broken := sum(not all(map(math.isfinite, scores)) for scores in theirs):
        raise StudentError(
            f"The export gives scores that are not numbers for {broken} of {len(questions)} questions. Choose another "
            "precision (--quantize) or another format (--to)."
        )
    differing = sum(leaders(a)[0] != leaders(b)[0] for a, b in zip(ours, theirs, strict=True))
    largest = max(
        abs(p - q)
        for a, b in zip(ours, theirs, strict=True)
        for p, q in zip(probabilities(a, temperature), probabilities(b, temperature), strict=True)
    )
    known = [(a, b, q.answer) for a, b, q in zip(ours, theirs, questions, strict=True) if q.answer is not None]
    marks = [credit(a, answer) for a, _, answer in known], [credit(b, answer) for _, b, answer in known]
    share, difference = _TOLERANCES[precision]
    same_tokens = _tokenizes_alike(exported, questions)
    return Parity(
        questions=len(questions),
        differing=differing,
        largest_difference=round(largest, 6),
        allowed_share=share,
        allowed_difference=difference,
        before=Accuracy.of(sum(marks[0]), len(known)) if known else None,
        after=Accuracy.of(sum(marks[1]), len(known)) if known else None,
        change=paired(marks[0], marks[1]) if known else None,
        same_tokens=same_tokens,
        holds=differing <= max(1, share * len(questions)) and largest <= difference and same_tokens is not False,
    )


def _tokenizes_alike(runtime: Runtime, questions: Sequence[Question]) -> bool | None:
    """Return whether a program's own tokenizer gives the same tokens of all texts; None if it has no tokenizer."""
    tokens: Callable[[str], tuple[int, ...]] | None = getattr(runtime, "tokens", None)
    if tokens is None:
        return None
    texts = [text for q in questions for text in (q.question, q.context or "", *q.choices)]
    return all(runtime.encoder.text(text) == tokens(text) for text in texts)
