"""Two or more runs on the same test questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyllm.comparison import Accuracy, Paired, paired
from tinyllm.errors import RunFolderError
from tinyllm.report._browser import scorers
from tinyllm.report._files import RunFiles, read_run

_Key = tuple[str, str, tuple[str, ...], int | None]
"""What makes a question the same in two runs: its id, its text, its choices and its answer."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """A run on the test questions that all runs have.

    Attributes:
        scorer: the run's headline scorer, in words.
        difference: from the first run; None for the first run itself.
        corrected: p after Bonferroni's correction for the number of runs that are compared with the first.
        steps: of the optimiser; None for a student that was not trained.
    """

    run: str
    scorer: str
    accuracy: Accuracy
    difference: Paired | None
    corrected: float | None
    steps: int | None


def compare_runs(folders: Sequence[Path]) -> tuple[_Compared, ...]:
    """Compare trained students with the first one, in pairs, on the test questions that all runs have.

    Each is one training, so how much seeds differ is in no interval: an experiment tests that.

    Raises:
        RunFolderError: a run has no scored test questions, or the runs have none in common.
    """
    runs = [read_run(folder) for folder in folders]
    marks = [_marks(run) for run in runs]
    common = [key for key in marks[0][1] if all(key in found for _, found in marks)]
    if not common:
        raise RunFolderError(
            f"The {len(folders)} runs have no test question in common, so they cannot be compared. Runs of the same "
            "configuration with other settings (--set … --run-dir …) have the same test questions."
        )
    rows = [[found[key] for key in common] for _, found in marks]
    return tuple(
        _Compared(
            str(run.folder),
            scorer,
            Accuracy.of(sum(row), len(row)),
            difference := paired(rows[0], row) if place else None,
            min(1.0, difference.p * (len(rows) - 1)) if difference else None,
            (run.trained or {}).get("steps"),
        )
        for place, (run, (scorer, _), row) in enumerate(zip(runs, marks, rows, strict=True))
    )


def _marks(files: RunFiles) -> tuple[str, Mapping[_Key, float]]:
    """Return the headline scorer of a run, and its mark of each test question after training."""
    tested = [p for p in files.predictions or () if p.split == "test" and p.stage == "after"]
    labels = scorers(by_token=(files.config.get("student") or {}).get("layout") == "cloze")
    for scorer, label in labels.items():
        found = {
            (p.question.id, p.question.question, tuple(p.question.choices), p.question.answer): p.mark(scorer)
            for p in tested
            if p.is_scored(scorer)
        }
        if found:
            return label, found
    if files.is_unscored:
        raise RunFolderError(
            f"{files.folder} cannot be compared: no test question of it has an answer. Give some (data.test)."
        )
    raise RunFolderError(
        f"{files.folder} has no scored test question. `tinyllm evaluate {files.folder}` scores its student."
    )
