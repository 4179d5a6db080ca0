"""Break central lines of the package, one at a time, and see the tests go red: `python tests/mutations.py [NAME …]`.

A mutation that no test notices is a line that nothing holds. Each one is made in a copy of the package, so the working
tree stays as it is; the tests named beside it run against the copy. Exit status 1 if any mutation survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    """A line of the package, what is put in its place, and the tests that must notice.

    Attributes:
        file: below src/tinyllm.
        old: a text that stands exactly once in the file.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "loss weight",
        "student/plan.py",
        "return alpha / (count if",
        "return 1.0 / (count if",
        ("tests/student/test_plan.py",),
    ),
    Mutation(
        "token budget",
        "student/plan.py",
        "all(sum(costs[u] for u in g) <= shape.tokens or len(g) == 1 for g in groups)",
        "all(sum(costs[u] for u in g) <= 2 * shape.tokens or len(g) == 1 for g in groups)",
        ("tests/student/test_plan.py",),
    ),
    Mutation(
        "attention mask",
        "student/_attention.py",
        "seen = (back >= 0) & ((key_segments[:, None, :] == PROMPT) | own)",
        "seen = back >= 0",
        ("tests/student/test_attention.py",),
    ),
    Mutation(
        "resume offset",
        "student/train.py",
        "keep_steps=steps_done(resume)",
        "keep_steps=steps_done(resume) + 1",
        ("tests/student/test_train.py",),
    ),
    Mutation(
        "tie",
        "scoring/predictions.py",
        "return 1 / len(best) if answer in best else 0.0",
        "return 1.0 if answer in best else 0.0",
        ("tests/scoring",),
    ),
    Mutation(
        "spending cap",
        "replies/_ledger.py",
        "paid + price > _units(cap.usd)",
        "paid > _units(cap.usd)",
        ("tests/replies", "tests/spending", "tests/faults/test_cap.py"),
    ),
    Mutation(
        "confidence interval",
        "comparison/_statistics.py",
        "half = z * math.sqrt(p * (1 - p) / n + square / (4 * n * n))",
        "half = z * math.sqrt(p * (1 - p) / n)",
        ("tests/comparison/test_statistics.py",),
    ),
    Mutation(
        "HTML escape",
        "report/_page.py",
        "autoescape=True",
        "autoescape=False",
        ("tests/report",),
    ),
    Mutation(
        "lock of a request",
        "replies/_claims.py",
        "if key in self._held or not self._lock(key, fcntl.F_WRLCK):",
        "if key in self._held:",
        ("tests/replies", "tests/faults/test_asked_once.py"),
    ),
    Mutation(
        "checksum of a packaged model",
        "system/packaged.py",
        "if digest != model.sha256:",
        "if len(digest) != len(model.sha256):",
        ("tests/system",),
    ),
)


def is_noticed(mutation: Mutation) -> tuple[bool, str]:
    """Run the tests against a package with the mutation.

    Returns:
        Whether a test failed, and the last line that pytest printed.
    """
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        file = source / "tinyllm" / mutation.file
        file.write_text(file.read_text("utf-8").replace(mutation.old, mutation.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *mutation.tests]
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # such as no test found: nothing was tried
        raise SystemExit(f"{mutation.name}: pytest ended with {done.returncode}.\n{done.stdout}{done.stderr}")
    return done.returncode == 1, done.stdout.strip().rpartition("\n")[2]


def main(names: Sequence[str]) -> int:
    """Try the named mutations, or all; print a line for each."""
    known = {m.name: m for m in MUTATIONS}
    if unknown := set(names) - set(known):
        print(f"Unknown: {', '.join(sorted(unknown))}. Known: {', '.join(known)}.", file=sys.stderr)
        return 2
    survivors = 0
    for mutation in [known[n] for n in names] or MUTATIONS:
        began = time.perf_counter()
        noticed, said = is_noticed(mutation)
        survivors += not noticed
        print(
            f"{'red ' if noticed else 'GREEN'}  {mutation.name}  ({time.perf_counter() - began:.0f} s)  {said}",
            flush=True,
        )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
