"""Running an experiment: which run is next, on which place, and what became of it.

Every finished run has left its record before it counts. So an experiment that is stopped, or killed, goes on where it
was: finished runs are known by their records, and the runs that were under way go on from their checkpoints.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyllm.atomic import write_json, write_text
from tinyllm.config import build_config, describe_differences
from tinyllm.errors import ConfigError, RunFolderError
from tinyllm.evidence.outline import write_outline
from tinyllm.evidence.records import EXPERIMENT_FILE, Record, cells, read_record, read_records
from tinyllm.evidence.selection import accuracies, wanted
from tinyllm.experiments.cell import Job
from tinyllm.experiments.grid import Cell, Experiment, Group, dump_grid
from tinyllm.experiments.places import Place
from tinyllm.experiments.shared import Shared, outline, rationale_key

GroupName = tuple[str, str, str]
_SHOWN = 12  # differences in a message


@dataclass
class Board:
    """How each run stands; written by the places, read by whoever shows it.

    Attributes:
        running: what is under way, by key: (label, done, total).
        failed: what went wrong, by key.
        left: runs that are known to be needed and are not done, failed ones aside.
    """

    done: dict[str, Record] = field(default_factory=dict)
    running: dict[str, tuple[str, int, int | None]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: tuple[Cell, ...] = ()
    changed: int = 0


class Runner:
    """Runs what an experiment still lacks.

    Args:
        folder: of the experiment; holds its records.
        shared: what the runs have in common.
    """

    def __init__(self, experiment: Experiment, folder: Path, shared: Shared) -> None:
        self.experiment, self.folder, self.shared = experiment, folder, shared
        self.board = Board()
        self._valid: dict[GroupName, dict[tuple[str, int], float]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        for record in read_records(folder):
            self._take(record)
        self._check_records()
        self.board.left = tuple(self._left())

    def open(self) -> None:
        """Write what was asked beside the records, and forget what failed before."""
        write_text(self.folder / EXPERIMENT_FILE, dump_grid(self.experiment.grid))
        write_outline(self.folder, outline(self.experiment, self.shared))
        for file in (self.folder / "failed").glob("*.json"):
            file.unlink()

    def run(self, places: Sequence[Place], show: Callable[[Board], None], every_s: float = 0.5) -> None:
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
                threads[0].join(every_s) if threads[0].is_alive() else self._stop.wait(every_s)
                show(self.board)
        except KeyboardInterrupt:
            self._stop.set()
            for place in places:
                place.interrupt()
            for thread in threads:
                thread.join()
            raise
        finally:
            show(self.board)

    def _serve(self, place: Place) -> None:
        try:
            while not self._stop.is_set() and (cell := self._next()) is not None:
                self._do(place, cell)
        finally:
            place.close()

    def _next(self) -> Cell | None:
        """Return a run to do; waits where one may turn up once others are done."""
        while not self._stop.is_set():
            with self._lock:
                free = [c for c in self.board.left if c.key not in self.board.running]
                if free:
                    self.board.running[free[0].key] = ("Starting", 0, None)
                    return free[0]
                if not self.board.running:
                    return None
            self._stop.wait(0.2)
        return None

    def _do(self, place: Place, cell: Cell) -> None:
        def tell(event: Mapping[str, Any]) -> None:
            self.board.running[cell.key] = (event["label"], event["done"], event["total"])

        ended: Mapping[str, Any] = {"event": "failed", "error": "it never began"}
        try:
            ended = place.work(self.job(cell), tell)
        except Exception as error:  # noqa: BLE001  of the place; the run is tried again next time
            ended = {"event": "failed", "error": f"{type(error).__name__}: {error}"}
        finally:
            with self._lock:
                self.board.running.pop(cell.key)
                if ended["event"] == "done":
                    self._take(read_record(cells(self.folder) / cell.key))
                elif ended["event"] == "failed" and not self._stop.is_set():
                    self.board.failed[cell.key] = str(ended["error"])
                    write_json(self.folder / "failed" / f"{cell.key}.json", dict(ended))
                self.board.left = tuple(self._left())
                self.board.changed += 1

    def job(self, cell: Cell) -> Job:
        """Return what a place has to know to do a run."""
        group, grid = self.experiment.group(cell), self.experiment.grid
        key = rationale_key(self.experiment, group)
        return Job(
            folder=str(self.folder.resolve()),
            key=cell.key,
            dataset=cell.dataset,
            student=cell.student,
            method=cell.method,
            settings=dict(cell.settings),
            seed=cell.seed,
            config=self.experiment.config(cell).model_dump(mode="json"),
            rationales=None if key is None else str(self.shared.rationales[key].resolve()),
            views=grid.views if cell.is_first else ("asked",),
            scorer=grid.scorer,
            trains=group.spec.trains,
            asks=group.spec.asks,
            keep_student=grid.keep_students,
        )

    # --- what is there, and what is lacking ---------------------------------------------------------------------------

    def _take(self, record: Record) -> None:
        self.board.done[record.key] = record
        group = (record.dataset, record.student, record.method)
        self._valid.setdefault(group, {}).update(accuracies([record], self.experiment.grid.scorer))

    def _left(self) -> list[Cell]:
        """Return what is needed and not there, all of a seed before the next: a table fills evenly."""
        found: list[tuple[int, Cell]] = []
        for group in self.experiment.groups:
            name = (group.dataset, group.student, group.spec.id)
            for settings, seed in wanted(group.sweep, self._valid.get(name, {})):
                cell = group.cell(settings, seed)
                if cell.key not in self.board.done and cell.key not in self.board.failed:
                    found.append((group.sweep.seeds.index(seed), cell))
        return [cell for _, cell in sorted(found, key=lambda f: f[0])]

    def _check_records(self) -> None:
        """Refuse records of other settings: tables of both would mean nothing."""
        problems = []
        for group in self.experiment.groups:
            for settings, seed in _all(group):
                record = self.board.done.get(group.cell(settings, seed).key)
                if record is not None:
                    problems += self._differences(group.cell(settings, seed), record)
        if problems:
            shown = "\n".join(f"  - {p}" for p in problems[:_SHOWN])
            more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise RunFolderError(
                f"{self.folder} holds runs that were made with other settings (there → now):\n{shown}{more}\n"
                "Choose another folder with --run-dir, or remove those runs from its `cells`."
            )

    def _differences(self, cell: Cell, record: Record) -> list[str]:
        try:
            was = build_config(record.config)
        except ConfigError as error:
            return [f"{cell.key}: {error}"]
        ignored = ("name", "rationales.store")
        found = describe_differences(was, self.experiment.config(cell))
        return [f"{cell.key}: {d}" for d in found if not d.startswith(ignored)]


def _all(group: Group) -> list[tuple[Mapping[str, Any], int]]:
    return [(s, seed) for of_alpha in group.sweep.by_alpha() for s in of_alpha for seed in group.sweep.seeds]
