"""The questions of a run as data for the page's script: small, plain JSON that cannot end its element."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinyllm.rationales.types import Rationale, Rejection
from tinyllm.report._files import Prediction

SCORERS: Mapping[str, str] = {
    "likelihood": "Likelihood",
    "likelihood_normalised": "Likelihood per token",
    "generation": "Generated answer",
}
"""The scorers of metrics.json and their names on the page."""

MAX_QUESTIONS = 20_000
"""More would make a page that browsers open slowly."""

_NOT_SCORED = -1
_SPLITS = ("test", "valid", "train")


def scorers(*, by_token: bool) -> dict[str, str]:
    """Return `SCORERS`, the chief one first: per token for a student that is not shown the choices, as it is asked."""
    return dict(sorted(SCORERS.items(), key=lambda item: by_token and item[0] != "likelihood_normalised"))


def choice_of(prediction: Prediction, scorer: str) -> int | None:
    """Return the choice that a scorer takes as the student's answer: None unreadable, -1 not scored."""
    if scorer == "generation":
        return _NOT_SCORED if prediction.generation is None else prediction.generation.pred
    if prediction.likelihood is None:
        return _NOT_SCORED
    return prediction.likelihood.pred if scorer == "likelihood" else prediction.likelihood.pred_normalised


def mark(prediction: Prediction, scorer: str) -> float:
    """Return the mark that a scorer gives: 1 right, 0 wrong, 1/k where k choices tie and the right one is of them."""
    scores = prediction.likelihood
    tied = (
        ()
        if scores is None
        else {"likelihood": scores.tied, "likelihood_normalised": scores.tied_normalised}.get(scorer)
    )
    if tied:
        return 1 / len(tied) if prediction.answer in tied else 0.0
    return float(choice_of(prediction, scorer) == prediction.answer)


def is_scored(prediction: Prediction, scorer: str) -> bool:
    """Whether the scorer has seen this prediction."""
    return choice_of(prediction, scorer) != _NOT_SCORED


def question_rows(
    predictions: Sequence[Prediction],
    rationales: Iterable[Rationale],
    rejected: Iterable[Rejection],
    scored_by: Sequence[str],
) -> list[dict[str, Any]]:
    """Return one row a question, test questions first; its answers are in the order of the scorers.

    Without any predictions yet, the rows are the questions that have rationales, with nothing but their ids.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for prediction in predictions:
        row = rows.setdefault((prediction.split, prediction.id), _row(prediction))
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
        failed[reply.question_id].append({"teacher": reply.teacher, "reason": reply.reason, "text": reply.text})
    if not predictions:
        rows = {("train", name): {"id": name, "split": "train"} for name in [*kept, *failed]}
    for (split, name), row in rows.items():
        if split == "train":  # teachers are asked about no others, and ids may return in another split
            row |= {"kept": kept[name]} if kept[name] else {}
            row |= {"rejected": failed[name]} if failed[name] else {}
    return sorted(rows.values(), key=_split_order)


def island(rows: Sequence[Mapping[str, Any]], teachers: Sequence[str], scored_by: Mapping[str, str]) -> str:
    """Return the JSON that the page's script reads."""
    data = {"scorers": list(scored_by.items()), "teachers": list(teachers), "questions": rows}
    return safe_json(data)


def safe_json(data: Any) -> str:
    """Return JSON that holds no character with which HTML could end or open anything."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": prediction.id,
        "split": prediction.split,
        "question": prediction.question,
        "choices": list(prediction.choices),
        "answer": prediction.answer,
    }
    return row | ({"context": prediction.context} if prediction.context else {})


def _answered(prediction: Prediction, scored_by: Sequence[str]) -> dict[str, Any]:
    answered: dict[str, Any] = {"pred": [choice_of(prediction, scorer) for scorer in scored_by]}
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


def _split_order(row: Mapping[str, Any]) -> int:
    return _SPLITS.index(row["split"]) if row["split"] in _SPLITS else len(_SPLITS)
