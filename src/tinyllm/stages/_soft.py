"""What is learnt of each question: its answer, the teachers' pooled opinion, or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any

from tinyllm.config import Config, SoftSection
from tinyllm.errors import DataError, RunFolderError
from tinyllm.opinions import pool
from tinyllm.opinions.files import read_opinions
from tinyllm.questions import answered, gather
from tinyllm.questions.types import Question, Splits
from tinyllm.stages.folder import RunFolder


@dataclass(frozen=True, slots=True)
class _Pooled:
    """The teachers' opinions as one opinion a question.

    Attributes:
        shares: by question id, without the questions that have no answer and are not trusted.
        valid_accuracy: how often the pooled opinion is right on `valid` validation questions; None without any.
        untrusted: questions without an answer on which the pooled opinion is less sure than `trust`.
    """

    shares: Mapping[str, pool.Shares]
    weights: Mapping[str, float]
    weights_from: str
    trust: float
    valid: int
    valid_accuracy: float | None
    untrusted: int


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
    shares: Mapping[str, pool.Shares] = field(default_factory=dict)
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
    opinions = pool.shuffled(found.shares, config.train.seed) if soft.shuffle else found.shares
    made = _settled(questions, opinions, soft.weight)
    blank = sum(q.answer is None for q in questions)
    if not len(made.questions):
        raise DataError(
            f"No question is left to train on: of {blank} without an answer, the pooled opinion is less sure than "
            f"train.soft.trust ({found.trust:g}) on {found.untrusted}, and the others have none. Lower it, or "
            "give answers."
        )
    figures = {name: value for name, value in asdict(found).items() if name != "shares"} | {
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
    if not len(splits.more):
        return splits.train
    return gather(chain(splits.train, splits.more if config.train.soft is not None else answered(splits.more)))


def _settled(questions: Sequence[Question], opinions: Mapping[str, pool.Shares], weight: float) -> Taught:
    """Return the questions with an answer, or with an opinion, and the shares of their choices."""
    shares: dict[str, pool.Shares] = {}
    guessed: set[str] = set()

    def settled() -> Iterator[Question]:
        for question in questions:
            opinion = opinions.get(question.id)
            if question.answer is not None:
                if opinion is not None and weight > 0:
                    shares[question.id] = pool.mixed(question.answer, opinion, weight)
                yield question
            elif opinion is not None:
                shares[question.id] = opinion
                guessed.add(question.id)
                yield replace(question, answer=max(range(len(opinion)), key=opinion.__getitem__))

    kept = gather(settled())
    return Taught(kept, shares, frozenset(guessed))


def _pooled(config: Config, soft: SoftSection, run: RunFolder, splits: Splits) -> _Pooled:
    from tinyllm.scoring.score import credit

    opinions = {split: _by_question(run, split) for split in ("train", "more", "valid")}
    for split in ("train", "more"):
        if len(getattr(splits, split)) and not opinions[split]:
            raise RunFolderError(
                f"{run.path} has no opinions on the questions of data.{split}, and train.soft learns from them: run "
                "`tinyllm generate` again. What was asked before is not asked again."
            )
    questions = _all(config, splits)
    learnt = {**opinions["train"], **opinions["more"]}
    known = _known(splits.valid, opinions["valid"])
    weights, weights_from = _weights(config, soft, known, _known(questions, learnt), tuple(learnt.values()))
    valid = [(pooled, answer) for found, answer in known if (pooled := pool.pool(found, weights)) is not None]
    trust = pool.trusted_from(valid) if soft.trust == "auto" else soft.trust
    blank = {q.id for q in questions if q.answer is None}
    shares: dict[str, pool.Shares] = {}
    untrusted = 0
    for name, found in learnt.items():
        plain, pooled = pool.pool(found, weights), pool.pool(found, weights, soft.temperature)
        if name in blank and plain is not None and max(plain) < trust:
            untrusted += 1
        elif pooled is not None:
            shares[name] = pooled
    right = sum(credit(pooled, answer) for pooled, answer in valid)
    return _Pooled(shares, weights, weights_from, trust, len(valid), right / len(valid) if valid else None, untrusted)


def _by_question(run: RunFolder, split: str) -> dict[str, dict[str, pool.Shares]]:
    """Return the opinions of a split, by question id and teacher."""
    found: dict[str, dict[str, pool.Shares]] = {}
    for opinion in read_opinions(run.path, split):
        found.setdefault(opinion.question_id, {})[opinion.teacher] = opinion.probabilities
    return found


def _known(questions: Sequence[Question], opinions: Mapping[str, pool.Opinions]) -> list[tuple[pool.Opinions, int]]:
    """Return the opinions on questions whose answer is known, each with the answer."""
    if not opinions:
        return []
    return [(found, q.answer) for q in questions if q.answer is not None and (found := opinions.get(q.id))]


def _weights(
    config: Config,
    soft: SoftSection,
    valid: Sequence[tuple[pool.Opinions, int]],
    train: Sequence[tuple[pool.Opinions, int]],
    asked: Sequence[pool.Opinions],
) -> tuple[dict[str, float], str]:
    """Return the weights of the teachers, and where they come from."""
    if soft.teachers != "pooled":
        return dict(soft.teachers), "as train.soft.teachers says"
    teachers = tuple(config.opinions.teachers)
    for split, known in (("validation", valid), ("training", train)):
        if len(known) >= pool.FEW:
            return pool.weights_by_answers(known, teachers), f"learned on {len(known)} {split} questions"
    return pool.weights_by_agreement(asked, teachers), "by the teachers' agreement: too few answers are known"
