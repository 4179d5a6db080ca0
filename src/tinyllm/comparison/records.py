"""Records: the files that each finished run of an experiment leaves.

<experiment>/
  experiment.yaml                        the grid
  cells/<key>/                           one folder for each finished run
    run.json                             the record with its figures; written last, so it means that the run is done
    predictions.parquet                  all answers
    train_log.jsonl                      the losses of each step
  failed/<key>.json                      why a run failed; the next start tries it again
  shared/                                rationales and replies that the runs share
  work/                                  run folders and logs of runs in progress; removed when a run is done
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from tinyllm.comparison._stored import from_json
from tinyllm.comparison.answers import Answers, Scorer, Split
from tinyllm.system.files import read_json, read_jsonl, write_json
from tinyllm.system.machine import machine_name

EXPERIMENT_FILE = "experiment.yaml"
_RUN_FILE = "run.json"
LOG_FILE = "train_log.jsonl"


@dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        method: the id of the method, such as `step-by-step:flan-t5-xl`.
        settings: other settings that vary, by key: {"train.learning_rate": 1e-4}.
        figures: accuracies, and the time and memory of the run.
        questions: hash of the test questions. Only runs with the same hash are compared.
        learnt: hash of the training and validation questions; empty in records of earlier versions.
        rationales: hash of the rationales that the student learnt from; empty without any.
    """

    folder: Path
    key: str
    dataset: str
    student: str
    method: str
    settings: Mapping[str, Any]
    seed: int
    questions: str
    rationales: str
    config: Mapping[str, Any]
    figures: Mapping[str, Any]
    learnt: str = ""

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read one finished run.

        Raises:
            RunFolderError: the record is damaged.
        """
        file = folder / _RUN_FILE
        advice = f"remove {folder}, and the experiment runs it again."
        return from_json(cls, {"rationales": "", **read_json(file), "folder": folder}, file, advice)

    @cached_property
    def answers(self) -> Answers:
        """All answers of the run."""
        return Answers.read(self.folder)

    @cached_property
    def log(self) -> Sequence[Mapping[str, Any]]:
        """The losses of each step; empty for a run without training."""
        return read_jsonl(self.folder / LOG_FILE)

    @property
    def machine(self) -> str:
        """The machine of the run."""
        return machine_name(self.figures.get("environment") or {})

    def accuracy(self, split: Split, scorer: Scorer) -> float | None:
        """Return the share of right answers; None where the split was not scored."""
        found = (self.figures.get("accuracy") or {}).get(split) or {}
        return found.get(scorer)

    def write(self) -> None:
        """Write `run.json`. With it the run counts as finished."""
        contents = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        write_json(self.folder / _RUN_FILE, contents)


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that failed, with the error."""

    dataset: str
    student: str
    method: str
    settings: Mapping[str, Any]
    seed: int
    error: str


def cells(folder: Path) -> Path:
    """Return the folder of an experiment's finished runs."""
    return folder / "cells"


def failures(folder: Path) -> Path:
    """Return the folder of an experiment's failures."""
    return folder / "failed"


def read_records(folder: Path) -> list[Record]:
    """Read all finished runs of an experiment, in the order of their keys.

    Raises:
        RunFolderError: a record is damaged.
    """
    return [Record.read(file.parent) for file in sorted(cells(folder).glob(f"*/{_RUN_FILE}"))]
