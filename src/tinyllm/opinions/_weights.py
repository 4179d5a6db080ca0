"""The weights of the teachers in a pooled opinion, and the confidence from which on it is used without an answer."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinyllm.opinions._reading import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shares = tuple[float, ...]
"""One probability per choice."""

Opinions = Mapping[str, Shares]
"""The opinions on one question, by teacher."""

FEW = 10
"""The smallest number of questions with an answer from which weights are learned."""

_LEAST = 1e-6  # probabilities are at least this, so that a 0 of one teacher does not exclude a choice
_DIGITS = 6  # pooled opinions are rounded, so that they are the same on every machine

_ENOUGH_TEACHERS = 3  # with fewer, agreement does not say how often each teacher is right
_ROUNDS = 100
_Z95 = 1.96
_CONVERGED = 1e-6  # largest change of an accuracy in the last round
_LARGEST_POWER = 50.0
_PARTS = 10  # the limits that are tried: the most confident tenth of the questions, two tenths, …


def pool(opinions: Opinions, weights: Mapping[str, float], temperature: float = 1.0) -> Shares | None:
    """Return the pooled opinion; None if no teacher with a weight above 0 has an opinion."""
    there = [(np.log(np.maximum(shares, _LEAST)), w) for name, shares in opinions.items() if (w := weights.get(name))]
    if not there:
        return None
    rounded = [round(p, _DIGITS) for p in softmax(np.sum([w * logs for logs, w in there], 0) / temperature)]
    return tuple(p / sum(rounded) for p in rounded)


def weights_by_answers(known: Sequence[tuple[Opinions, int]], teachers: Sequence[str]) -> dict[str, float]:
    """Return the weights with the highest likelihood of the known answers.

    The log-likelihood is concave in the weights. Each weight has a normal prior around the plain mean, with a standard
    deviation of 1. So a few questions change the weights little.
    """
    from scipy.optimize import minimize

    most = max(len(shares) for opinions, _ in known for shares in opinions.values())
    logs = np.zeros((len(known), len(teachers), most))  # (N, M, K)
    absent = np.ones((len(known), most), bool)
    for i, (opinions, _) in enumerate(known):
        for name, shares in opinions.items():
            logs[i, teachers.index(name), : len(shares)] = np.log(np.maximum(shares, _LEAST))
            absent[i, : len(shares)] = False
    right = np.array([answer for _, answer in known])
    mean, rows = 1 / len(teachers), np.arange(len(known))

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = np.where(absent, -np.inf, np.einsum("m,nmk->nk", weights, logs))
        scores -= scores.max(1, keepdims=True)
        likely = np.exp(scores)
        likely /= likely.sum(1, keepdims=True)
        value = -np.log(np.maximum(likely[rows, right], 1e-300)).sum() + ((weights - mean) ** 2).sum() / 2
        slope = np.einsum("nk,nmk->m", likely, logs) - logs[rows, :, right].sum(0) + weights - mean
        return float(value), slope

    found = minimize(
        loss, np.full(len(teachers), mean), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(teachers)
    )
    return {name: round(float(w), 4) for name, w in zip(teachers, found.x, strict=True)}


def weights_by_agreement(asked: Sequence[Opinions], teachers: Sequence[str]) -> dict[str, float]:
    """Return weights without any known answer, from the agreement of the teachers.

    The model is that of Dawid and Skene, with one accuracy per teacher. EM fits it to the teachers' first choices. Then
    each teacher gets the weight at which its mean confidence equals its accuracy, divided by the number of teachers. If
    two teachers disagree, nothing says which one is right, so two teachers get equal weights.
    """
    mean = 1 / len(teachers)
    if len(teachers) < _ENOUGH_TEACHERS:
        return dict.fromkeys(teachers, mean)
    # A tie is no vote. Teachers that both take the first of equal choices would seem to agree.
    votes = [{name: (s.index(max(s)), len(s)) for name, s in one.items() if s.count(max(s)) == 1} for one in asked]
    right = _accuracies(votes, teachers)
    of = {name: [one[name] for one in asked if name in one] for name in teachers}
    return {name: round(mean * _power(of[name], right[name]), 4) for name in teachers}


def agreement(asked: Sequence[Opinions]) -> tuple[float, float] | None:
    """Return how often two teachers name the same choice, and the most that chance gives them (97.5 % of the time).

    Chance: each names its choices as often as it does, whatever the question is. A tie names none.
    """
    votes = [{name: s.index(max(s)) for name, s in one.items() if s.count(max(s)) == 1} for one in asked]
    names = sorted({name for one in votes for name in one})
    same, by_chance, count = 0, 0.0, 0
    for first, second in itertools.combinations(names, 2):
        pairs = [(one[first], one[second]) for one in votes if first in one and second in one]
        ours, theirs = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
        same += sum(a == b for a, b in pairs)
        by_chance += sum(ours[place] * theirs[place] for place in ours) / len(pairs) if pairs else 0.0
        count += len(pairs)
    if not count:
        return None
    share = by_chance / count
    return same / count, share + _Z95 * math.sqrt(share * (1 - share) / count)


def _accuracies(votes: Sequence[Mapping[str, tuple[int, int]]], teachers: Sequence[str]) -> dict[str, float]:
    """Return the estimated accuracy of each teacher.

    Args:
        votes: for each question, the first choice of each teacher and the number of choices, by teacher.
    """
    right = dict.fromkeys(teachers, 0.7)
    for _ in range(_ROUNDS):
        hits, asked = dict.fromkeys(teachers, 1.0), dict.fromkeys(teachers, 2.0)
        for one in votes:
            scores: dict[int, float] = {}
            for name, (choice, count) in one.items():
                odds = right[name] * (count - 1) / (1 - right[name])
                scores[choice] = scores.get(choice, 0.0) + math.log(odds)
            count = next(iter(one.values()))[1] if one else 0
            unnamed = count - len(scores)
            total = sum(map(math.exp, scores.values())) + unnamed
            for name, (choice, _count) in one.items():
                hits[name] += math.exp(scores[choice]) / total
                asked[name] += 1
        new = {name: hits[name] / asked[name] for name in teachers}
        moved = max(abs(new[name] - right[name]) for name in teachers)
        right = new
        if moved < _CONVERGED:
            break
    return right


def _power(opinions: Sequence[Shares], right: float) -> float:
    """Return the power of a teacher's opinions at which its mean confidence equals its accuracy `right`."""
    from scipy.optimize import brentq

    if not opinions:
        return 1.0

    def overconfidence(power: float) -> float:
        confidence = (max(softmax([power * math.log(max(p, _LEAST)) for p in shares])) for shares in opinions)
        return sum(confidence) / len(opinions) - right

    if overconfidence(0.0) >= 0:
        return 0.0
    if overconfidence(_LARGEST_POWER) <= 0:
        return _LARGEST_POWER
    return float(brentq(overconfidence, 0.0, _LARGEST_POWER))


