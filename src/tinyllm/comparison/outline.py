"""The outline of an experiment: what its report needs besides the runs. It is written when the experiment starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tinyllm.comparison._stored import from_json
from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.selection import Sweep
from tinyllm.system.files import read_json, write_json

_FILE = "outline.json"
AVERAGE = "Average"
"""Used in place of a dataset's name for the mean over all datasets."""

Kind = Literal["reference", "method", "router", "ablation", "control"]


@dataclass(frozen=True, slots=True)
class MethodOutline:
    """One method of an experiment, on all its datasets.

    Attributes:
        like: the known method that it is based on.
        kind: decides the table. A `reference` is not trained, and is not tested against the baseline.
        datasets: the datasets of its runs. Some teachers are known on some datasets only.
        settings: its own settings without `train.method`. A control is compared with the method that has the same
            settings. None in outlines of earlier versions.
    """

    id: str
    like: str
    label: str
    kind: Kind
    sweep: Sweep
    datasets: tuple[str, ...]
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class DatasetOutline:
    """Facts of a dataset.

    Attributes:
        chance: accuracy of guessing on the test questions.
        majority: accuracy of always giving the most frequent answer of the training questions.
        exact, ngram: ids of test questions that overlap with training questions (`questions.HeldOut`).
        valid_exact, valid_ngram: ids of test questions that overlap with validation questions.
        majority_right: ids of the test questions that the most frequent answer gets right. None in outlines of earlier
            versions.
        teachers: what each teacher gave, as in `yields.json`.
        data: the section `data` of the configuration, to show the texts of questions.
        rationales: the folder of the rationales, relative to the experiment's folder.
    """

    questions: Mapping[str, int]
    chance: float
    majority: float
    exact: tuple[str, ...]
    ngram: tuple[str, ...]
    teachers: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any]
    rationales: str | None = None
    valid_exact: tuple[str, ...] = ()
    valid_ngram: tuple[str, ...] = ()
    majority_right: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Outline:
    """What an experiment compares.

    Attributes:
        students: the model of each student, by name.
        baseline: the id of the method that others are compared with.
        scorer: the accuracy of the tables, the tests and all choices of settings.
        quoted: accuracies from elsewhere in per cent, by label and dataset.
    """

    name: str
    datasets: Mapping[str, DatasetOutline]
    students: Mapping[str, str]
    methods: tuple[MethodOutline, ...]
    baseline: str
    seeds: tuple[int, ...]
    scorer: Scorer = "likelihood"
    quoted: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Outline:
        """Read `outline.json` of an experiment.

        Raises:
            RunFolderError: the file is missing or damaged.
        """
        file = folder / _FILE
        return from_json(cls, read_json(file), file, "start the experiment again to write a new one.")

    def write(self, folder: Path) -> None:
        """Write `outline.json`."""
        write_json(folder / _FILE, asdict(self))

    def twin(self, control: MethodOutline) -> MethodOutline | None:
        """Return the method that differs from a control only in what the control takes away; None without any.

        For shuffled opinions it is the method with the opinions as they are, else the TinyLLM method with the same
        settings. Of several, one with the same candidates is preferred. Where an old outline holds no settings, there
        must be exactly one TinyLLM method.
        """
        like, settings = "tinyllm", control.settings
        train = dict((settings or {}).get("train") or {})
        if (train.get("soft") or {}).get("shuffle"):
            train["soft"] = {key: value for key, value in train["soft"].items() if key != "shuffle"}
            like, settings = control.like, {**(settings or {}), "train": train}
        alike = [m for m in self.methods if m.kind != "control" and m.like == like and m.settings == settings]
        if control.settings is None and len(alike) > 1:
            return None
        return min(alike, key=lambda m: m.sweep != control.sweep, default=None)

    def where(self, student: str, dataset: str) -> str:
        """Return the dataset as it is called in text: with the student if there are several."""
        return f"{dataset}, {student}" if len(self.students) > 1 else dataset

    def method(self, name: str) -> MethodOutline:
        """Return a method by its id."""
        return next(m for m in self.methods if m.id == name)
