"""Pages: a run, or an experiment, as one HTML file that opens from disk.

Add a panel: its figures in `_content`, its place in `templates/`. Templates escape all text (`page.environment`), plots
escape their labels (`_plots`).
"""

from tinyllm.report.experiment import write_experiment
from tinyllm.report.page import write_report

__all__ = ["write_experiment", "write_report"]
