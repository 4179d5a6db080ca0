"""Records: what each finished run of an experiment leaves behind, small enough to be kept for ever.

<experiment>/
  experiment.yaml                        what was asked
  cells/<key>/                           one a finished run
    run.json                             what it was, and its figures; written last, so it stands for "done"
    predictions.parquet                  every answer
    train_log.jsonl                      the losses of each step
  failed/<key>.json                      what a run failed of; it is tried again next time
  shared/                                rationales and replies, which runs have in common
  work/                                  runs under way, each a run folder with its log; removed when they are done
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tinyllm.comparison.answers import Answers, Scorer, Split, read_answers
from tinyllm.errors import RunFolderError
from tinyllm.system.files import read_json, read_jsonl
from tinyllm.system.machine import machine_name

EXPERIMENT_FILE = "experiment.yaml"
RUN_FILE = "run.json"
LOG_FILE = "train_log.jsonl"


@dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        method: id of the method, as `step-by-step:flan-t5-xl`.
        settings: what was varied besides method and seed, by its key, as {"train.learning_rate": 1e-4}.
        figures: the run's own, of its training and its time.
        questions: a hash of the test questions; the same for all runs that may be compared.
        learnt: a hash of the training and validation questions; the same, too. Empty in records of before it was kept.
        rationales: a hash of the rationales that were learnt from; empty where there were none.
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

    @cached_property
    def answers(self) -> Answers:
        """Every answer of the run."""
        return read_answers(self.folder)

    @cached_property
    def log(self) -> Sequence[Mapping[str, Any]]:
        """The losses of each step; empty where nothing was trained."""
        return read_jsonl(self.folder / LOG_FILE)

    @property
    def machine(self) -> str:
        """The machine that it was made on."""
        return machine_name(self.figures.get("environment") or {})

    def accuracy(self, split: Split, scorer: Scorer) -> float | None:
        """Return the share of right answers by a scorer; None where it has not seen the split."""
        found = (self.figures.get("accuracy") or {}).get(split) or {}
        return found.get(scorer)

    def as_json(self) -> dict[str, Any]:
        """Return the contents of `run.json`."""
        return {
            "key": self.key,
            "dataset": self.dataset,
            "student": self.student,
            "method": self.method,
            "settings": dict(self.settings),
            "seed": self.seed,
            "questions": self.questions,
            "learnt": self.learnt,
            "rationales": self.rationales,
            "figures": dict(self.figures),
            "config": dict(self.config),
        }


def cells(folder: Path) -> Path:
    """Return where an experiment keeps what is finished."""
    return folder / "cells"


def read_records(folder: Path) -> list[Record]:
    """Read all finished runs of an experiment, in the order of their keys.

    Raises:
        RunFolderError: one of them is damaged.
    """
    return [read_record(file.parent) for file in sorted(cells(folder).glob(f"*/{RUN_FILE}"))]


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that failed, and what of."""

    dataset: str
    student: str
    method: str
    settings: Mapping[str, Any]
    seed: int
    error: str


def failures(folder: Path) -> Path:
    """Return where an experiment keeps what runs failed of."""
    return folder / "failed"


def read_failures(folder: Path) -> list[Failure]:
    """Read what runs failed of, the last time that they were tried."""
    rows = (read_json(file) for file in sorted(failures(folder).glob("*.json")))
    return [
        Failure(r["dataset"], r["student"], r["method"], r["settings"], int(r["seed"]), str(r["error"])) for r in rows
    ]


def read_record(folder: Path) -> Record:
    """Read one finished run.

    Raises:
        RunFolderError: it is damaged.
    """
    raw = read_json(folder / RUN_FILE)
    try:
        return Record(
            folder=folder,
            key=str(raw["key"]),
            dataset=str(raw["dataset"]),
            student=str(raw["student"]),
            method=str(raw["method"]),
            settings=dict(raw["settings"]),
            seed=int(raw["seed"]),
            questions=str(raw["questions"]),
            rationales=str(raw.get("rationales", "")),
            config=dict(raw["config"]),
            figures=dict(raw["figures"]),
            learnt=str(raw.get("learnt", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{folder / RUN_FILE} is damaged ({error!r}); remove {folder}, and the experiment runs it again."
        ) from None
