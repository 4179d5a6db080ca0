"""Pooling: the opinions of several teachers on a question become one opinion. Pure.

The pooled opinion is proportional to the product of the teachers' opinions, each to the power of its weight. A weight
measures how much a teacher knows, and also corrects over- or underconfidence. See docs/decisions/0019-soft-targets.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tinyllm.config import SoftSection
from tinyllm.opinions._weights import (
    FEW,
    Opinions,
    Shares,
    agreement,
    pool,
    trusted_from,
    weights_by_agreement,
    weights_by_answers,
)
from tinyllm.opinions.types import Opinion
from tinyllm.questions import Question


@dataclass(frozen=True, slots=True)
class Pooled:
    """The pooled opinions on the questions of a run.

    Attributes:
        shares: the pooled opinions by question id, at the temperature of the settings. Questions without an answer are
            left out if the pooled opinion is less confident than `trust`.
        weights: the weight of each teacher.
        weights_from: the source of the weights, as text.
        trust: the lowest confidence at which a question without an answer is learnt.
        untrusted: number of questions without an answer on which the pooled opinion is less confident.
        valid: the pooled opinions on validation questions, each with the answer.
        agreement: how often two teachers name the same choice, and how often they would by chance; None where no two
            teachers were asked the same question.
    """

    shares: Mapping[str, Shares]
    weights: Mapping[str, float]
    weights_from: str
    trust: float
    untrusted: int
    valid: Sequence[tuple[Shares, int]]
    agreement: tuple[float, float] | None = None

    def shuffled(self, seed: int) -> dict[str, Shares]:
        """Return the opinions, moved among the questions with the same number of choices.

        No question keeps its own opinion, unless it is the only one with this number of choices.
        """
        alike: dict[int, list[str]] = {}
        for name, shares in self.shares.items():
            alike.setdefault(len(shares), []).append(name)
        moved: dict[str, Shares] = {}
        for count, names in alike.items():
            random.Random(f"{seed} {count}").shuffle(names)
            moved |= dict(zip(names, (self.shares[name] for name in [*names[1:], *names[:1]]), strict=True))
        return moved


def pool_opinions(
    section: SoftSection,
    teachers: Sequence[str],
    learnt: tuple[Sequence[Question], Iterable[Opinion]],
    valid: tuple[Sequence[Question], Iterable[Opinion]],
) -> Pooled:
    """Pool the opinions on the questions that are learnt.

    Args:
        teachers: the names of the teachers that have opinions.
        learnt, valid: the training questions and the validation questions, each with the opinions on them.
    """
    # Opinions on other questions are left out. `shuffled` would give an out-of-fold student those of its own fold.
    asked = {q.id for q in learnt[0]}
    opinions = {name: found for name, found in _by_question(learnt[1]).items() if name in asked}
    known = _known(valid[0], _by_question(valid[1]))
    weights, weights_from = _weights(section, teachers, known, _known(learnt[0], opinions), tuple(opinions.values()))
    tried = [(pooled, answer) for found, answer in known if (pooled := pool(found, weights)) is not None]
    trust = trusted_from(tried) if section.trust == "auto" else section.trust
    blank = {q.id for q in learnt[0] if q.answer is None}
    shares: dict[str, Shares] = {}
    untrusted = 0
    for name, found in opinions.items():
        plain, pooled = pool(found, weights), pool(found, weights, section.temperature)
        if name in blank and plain is not None and (max(plain) < trust or trust == 1):
            untrusted += 1
        elif pooled is not None:
            shares[name] = pooled
    return Pooled(shares, weights, weights_from, trust, untrusted, tried, agreement(tuple(opinions.values())))


def _by_question(opinions: Iterable[Opinion]) -> dict[str, dict[str, Shares]]:
    """Return opinions by question id and teacher."""
    found: dict[str, dict[str, Shares]] = {}
    for opinion in opinions:
        found.setdefault(opinion.question_id, {})[opinion.teacher] = opinion.probabilities
    return found


def _known(questions: Sequence[Question], opinions: Mapping[str, Opinions]) -> list[tuple[Opinions, int]]:
    """Return the opinions on the questions with a known answer, each with that answer."""
    if not opinions:
        return []
    return [(found, q.answer) for q in questions if q.answer is not None and (found := opinions.get(q.id))]


def _weights(
    section: SoftSection,
    teachers: Sequence[str],
    valid: Sequence[tuple[Opinions, int]],
    train: Sequence[tuple[Opinions, int]],
    asked: Sequence[Opinions],
) -> tuple[dict[str, float], str]:
    """Return the weights of the teachers, and a text about the source of the weights."""
    if section.teachers != "pooled":
        return dict(section.teachers), "set in train.soft.teachers"
    for split, known in (("validation", valid), ("training", train)):
        if len(known) >= FEW:
            return weights_by_answers(known, teachers), f"learned on {len(known)} {split} questions"
    if len(teachers) == 1:
        return weights_by_agreement(asked, teachers), "because it is the only teacher and too few answers are known"
    return weights_by_agreement(asked, teachers), "from the teachers' agreement, because too few answers are known"
