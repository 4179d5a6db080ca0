"""The questions of a run as JSON for the page's script."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinyllm.rationales.types import Rationale, Rejection
from tinyllm.report._opinions import Shares
from tinyllm.scoring.predictions import Prediction

SCORERS: Mapping[str, str] = {
    "likelihood": "Likelihood",
    "likelihood_normalised": "Likelihood per token",
    "generation": "Generated answer",
}
"""The scorers of metrics.json, and their names on the page."""

MAX_QUESTIONS = 20_000
"""Browsers are slow to open a page with more questions."""

_NOT_SCORED = -1
_SPLITS = ("test", "train")


def scorers(*, by_token: bool) -> dict[str, str]:
    """Return `SCORERS`, first the one that ranks choices. `by_token`: the student is not shown the choices."""
    return dict(sorted(SCORERS.items(), key=lambda item: by_token and item[0] != "likelihood_normalised"))


def question_rows(
    predictions: Sequence[Prediction],
    rationales: Iterable[Rationale],
    rejected: Iterable[Rejection],
    scored_by: Sequence[str],
) -> list[dict[str, Any]]:
    """Return a row for each question, test questions first. Its answers are in the order of the scorers.

    Without predictions, the rows are the questions with rationales, and hold their ids only.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for prediction in predictions:
        row = rows.setdefault((prediction.split, prediction.question.id), _row(prediction))
        row[prediction.stage] = _answered(prediction, scored_by)
    kept, failed = defaultdict(list), defaultdict(list)
    for rationale in rationales:
        note = {"teacher": rationale.teacher, "text": rationale.text}
        kept[rationale.question_id].append(
            note
            | ({"repaired": list(rationale.repaired)} if rationale.repaired else {})
            | ({"pooled": True} if rationale.pooled else {})
        )
    for reply in rejected:
        note = {"teacher": reply.teacher, "reason": reply.reason, "text": reply.text}
        failed[reply.question_id].append(note | ({"opinion": True} if reply.kind == "opinion" else {}))
    if not predictions:
        rows = {("train", name): {"id": name, "split": "train"} for name in [*kept, *failed]}
    for (split, name), row in rows.items():
        if split == "train":  # teachers explain training questions only, and another split can hold the same id
            row |= {"kept": kept[name]} if kept[name] else {}
            row |= {"rejected": failed[name]} if failed[name] else {}
    return sorted(rows.values(), key=lambda row: _SPLITS.index(row["split"]))


def add_opinions(rows: Iterable[dict[str, Any]], opinions: Mapping[tuple[str, str], Mapping[str, Shares]]) -> None:
    """Add to each row the teachers' opinions on its question, the pooled one last.

    Args:
        opinions: by split and id, then by teacher; the name of the pooled one is empty.
    """
    for row in rows:
        if found := opinions.get((row["split"], row["id"])):
            row["opinions"] = [[name, [round(share, 3) for share in shares]] for name, shares in found.items()]


def safe_json(data: Any) -> str:
    """Return JSON without any character that could open or close an HTML element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _row(prediction: Prediction) -> dict[str, Any]:
    q = prediction.question
    row: dict[str, Any] = {"id": q.id, "split": prediction.split, "question": q.question}
    row |= {"choices": list(q.choices), "answer": q.answer}
    return row | ({"context": q.context} if q.context else {})


def _answered(prediction: Prediction, scored_by: Sequence[str]) -> dict[str, Any]:
    choices = [prediction.choice(s) if prediction.is_scored(s) else _NOT_SCORED for s in scored_by]
    answered: dict[str, Any] = {"pred": choices}
    if prediction.likelihood is not None:
        answered["total"] = [_rounded(value, 2) for value in prediction.likelihood.total]
        answered["mean"] = [_rounded(value, 3) for value in prediction.likelihood.mean]
    if prediction.generation is not None:
        answered["text"] = prediction.generation.text
    if prediction.rationales:
        answered["rationales"] = dict(prediction.rationales)
    return answered


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
