"""The weights of teachers in a pooled opinion, and from which confidence on it is trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinyllm.opinions._reading import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shares = tuple[float, ...]
"""One probability a choice."""

Opinions = Mapping[str, Shares]
"""What teachers think of one question, by teacher."""

FEW = 10
"""Questions with an answer; from fewer nothing is learned."""

_LEAST = 1e-6  # a probability of 0 must not decide alone
_ROUNDED = 6  # digits, so that the same opinions give the same targets on every machine
_COINS = 3  # teachers, from which on their agreement tells how often each is right
_ROUNDS = 100
_STILL = 1e-6  # change of an accuracy
_SHARPEST = 50.0
_PARTS = 10  # of the questions, one more of which is trusted at each try


def pool(opinions: Opinions, weights: Mapping[str, float], temperature: float = 1.0) -> Shares | None:
    """Return the pooled opinion; None where no teacher with a weight has one."""
    there = [(np.log(np.maximum(shares, _LEAST)), w) for name, shares in opinions.items() if (w := weights.get(name))]
    if not there:
        return None
    rounded = [round(p, _ROUNDED) for p in softmax(np.sum([w * logs for logs, w in there], 0) / temperature)]
    return tuple(p / sum(rounded) for p in rounded)


def weights_by_answers(known: Sequence[tuple[Opinions, int]], teachers: Sequence[str]) -> dict[str, float]:
    """Return the weights under which the pooled opinion gives the right choices most probability.

    The log-likelihood is concave in the weights. Few questions move the weights little from those of the plain mean:
    each is taken to lie around it with a deviation of 1.
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
    """Return weights where no answer is known: by how often each teacher is right, as far as agreement tells it.

    Dawid and Skene's model with one accuracy a teacher, fitted by EM to the choices that the teachers like best. Then
    each teacher's opinions are made as sure as it is right, and the mean of the logarithms is taken. Two teachers who
    disagree do not tell who is right, so they have equal weights.
    """
    mean = 1 / len(teachers)
    if len(teachers) < _COINS:
        return dict.fromkeys(teachers, mean)
    votes = [{name: (max(range(len(s)), key=s.__getitem__), len(s)) for name, s in one.items()} for one in asked]
    right = _accuracies(votes, teachers)
    of = {name: [one[name] for one in asked if name in one] for name in teachers}
    return {name: round(mean * _power(of[name], right[name]), 4) for name in teachers}


def _accuracies(votes: Sequence[Mapping[str, tuple[int, int]]], teachers: Sequence[str]) -> dict[str, float]:
    """Return how often each teacher is right; `votes` are its choice and how many there are, by teacher."""
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
        if moved < _STILL:
            break
    return right


def _power(opinions: Sequence[Shares], right: float) -> float:
    """Return the power that makes a teacher's mean confidence equal to how often it is right."""
    from scipy.optimize import brentq

    if not opinions:
        return 1.0

    def too_sure(power: float) -> float:
        sure = (max(softmax([power * math.log(max(p, _LEAST)) for p in shares])) for shares in opinions)
        return sum(sure) / len(opinions) - right

    if too_sure(0.0) >= 0:
        return 0.0
    return float(brentq(too_sure, 0.0, _SHARPEST)) if too_sure(_SHARPEST) > 0 else _SHARPEST


def trusted_from(known: Sequence[tuple[Shares, int]]) -> float:
    """Return the least confidence of a pooled opinion that is worth learning from; 0: all are.

    Of the most confident tenth, two tenths, … of the questions that part is taken which tells most of the answers:
    its size, times what one choice tells that is right so often (the capacity of a symmetric channel).
    """
    ordered = sorted(known, key=lambda one: -max(one[0]))
    best, least = -1.0, 0.0
    for part in range(_PARTS, 0, -1):
        taken = ordered[: -(-len(ordered) * part // _PARTS)]
        if len(taken) < FEW or (told := _told(taken)) <= best:
            continue
        best, least = told, 0.0 if part == _PARTS else max(taken[-1][0])
    return round(least, _ROUNDED)


def _told(known: Sequence[tuple[Shares, int]]) -> float:
    """Return what the first choices of some opinions tell of the answers, in nats."""
    right = (sum(max(shares) == shares[answer] for shares, answer in known) + 0.5) / (len(known) + 1)
    entropy = sum(math.log(len(shares)) for shares, _ in known) / len(known)
    others = sum(math.log(len(shares) - 1) for shares, _ in known) / len(known)
    told = entropy + right * math.log(right) + (1 - right) * (math.log(1 - right) - others)
    is_better = right > math.exp(-entropy)
    return len(known) * max(0.0, told) if is_better else 0.0
