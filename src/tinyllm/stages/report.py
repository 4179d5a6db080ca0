"""Report: one page of what a run left."""

from __future__ import annotations

from pathlib import Path

from tinyllm.stages.folder import RunFolder
from tinyllm.system.news import News


def report_run(run: RunFolder, news: News) -> Path:
    """Write `report.html`, a page that opens from disk."""
    from tinyllm.report import write_report

    with news.task("Writing the report"):
        return write_report(run.path)
