"""Metrics: `metrics.json`, made from kept predictions alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tinyllm.config import Config
from tinyllm.evaluation.predict import Prediction, Stage
from tinyllm.evaluation.statistics import accuracy, chance_rate, majority_right, paired
from tinyllm.questions.types import Splits
from tinyllm.rationales.types import TeacherYield


def evaluation_fingerprint(config: Config, splits: Splits) -> str:
    """Return a hash of what is asked and how it is scored: the same student would be given the same figures."""
    asked = (config.evaluate.model_dump(), tuple(splits.test), tuple(splits.train))
    return hashlib.sha256(repr(asked).encode()).hexdigest()


def metrics(
    config: Config,
    splits: Splits,
    predictions: Sequence[Prediction],
    yields: Mapping[str, TeacherYield],
    train: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the figures of a run, as the contract lays them out."""
    figures: dict[str, Any] = {
        "name": config.name,
        "preset": config.preset,
        "method": config.train.method,
        "student": config.student.model,
        "fingerprint": evaluation_fingerprint(config, splits),
        "accuracy": _accuracies(predictions, "after"),
    }
    if config.evaluate.before:
        figures["before"] = _accuracies(predictions, "before")
        figures["gain"] = _gains(predictions)
    majority = majority_right(splits.train, splits.test)
    figures |= {
        "majority": sum(majority) / len(majority) if majority else 0.0,
        "over_majority": {
            scorer: asdict(paired(majority, right)) for scorer, right in _right(predictions, "after").items()
        },
        "chance": chance_rate(splits.test),
        "teachers": {name: asdict(found) for name, found in yields.items()},
        "train": dict(train),
        "data": {
            **{name: len(getattr(splits, name)) for name in ("train", "valid", "test")},
            "dropped": [asdict(d) for d in splits.dropped],
            "warnings": dict(splits.warnings),
        },
    }
    return figures


def _accuracies(predictions: Sequence[Prediction], stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for scorer, right in _right(predictions, stage).items():
        found[scorer] = asdict(accuracy(right))
    if "generation" in found:
        of_stage = [p for p in predictions if p.stage == stage and p.generation is not None]
        found["generation"]["unparsed"] = sum(p.generation.choice is None for p in of_stage if p.generation)
    return found


def _right(predictions: Sequence[Prediction], stage: Stage) -> dict[str, list[bool]]:
    """Return, by scorer, which test questions were answered right, in the order of the questions."""
    tested = [p for p in predictions if p.stage == stage and p.split == "test"]
    right: dict[str, list[bool]] = {}
    for p in tested:
        if p.likelihood is not None:
            right.setdefault("likelihood", []).append(p.likelihood.best == p.question.known_answer)
            right.setdefault("likelihood_normalised", []).append(
                p.likelihood.best_normalised == p.question.known_answer
            )
        if p.generation is not None:
            right.setdefault("generation", []).append(p.generation.choice == p.question.known_answer)
    return right


def _gains(predictions: Sequence[Prediction]) -> dict[str, Any]:
    before, after = _right(predictions, "before"), _right(predictions, "after")
    return {scorer: asdict(paired(before[scorer], after[scorer])) for scorer in after if scorer in before}
