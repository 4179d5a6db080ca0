"""What the runs of an experiment share: questions, rationales, and facts about them. It is prepared before the runs."""

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
from tinyllm.experiments._grid import Cell, Experiment
from tinyllm.opinions.files import OPINIONS, read_opinions
from tinyllm.questions import SPLITS, HeldOut, answered, gather
from tinyllm.questions.types import Question, Splits
from tinyllm.rationales.files import RATIONALES, read_rationales, read_yields
from tinyllm.replies import store_of
from tinyllm.scoring.predictions import CONVENTION
from tinyllm.stages.asking import forecast_lines, opened_asking
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.generate import generate_run
from tinyllm.stages.opinions import opinion_forecasts, unanswered_opinions
from tinyllm.system.news import News

_SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Shared:
    """What the runs share.

    Attributes:
        splits: questions by dataset.
        questions: hash of the test questions, by dataset and student.
        learnt: hash of the training and validation questions, by dataset and student.
        rationales: folders of rationales and opinions, by `rationale_key`.
        failed: errors of teachers without rationales, by `rationale_key`.
        unanswered: the number of requests without a reply, by `rationale_key`.
    """

    splits: Mapping[str, Splits]
    questions: Mapping[tuple[str, str], str]
    learnt: Mapping[tuple[str, str], str]
    rationales: Mapping[str, Path] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    unanswered: Mapping[str, int] = field(default_factory=dict)


# --- questions ----------------------------------------------------------------------------------------------------


