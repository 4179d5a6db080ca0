"""Predictions: what a student answered to each question, kept in full so that any figure can be made again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tinyllm.config import EvaluateSection
from tinyllm.questions.types import Question
from tinyllm.scoring.matching import Generated
from tinyllm.scoring.score import (
    OptionScores,
    arithmetic,
    generate_answers,
    generate_texts,
    leaders,
    reasons_for,
    score_options,
)
from tinyllm.student.learner import Learner
from tinyllm.student.model import Student

Stage = Literal["before", "after"]
Update = Callable[[int, int, str], None]


@dataclass(slots=True)
class Prediction:
    """One student's answer to one question.

    Attributes:
        stage: before or after training.
        split: `test`; or `train`, for looking at only, never in an accuracy.
        rationales: the student's own, by the teacher in whose manner it wrote. What it reads before it answers is
            one of them.
    """

    stage: Stage
    split: Literal["test", "train"]
    question: Question
    likelihood: OptionScores | None = None
    generation: Generated | None = None
    rationales: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return a line of `predictions.jsonl`."""
        q = self.question
        line: dict[str, Any] = {"stage": self.stage, "split": self.split, "id": q.id, "question": q.question}
        if q.context:
            line["context"] = q.context
        line |= {"choices": list(q.choices), "answer": q.answer}
        if self.likelihood is not None:
            line["likelihood"] = _likelihood_as_json(self.likelihood)
        if self.generation is not None:
            line["generation"] = {"text": self.generation.text, "pred": self.generation.choice}
        if self.rationales:
            line["rationales"] = self.rationales
        return line


def _likelihood_as_json(scores: OptionScores) -> dict[str, Any]:
    """Return the choices taken, which of them tie where several do, and what they were ranked by."""
    line: dict[str, Any] = {"pred": scores.best, "pred_normalised": scores.best_normalised}
    for name, values in {"tied": scores.total, "tied_normalised": scores.mean}.items():
        if len(best := leaders(values)) > 1:
            line[name] = list(best)
    line |= {"acc": scores.acc, "acc_norm": scores.acc_norm}
    listed = {"total": scores.total, "mean": scores.mean, "unended": scores.unended}
    return line | {name: [_rounded(v) for v in values] for name, values in listed.items()}


def _rounded(value: float) -> float | None:
    """A log-likelihood for a file; JSON has no infinity."""
    return round(value, 5) if math.isfinite(value) else None


def predict(
    stage: Stage,
    student: Student,
    test: Sequence[Question],
    train: Sequence[Question],
    section: EvaluateSection,
    update: Update,
) -> list[Prediction]:
    """Have a student answer questions with every scorer asked for.

    Args:
        train: training questions to answer too, for the report; by one scorer only.
    """
    learner = student.learner(learns=False)
    with arithmetic(learner, section.precision):
        return _predict(stage, student, learner, test, train, section, update)


def _predict(
    stage: Stage,
    student: Student,
    learner: Learner,
    test: Sequence[Question],
    train: Sequence[Question],
    section: EvaluateSection,
    update: Update,
) -> list[Prediction]:
    predictions = [Prediction(stage, "test", q) for q in test] + [Prediction(stage, "train", q) for q in train]
    reasons_as = student.card.reasons_as
    if reasons_as:
        asked = [p.question for p in predictions]
        reasons = reasons_for(student, asked, batch_tokens=section.batch_tokens, progress=update)
        for prediction, reason in zip(predictions, reasons, strict=True):
            prediction.rationales[reasons_as] = reason
    if "likelihood" in section.scorers:
        asked = [p.question for p in predictions]
        scores = score_options(
            student, learner, asked, batch_tokens=section.batch_tokens, progress=update,
            reasons=[p.rationales.get(reasons_as, "") for p in predictions],
        )  # fmt: skip
        for prediction, score in zip(predictions, scores, strict=True):
            prediction.likelihood = score
    tested, taught = predictions[: len(test)], predictions[len(test) :]
    if "generation" in section.scorers:
        written = tested if "likelihood" in section.scorers else predictions
        answers = generate_answers(
            student,
            [p.question for p in written],
            max_new_tokens=section.max_new_tokens,
            batch_tokens=section.batch_tokens,
            progress=update,
            reasons=[p.rationales.get(reasons_as, "") for p in written],
        )
        for prediction, answer in zip(written, answers, strict=True):
            prediction.generation = answer
    if stage == "after":
        shown = [*tested[: section.rationales], *taught[: section.rationales]]
        for teacher in [t for t in student.card.teachers if t != reasons_as] if shown else ():
            texts = generate_texts(
                student,
                [p.question for p in shown],
                task=teacher,
                max_new_tokens=section.max_rationale_tokens,
                batch_tokens=section.batch_tokens,
                progress=update,
            )
            for prediction, text in zip(shown, texts, strict=True):
                prediction.rationales[teacher] = text
    return predictions
