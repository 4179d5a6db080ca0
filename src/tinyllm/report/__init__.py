"""The reports of a run and of an experiment: each one self-contained page that opens from disk."""

from tinyllm.report.experiment import write_experiment
from tinyllm.report.page import write_report

__all__ = ["write_experiment", "write_report"]
