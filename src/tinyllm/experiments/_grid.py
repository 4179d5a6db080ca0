"""The grid: the runs of an experiment file, each with its complete configuration.

base ← dataset ← student ← method ← α and tuned settings ← seed
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinyllm.comparison.outline import AVERAGE, Kind
from tinyllm.comparison.selection import ALPHA, Settings, Sweep
from tinyllm.config import Config, build_config
from tinyllm.config.read import apply_overrides, merge, plain_number, problems_of
from tinyllm.config.yaml_file import Lines, read_yaml
from tinyllm.errors import ConfigError, did_you_mean
from tinyllm.experiments._methods import METHODS, MethodSpec, Teachers, named
from tinyllm.experiments._schema import Grid, MethodEntry

_OF_THE_GRID = {
    "train.seed": "every method gets the same seeds, those of `seeds`",
    "train.method": "`like` decides it",
}
"""Settings that a method must not have, and why."""

GroupName = tuple[str, str, str]
"""Dataset, student and method of a group."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of an experiment.

    Attributes:
        key: its name, which is also the name of its folder.
        settings: the settings that vary besides method and seed.
        is_first: whether it has the first seed, which answers in all views.
    """

    key: str
    dataset: str
    student: str
    method: str
    settings: Settings
    seed: int
    is_first: bool

    @property
    def group(self) -> GroupName:
        """The name of its group."""
        return self.dataset, self.student, self.method


@dataclass(frozen=True, slots=True)
class Group:
    """A method with a student on a dataset, over all settings and seeds."""

    dataset: str
    student: str
    spec: MethodSpec
    sweep: Sweep

    @property
    def name(self) -> GroupName:
        """Dataset, student and method."""
        return self.dataset, self.student, self.spec.id

    def cell(self, settings: Settings, seed: int) -> Cell:
        """Return one of its runs."""
        short = {k: f"{v:g}" if isinstance(v, float) else v for k, v in sorted(settings.items())}
        varied = [f"{k.rpartition('.')[2]}={v}" for k, v in short.items()]
        parts = [self.dataset, self.student, self.spec.id, *varied, f"seed{seed}"]
        key = "--".join(re.sub(r"[^A-Za-z0-9._=-]+", "_", part) for part in parts)
        first = seed == self.sweep.seeds[0]
        return Cell(key, self.dataset, self.student, self.spec.id, settings, seed, first)

    def cells(self) -> list[Cell]:
        """Return all runs that can become necessary, with any choice of settings."""
        return [self.cell(s, seed) for of in self.sweep.by_alpha() for s in of for seed in self.sweep.seeds]


class Experiment:
    """An experiment in which the configuration of each run is valid.

    Args:
        groups: in the order of datasets, students and methods.
    """

    def __init__(self, grid: Grid, groups: Sequence[Group]) -> None:
        self.grid = grid
        self.groups = tuple(groups)
        self._groups = {g.name: g for g in groups}

    def group(self, cell: Cell) -> Group:
        """Return the group of a cell."""
        return self._groups[cell.group]

    def config(self, cell: Cell) -> Config:
        """Return the complete configuration of a run."""
        return build_config(_tree(self.grid, self.group(cell), cell.settings, cell.seed), source=cell.key)

    def dataset_config(self, dataset: str, student: str) -> Config:
        """Return a configuration of a dataset and a student, without a particular method."""
        group = next(g for g in self.groups if (g.dataset, g.student) == (dataset, student))
        tree = merge(_common(self.grid, dataset, student), {"train": {"method": "fine-tuning"}})
        return build_config(tree, source=group.dataset)


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file. In an override of `methods`, a name stands for the method of this name in the file.

    Raises:
        ConfigError: the file, or the configuration of a run, is wrong. One message lists all problems.
    """
    tree, lines = read_yaml(path)
    if "data" in tree and "datasets" not in tree:
        raise ConfigError(f"{path} is the configuration of a run, not of an experiment; use: tinyllm run {path}")
    sections = Config.model_fields.keys() - Grid.model_fields.keys()
    of_runs = [o for o in overrides if re.split("[.=]", o)[0] in sections]
    problems = [f"--set {o}: an experiment has the settings of all runs in `base`: --set base.{o}" for o in of_runs]
    merged, lines = apply_overrides(tree, lines, [o for o in overrides if o not in of_runs], problems)
    if isinstance(merged.get("methods"), list) and isinstance(tree.get("methods"), list):
        of_the_file = {m["name"]: m for m in tree["methods"] if isinstance(m, dict) and isinstance(m.get("name"), str)}
        merged["methods"] = [of_the_file.get(m, m) if isinstance(m, str) else m for m in merged["methods"]]
    grid = _grid(merged, lines, problems)
    groups: list[Group] = []
    if grid is not None:
        groups += _groups(grid, problems)
        problems += [*_contradictions(grid, groups), *_wrong_runs(grid, groups)]
    if grid is None or problems:
        unique = list(dict.fromkeys(problems))
        count = "1 problem" if len(unique) == 1 else f"{len(unique)} problems"
        raise ConfigError(
            f"{path}: {count}\n" + "\n".join(f"  - {p}" for p in unique), page="configuration.md#experiments"
        )
    return Experiment(grid, groups)


