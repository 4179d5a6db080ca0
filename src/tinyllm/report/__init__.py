"""Report: a run, or an experiment, as one HTML file that opens from disk.

Add a panel: its content in `_content`, and its place in `templates/`. Templates escape all text (`_page.environment`).
Plots escape their labels (`_plots`).
"""

from tinyllm.report._browser import scorers
from tinyllm.report._compare import compare_runs
from tinyllm.report._experiment.page import write_experiment
from tinyllm.report._page import write_report
from tinyllm.report._verdict import verdict_in_words
from tinyllm.report._words import plural

__all__ = ["compare_runs", "plural", "scorers", "verdict_in_words", "write_experiment", "write_report"]
