"""What is learnt of each question: its answer, the teachers' pooled opinion, or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from tinyllm.config import Config, SoftSection
from tinyllm.errors import DataError, RunFolderError
from tinyllm.opinions.files import read_opinions
from tinyllm.opinions.pool import Pooled, pool_opinions
from tinyllm.questions import answered, gather
from tinyllm.questions.types import Question, Splits
from tinyllm.stages.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Taught:
    """The questions that are learnt, each with an answer.

    Attributes:
        questions: those of which the answer is known, and those on which the pooled opinion is trusted, with its choice
            for an answer.
        shares: by question id, what the choices are to get where that is not all for the answer.
        guessed: ids of the questions whose answer is the pooled opinion's choice.
        figures: how the opinions were pooled and what is learnt from them; empty without `train.soft`.
    """

    questions: Sequence[Question]
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    guessed: frozenset[str] = frozenset()
    figures: dict[str, Any] = field(default_factory=dict)


def taught(config: Config, run: RunFolder, splits: Splits) -> Taught:
    """Return what the student learns of the questions of a run.

    Raises:
        RunFolderError: the opinions are not there.
        DataError: no question is left.
    """
    questions = _all(config, splits)
    soft = config.train.soft
    if soft is None:
        return Taught(questions)
    found = _pooled(config, soft, run, splits)
    opinions = found.shuffled(config.train.seed) if soft.shuffle else found.shares
    made = _settled(questions, opinions, soft.weight)
    blank = sum(q.answer is None for q in questions)
    if not len(made.questions):
        raise DataError(
            f"No question is left to train on: of {blank} without an answer, the pooled opinion is less sure than "
            f"train.soft.trust ({found.trust:g}) on {found.untrusted}, and the others have none. Lower it, or "
            "give answers.",
            page="opinions.md#settings-of-trainsoft",
        )
    figures = {
        "weights": found.weights,
        "weights_from": found.weights_from,
        "valid": len(found.valid),
        "valid_accuracy": _accuracy(found.valid),
        "trust": found.trust,
        "untrusted": found.untrusted,
        "with_answer": len(questions) - blank,
        "without_answer": blank,
        "learnt_without_answer": len(made.guessed),
        "shuffled": soft.shuffle,
    }
    return replace(made, figures=figures)


def supposed(config: Config, splits: Splits) -> Sequence[Question]:
    """Return all questions that may be learnt, before there are opinions; an answer that is not known is the first."""
    questions = _all(config, splits)
    if all(q.answer is not None for q in questions):
        return questions
    return gather(q if q.answer is not None else replace(q, answer=0) for q in questions)


def explained(config: Config, run: RunFolder, splits: Splits) -> tuple[Sequence[Question], frozenset[str]]:
    """Return the questions that teachers explain, and which of them have the pooled opinion's choice for an answer."""
    soft = config.train.soft
    if soft is None:
        return splits.train, frozenset()
    known = answered(splits.train)
    if not config.rationales.pooled:
        return known, frozenset()
    asked = _settled(_all(config, splits), _pooled(config, soft, run, splits).shares, soft.weight)
    first = {q.id for q in known}
    return gather(chain(known, (q for q in asked.questions if q.id not in first))), asked.guessed


def pools_by(config: Config) -> bool:
    """Whether validation questions decide how opinions are pooled, or which are trusted."""
    soft = config.train.soft
    return soft is not None and (soft.teachers == "pooled" or soft.trust == "auto")


def soft_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Say how the opinions were pooled, and which questions are learnt from them."""
    if not figures:
        return
    weights = ", ".join(f"{name} {weight:g}" for name, weight in figures["weights"].items())
    right = figures["valid_accuracy"]
    worth = "" if right is None else f"; the pool is right on {100 * right:.1f} % of {figures['valid']} valid questions"
    yield f"opinions pooled with the weights {weights} ({figures['weights_from']}){worth}"
    if blank := figures["without_answer"]:
        left = blank - figures["learnt_without_answer"] - figures["untrusted"]
        yield (
            f"{figures['learnt_without_answer']} of {blank} questions without an answer are learnt from the pool; it "
            f"is less sure than {figures['trust']:.2f} on {figures['untrusted']}, and has no opinion on {left}"
        )
    if figures["shuffled"]:
        yield "train.soft.shuffle: each question has the opinion on another question; this is a control"


def _all(config: Config, splits: Splits) -> Sequence[Question]:
    """Return the questions that may be learnt: without opinions only those whose answer is known."""
    questions = gather(chain(splits.train, splits.more)) if len(splits.more) else splits.train
    needs_answers = config.train.soft is None and splits.warnings.get("no answer")
    return answered(questions) if needs_answers else questions


def _settled(questions: Sequence[Question], opinions: Mapping[str, tuple[float, ...]], weight: float) -> Taught:
    """Return the questions with an answer, or with an opinion, and the shares of their choices."""
    shares: dict[str, tuple[float, ...]] = {}
    guessed: set[str] = set()

    def settled() -> Iterator[Question]:
        for question in questions:
            opinion = opinions.get(question.id)
            if question.answer is not None:
                if opinion is not None and weight > 0:
                    shares[question.id] = _mixed(question.answer, opinion, weight)
                yield question
            elif opinion is not None:
                shares[question.id] = opinion
                guessed.add(question.id)
                yield replace(question, answer=max(range(len(opinion)), key=opinion.__getitem__))

    kept = gather(settled())
    return Taught(kept, shares, frozenset(guessed))


def _mixed(answer: int, opinion: Sequence[float], weight: float) -> tuple[float, ...]:
    """Return (1 - weight) · the right answer + weight · the opinion."""
    return tuple((1 - weight) * (place == answer) + weight * share for place, share in enumerate(opinion))


def _pooled(config: Config, soft: SoftSection, run: RunFolder, splits: Splits) -> Pooled:
    found = {split: tuple(read_opinions(run.path, split)) for split in ("train", "more", "valid")}
    for split in ("train", "more"):
        if len(getattr(splits, split)) and not found[split]:
            raise RunFolderError(
                f"{run.path} has no opinions on the questions of data.{split}, and train.soft learns from them: run "
                "`tinyllm generate` again. What was asked before is not asked again."
            )
    learnt = _all(config, splits), chain(found["train"], found["more"])
    return pool_opinions(soft, tuple(config.opinions.teachers), learnt, (splits.valid, found["valid"]))


def _accuracy(valid: Sequence[tuple[Sequence[float], int]]) -> float | None:
    from tinyllm.scoring.predictions import credit

    return sum(credit(pooled, answer) for pooled, answer in valid) / len(valid) if valid else None
