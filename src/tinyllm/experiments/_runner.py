"""Running an experiment: which run is next, on which place, and what became of it.

Every finished run has left its record before it counts. So an experiment that is stopped, or killed, goes on where it
was: finished runs are known by their records, and the runs that were under way go on from their checkpoints.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyllm.comparison.outline import write_outline
from tinyllm.comparison.records import EXPERIMENT_FILE, Record, cells, failures, read_record, read_records
from tinyllm.comparison.selection import FAILED, accuracies, named, wanted
from tinyllm.config import (
    Config,
    build_config,
    describe_differences,
    load_config,
    prefixes_in_use,
    teacher_weights,
    teachers_in_use,
)
from tinyllm.errors import ConfigError, RunFolderError, TinyLLMError
from tinyllm.experiments._cell import KEPT, Job
from tinyllm.experiments._grid import Cell, Experiment, Group, dump_grid
from tinyllm.experiments._places import Place
from tinyllm.experiments._shared import (
    Shared,
    learnt_from,
    outline,
    rationale_key,
)
from tinyllm.experiments._worker import log_file
from tinyllm.scoring.views import View
from tinyllm.system.files import write_json, write_text

GroupName = tuple[str, str, str]
_SHOWN = 12  # differences in a message
_MAY_DIFFER = (
    "name", "rationales.store", "evaluate.before", "evaluate.train_questions", "evaluate.rationales",
    "evaluate.max_rationale_tokens",
)  # fmt: skip
"""Settings that change nothing of what an experiment keeps."""
_OF_TEACHERS = ("teachers", "rationales", "opinions", "train.alpha", "train.teacher")
"""Settings that are nothing to a run that learns from no teacher."""


@dataclass(frozen=True, slots=True)
class Board:
    """How each run stands at one moment.

    Attributes:
        running: what is under way, by key: (label, done, total).
        failed: what went wrong, by key.
        left: runs that are known to be needed and are neither done nor failed.
    """

    done: Mapping[str, Record] = field(default_factory=dict)
    running: Mapping[str, tuple[str, int, int | None]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    left: tuple[Cell, ...] = ()


class Runner:
    """Runs what an experiment still lacks.

    Args:
        folder: of the experiment; holds its records.
        shared: what the runs have in common.

    Raises:
        RunFolderError: the folder holds runs of other settings, questions or rationales.
    """

    def __init__(self, experiment: Experiment, folder: Path, shared: Shared) -> None:
        self.experiment, self.folder, self.shared = experiment, folder, shared
        self._done: dict[str, Record] = {}
        self._running: dict[str, tuple[str, int, int | None]] = {}
        self._failed: dict[str, str] = {}
        self._valid: dict[GroupName, dict[tuple[str, int], float]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._hashes: dict[tuple[str, tuple[str, ...]], str] = {}
        for record in read_records(folder):
            self._take(record)
        self._check_records()
        self._left = self._find_left()

    def board(self) -> Board:
        """Return how each run stands now."""
        with self._lock:
            return Board(dict(self._done), dict(self._running), dict(self._failed), self._left)

    def views_lacking(self) -> set[str]:
        """Return the views that are asked for now, and that some finished runs of the first seed were not asked in."""
        lacking: set[str] = set()
        for group in (g for g in self.experiment.groups if g.spec.asks is None):
            for cell in (c for c in group.cells() if c.is_first and c.key in self._done):
                lacking |= {*self._views(self.experiment.config(cell))} - self._done[cell.key].answers.views
        return lacking

    def undated(self) -> int:
        """Return how many finished runs are of before the hash of their training and validation questions was kept."""
        return sum(not record.learnt for record in self._done.values())

    def open(self) -> None:
        """Write what was asked beside the records, and remove what earlier starts have left that is of no use."""
        write_text(self.folder / EXPERIMENT_FILE, dump_grid(self.experiment.grid))
        write_outline(self.folder, outline(self.experiment, self.shared))
        for file in failures(self.folder).glob("*.json"):
            file.unlink()
        self._sweep()
        for key, error in self.shared.failed.items():
            for cell in [c for c in self._left if rationale_key(self.experiment, c) == key]:
                self._fail(cell, error)
        self._left = self._find_left()

    def run(self, places: Sequence[Place], show: Callable[[Board], None], every_s: float = 1.0) -> None:
        """Do all that is left.

        Args:
            show: called every so often, and at the end, from this thread.

        Raises:
            KeyboardInterrupt: it was interrupted; runs under way have written a checkpoint.
        """
        threads = [threading.Thread(target=self._serve, args=(place,), daemon=True) for place in places]
        for thread in threads:
            thread.start()
        try:
            while any(t.is_alive() for t in threads):
                next(t for t in threads if t.is_alive() or t is threads[-1]).join(every_s)
                show(self.board())
        except KeyboardInterrupt:
            self._stop.set()
            for place in places:
                place.interrupt()
            for thread in threads:
                thread.join()
            raise
        finally:
            show(self.board())

    def _serve(self, place: Place) -> None:
        try:
            while (cell := self._next()) is not None:
                self._do(place, cell)
        finally:
            place.close()

    def _next(self) -> Cell | None:
        """Return a run to do; waits where one may turn up once others are done."""
        while not self._stop.is_set():
            with self._lock:
                free = [c for c in self._left if c.key not in self._running]
                if free:
                    self._running[free[0].key] = ("Starting", 0, None)
                    return free[0]
                if not self._running:
                    return None
            self._stop.wait(0.2)
        return None

    def _do(self, place: Place, cell: Cell) -> None:
        def tell(event: Mapping[str, Any]) -> None:
            with self._lock:
                self._running[cell.key] = (event["label"], event["done"], event["total"])

        try:
            ended = dict(place.work(self.job(cell), tell))
            record = read_record(cells(self.folder) / cell.key) if ended["event"] == "done" else None
        except Exception as error:  # noqa: BLE001  of the place, or of what it left; told, and tried again next time
            ended, record = {"event": "failed", "error": f"{type(error).__name__}: {error}"}, None
        with self._lock:
            self._running.pop(cell.key)
            if record is not None:
                self._take(record)
            elif ended["event"] == "failed" and not self._stop.is_set():
                self._fail(cell, str(ended["error"]))
            self._left = self._find_left()

    def _fail(self, cell: Cell, error: str) -> None:
        self._failed[cell.key] = error
        self._valid.setdefault((cell.dataset, cell.student, cell.method), {})[named(cell.settings), cell.seed] = FAILED
        told = {
            "dataset": cell.dataset, "student": cell.student, "method": cell.method,
            "settings": dict(cell.settings), "seed": cell.seed, "error": error,
        }  # fmt: skip
        with contextlib.suppress(OSError):  # a full disk, of which the run has failed, too
            write_json(failures(self.folder) / f"{cell.key}.json", told)

    def job(self, cell: Cell) -> Job:
        """Return what a place has to know to do a run."""
        group, grid = self.experiment.group(cell), self.experiment.grid
        key, config = rationale_key(self.experiment, cell), self.experiment.config(cell)
        return Job(
            folder=str(self.folder.resolve()),
            key=cell.key,
            dataset=cell.dataset,
            student=cell.student,
            method=cell.method,
            settings=dict(cell.settings),
            seed=cell.seed,
            config=config.model_dump(mode="json"),
            rationales=None if key is None else str(self.shared.rationales[key].resolve()),
            rationales_hash=self._hash(cell),
            questions=self.shared.questions[cell.dataset, cell.student],
            learnt=self.shared.learnt[cell.dataset, cell.student],
            views=self._views(config) if cell.is_first else ("asked",),
            scorer=grid.scorer,
            trains=group.spec.trains,
            asks=group.spec.asks,
            keep_student=grid.keep_students,
        )

    def _views(self, config: Config) -> tuple[View, ...]:
        """Return how test questions are asked: where choices are not shown, their order cannot matter."""
        shows_choices = config.student.layout != "cloze"
        return tuple(view for view in self.experiment.grid.views if shows_choices or view != "rotated")

    # --- what is there, and what is lacking ---------------------------------------------------------------------------

    def _take(self, record: Record) -> None:
        self._done[record.key] = record
        group = (record.dataset, record.student, record.method)
        self._valid.setdefault(group, {}).update(accuracies([record], self.experiment.grid.scorer))

    def _find_left(self) -> tuple[Cell, ...]:
        """Return what is needed and not there, all of a seed before the next: a table fills evenly."""
        found: list[tuple[int, Cell]] = []
        for group in self.experiment.groups:
            name = (group.dataset, group.student, group.spec.id)
            for settings, seed in wanted(group.sweep, self._valid.get(name, {})):
                cell = group.cell(settings, seed)
                if cell.key not in self._done and cell.key not in self._failed:
                    found.append((group.sweep.seeds.index(seed), cell))
        return tuple(cell for _, cell in sorted(found, key=lambda f: f[0]))

    def _sweep(self) -> None:
        """Remove the work of runs that are done, and of runs that are now to be made with other settings."""
        work = self.folder / "work"
        for key in self._done:
            log_file(self.folder, key).unlink(missing_ok=True)
            if not (work / key / KEPT).exists():
                shutil.rmtree(work / key, ignore_errors=True)
        for cell in (c for group in self.experiment.groups for c in group.cells()):
            file = work / cell.key / "config.yaml"
            if cell.key not in self._done and file.is_file() and not _same(file, self.experiment.config(cell)):
                shutil.rmtree(work / cell.key, ignore_errors=True)

    def _check_records(self) -> None:
        """Refuse records of other settings, questions or rationales: tables of both would mean nothing."""
        problems = [
            problem
            for group in self.experiment.groups
            for cell in group.cells()
            if (record := self._done.get(cell.key)) is not None
            for problem in self._problems(group, cell, record)
        ]
        if problems:
            shown = "\n".join(f"  - {p}" for p in problems[:_SHOWN])
            more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise RunFolderError(
                f"{self.folder} holds runs that do not fit what is asked for now (there → now):\n{shown}{more}\n"
                "Choose another folder with --run-dir, or remove those runs from its `cells`."
            )

    def _problems(self, group: Group, cell: Cell, record: Record) -> list[str]:
        try:
            was = build_config(record.config)
        except ConfigError as error:
            return [f"{cell.key}: {error}"]
        learns = rationale_key(self.experiment, cell) is not None or group.spec.asks is not None
        ignored = _MAY_DIFFER if learns else (*_MAY_DIFFER, *_OF_TEACHERS)
        now = self.experiment.config(cell)
        differences = describe_differences(_of_use(was), _of_use(now))
        found = [d for d in differences if not d.startswith(ignored)]
        if (
            not group.spec.trains
        ):  # what it is not trained with is nothing to it, but for how much of a question it sees
            found = [d for d in found if not d.startswith("train.") or d.startswith("train.max_input_tokens")]
        if learns and prefixes_in_use(was) != prefixes_in_use(now):
            found.append("the prefixes of its tasks are others now")
        if record.questions != self.shared.questions[cell.dataset, cell.student]:
            found.append("the test questions are others now, or are scored otherwise")
        if record.learnt and record.learnt != self.shared.learnt[cell.dataset, cell.student] and group.spec.trains:
            found.append("the training or validation questions are others now")
        if record.rationales != self._hash(cell) and self._hash(cell):
            found.append("it learnt from other rationales or opinions than there are now")
        if group.sweep.chooses and record.accuracy("valid", self.experiment.grid.scorer) is None:
            found.append(f"its validation questions were not answered by `scorer: {self.experiment.grid.scorer}`")
        return [f"{cell.key}: {f}" for f in found]

    def _hash(self, cell: Cell) -> str:
        """Return the hash of what a run learns from teachers; empty for nothing, or for what is not there yet."""
        key, config = rationale_key(self.experiment, cell), self.experiment.config(cell)
        if key is None or key not in self.shared.rationales:
            return ""
        used = tuple(t.name for t in teachers_in_use(config))
        if (key, used) not in self._hashes:
            self._hashes[key, used] = learnt_from(self.shared.rationales[key], config)
        return self._hashes[key, used]


def _same(file: Path, config: Config) -> bool:
    """Whether a run folder was begun with these settings."""
    try:
        return not describe_differences(load_config(file), config)
    except TinyLLMError:
        return False


def _of_use(config: Config) -> Config:
    """Return a configuration without the teachers that a run does not learn from: they may come and go."""
    used, weights = teachers_in_use(config), teacher_weights(config)
    alpha = {t.name: weights[t.name] for t in used}
    kept = tuple(t for t in config.teachers if t in used or t.name in config.opinions.teachers)
    return config.model_copy(update={"teachers": kept, "train": config.train.model_copy(update={"alpha": alpha})})