def read_questions(experiment: Experiment, news: News) -> Shared:
    """Read the questions of all datasets: those that at least one student can answer.

    Raises:
        DataError: a dataset has no test questions, or no validation questions where settings are chosen.
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
        if not len(splits[dataset].test):
            raise DataError(f"{dataset}: there are no test questions: give data.test, or data.cut with a test share.")
        if not len(splits[dataset].valid) and any(g.sweep.chooses for g in experiment.groups):
            raise DataError(
                f"{dataset}: `alpha` and `tune` choose on validation questions, and there are none: give data.valid, "
                "or data.cut with a share for them.",
                page="experiments.md",
            )
    return Shared(splits, questions, learnt)


def _united(of_students: Sequence[Splits]) -> Splits:
    """Return the questions of all students. They can differ, because tokenizers do not distinguish the same choices."""

    def every(name: str) -> Sequence[Question]:
        most, *others = sorted((getattr(s, name) for s in of_students), key=len, reverse=True)
        known = {q.id for q in most} if others else set()
        lacking = {q.id: q for of in others for q in of if q.id not in known}
        return gather(itertools.chain(most, lacking.values())) if lacking else most

    largest = max(of_students, key=lambda s: len(s.train))
    return replace(largest, train=every("train"), valid=every("valid"), test=every("test"), more=every("more"))


def questions_fingerprint(splits: Splits) -> str:
    """Return a hash of the test questions and the rules of scoring. Only runs with the same hash are compared."""
    return hashlib.sha256(f"{CONVENTION} {_hash(splits.test)}".encode()).hexdigest()


def learnt_fingerprint(splits: Splits) -> str:
    """Return a hash of the training and validation questions. Only runs with the same hash are averaged."""
    more = f" {_hash(splits.more)}" if len(splits.more) else ""
    return hashlib.sha256(f"{_hash(splits.train)} {_hash(splits.valid)}{more}".encode()).hexdigest()


def _hash(questions: Iterable[Question]) -> str:
    digest = hashlib.sha256()
    for q in questions:
        digest.update(repr((q.id, q.question, q.choices, q.answer, q.context)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


# --- rationales and opinions --------------------------------------------------------------------------------------


def write_rationales(experiment: Experiment, folder: Path, shared: Shared, news: News) -> Shared:
    """Generate all rationales and opinions that the runs use. Teachers are asked once for all runs.

    Stored replies are not asked for again. If a teacher cannot answer, the runs that use it fail, and the others
    continue.
    """
    RunFolder(folder).account()  # before the workers start, because each would make its own
    rationales, failed, unanswered = {}, {}, {}
    for key, those in _by_rationales(experiment).items():
        config, run = with_store(_asking_all(experiment, those), folder), shared_folder(folder, key)
        try:
            with run.claimed(config, renews_rationales=True):
                yields = generate_run(config, run, news, shared.splits[those[0].dataset])
        except TeacherError as error:
            failed[key] = str(error)
            news.say(f"✗ {key}: {error}")
            continue
        rationales[key] = run.path
        lacking = [found.unanswered for found in yields.values()] + [*unanswered_opinions(run).values()]
        if count := sum(n for reasons in lacking for n in reasons.values()):
            unanswered[key] = count
    return replace(shared, rationales=rationales, failed=failed, unanswered=unanswered)


def known_rationales(experiment: Experiment, folder: Path, shared: Shared) -> Shared:
    """Return what is shared with the rationales and opinions that exist. No teacher is asked, no file is written."""
    found = {}
    for key, those in _by_rationales(experiment).items():
        files = [RATIONALES, *([OPINIONS] if experiment.config(those[0]).train.soft is not None else [])]
        if all((folder / _SHARED / key / name).is_file() for name in files):
            found[key] = folder / _SHARED / key
    return replace(shared, rationales=found)


def forecast_of_teachers(experiment: Experiment, folder: Path, shared: Shared, news: News) -> list[str]:
    """Return the forecast of requests to teachers as lines. No teacher is asked, and no file is written."""
    wanted = {key: (_asking_all(experiment, those), those[0]) for key, those in _by_rationales(experiment).items()}
    asked: list[tuple[str, Config, Sequence[Question]]] = []
    for key, (config, cell) in wanted.items():
        train = shared.splits[cell.dataset].train
        asked.append((key, config, train if config.train.soft is None else answered(train)))
    tested = {asked_key(g.dataset, g.spec.asks): g for g in experiment.groups if g.spec.asks is not None}
    asked += [(key, experiment.config(g.cells()[0]), shared.splits[g.dataset].test) for key, g in tested.items()]
    lines = []
    for key, config, questions in asked:
        run = RunFolder(folder / _SHARED / key)
        with opened_asking(with_store(config, folder), run, questions, may_write=False, will_ask=False) as asking:
            lines += forecast_lines(asking.forecasts(news))
    for key, (config, cell) in wanted.items():
        splits = shared.splits[cell.dataset]
        run = RunFolder(folder / _SHARED / key)
        lines += forecast_lines(opinion_forecasts(with_store(config, folder), run, splits, news, will_ask=False))
    return lines


def with_store(config: Config, folder: Path) -> Config:
    """Return a configuration with the store beside the experiment's folder, which the runs beside it use, too.

    An experiment of an earlier version has a store in its folder, and keeps it, so that nothing is asked again.
    """
    if config.rationales.store is not None or store_of(folder / _SHARED / "any", None).is_file():
        return config
    rationales = config.rationales.model_copy(update={"store": store_of(folder, None)})
    return config.model_copy(update={"rationales": rationales})


def shared_folder(folder: Path, key: str) -> RunFolder:
    """Return a folder that some runs of an experiment share. It is made if it is missing.

    An experiment has one account in the store, so `rationales.budget` limits the whole experiment.
    """
    run = RunFolder(folder / _SHARED / key)
    run.path.mkdir(parents=True, exist_ok=True)
    run.share_account(RunFolder(folder))
    return run


def asked_key(dataset: str, teacher: str) -> str:
    """Return the name of the folder with a teacher's own answers to the test questions."""
    return f"{dataset}-asked-{teacher}"


def rationale_key(experiment: Experiment, cell: Cell) -> str | None:
    """Return the name of the rationales and opinions that a run learns from; None where it learns from none."""
    spec, config = experiment.group(cell).spec, experiment.config(cell)
    asks = spec.trains and config.train.soft is not None
    if not (spec.teachers or asks):
        return None
    parts = {"data", "teachers", "rationales", *(["opinions"] if asks else [])}
    made_by = config.model_dump(mode="json", include=parts)
    made_by["rationales"].pop("budget"), made_by["rationales"].pop("store")
    if config.rationales.pooled:  # some explain what the opinions are pooled to
        made_by["soft"] = config.model_dump(mode="json")["train"]["soft"]
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
    return f"{cell.dataset}-{digest[:8]}"


