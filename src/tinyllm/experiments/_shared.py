"""What the runs of an experiment have in common, made once before any of them: questions, rationales, facts of both."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tinyllm.comparison import chance_rate, majority_right
from tinyllm.comparison.outline import DatasetOutline, MethodOutline, Outline
from tinyllm.config import Config, build_config, teachers_in_use
from tinyllm.config.read import merge
from tinyllm.errors import DataError, TeacherError
from tinyllm.experiments._grid import Experiment, Group
from tinyllm.experiments._methods import MethodSpec
from tinyllm.questions import SPLITS, gather, overlap
from tinyllm.questions.types import Question, Splits
from tinyllm.rationales.files import RATIONALES, read_rationales, read_yields
from tinyllm.scoring.matching import CONVENTION
from tinyllm.stages.asking import forecast_lines, opened_asking
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.generate import generate_run
from tinyllm.system.news import News

_SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Shared:
    """What runs share.

    Attributes:
        splits: questions by dataset.
        questions: hash of the test questions, by dataset and student.
        learnt: hash of the training and validation questions, by dataset and student.
        rationales: folders of rationales, by `rationale_key`.
        failed: why there are no rationales, by `rationale_key`.
        unanswered: how many requests got no reply, by `rationale_key`.
    """

    splits: Mapping[str, Splits]
    questions: Mapping[tuple[str, str], str]
    learnt: Mapping[tuple[str, str], str]
    rationales: Mapping[str, Path] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    unanswered: Mapping[str, int] = field(default_factory=dict)


# --- questions ----------------------------------------------------------------------------------------------------


def read_questions(experiment: Experiment, news: News) -> Shared:
    """Read the questions of all datasets; of each those that any student can be asked.

    Raises:
        DataError: a dataset has no test questions, or none to choose settings on.
    """
    splits: dict[str, Splits] = {}
    questions: dict[tuple[str, str], str] = {}
    learnt: dict[tuple[str, str], str] = {}
    for dataset in experiment.grid.datasets:
        news.say(f"{dataset}:")
        of_student = {
            student: checked_questions(experiment.dataset_config(dataset, student), news, SPLITS)[0]
            for student in experiment.grid.students
        }
        questions |= {(dataset, student): questions_fingerprint(s) for student, s in of_student.items()}
        learnt |= {(dataset, student): learnt_fingerprint(s) for student, s in of_student.items()}
        splits[dataset] = _united(list(of_student.values()))
        _check_splits(dataset, splits[dataset], experiment)
    return Shared(splits, questions, learnt)


def _united(of_students: Sequence[Splits]) -> Splits:
    """Return the questions that any student is asked: tokenizers differ in what each of them cannot tell apart."""

    def every(name: str) -> Sequence[Question]:
        most, *others = sorted((getattr(s, name) for s in of_students), key=len, reverse=True)
        known = {q.id for q in most} if others else set()
        lacking = {q.id: q for of in others for q in of if q.id not in known}
        return gather(itertools.chain(most, lacking.values())) if lacking else most

    largest = max(of_students, key=lambda s: len(s.train))
    return replace(largest, train=every("train"), valid=every("valid"), test=every("test"))


def _check_splits(dataset: str, splits: Splits, experiment: Experiment) -> None:
    if not len(splits.test):
        raise DataError(f"{dataset}: there are no test questions: give data.test, or data.cut with a test share.")
    if not len(splits.valid) and any(g.sweep.chooses for g in experiment.groups):
        raise DataError(
            f"{dataset}: `alpha` and `tune` choose on validation questions, and there are none: give data.valid, or "
            "data.cut with a share for them."
        )


def questions_fingerprint(splits: Splits) -> str:
    """Return a hash of the test questions and of how they are scored; only runs of the same one may be compared."""
    return hashlib.sha256(f"{CONVENTION} {_hash(splits.test)}".encode()).hexdigest()


def learnt_fingerprint(splits: Splits) -> str:
    """Return a hash of the questions that are learnt from and chosen by; runs of others are not to be averaged."""
    more = f" {_hash(splits.more)}" if len(splits.more) else ""
    return hashlib.sha256(f"{_hash(splits.train)} {_hash(splits.valid)}{more}".encode()).hexdigest()


def _hash(questions: Iterable[Question]) -> str:
    digest = hashlib.sha256()
    for q in questions:
        digest.update(repr((q.id, q.question, q.choices, q.answer, q.context)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


# --- rationales ---------------------------------------------------------------------------------------------------


def write_rationales(experiment: Experiment, folder: Path, shared: Shared, news: News) -> Shared:
    """Have all rationales written that any run learns from; teachers are asked once for all runs.

    What the store holds is not asked again. Where a teacher cannot answer, the runs that learn from it have failed, and
    the others go on.
    """
    RunFolder(folder).account()  # before workers, who would each make one of their own
    rationales, failed, unanswered = {}, {}, {}
    for key, groups in by_rationales(experiment).items():
        config, run = _asking_all(experiment, groups), shared_folder(folder, key)
        try:
            with run.claimed(config, renews_rationales=True):
                yields = generate_run(config, run, news, shared.splits[groups[0].dataset])
        except TeacherError as error:
            failed[key] = str(error)
            news.say(f"✗ {key}: {error}")
            continue
        rationales[key] = run.path
        if count := sum(n for found in yields.values() for n in found.unanswered.values()):
            unanswered[key] = count
    return replace(shared, rationales=rationales, failed=failed, unanswered=unanswered)


def known_rationales(experiment: Experiment, folder: Path, shared: Shared) -> Shared:
    """Return what is shared as far as it is there already; nobody is asked and nothing is written."""
    folders = {key: folder / _SHARED / key for key in by_rationales(experiment)}
    return replace(shared, rationales={k: path for k, path in folders.items() if (path / RATIONALES).is_file()})


def forecast_of_teachers(experiment: Experiment, folder: Path, shared: Shared, news: News) -> list[str]:
    """Return, in words, what asking the teachers will take; nobody is asked and nothing is written."""
    asked: list[tuple[str, Config, Sequence[Question]]] = [
        (key, _asking_all(experiment, groups), shared.splits[groups[0].dataset].train)
        for key, groups in by_rationales(experiment).items()
    ]
    tested = {asked_key(g.dataset, g.spec.asks): g for g in experiment.groups if g.spec.asks is not None}
    asked += [(key, experiment.first_config(g), shared.splits[g.dataset].test) for key, g in tested.items()]
    lines = []
    for key, config, questions in asked:
        run = RunFolder(folder / _SHARED / key)
        with opened_asking(config, run, questions, may_write=False, will_ask=False) as asking:
            lines += forecast_lines(asking.forecasts(news))
    return lines


def shared_folder(folder: Path, key: str) -> RunFolder:
    """Return the folder of what some runs of an experiment share, made if need be.

    All of an experiment has one account in the store, so `rationales.budget` is a cap for the whole of it.
    """
    run = RunFolder(folder / _SHARED / key)
    run.path.mkdir(parents=True, exist_ok=True)
    run.share_account(RunFolder(folder))
    return run


def asked_key(dataset: str, teacher: str) -> str:
    """Return the name of what a teacher answers to the test questions itself."""
    return f"{dataset}-asked-{teacher}"


def rationale_key(experiment: Experiment, group: Group) -> str | None:
    """Return the name of the rationales that a group learns from; None where it learns from none."""
    if not group.spec.teachers:
        return None
    made_by = experiment.first_config(group).model_dump(mode="json", include={"data", "teachers", "rationales"})
    made_by["rationales"].pop("budget"), made_by["rationales"].pop("store")
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
    return f"{group.dataset}-{digest[:8]}"


def by_rationales(experiment: Experiment) -> dict[str, list[Group]]:
    """Return the groups that learn from the same rationales, by their key."""
    found: dict[str, list[Group]] = {}
    for group in experiment.groups:
        if (key := rationale_key(experiment, group)) is not None:
            found.setdefault(key, []).append(group)
    return found


def rationales_fingerprint(folder: Path, teachers: Iterable[str]) -> str:
    """Return a hash of some teachers' rationales: what runs that are compared over seeds must have in common."""
    wanted = set(teachers)
    rows = sorted((r.question_id, r.teacher, r.text) for r in read_rationales(folder) if r.teacher in wanted)
    return hashlib.sha256(repr(rows).encode("utf-8", "surrogatepass")).hexdigest()


