"""The report of an experiment: the paper's tables and figures, with intervals, on one page and as files."""

from tinyllm.report.experiment.page import write_experiment

__all__ = ["write_experiment"]
