"""Experiments: a grid of datasets, students, methods and seeds, run to its end.

Add a method to compare: a function in `_methods` and a line in its table. A setting of a grid: `_schema`. A place where
runs happen: a class beside `_places`.
"""

from tinyllm.experiments._grid import load_experiment
from tinyllm.experiments._run import Summary, run_experiment

__all__ = ["Summary", "load_experiment", "run_experiment"]
