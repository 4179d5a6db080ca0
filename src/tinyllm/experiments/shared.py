"""What the runs of an experiment have in common, made once before any of them: questions' facts and rationales."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyllm.config import Config, build_config
from tinyllm.config.read import merge
from tinyllm.errors import DataError
from tinyllm.evaluation.overlap import overlap
from tinyllm.evaluation.statistics import chance_rate, majority_rate
from tinyllm.evidence.outline import DatasetOutline, MethodOutline, Outline
from tinyllm.experiments.grid import Experiment, Group
from tinyllm.news import News
from tinyllm.pipeline import checked_questions, generate_run
from tinyllm.questions.types import Splits
from tinyllm.rationales.files import read_yields
from tinyllm.runs import RunFolder


@dataclass(frozen=True, slots=True)
class Shared:
    """What runs share.

    Attributes:
        rationales: folder with the rationales of each group's dataset and settings, by `rationale_key`.
        splits: questions by dataset.
    """

    rationales: Mapping[str, Path]
    splits: Mapping[str, Splits]


def prepare(experiment: Experiment, folder: Path, news: News) -> Shared:
    """Read the questions of all datasets and have all rationales written that any run learns from.

    Teachers are asked once for all runs; what the store holds is not asked again.

    Raises:
        DataError: a dataset has no test questions, or none to choose settings on.
    """
    splits, rationales = {}, {}
    for dataset in experiment.grid.datasets:
        news.say(f"{dataset}:")
        splits[dataset], _ = checked_questions(experiment.dataset_config(dataset), news)
        _check_splits(dataset, splits[dataset], experiment)
    for key, groups in _by_rationales(experiment).items():
        config = _asking_all(experiment, groups)
        run = RunFolder(folder / "shared" / key)
        with run.claimed(config, renews_rationales=True):
            generate_run(config, run, news, splits[groups[0].dataset])
        rationales[key] = run.path
    return Shared(rationales, splits)


def _check_splits(dataset: str, splits: Splits, experiment: Experiment) -> None:
    if not len(splits.test):
        raise DataError(f"{dataset}: there are no test questions: give data.test, or data.cut with a test share.")
    if not len(splits.valid) and any(g.sweep.chooses for g in experiment.groups):
        raise DataError(
            f"{dataset}: `alpha` and `tune` choose on validation questions, and there are none: give data.valid, or "
            "data.cut with a share for them."
        )


def rationale_key(experiment: Experiment, group: Group) -> str | None:
    """Return the name of the rationales that a group learns from; None where it learns from none."""
    if not group.spec.teachers:
        return None
    config = experiment.config(group.cell(next(iter(group.sweep.by_alpha()))[0], group.sweep.seeds[0]))
    made_by = config.model_dump(mode="json", include={"data", "teachers", "rationales"})
    made_by["rationales"].pop("budget"), made_by["rationales"].pop("store")
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
    return f"{group.dataset}-{digest[:8]}"


def _by_rationales(experiment: Experiment) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = {}
    for group in experiment.groups:
        if (key := rationale_key(experiment, group)) is not None:
            found.setdefault(key, []).append(group)
    return found


def _asking_all(experiment: Experiment, groups: list[Group]) -> Config:
    """Return a configuration under which every teacher is asked that any of the groups learns from."""
    group = groups[0]
    config = experiment.config(group.cell(next(iter(group.sweep.by_alpha()))[0], group.sweep.seeds[0]))
    used = {t for g in groups for t in g.spec.teachers}
    weights = {t.name: float(t.name in used) for t in config.teachers}
    tree = merge(config.model_dump(mode="json"), {"train": {"method": "tinyllm", "teacher": None}})
    tree["train"]["alpha"] = weights
    return build_config(tree, source=group.dataset)


def outline(experiment: Experiment, shared: Shared) -> Outline:
    """Return what a report needs to know besides the runs."""
    methods: dict[str, MethodOutline] = {}
    for group in experiment.groups:
        spec, known = group.spec, methods.get(group.spec.id)
        datasets = dict.fromkeys((*(known.datasets if known else ()), group.dataset))
        methods[spec.id] = MethodOutline(spec.id, spec.label, spec.kind, group.sweep, tuple(datasets))
    grid = experiment.grid
    return Outline(
        name=grid.name,
        datasets={name: _dataset(experiment, shared, name) for name in grid.datasets},
        students={name: _model(experiment, name) for name in grid.students},
        methods=tuple(methods.values()),
        baseline=grid.baseline,
        scorer=grid.scorer,
        seeds=grid.seeds,
        quoted=grid.quoted,
    )


def _model(experiment: Experiment, student: str) -> str:
    group = next(g for g in experiment.groups if g.student == student)
    return experiment.config(group.cell(next(iter(group.sweep.by_alpha()))[0], group.sweep.seeds[0])).student.model


def _dataset(experiment: Experiment, shared: Shared, dataset: str) -> DatasetOutline:
    splits = shared.splits[dataset]
    met = overlap(splits.train, splits.test)
    keys = dict.fromkeys(rationale_key(experiment, g) for g in experiment.groups if g.dataset == dataset)
    key = next((k for k in keys if k is not None), None)
    yields: dict[str, Any] = {}
    if key is not None:
        yields = {name: asdict(found) for name, found in read_yields(shared.rationales[key]).items()}
    return DatasetOutline(
        questions={name: len(getattr(splits, name)) for name in ("train", "valid", "test")},
        chance=chance_rate(splits.test),
        majority=majority_rate(splits.train, splits.test),
        exact=tuple(sorted(met.exact)),
        ngram=tuple(sorted(met.ngram)),
        teachers=yields,
        data=experiment.dataset_config(dataset).data.model_dump(mode="json"),
        rationales=None if key is None else f"shared/{key}",
    )
