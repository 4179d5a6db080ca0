"""Forecast: how long the runs that are left will take. The measured time of finished runs corrects the estimate."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from tinyllm.comparison.records import Record
from tinyllm.experiments._grid import Cell, Experiment, Group, GroupName
from tinyllm.experiments._shared import Shared, rationale_key
from tinyllm.rationales.files import read_rationales
from tinyllm.stages.effort import Effort
from tinyllm.system.machine import environment, machine_name, peak_flops


class Forecast:
    """Estimates the time of runs.

    Args:
        places: the number of runs at the same time.
        is_here: whether runs happen on this machine, and not on a cluster.
    """

    def __init__(
        self, experiment: Experiment, shared: Shared, *, places: int = 1, gpus: int = 0, is_here: bool = True
    ) -> None:
        self._experiment, self._shared = experiment, shared
        self._places = places
        self._at_once = max(1, min(places, gpus)) if gpus else 1  # processes on a CPU share its speed
        self._peak = cache(peak_flops)
        self._machine = machine_name(environment()) if is_here else None
        self._cells = {c.key: c for g in experiment.groups for c in g.cells()}
        self._efforts: dict[GroupName, Effort] = {}

    def seconds_of(self, cell: Cell) -> float:
        """Return the estimated time of one run, without correction."""
        if cell.group not in self._efforts:
            self._efforts[cell.group] = self._measure(self._experiment.group(cell))
        views = len(self._experiment.grid.views) if cell.is_first else 1
        return self._efforts[cell.group].seconds(self._peak, reads=views)

    def left(self, cells: Iterable[Cell], more: int, done: Iterable[Record]) -> float:
        """Return the seconds to go.

        Args:
            cells: runs that are known to be needed.
            more: the number of further runs whose settings are not known yet.
            done: finished runs. Their time corrects the estimate.
        """
        each = [self.seconds_of(c) for c in cells]
        total = sum(each) + (more * sum(each) / len(each) if each else 0.0)
        took = expected = 0.0
        for record in done:
            cell, is_known = self._cells.get(record.key), self._machine in (None, record.machine)
            if cell is not None and is_known:
                took += float(record.figures.get("seconds") or 0.0)
                expected += self.seconds_of(cell)
        # Finished runs were measured while others ran beside them.
        return total * (took / expected) / self._places if took and expected else total / self._at_once

    def _measure(self, group: Group) -> Effort:
        cell = group.cells()[0]
        # Before any are generated, those that come with the questions give an estimate.
        folder = self._shared.rationales.get(rationale_key(self._experiment, cell) or "")
        rationales = None if folder is None else read_rationales(folder)
        splits = self._shared.splits[group.dataset]
        return Effort.of(self._experiment.config(cell), splits, rationales, trains=group.spec.trains)
