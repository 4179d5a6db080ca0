"""Experiments: a grid of datasets, students, methods and seeds, and all runs of it.

Add a method: a function in `_methods`, and a line in its table. A setting of a grid: `_schema`. A place where runs
happen: a class like those in `_places`.
"""

from tinyllm.experiments._grid import load_experiment
from tinyllm.experiments._run import Summary, run_experiment

__all__ = ["Summary", "load_experiment", "run_experiment"]
