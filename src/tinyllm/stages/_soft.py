"""Soft targets: whether a question is learnt from its answer, from the teachers' pooled opinion, or from both."""

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

_ENOUGH = 40  # validation questions; on fewer, an accuracy says little


@dataclass(frozen=True, slots=True)
class Taught:
    """The questions that are learnt, each with an answer.

    Attributes:
        questions: the questions with a known answer, and those that the pooled opinion answers with enough confidence.
            Those get its most likely choice as their answer.
        shares: the target probabilities of the choices, by question id. A question that is not in it has probability 1
            for its answer.
        guessed: the ids of the questions with the pooled opinion's choice as answer.
        figures: how the opinions were pooled, and how many questions are learnt from them. Empty without `train.soft`.
    """

    questions: Sequence[Question]
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    guessed: frozenset[str] = frozenset()
    figures: dict[str, Any] = field(default_factory=dict)


def taught(config: Config, run: RunFolder, splits: Splits) -> Taught:
    """Return the questions of a run that the student learns, with their targets.

    Raises:
        RunFolderError: there are no opinions.
        DataError: no question is left.
    """
    questions = learnable(config, splits)
    soft = config.train.soft
    if soft is None:
        return Taught(questions)
    found = _pooled(config, soft, run, splits)
    opinions = found.shuffled(config.train.seed) if soft.shuffle else found.shares
    made = _settled(questions, opinions, soft.weight)
    blank = sum(q.answer is None for q in questions)
    if not len(made.questions):
        raise DataError(
            f"No question is left to train on. None of the {blank} questions has an answer. On {found.untrusted} of "
            f"them the confidence of the pooled opinion is below train.soft.trust ({found.trust:g}), and the others "
            "have no pooled opinion. Lower train.soft.trust, set weights in train.soft.teachers, or add answers.",
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
        "agreement": found.agreement,
    }
    return replace(made, figures=figures)


def supposed(config: Config, splits: Splits) -> Sequence[Question]:
    """Return all questions that may be learnt, before there are opinions. An unknown answer is set to choice 0."""
    questions = learnable(config, splits)
    if all(q.answer is not None for q in questions):
        return questions
    return gather(q if q.answer is not None else replace(q, answer=0) for q in questions)


def explained(config: Config, run: RunFolder, splits: Splits) -> tuple[Sequence[Question], frozenset[str]]:
    """Return the questions that teachers explain, and the ids of those that the pooled opinion has answered."""
    soft = config.train.soft
    if soft is None:
        return splits.train, frozenset()
    known = answered(splits.train) if uses_answers(config) else ()
    if not config.rationales.pooled:
        return known, frozenset()
    asked = _settled(learnable(config, splits), _pooled(config, soft, run, splits).shares, soft.weight)
    first = {q.id for q in known}
    return gather(chain(known, (q for q in asked.questions if q.id not in first))), asked.guessed


def uses_answers(config: Config) -> bool:
    """Return whether the answers of training questions are used. With opinions alone (a weight of 1) they are not."""
    return config.train.soft is None or config.train.soft.weight < 1


def pools_by(config: Config) -> bool:
    """Return whether validation questions decide the weights of the teachers, or the limit `train.soft.trust`."""
    soft = config.train.soft
    return soft is not None and (soft.teachers == "pooled" or soft.trust == "auto")


def soft_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield messages about the pooling of the opinions and the questions that are learnt from them."""
    if not figures:
        return
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in figures["weights"].items())
    right = figures["valid_accuracy"]
    meaning = "0: not used; above 1: taken as surer than it says, which moves little where it is unsure"
    yield f"weights of the opinions: {weights}, {figures['weights_from']} ({meaning})"
    if right is not None:
        same = ", which set the weights" if str(figures["weights_from"]).startswith("learned on") else ""
        yield f"the pooled opinion is right on {100 * right:.1f} % of {figures['valid']} validation questions{same}"
    if right is None and (agreed := figures.get("agreement")) and agreed[0] <= agreed[1]:
        yield (
            f"the teachers name the same choice on {100 * agreed[0]:.0f} % of the questions, which is no more "
            "than chance. Nothing shows that they know the answers: answer some questions yourself (data.valid; 40 or "
            "more), or take better teachers"
        )
    if blank := figures["without_answer"]:
        left = blank - figures["learnt_without_answer"] - figures["untrusted"]
        low = f"; on {figures['untrusted']} its confidence is below {figures['trust']:.2f}"
        which = "questions without an answer" if figures["with_answer"] else "questions"
        yield (
            f"{figures['learnt_without_answer']} of {blank} {which} are learnt from the pooled opinion alone"
            f"{low if figures['untrusted'] else ''}{f'; {left} have none' if left else ''}"
        )
    if figures["shuffled"]:
        yield "train.soft.shuffle: this is a control. Each question has the opinion on another question"


def weak_teachers(figures: Mapping[str, Any] | None, student: float | None) -> Iterator[str]:
    """Say so if the trained student knows more than the teachers it learnt from.

    Args:
        figures: those of the pooled opinions; empty without any.
        student: its accuracy on the validation questions; None: not known.
    """
    if not figures or figures["valid"] < _ENOUGH or not figures["with_answer"]:
        return
    taught = figures["valid_accuracy"]
    if student is not None and taught is not None and student > taught:
        yield (
            f"the student is right on {100 * student:.0f} % of the validation questions, the opinions that it learnt "
            f"from on {100 * taught:.0f} %. Such opinions may hold it back: compare with `--set train.soft=null`, or "
            "take a better teacher"
        )


def learnable(config: Config, splits: Splits) -> Sequence[Question]:
    """Return the questions that may be learnt.

    Without opinions these are the questions with a known answer. With opinions alone (a weight of 1) no answer is
    known, so that the student learns what it would learn from questions that really have none.
    """
    questions = gather(chain(splits.train, splits.more)) if len(splits.more) else splits.train
    soft = config.train.soft
    if soft is None:
        return answered(questions) if splits.warnings.get("no answer") else questions
    return questions if uses_answers(config) else gather(replace(q, answer=None) for q in questions)


def _settled(questions: Sequence[Question], opinions: Mapping[str, tuple[float, ...]], weight: float) -> Taught:
    """Return the questions that have an answer or an opinion, with the target probabilities of their choices."""
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
    """Return (1 - weight) · (1 for the right answer, 0 for the others) + weight · opinion."""
    return tuple((1 - weight) * (place == answer) + weight * share for place, share in enumerate(opinion))


def _pooled(config: Config, soft: SoftSection, run: RunFolder, splits: Splits) -> Pooled:
    found = {split: tuple(read_opinions(run.path, split)) for split in ("train", "more", "valid")}
    for split in ("train", "more"):
        if len(getattr(splits, split)) and not found[split]:
            raise RunFolderError(
                f"{run.path} has no opinions on the questions of data.{split}, and train.soft needs them. Run `tinyllm "
                "generate` again. Requests that were answered before are not sent again."
            )
    learnt = learnable(config, splits), chain(found["train"], found["more"])
    return pool_opinions(soft, tuple(config.opinions.teachers), learnt, (splits.valid, found["valid"]))


def _accuracy(valid: Sequence[tuple[Sequence[float], int]]) -> float | None:
    from tinyllm.scoring.predictions import credit

    return sum(credit(pooled, answer) for pooled, answer in valid) / len(valid) if valid else None
