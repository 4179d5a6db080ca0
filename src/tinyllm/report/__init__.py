"""The report of a run: one self-contained page that opens from disk."""

from tinyllm.report.page import write_report

__all__ = ["write_report"]
