"""A student and lm-evaluation-harness: scored by it, or its questions written out for the harness's own command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyllm.config import DataSection
from tinyllm.questions import load_splits, with_answers
from tinyllm.questions.types import Question


def score_by_harness(folder: Path, datasets: Sequence[str], limit: int | None = None) -> dict[str, Any]:
    """Have lm-evaluation-harness score a student on the test questions of datasets; returns its results by name.

    Args:
        folder: a run folder, or the student's own.
        datasets: known names, or `name=folder`.

    Raises:
        MissingDependencyError: the harness is not installed.
    """
    from tinyllm.scoring import harness
    from tinyllm.student.model import read_student, student_folder

    asked = _test_questions(datasets, limit)
    return harness.score(read_student(student_folder(folder)), asked)


def write_harness_tasks(folder: Path, datasets: Sequence[str], out: Path, limit: int | None = None) -> list[Path]:
    """Write the test questions of datasets as tasks of lm-evaluation-harness, in the words that a student is asked.

    Args:
        out: gets a YAML file and the questions of each dataset.
    """
    from tinyllm.scoring.harness import write_task
    from tinyllm.student.model import read_student, student_folder

    card = read_student(student_folder(folder)).card
    return [write_task(out, name, asked, card) for name, asked in _test_questions(datasets, limit).items()]


def _test_questions(datasets: Sequence[str], limit: int | None) -> dict[str, Sequence[Question]]:
    asked = {}
    for given in datasets:
        name, _, place = given.partition("=")
        data = DataSection(folder=Path(place), limit=limit) if place else DataSection(dataset=name, limit=limit)
        asked[name] = with_answers(load_splits(data), ["test"], drop=False).test
    return asked