def trusted_from(known: Sequence[tuple[Shares, int]]) -> float:
    """Return the lowest confidence at which a pooled opinion is used; 0 if all are used, 1 if none is.

    The most confident tenth of the questions is tried, then two tenths, and so on. The part with the most information
    about the answers is taken: its size, times the information in one choice of its accuracy (the capacity of a
    symmetric channel). With fewer than `FEW` questions, nothing can be measured, and all opinions are used.
    """
    if len(known) < FEW:
        return 0.0
    confidences = sorted((max(shares) for shares, _ in known), reverse=True)
    best, least = 0.0, 1.0
    for part in range(_PARTS, 0, -1):
        limit = confidences[-(-len(known) * part // _PARTS) - 1]
        taken = [one for one in known if max(one[0]) >= limit]
        if len(taken) >= FEW and (found := _information(taken)) > best:
            best, least = found, 0.0 if part == _PARTS else min(limit, 1 - _LEAST)  # 1 would be: none is used
    return least


def _information(known: Sequence[tuple[Shares, int]]) -> float:
    """Return the information about the answers in the first choices of some opinions, in nats."""
    entropy = sum(math.log(len(shares)) for shares, _ in known) / len(known)
    chance = math.exp(-entropy)
    # Where choices tie, each counts as part of the first choice: a teacher without an opinion is right by chance.
    hits = sum((shares[answer] == max(shares)) / shares.count(max(shares)) for shares, answer in known)
    right = (hits + chance) / (len(known) + 1)
    if right <= chance + _CONVERGED:
        return 0.0
    others = sum(math.log(len(shares) - 1) for shares, _ in known) / len(known)
    return len(known) * (entropy + right * math.log(right) + (1 - right) * (math.log(1 - right) - others))
