"""Choosing settings on the validation questions, never on the test: which runs that takes, and what came out.

Where settings are tuned, all candidates are trained with the first seed, and the best on the validation questions is
trained with the others. Where α is swept, this is done for each α; all of them get every seed, because the curve over α
is a result of its own (the paper's Figure 2), and the α of the table is the best by the mean over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.records import Record

FAILED = float("-inf")
"""Stands for the accuracy of a run that failed."""
ALPHA = "alpha"
"""The key of a swept α among a run's settings."""

Settings = Mapping[str, Any]
Accuracies = Mapping[tuple[str, int], float]
"""Accuracy on the validation questions, by settings (`named`) and seed, of the runs that are finished."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is varied for one method.

    Attributes:
        alphas: values of α; empty where it is not swept.
        tuned: candidates of other settings; exactly one, `{}`, where nothing is tuned.
    """

    seeds: tuple[int, ...]
    alphas: tuple[float, ...] = ()
    tuned: tuple[Settings, ...] = ({},)

    @property
    def chooses(self) -> bool:
        """Whether anything has to be chosen on the validation questions."""
        return self.candidates() > 1

    def by_alpha(self) -> Iterator[list[Settings]]:
        """Yield the candidates of each α."""
        for alpha in self.alphas or (None,):
            yield [dict(t) if alpha is None else {ALPHA: alpha, **t} for t in self.tuned]

    def candidates(self) -> int:
        """Return how many settings there are to choose from, values of α counted in."""
        return max(1, len(self.alphas)) * len(self.tuned)

    def runs(self) -> int:
        """Return how many runs there are in all, candidates included."""
        return max(1, len(self.alphas)) * (len(self.tuned) + len(self.seeds) - 1)


def named(settings: Settings) -> str:
    """Return settings as one word, to tell runs apart by."""
    return json.dumps(dict(settings), sort_keys=True)


def wanted(sweep: Sweep, found: Accuracies) -> list[tuple[Settings, int]]:
    """Return all runs that are known to be needed, finished ones included; more may be known when these are.

    A candidate that failed has the accuracy `FAILED`: it has lost against any that did not.
    """
    first, *others = sweep.seeds
    runs: list[tuple[Settings, int]] = []
    for candidates in sweep.by_alpha():
        runs += [(c, first) for c in candidates]
        best = _best(candidates, [first], found)
        runs += [(best, seed) for seed in others] if best is not None else []
    return runs


def tuned(sweep: Sweep, found: Accuracies) -> list[Settings]:
    """Return the chosen settings of each α, as far as they are known."""
    best = (_best(candidates, sweep.seeds[:1], found) for candidates in sweep.by_alpha())
    return [b for b in best if b is not None]


def chosen(sweep: Sweep, found: Accuracies) -> Settings | None:
    """Return the settings that stand for a method; None as long as they are not known, or where all have failed."""
    first = sweep.seeds[:1]
    if not all(len(of) == 1 or _known(of, first, found) for of in sweep.by_alpha()):
        return None
    return _best(tuned(sweep, found), sweep.seeds, found)


def _known(candidates: Sequence[Settings], seeds: Sequence[int], found: Accuracies) -> bool:
    return all((named(candidate), seed) in found for candidate in candidates for seed in seeds)


def _best(candidates: Sequence[Settings], seeds: Sequence[int], found: Accuracies) -> Settings | None:
    """Return the candidate of the highest mean accuracy, of equals the first; None unless all are known.

    One of which fewer seeds failed comes before one of which more did, and is never of use if all have.
    """
    if len(candidates) == 1:
        return candidates[0]
    if not _known(candidates, seeds, found):
        return None
    ranks = []
    for candidate in candidates:
        values = [v for seed in seeds if (v := found[named(candidate), seed]) > FAILED]
        ranks.append((len(values), sum(values) / len(values) if values else FAILED))
    best = max(ranks, default=(0, FAILED))
    return candidates[ranks.index(best)] if best[0] else None


def accuracies(records: Iterable[Record], scorer: Scorer) -> dict[tuple[str, int], float]:
    """Return the validation accuracies of a method's runs by a scorer."""
    found = {}
    for record in records:
        value = record.accuracy("valid", scorer)
        if value is not None:
            found[named(record.settings), record.seed] = value
    return found
