"""What choices do to scores: `python -m benchmarks.choices` prints the table in docs/log.md; a minute.

Counts, in the paper's six test sets, the questions of which one choice goes on where another ends, those whose choices
a tokenizer cannot tell apart, and, in the kept runs, the answers that tie.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT
from benchmarks.training.material import DATA
from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.records import read_records
from tinyllm.config import DataSection, StudentSection
from tinyllm.questions import load_splits
from tinyllm.questions.types import Question
from tinyllm.student.encode import Encoder
from tinyllm.student.model import load_tokenizer

_SETS = ("obqa", "arc", "piqa", "riddle", "pubmedqa", "bioasq")


def goes_on(question: Question) -> list[tuple[int, int]]:
    """Return the pairs (shorter, longer) of which the longer choice begins with the whole shorter one."""
    numbered = list(enumerate(question.choices))
    return [(i, k) for i, a in numbered for k, b in numbered if i != k and len(b) > len(a) and b.startswith(a)]


def of_a_set(name: str, encoder: Encoder) -> str:
    """Return a set's row of the first table."""
    test = load_splits(DataSection(dataset=name, folder=DATA / name)).test
    pairs = {q.id: goes_on(q) for q in test}
    longer_right = sum(any(q.known_answer == k for _, k in pairs[q.id]) for q in test)
    alike = sum(encoder.indistinct(q.choices) is not None for q in test)
    return f"| {name} | {len(test):,} | {sum(map(bool, pairs.values()))} | {longer_right} | {alike} |"


def ties(folder: Path, scorer: Scorer) -> dict[str, list[float]]:
    """Return, by dataset, each kept run's share of test questions whose likeliest choices tie, in per cent."""
    found = defaultdict(list)
    for record in read_records(folder):
        scored = record.answers.scored(scorer)
        if scored is not None:
            found[record.dataset].append(100 * float((scored.tied > 1).mean()))
    return found


def main() -> None:
    """Print both tables."""
    tokenizer, config = load_tokenizer(StudentSection(model="smollm2-135m-instruct"))
    encoder = Encoder(tokenizer, is_encoder_decoder=bool(config.is_encoder_decoder))
    print("| test set | questions | a choice goes on where another ends | the longer is right | choices alike |")
    print("|---|---:|---:|---:|---:|")
    for name in _SETS:
        print(of_a_set(name, encoder))
    print("\n| kept runs | score | runs | ties, mean | most |\n|---|---|---:|---:|---:|")
    scorers: tuple[Scorer, ...] = ("likelihood", "likelihood_normalised")
    for folder in sorted(f.parent for f in (ROOT / "results").glob("*/outline.json")):
        for scorer in scorers:
            for dataset, shares in ties(folder, scorer).items():
                mean, most = np.mean(shares), max(shares)
                print(f"| {folder.name}: {dataset} | {scorer} | {len(shares)} | {mean:.2f} % | {most:.2f} % |")


if __name__ == "__main__":
    main()
