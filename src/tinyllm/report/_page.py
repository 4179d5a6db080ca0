"""Writing the report: read the run folder, make the page's content, fill the template, put the file in place."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tinyllm.errors import RunFolderError, printable
from tinyllm.report import _plots as plots
from tinyllm.report._browser import MAX_QUESTIONS
from tinyllm.report._content import build_page
from tinyllm.report._files import read_run
from tinyllm.report._view import Page
from tinyllm.system.files import write_text

REPORT_NAME = "report.html"


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder and return its path. A run in progress gets a page of what there is.

    Raises:
        RunFolderError: no such folder, a damaged file in it, or no way to write there. An old report stays.
    """
    html = render(build_page(read_run(run)))
    path = run / REPORT_NAME
    try:
        # Half of a surrogate pair, as broken JSON may hold, has no UTF-8; a question mark stands for it.
        write_text(path, html.encode("utf-8", errors="replace").decode("utf-8"))
    except OSError as error:
        raise RunFolderError(f"Cannot write {path}: {error.strerror or error}. An old report there stays.") from error
    return path


def render(page: Page) -> str:
    """Return the page as HTML that needs nothing from outside itself, and is forbidden to ask for it."""
    style, script = asset("page.css"), asset("common.js") + asset("page.js")
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            style=Markup(style),  # noqa: S704  ours, shipped
            script=Markup(script),  # noqa: S704  ours, shipped
            policy=policy(style, script),
            island=Markup(page.island),  # noqa: S704  browser.safe_json escaped it
            max_questions=MAX_QUESTIONS,
            dot_plots=both_widths(lambda width: plots.dot_plot(page.dots, page.marks, width)) if page.dots else (),
            curve_plots=both_widths(lambda width: plots.learning_curve(page.curves, width)) if page.curves else (),
            reliability_plots=both_widths(
                lambda width: plots.line_plot(
                    page.opinions.lines, "probability of the first choice, %", "right, %", width, diagonal=True
                )
            ),
            calibration_plots=both_widths(
                lambda width: plots.line_plot(
                    page.calibration, "probability of the first choice, %", "right, %", width, diagonal=True
                )
            ),
            swatch=lambda colour: Markup(plots.swatch(colour)),  # noqa: S704  plots escapes its labels
            share_bar=lambda parts: Markup(plots.share_bar(parts)),  # noqa: S704  plots escapes its labels
        )
    )


def both_widths(draw: Callable[[int], str]) -> tuple[Markup, ...]:
    """Return a plot for wide and one for narrow windows; the style sheet shows the one that fits."""
    svgs = (draw(width) for width in (plots.WIDE, plots.NARROW))
    return tuple(Markup(svg) for svg in svgs if svg)  # noqa: S704  plots escapes its labels


def asset(name: str) -> str:
    """Return a file that is shipped beside the templates."""
    return resources.files("tinyllm.report").joinpath("templates", name).read_text("utf-8")


def environment() -> Environment:
    """Return the templates, which escape everything that is not marked as safe."""
    return Environment(
        loader=PackageLoader("tinyllm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not of markup, which is ours
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def policy(style: str, script: str) -> str:
    """Return a security policy under which a page runs its own style and script and asks the network for nothing."""
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )


def _digest(text: str) -> str:
    """Return the hash by which the page's security policy knows its own style and script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
