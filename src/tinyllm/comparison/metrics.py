"""Metrics: the contents of `metrics.json`, made from predictions only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tinyllm.comparison._seeds import Calibration, calibration
from tinyllm.comparison._statistics import Accuracy, chance_rate, majority_right, paired
from tinyllm.comparison.answers import SCORERS
from tinyllm.config import Config
from tinyllm.questions.types import Splits
from tinyllm.rationales.types import TeacherYield
from tinyllm.scoring.calibration import probabilities
from tinyllm.scoring.predictions import CONVENTION, OptionScores, Prediction, Stage, credit, leaders


def evaluation_fingerprint(config: Config, splits: Splits) -> str:
    """Return a hash of the questions and the scoring. With the same hash, the same student gets the same figures."""
    asked = (
        CONVENTION,
        config.evaluate.model_dump(),
        tuple(splits.test),
        tuple(splits.train[: config.evaluate.train_questions]),
        majority_right(splits.train, splits.test),
    )
    return hashlib.sha256(repr(asked).encode()).hexdigest()


def metrics(
    config: Config,
    splits: Splits,
    predictions: Sequence[Prediction],
    yields: Mapping[str, TeacherYield],
    train: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the figures of a run."""
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
        before, after = (_marks(_tested(predictions, stage)) for stage in ("before", "after"))
        figures["gain"] = {by: asdict(paired(before[by], after[by])) for by in after if by in before}
    stages: tuple[Stage, ...] = ("before", "after") if config.evaluate.before else ("after",)
    majority = majority_right(splits.train, splits.test)
    figures |= {
        "calibration": _calibration(config, predictions, float(train.get("temperature", 1.0))),
        "lm_eval": {stage: _of_the_harness(predictions, stage) for stage in stages},
        "majority": sum(majority) / len(majority) if majority else 0.0,
        "over_majority": {
            scorer: asdict(paired(majority, marks)) for scorer, marks in _marks(_tested(predictions, "after")).items()
        },
        "chance": chance_rate(splits.test),
        "teachers": {name: asdict(found) for name, found in yields.items()},
        "train": dict(train),
        "data": {
            **{name: len(getattr(splits, name)) for name in ("train", "more", "valid", "test")},
            "dropped": [asdict(d) for d in splits.dropped],
            "warnings": dict(splits.warnings),
            "overlaps": dict(splits.overlaps),
        },
    }
    return figures


def _accuracies(predictions: Sequence[Prediction], stage: Stage) -> dict[str, Any]:
    tested = _tested(predictions, stage)
    marks = _marks(tested)
    found: dict[str, Any] = {scorer: asdict(Accuracy.of(sum(of), len(of))) for scorer, of in marks.items()}
    scores = [p.likelihood for p in tested if p.likelihood is not None]
    if scores:
        found["likelihood"]["ties"] = sum(len(leaders(s.total)) > 1 for s in scores)
        found["likelihood_normalised"]["ties"] = sum(len(leaders(s.mean)) > 1 for s in scores)
    if "generation" in found:
        found["generation"]["unparsed"] = sum(p.generation.choice is None for p in tested if p.generation)
    return found


def _tested(predictions: Sequence[Prediction], stage: Stage) -> list[Prediction]:
    return [p for p in predictions if p.stage == stage and p.split == "test"]


def _marks(tested: Sequence[Prediction]) -> dict[str, list[float]]:
    """Return the mark for each test question, by the scorers that were used."""
    found = {scorer: [p.mark(scorer) for p in tested if p.is_scored(scorer)] for scorer in SCORERS}
    return {scorer: marks for scorer, marks in found.items() if marks}


def _of_the_harness(predictions: Sequence[Prediction], stage: Stage) -> dict[str, Any]:
    """Return `acc` and `acc_norm` as lm-evaluation-harness counts: without end of text, and the first of equals."""
    scored = _likelihoods(predictions, stage)
    if not scored:
        return {}
    right = {
        "acc": sum(s.acc == answer for s, answer in scored),
        "acc_norm": sum(s.acc_norm == answer for s, answer in scored),
    }
    return {name: asdict(Accuracy.of(count, len(scored))) for name, count in right.items()}


def _likelihoods(predictions: Sequence[Prediction], stage: Stage) -> list[tuple[OptionScores, int]]:
    """Return the scores of each test question that has some, with its right answer."""
    tested = _tested(predictions, stage)
    return [(p.likelihood, p.question.known_answer) for p in tested if p.likelihood is not None]


def _calibration(config: Config, predictions: Sequence[Prediction], temperature: float) -> dict[str, Any]:
    """Return how far the trained student's probabilities can be believed, with its temperature and without."""
    ranked = [(s.ranking(config.student.layout), answer) for s, answer in _likelihoods(predictions, "after")]
    if not ranked:
        return {}
    right = np.array([credit(scores, answer) for scores, answer in ranked])

    def believed(at: float) -> Calibration:
        return calibration(np.array([max(probabilities(scores, at)) for scores, _ in ranked]), right)

    found, plain = believed(temperature), believed(1.0)
    return {
        "temperature": temperature,
        "ece": found.error,
        "ece_uncalibrated": plain.error,
        "reliability": [asdict(b) for b in found.bins],
        "reliability_uncalibrated": [asdict(b) for b in plain.bins],
        "n": len(ranked),
    }