def _asking_all(experiment: Experiment, groups: Sequence[Group]) -> Config:
    """Return a configuration under which every teacher is asked that any of the groups learns from."""
    config = experiment.first_config(groups[0])
    used = {t.name for g in groups for t in teachers_in_use(experiment.first_config(g))}
    tree = merge(config.model_dump(mode="json"), {"train": {"method": "tinyllm", "teacher": None}})
    tree["train"]["alpha"] = {t.name: float(t.name in used) for t in config.teachers}
    return build_config(tree, source=groups[0].dataset)


# --- the outline --------------------------------------------------------------------------------------------------


def outline(experiment: Experiment, shared: Shared) -> Outline:
    """Return what a report needs to know besides the runs."""
    methods: dict[str, MethodOutline] = {}
    for group in experiment.groups:
        spec, known = group.spec, methods.get(group.spec.id)
        datasets = dict.fromkeys((*(known.datasets if known else ()), group.dataset))
        methods[spec.id] = MethodOutline(
            spec.id, spec.like, spec.label, spec.kind, group.sweep, tuple(datasets), method_settings(spec)
        )
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


def method_settings(spec: MethodSpec) -> dict[str, Any]:
    """Return a method's own settings but for the mixture."""
    train = {k: v for k, v in (spec.patch.get("train") or {}).items() if k != "method"}
    others = {k: v for k, v in spec.patch.items() if k != "train"}
    return {**others, **({"train": train} if train else {})}


def _model(experiment: Experiment, student: str) -> str:
    return experiment.dataset_config(next(iter(experiment.grid.datasets)), student).student.model


def _dataset(experiment: Experiment, shared: Shared, dataset: str) -> DatasetOutline:
    splits = shared.splits[dataset]
    met, met_in_valid = overlap(splits.train, splits.test), overlap(splits.valid, splits.test)
    majority = majority_right(splits.train, splits.test)
    keys = [k for g in experiment.groups if g.dataset == dataset and (k := rationale_key(experiment, g))]
    key = next((k for k in keys if k in shared.rationales), None)
    yields: dict[str, Any] = {}
    if key is not None:
        yields = {name: asdict(found) for name, found in read_yields(shared.rationales[key]).items()}
    return DatasetOutline(
        questions={name: len(getattr(splits, name)) for name in ("train", "valid", "test")},
        chance=chance_rate(splits.test),
        majority=sum(majority) / len(majority),
        exact=tuple(sorted(met.exact)),
        ngram=tuple(sorted(met.ngram)),
        teachers=yields,
        data=experiment.dataset_config(dataset, next(iter(experiment.grid.students))).data.model_dump(mode="json"),
        rationales=None if key is None else f"{_SHARED}/{key}",
        valid_exact=tuple(sorted(met_in_valid.exact)),
        valid_ngram=tuple(sorted(met_in_valid.ngram)),
        majority_right=tuple(q.id for q, right in zip(splits.test, majority, strict=True) if right),
    )