def _grid(tree: Mapping[str, Any], lines: Lines, problems: list[str]) -> Grid | None:
    try:
        return Grid.model_validate(tree)
    except ValidationError as error:
        problems += problems_of(error, Grid, lines)
        return None


# --- methods ------------------------------------------------------------------------------------------------------


def _groups(grid: Grid, problems: list[str]) -> Iterator[Group]:
    for dataset, student in itertools.product(grid.datasets, grid.students):
        teachers = _teachers(grid, dataset)
        for entry in grid.entries:
            for spec in _specs(entry, teachers, problems):
                if twice := [key for key in entry.tune or () if _meets(key, _paths(spec.patch))]:
                    problems.append(
                        f"methods.{entry.name}: {', '.join(twice)}: in `set` and in `tune` of this method; remove one "
                        "of the two"
                    )
                yield Group(dataset, student, spec, _sweep(grid, entry, spec))


def _specs(entry: MethodEntry, teachers: Teachers, problems: list[str]) -> list[MethodSpec]:
    """Return the specs of the known method, with the name, the label and the settings of the entry."""
    known = entry.like or entry.name
    if known not in METHODS:
        problems.append(f"methods: unknown method '{known}'.{did_you_mean(known, METHODS)} Known: {', '.join(METHODS)}")
        return []
    specs = []
    for spec in METHODS[known](teachers):
        own = entry.name + spec.id[len(known) :] if spec.id.startswith(known) else entry.name
        label = entry.label or (spec.label if entry.name == known else own)
        patch = merge(spec.patch, entry.set)
        soft = (patch.get("train") or {}).get("soft") or {}
        kind: Kind = "control" if soft.get("shuffle") else spec.kind
        specs.append(replace(spec, id=own, label=label, kind=kind, patch=patch))
    return specs


def _sweep(grid: Grid, entry: MethodEntry, spec: MethodSpec) -> Sweep:
    if not spec.trains:
        return Sweep(grid.seeds[:1])
    own = list(_paths(spec.patch))
    # A method's own settings have priority over the settings for all methods.
    candidates = {k: v for k, v in grid.tune.items() if not _meets(k, own)} if entry.tune is None else entry.tune
    sweeps_alpha = spec.teachers and not _meets("train.alpha", (*own, *candidates))
    products = itertools.product(*(map(plain_number, values) for values in candidates.values()))
    return Sweep(
        grid.seeds,
        grid.alpha if sweeps_alpha else (),
        tuple(dict(zip(candidates, values, strict=True)) for values in products),
    )


