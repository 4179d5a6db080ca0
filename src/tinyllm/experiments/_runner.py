"""The runner: it chooses the next run, gives it to a place, and takes the result.

A run is done when its record is written. So an experiment that was stopped or killed continues where it was: finished
runs have records, and runs in progress continue from their checkpoints.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinyllm.comparison.records import EXPERIMENT_FILE, Failure, Record, cells, failures, read_records
from tinyllm.comparison.selection import FAILED, accuracies, named
from tinyllm.config import (
    Config,
    build_config,
    describe_differences,
    dump_config,
    load_config,
    prefixes_in_use,
    teacher_weights,
    teachers_in_use,
)
from tinyllm.errors import ConfigError, RunFolderError, TinyLLMError
from tinyllm.experiments._cell import KEPT, Job
from tinyllm.experiments._grid import Cell, Experiment, Group, GroupName
from tinyllm.experiments._places import Place
from tinyllm.experiments._shared import Shared, learnt_from, outline, rationale_key
from tinyllm.experiments._worker import log_file
from tinyllm.scoring.predictions import View
from tinyllm.system.files import write_json, write_text

_SHOWN = 12  # differences in a message
_MAY_DIFFER = (
    "name", "rationales.store", "evaluate.before", "evaluate.train_questions", "evaluate.rationales",
    "evaluate.max_rationale_tokens",
)  # fmt: skip
"""Settings that do not change what an experiment keeps."""
_OF_TEACHERS = ("teachers", "rationales", "opinions", "train.alpha", "train.teacher")
"""Settings that do not change a run without teachers."""


@dataclass(frozen=True, slots=True)
class Board:
    """The state of all runs.

    Attributes:
        running: (label, done, total) of runs in progress, by key.
        failed: errors of failed runs, by key.
        left: runs that are known to be needed, and are neither done nor failed.
    """

    done: Mapping[str, Record] = field(default_factory=dict)
    running: Mapping[str, tuple[str, int, int | None]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    left: tuple[Cell, ...] = ()

    def not_ended(self, group: Group) -> int:
        """Return how many runs of a group are neither done nor failed, with those whose settings are not known yet."""
        return max(0, group.sweep.runs() - sum(c.key in self.done or c.key in self.failed for c in group.cells()))


class Runner:
    """Does the runs of an experiment that are left.

    Raises:
        RunFolderError: the folder holds runs with other settings, questions or rationales.
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
        """Return the current state of all runs."""
        with self._lock:
            return Board(dict(self._done), dict(self._running), dict(self._failed), self._left)

    def views_lacking(self) -> set[str]:
        """Return the views of the grid that are missing in some finished runs with the first seed."""
        lacking: set[str] = set()
        for group in (g for g in self.experiment.groups if g.spec.asks is None):
            for cell in (c for c in group.cells() if c.is_first and c.key in self._done):
                lacking |= {*self._views(self.experiment.config(cell))} - self._done[cell.key].answers.views
        return lacking

    def undated(self) -> int:
        """Return the number of finished runs without a hash of their training and validation questions."""
        return sum(not record.learnt for record in self._done.values())

    def open(self) -> None:
        """Write the grid and the outline, and remove files of earlier starts that are not needed."""
        write_text(self.folder / EXPERIMENT_FILE, dump_config(self.experiment.grid))
        outline(self.experiment, self.shared).write(self.folder)
        for file in failures(self.folder).glob("*.json"):
            file.unlink()
        self._sweep()
        for key, error in self.shared.failed.items():
            for cell in [c for c in self._left if rationale_key(self.experiment, c) == key]:
                self._fail(cell, error)
        self._left = self._find_left()

    def run(self, places: Sequence[Place], show: Callable[[Board], None], every_s: float = 1.0) -> None:
        """Do all runs that are left.

        Args:
            show: called every `every_s` seconds and at the end, in this thread.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed. Runs in progress have written a checkpoint.
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
        """Return the next run, or None. Wait while runs in progress can make further runs necessary."""
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
            record = Record.read(cells(self.folder) / cell.key) if ended["event"] == "done" else None
        except Exception as error:  # noqa: BLE001  it is reported, and the next start tries the run again
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
        self._valid.setdefault(cell.group, {})[named(cell.settings), cell.seed] = FAILED
        failure = Failure(cell.dataset, cell.student, cell.method, dict(cell.settings), cell.seed, error)
        with contextlib.suppress(OSError):  # the disk can be full, which can be why the run failed
            write_json(failures(self.folder) / f"{cell.key}.json", asdict(failure))

    def job(self, cell: Cell) -> Job:
        """Return a run as a job for a place."""
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
        """Return the views of a run: without `rotated` where the choices, and so their order, are not in the prompt."""
        shows_choices = config.student.layout != "cloze"
        return tuple(view for view in self.experiment.grid.views if shows_choices or view != "rotated")

    # --- records ------------------------------------------------------------------------------------------------------

    def _take(self, record: Record) -> None:
        self._done[record.key] = record
        group = (record.dataset, record.student, record.method)
        self._valid.setdefault(group, {}).update(accuracies([record], self.experiment.grid.scorer))

    def _find_left(self) -> tuple[Cell, ...]:
        """Return the runs that are left, by seed, so that the whole table gets its first figures early."""
        found: list[tuple[int, Cell]] = []
        for group in self.experiment.groups:
            for settings, seed in group.sweep.wanted(self._valid.get(group.name, {})):
                cell = group.cell(settings, seed)
                if cell.key not in self._done and cell.key not in self._failed:
                    found.append((group.sweep.seeds.index(seed), cell))
        return tuple(cell for _, cell in sorted(found, key=lambda f: f[0]))

    def _sweep(self) -> None:
        """Remove the work folders of finished runs, and of runs whose settings have changed."""
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
        """Refuse records with other settings, questions or rationales, because their figures cannot be compared."""
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
                f"{self.folder} holds runs with other settings (there → now):\n{shown}{more}\n"
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
        if was.train.soft is None and now.train.soft is None:
            ignored = (*ignored, "opinions")
        differences = describe_differences(_of_use(was), _of_use(now))
        found = [d for d in differences if not d.startswith(ignored)]
        if not group.spec.trains:  # the settings of training have no effect, except for the length of the input
            found = [d for d in found if not d.startswith("train.") or d.startswith("train.max_input_tokens")]
        if learns and prefixes_in_use(was) != prefixes_in_use(now):
            found.append("the prefixes of its tasks have changed")
        if record.questions != self.shared.questions[cell.dataset, cell.student]:
            found.append("the test questions, or the rules of scoring, have changed")
        if record.learnt and record.learnt != self.shared.learnt[cell.dataset, cell.student] and group.spec.trains:
            found.append("the training or validation questions have changed")
        if record.rationales != self._hash(cell) and self._hash(cell):
            found.append("the rationales or opinions have changed")
        if group.sweep.chooses and record.accuracy("valid", self.experiment.grid.scorer) is None:
            found.append(f"it has no validation accuracy by `scorer: {self.experiment.grid.scorer}`")
        return [f"{cell.key}: {f}" for f in found]

    def _hash(self, cell: Cell) -> str:
        """Return the hash of what a run learns from teachers; empty for nothing, or while it is not generated."""
        key, config = rationale_key(self.experiment, cell), self.experiment.config(cell)
        if key is None or key not in self.shared.rationales:
            return ""
        used = tuple(t.name for t in teachers_in_use(config))
        if (key, used) not in self._hashes:
            self._hashes[key, used] = learnt_from(self.shared.rationales[key], config)
        return self._hashes[key, used]


def _same(file: Path, config: Config) -> bool:
    """Whether a run folder was started with these settings."""
    try:
        return not describe_differences(load_config(file), config)
    except TinyLLMError:
        return False


def _of_use(config: Config) -> Config:
    """Return a configuration without the teachers that a run does not use. Changes of these do not matter."""
    used, weights = teachers_in_use(config), teacher_weights(config)
    alpha = {t.name: weights[t.name] for t in used}
    asked = config.opinions.teachers if config.train.soft is not None else ()
    kept = tuple(t for t in config.teachers if t in used or t.name in asked)
    return config.model_copy(update={"teachers": kept, "train": config.train.model_copy(update={"alpha": alpha})})
