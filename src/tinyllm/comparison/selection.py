"""Choosing settings on the validation questions, never on the test questions: the runs that this needs, and the result.

Where settings are tuned, all candidates are trained with the first seed. The best one on the validation questions is
trained with the other seeds. Where α is swept, this is done for each α, and each α gets all seeds, because the accuracy
by α is a result of its own (the paper's Figure 2). The tables show the α with the best mean over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.records import Record

FAILED = float("-inf")
"""The accuracy of a run that failed."""
ALPHA = "alpha"
"""The key of a swept α in the settings of a run."""

Settings = Mapping[str, Any]
Accuracies = Mapping[tuple[str, int], float]
"""Accuracy of finished runs on the validation questions, by settings (`named`) and seed."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The settings and seeds of one method.

    Attributes:
        alphas: values of α; empty where α is not swept.
        tuned: candidates of other settings; only `{}` where nothing is tuned.
    """

    seeds: tuple[int, ...]
    alphas: tuple[float, ...] = ()
    tuned: tuple[Settings, ...] = ({},)

    @property
    def chooses(self) -> bool:
        """Whether settings are chosen on the validation questions."""
        return self.candidates() > 1

    def by_alpha(self) -> Iterator[list[Settings]]:
        """Yield the candidates of each α."""
        for alpha in self.alphas or (None,):
            yield [dict(t) if alpha is None else {ALPHA: alpha, **t} for t in self.tuned]

    def candidates(self) -> int:
        """Return the number of candidates over all values of α."""
        return max(1, len(self.alphas)) * len(self.tuned)

    def runs(self) -> int:
        """Return the number of runs, with those of candidates."""
        return max(1, len(self.alphas)) * (len(self.tuned) + len(self.seeds) - 1)

    def wanted(self, found: Accuracies) -> list[tuple[Settings, int]]:
        """Return all runs known to be needed, with finished ones. More can become known when these are finished.

        A candidate that failed has the accuracy `FAILED`, so it loses against any other.
        """
        first, *others = self.seeds
        runs: list[tuple[Settings, int]] = []
        for candidates in self.by_alpha():
            runs += [(c, first) for c in candidates]
            best = _best(candidates, [first], found)
            runs += [(best, seed) for seed in others] if best is not None else []
        return runs

    def best_by_alpha(self, found: Accuracies) -> list[Settings]:
        """Return the chosen settings of each α, where they are known."""
        best = (_best(candidates, self.seeds[:1], found) for candidates in self.by_alpha())
        return [b for b in best if b is not None]

    def chosen(self, found: Accuracies) -> Settings | None:
        """Return the settings of a method in the tables; None while unknown, or where all candidates failed."""
        first = self.seeds[:1]
        if not all(len(of) == 1 or _known(of, first, found) for of in self.by_alpha()):
            return None
        return _best(self.best_by_alpha(found), self.seeds, found)


def named(settings: Settings) -> str:
    """Return settings as a text that identifies them."""
    return json.dumps(dict(settings), sort_keys=True)


def _known(candidates: Sequence[Settings], seeds: Sequence[int], found: Accuracies) -> bool:
    return all((named(candidate), seed) in found for candidate in candidates for seed in seeds)


def _best(candidates: Sequence[Settings], seeds: Sequence[int], found: Accuracies) -> Settings | None:
    """Return the candidate with the highest mean accuracy; None unless all accuracies are known.

    Fewer failed seeds come before a higher accuracy. Of equal candidates the first one wins. A candidate whose seeds
    all failed is never returned.
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
    found = ((record, record.accuracy("valid", scorer)) for record in records)
    return {(named(record.settings), record.seed): value for record, value in found if value is not None}