def _paths(patch: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted paths of all settings in a patch."""
    for key, value in patch.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def _meets(path: str, others: Iterable[str]) -> bool:
    """Whether a setting is one of others, contains one of them, or is a part of one."""
    return any(f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.") for other in others)


def _teachers(grid: Grid, dataset: str) -> Teachers:
    teachers = merge(grid.base, grid.datasets[dataset]).get("teachers") or []
    return [t for t in teachers if isinstance(t, Mapping)] if isinstance(teachers, list) else []


# --- configurations -----------------------------------------------------------------------------------------------


def _tree(grid: Grid, group: Group, settings: Settings, seed: int) -> dict[str, Any]:
    tree = merge(_common(grid, group.dataset, group.student), group.spec.patch)
    tuned = {k: v for k, v in settings.items() if k != ALPHA}
    for path, value in tuned.items():
        for key in reversed(path.split(".")):
            value = {key: value}
        tree = merge(tree, value)
    weights = _weights(grid, group, tree, settings)
    return merge(tree, {"train": {"seed": seed, **({"alpha": weights} if weights else {})}})


def _common(grid: Grid, dataset: str, student: str) -> dict[str, Any]:
    tree = merge(merge(grid.base, grid.datasets[dataset]), grid.students[student])
    return {"name": grid.name} | tree


def _weights(grid: Grid, group: Group, tree: Mapping[str, Any], settings: Settings) -> dict[str, float]:
    """Return the α of each teacher: the swept value, or that of the configuration, or 0 for an unused teacher."""
    teachers = named(_teachers(grid, group.dataset))
    if not group.spec.teachers:
        return {}
    given = (tree.get("train") or {}).get("alpha", 1.0)
    own = {t: given.get(t, 1.0) if isinstance(given, Mapping) else given for t in teachers}
    # A sweep does not change a weight of 0.
    swept = {t: settings[ALPHA] if ALPHA in settings and w else w for t, w in own.items()}
    return {t: w if t in group.spec.teachers else 0.0 for t, w in swept.items()}


# --- problems -----------------------------------------------------------------------------------------------------


def _contradictions(grid: Grid, groups: Sequence[Group]) -> Iterable[str]:
    for what, values in (("seeds", grid.seeds), ("alpha", grid.alpha)):
        if len(set(values)) < len(values):
            yield f"{what}: a value is there twice, got {list(values)}"
    ids = {g.spec.id for g in groups}
    is_said = "baseline" not in grid.model_fields_set and any(
        (e.like or e.name) not in METHODS for e in grid.entries
    )  # the unknown method can be a misspelt baseline, which is reported already
    if ids and not is_said and grid.baseline not in ids:
        yield f"baseline: no method '{grid.baseline}' here.{did_you_mean(grid.baseline, ids)} Methods: {', '.join(ids)}"
    if AVERAGE in grid.datasets:
        yield f"datasets.{AVERAGE}: the tables have a column with this name; use another name"
    keys = Counter(cell.key for g in groups for cell in g.cells())
    if twice := next((key for key, count in keys.items() if count > 1), None):
        why = "a candidate of `tune` is there twice, or two methods have the same name (special characters are ignored)"
        yield f"two runs would be called '{twice}': {why}"
    for name, count in sorted(Counter(e.name for e in grid.entries).items()):
        if count > 1:
            yield f"methods: '{name}' is there twice; give one of them another `name`"
    yield from _idle_methods(grid, groups)
    for entry in grid.entries:
        moved = [k for k in (*grid.tune, *(entry.tune or ()), *entry.set) if k.partition(".")[0] == "data"]
        if moved:
            yield f"methods.{entry.name}: {', '.join(moved)}: all methods of a dataset must have the same questions"
        for path, why in _OF_THE_GRID.items():
            if _meets(path, (*_paths(entry.set), *(entry.tune or ()))):
                yield f"methods.{entry.name}: {path}: {why}"
    if grid.alpha and _meets("train.alpha", grid.tune):
        yield "tune: `alpha` sweeps the weights of teachers, too; remove one of the two"
    if "train.seed" in grid.tune:
        yield f"tune.train.seed: {_OF_THE_GRID['train.seed']}"
    if ALPHA in {*grid.tune, *(k for e in grid.entries for k in e.tune or ())}:
        yield "tune.alpha: to sweep α, write `alpha: [0.1, 1.0]` at the top of the file"
    if "asked" not in grid.views or len(set(grid.views)) < len(grid.views):
        yield f"views: must include `asked`, and each view once; got {list(grid.views)}"
    for label, quoted in grid.quoted.items():
        for dataset in quoted:
            if dataset not in grid.datasets:
                yield f"quoted.{label}: no dataset '{dataset}'.{did_you_mean(dataset, grid.datasets)}"


def _idle_methods(grid: Grid, groups: Sequence[Group]) -> Iterable[str]:
    """Yield methods that would do nothing, or the same as another one."""
    for entry in grid.entries:
        known = entry.like or entry.name
        if known in METHODS and not any(METHODS[known](_teachers(grid, dataset)) for dataset in grid.datasets):
            yield f"methods.{entry.name}: no dataset has the teachers that it needs; add them to `teachers`"
    for group in groups:
        kinds = {t.get("kind") for t in _teachers(grid, group.dataset)}
        if group.spec.like == "tinyllm-without-examples" and kinds <= {"given", "scripted"}:
            yield (
                f"methods.{group.spec.id}: the rationales of {group.dataset} come with the data, so in-context "
                "examples do not change them"
            )


def _wrong_runs(grid: Grid, groups: Sequence[Group]) -> Iterator[str]:
    """Yield the problems in the configurations of the runs with the first seed."""
    for group in groups:
        for settings in itertools.chain.from_iterable(group.sweep.by_alpha()):
            source = f"{group.dataset}, {group.student}, {group.spec.id}"
            try:
                config = build_config(_tree(grid, group, settings, group.sweep.seeds[0]), source=source)
                if grid.scorer.partition("_")[0] not in config.evaluate.scorers:
                    asked = ", ".join(config.evaluate.scorers)
                    yield f"scorer: '{grid.scorer}' is not in evaluate.scorers ({asked})"
            except ConfigError as error:
                yield from (line.removeprefix("  - ") for line in str(error).splitlines()[1:])
            except (AttributeError, TypeError, ValueError):
                yield f"{source}: a section of base, dataset, student or method is not a mapping"
