"""Predictions: what a student answered to one question. `predictions.jsonl` keeps one line for each.

This module needs no torch, so that the report can read the file quickly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tinyllm.config import Layout, compares_by_token
from tinyllm.questions.types import Question
from tinyllm.scoring._matching import Generated

Stage = Literal["before", "after"]
View = Literal["asked", "rotated", "choices-only"]
"""How a question is asked; `experiments._views` explains them."""

CONVENTION = "ended"
"""The name of the rules for scoring and matching (docs/decisions/0013-scores.md). Other rules give other figures."""


def leaders(values: Sequence[float]) -> tuple[int, ...]:
    """Return the indices of the highest value: one index, or several where choices tie.

    Scores are float32 numbers. Two choices tie where their numbers are equal.
    """
    top = max(values)
    return tuple(i for i, v in enumerate(values) if v == top)


def credit(values: Sequence[float], answer: int) -> float:
    """Return 1 for a right answer and 0 for a wrong one; 1/k where k choices tie and the right one is among them."""
    best = leaders(values)
    return 1 / len(best) if answer in best else 0.0


@dataclass(frozen=True, slots=True)
class OptionScores:
    """Log-likelihoods (natural logarithm) of the choices of one question (docs/decisions/0013-scores.md).

    Attributes:
        total: of each choice with the end-of-text token after it.
        mean: `total` divided by the number of tokens, the end-of-text token included.
        unended: of each choice without the end-of-text token, as lm-evaluation-harness counts.
        characters: the length of each choice.
    """

    total: tuple[float, ...]
    mean: tuple[float, ...]
    unended: tuple[float, ...] = ()
    characters: tuple[int, ...] = ()

    @property
    def best(self) -> int:
        """The choice with the highest `total`; the first one where several tie."""
        return leaders(self.total)[0]

    @property
    def best_normalised(self) -> int:
        """The choice with the highest `mean`; the first one where several tie."""
        return leaders(self.mean)[0]

    @property
    def acc(self) -> int:
        """The choice that lm-evaluation-harness's `acc` takes; the first one where several tie, as there."""
        return leaders(self.unended)[0]

    @property
    def acc_norm(self) -> int:
        """The choice that lm-evaluation-harness's `acc_norm` takes: by log-likelihood for each character."""
        return leaders([t / n for t, n in zip(self.unended, self.characters, strict=True)])[0]

    def ranking(self, layout: Layout) -> tuple[float, ...]:
        """Return the scores by which this layout ranks choices, before and after training.

        Where the choices are in the prompt, this is `total`. Where they are not, it is `mean`, because a total
        falls with every token.
        """
        return self.mean if compares_by_token(layout) else self.total


@dataclass(slots=True)
class Prediction:
    """One student's answer to one question.

    Attributes:
        stage: before or after training.
        split: `test`, or `train` for questions that the report shows. These count in no accuracy.
        rationales: the rationales that the student wrote, by teacher.
    """

    stage: Stage
    split: Literal["test", "train"]
    question: Question
    likelihood: OptionScores | None = None
    generation: Generated | None = None
    rationales: dict[str, str] = field(default_factory=dict)

    def is_scored(self, scorer: str) -> bool:
        """Whether this scorer was used."""
        return (self.generation if scorer == "generation" else self.likelihood) is not None

    def choice(self, scorer: str) -> int | None:
        """Return the choice by this scorer; None where it was not used, or where the text matches no choice."""
        if scorer == "generation":
            return None if self.generation is None else self.generation.choice
        if self.likelihood is None:
            return None
        return self.likelihood.best if scorer == "likelihood" else self.likelihood.best_normalised

    def mark(self, scorer: str) -> float:
        """Return the mark of the answer by this scorer (see `credit`)."""
        answer = self.question.known_answer
        if scorer == "generation" or self.likelihood is None:
            return float(self.choice(scorer) == answer)
        return credit(self.likelihood.total if scorer == "likelihood" else self.likelihood.mean, answer)

    def as_json(self) -> dict[str, Any]:
        """Return a line of `predictions.jsonl`."""
        q, scores = self.question, self.likelihood
        line: dict[str, Any] = {"stage": self.stage, "split": self.split, "id": q.id, "question": q.question}
        if q.context:
            line["context"] = q.context
        line |= {"choices": list(q.choices), "answer": q.answer}
        if scores is not None:
            line["likelihood"] = {"pred": scores.best, "pred_normalised": scores.best_normalised}
            for name, values in {"tied": scores.total, "tied_normalised": scores.mean}.items():
                if len(best := leaders(values)) > 1:
                    line["likelihood"][name] = list(best)
            line["likelihood"] |= {"acc": scores.acc, "acc_norm": scores.acc_norm}
            for name in ("total", "mean", "unended"):
                # JSON has no infinity.
                line["likelihood"][name] = [round(v, 5) if math.isfinite(v) else None for v in getattr(scores, name)]
        if self.generation is not None:
            line["generation"] = {"text": self.generation.text, "pred": self.generation.choice}
        if self.rationales:
            line["rationales"] = self.rationales
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Prediction:
        """Read a line of `predictions.jsonl`. Unknown keys are ignored.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the line is damaged.
        """
        choices = tuple(map(str, line["choices"]))
        for key, allowed in (("stage", ("before", "after")), ("split", ("test", "train"))):
            if line[key] not in allowed:
                raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {line[key]!r}")
        answer = _index(line["answer"], choices)
        context, written = line.get("context"), line.get("generation")
        question = Question(
            str(line["id"]), str(line["question"]), choices, answer, None if context is None else str(context)
        )
        return cls(
            line["stage"],
            line["split"],
            question,
            _read_scores(line["likelihood"], choices) if line.get("likelihood") is not None else None,
            None if written is None else Generated(str(written["text"]), _index(written.get("pred"), choices)),
            {str(task): str(text) for task, text in (line.get("rationales") or {}).items()},
        )


def _index(value: Any, choices: Sequence[str]) -> int | None:
    if value is None:
        return None
    if not 0 <= int(value) < len(choices):
        raise ValueError(f"choice {value} of {len(choices)}")
    return int(value)


def _read_scores(line: Mapping[str, Any], choices: Sequence[str]) -> OptionScores:
    def values(name: str, *best: Any) -> tuple[float, ...]:
        """Return stored scores. Rounding may have made two of them equal, so all but the stored `best` are lowered."""
        found = [-math.inf if v is None else float(v) for v in line[name]]
        if len(found) != len(choices):
            raise ValueError(f"{len(found)} log-likelihoods for {len(choices)} choices")
        known = {_index(i, choices) for i in best} - {None} or {leaders(found)[0]}
        top = max(found)
        return tuple(math.nextafter(v, -math.inf) if v == top and i not in known else v for i, v in enumerate(found))

    return OptionScores(
        values("total", line["pred"], *line.get("tied") or ()),
        values("mean", line.get("pred_normalised"), *line.get("tied_normalised") or ()),
        tuple(-math.inf if v is None else float(v) for v in line.get("unended") or ()),
        tuple(map(len, choices)),
    )
