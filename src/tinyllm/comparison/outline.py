"""The outline of an experiment: what its report needs to know besides the runs. Written when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.selection import Sweep
from tinyllm.errors import RunFolderError
from tinyllm.system.files import read_json, write_json

_FILE = "outline.json"
AVERAGE = "Average"
"""Stands where a dataset's name would, for the mean over all datasets."""

Kind = Literal["reference", "method", "router", "ablation", "control"]


@dataclass(frozen=True, slots=True)
class MethodOutline:
    """One method of an experiment, on all its datasets.

    Attributes:
        like: the known method that it goes back to.
        kind: which table it stands in; `reference` is not trained and is not tested against the baseline.
        datasets: those on which it is run (a teacher may be known on some only).
        settings: its own settings but for the mixture (`train.method`): a control is compared with the method that has
            the same; None in outlines of before they were written down.
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
        chance, majority: accuracies on the test questions of guessing, and of the answer most frequent in training.
        exact, ngram: ids of test questions that are met in training (`questions.overlap`).
        valid_exact, valid_ngram: ids of test questions that are met among the validation questions.
        majority_right: ids of the test questions that the answer most frequent in training gets right; None in outlines
            of before they were written down.
        teachers: what each gave, as in `yields.json`.
        data: where the questions come from (`data` of the configuration), to show their texts.
        rationales: folder of the rationales, within the experiment's.
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
    """What was asked.

    Attributes:
        students: name and model.
        baseline: id of the method that others are compared with.
        scorer: which accuracy the tables, the tests and every choice go by.
        quoted: accuracies from elsewhere, in per cent: label → dataset → value.
    """

    name: str
    datasets: Mapping[str, DatasetOutline]
    students: Mapping[str, str]
    methods: tuple[MethodOutline, ...]
    baseline: str
    scorer: Scorer
    seeds: tuple[int, ...]
    quoted: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def first_like(self, known: str) -> MethodOutline | None:
        """Return the first method that goes back to a known one; None where there is none."""
        return next((m for m in self.methods if m.like == known), None)

    def twin(self, control: MethodOutline) -> MethodOutline | None:
        """Return the TinyLLM that a control is identical to but for the mixture; None where there is none.

        Of several with the same settings that one comes first which had the same candidates to choose from. Where
        settings are not known (an old outline), only a single TinyLLM will do.
        """
        alike = [m for m in self.methods if m.like == "tinyllm" and m.settings == control.settings]
        if control.settings is None and len(alike) > 1:
            return None
        return min(alike, key=lambda m: m.sweep != control.sweep, default=None)

    def method(self, name: str) -> MethodOutline:
        """Return a method by its id."""
        return next(m for m in self.methods if m.id == name)


def write_outline(folder: Path, outline: Outline) -> None:
    """Write `outline.json`."""
    write_json(folder / _FILE, asdict(outline))


def read_outline(folder: Path) -> Outline:
    """Read `outline.json`.

    Raises:
        RunFolderError: it is not there, or damaged.
    """
    raw = read_json(folder / _FILE)
    try:
        return Outline(
            name=raw["name"],
            datasets={name: _dataset(d) for name, d in raw["datasets"].items()},
            students=raw["students"],
            methods=tuple(_method(m) for m in raw["methods"]),
            baseline=raw["baseline"],
            scorer=raw.get("scorer", "likelihood"),
            seeds=tuple(raw["seeds"]),
            quoted=raw["quoted"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{folder / _FILE} is damaged ({error!r}); starting the experiment again writes it anew."
        ) from None


def _method(raw: Mapping[str, Any]) -> MethodOutline:
    sweep = raw["sweep"]
    return MethodOutline(
        id=raw["id"],
        like=raw.get("like", raw["id"].partition(":")[0]),
        label=raw["label"],
        kind=raw["kind"],
        sweep=Sweep(tuple(sweep["seeds"]), tuple(sweep["alphas"]), tuple(sweep["tuned"])),
        datasets=tuple(raw["datasets"]),
        settings=raw.get("settings"),
    )


def _dataset(raw: Mapping[str, Any]) -> DatasetOutline:
    ids = ("exact", "ngram", "valid_exact", "valid_ngram", "majority_right")
    known = {f.name: raw[f.name] for f in fields(DatasetOutline) if f.name in raw}
    return DatasetOutline(**known | {n: tuple(raw[n]) for n in ids if raw.get(n) is not None})