def _by_rationales(experiment: Experiment) -> dict[str, list[Cell]]:
    """Return runs that learn from the same rationales and opinions, by their key; of the first seed alone."""
    found: dict[str, list[Cell]] = {}
    for group in experiment.groups:
        for cell in (c for c in group.cells() if c.is_first):
            if (key := rationale_key(experiment, cell)) is not None:
                found.setdefault(key, []).append(cell)
    return found


def learnt_from(folder: Path, config: Config) -> str:
    """Return a hash of what a run learns from teachers: runs that are compared over seeds must have it in common."""
    wanted = {t.name for t in teachers_in_use(config)}
    rows: list[tuple[Any, ...]] = sorted(
        (r.question_id, r.teacher, r.text) for r in read_rationales(folder) if r.teacher in wanted
    )
    for split in dict.fromkeys((*config.opinions.splits, "more", "valid") if config.train.soft is not None else ()):
        rows += sorted((o.question_id, o.teacher, o.probabilities) for o in read_opinions(folder, split))
    return hashlib.sha256(repr(rows).encode("utf-8", "surrogatepass")).hexdigest()


def _asking_all(experiment: Experiment, those: Sequence[Cell]) -> Config:
    """Return a configuration under which every teacher is asked that any of some runs learns from."""
    config = experiment.config(those[0])
    used = {t.name for cell in those for t in teachers_in_use(experiment.config(cell))}
    method = "tinyllm" if used else "fine-tuning"
    tree = merge(config.model_dump(mode="json"), {"train": {"method": method, "teacher": None}})
    tree["train"]["alpha"] = {t.name: float(t.name in used) for t in config.teachers if t.kind != "student"}
    soft = next((s for cell in those if (s := experiment.config(cell).train.soft) is not None), None)
    tree["train"]["soft"] = None if soft is None else soft.model_dump(mode="json") if config.rationales.pooled else {}
    if soft is None:
        tree["opinions"]["teachers"] = {}  # no run learns from opinions
    return build_config(tree, source=those[0].dataset)


# --- the outline --------------------------------------------------------------------------------------------------


def outline(experiment: Experiment, shared: Shared) -> Outline:
    """Return what the report needs besides the runs."""
    methods: dict[str, MethodOutline] = {}
    for group in experiment.groups:
        spec, known = group.spec, methods.get(group.spec.id)
        datasets = dict.fromkeys((*(known.datasets if known else ()), group.dataset))
        train = {k: v for k, v in (spec.patch.get("train") or {}).items() if k != "method"}
        own = {k: v for k, v in spec.patch.items() if k != "train"} | ({"train": train} if train else {})
        methods[spec.id] = MethodOutline(spec.id, spec.like, spec.label, spec.kind, group.sweep, tuple(datasets), own)
    grid = experiment.grid
    first = next(iter(grid.datasets))
    return Outline(
        name=grid.name,
        datasets={name: _dataset(experiment, shared, name) for name in grid.datasets},
        students={name: experiment.dataset_config(first, name).student.model for name in grid.students},
        methods=tuple(methods.values()),
        baseline=grid.baseline,
        scorer=grid.scorer,
        seeds=grid.seeds,
        quoted=grid.quoted,
    )


def _dataset(experiment: Experiment, shared: Shared, dataset: str) -> DatasetOutline:
    splits = shared.splits[dataset]
    held_out = HeldOut(splits.test)
    met, met_in_valid = held_out.overlap(splits.train), held_out.overlap(splits.valid)
    majority = majority_right(splits.train, splits.test)
    made = {key: those[0].dataset for key, those in _by_rationales(experiment).items()}
    key = next((k for k in shared.rationales if made[k] == dataset), None)
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
