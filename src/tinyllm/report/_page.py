"""Writing the report of a run: read its folder, compute the content, fill the template, write the file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tinyllm.errors import RunFolderError, printable
from tinyllm.report import _plots as plots
from tinyllm.report._browser import MAX_QUESTIONS
from tinyllm.report._content import build_page
from tinyllm.report._files import read_run
from tinyllm.system.files import write_text


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder and return its path. For a run in progress it shows the files so far.

    Raises:
        RunFolderError: the folder is missing, a file in it is damaged, or it cannot be written. An old report stays.
    """
    page = build_page(read_run(run))
    axes = "probability of the first choice, %", "right, %"
    html = rendered(
        "page.html.j2",
        "page.js",
        page=page,
        island=Markup(page["island"]),  # noqa: S704  browser.safe_json escaped it
        max_questions=MAX_QUESTIONS,
        dot_plots=both_widths(lambda width: plots.dot_plot(page["dots"], page["marks"], width)) if page["dots"] else (),
        curve_plots=both_widths(lambda width: plots.learning_curve(page["curves"], width)),
        reliability_plots=both_widths(
            lambda width: plots.line_plot(page["opinions"]["lines"], *axes, width, diagonal=True)
        ),
        calibration_plots=both_widths(lambda width: plots.line_plot(page["calibration"], *axes, width, diagonal=True)),
        share_bar=lambda parts: Markup(plots.share_bar(parts)),  # noqa: S704  plots escapes its labels
    )
    return write_page(run, html)


def write_page(folder: Path, html: str) -> Path:
    """Write `report.html` and return its path.

    Raises:
        RunFolderError: it cannot be written. An old report stays.
    """
    path = folder / "report.html"
    try:
        # Broken JSON can hold half a surrogate pair, which UTF-8 cannot encode. It becomes a question mark.
        write_text(path, html.encode("utf-8", errors="replace").decode("utf-8"))
    except OSError as error:
        raise RunFolderError(f"Cannot write {path}: {error.strerror or error}. An old report there stays.") from error
    return path


def rendered(template: str, script_name: str, **values: Any) -> str:
    """Return a page as HTML. It loads nothing, and its security policy forbids to load anything."""
    templates = resources.files("tinyllm.report") / "templates"
    style, *scripts = ((templates / name).read_text("utf-8") for name in ("page.css", "common.js", script_name))
    script = "".join(scripts)
    sources = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    return (
        environment()
        .get_template(template)
        .render(
            style=Markup(style),  # noqa: S704  ours, shipped
            script=Markup(script),  # noqa: S704  ours, shipped
            policy=f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'",
            swatch=lambda colour: Markup(plots.swatch(colour)),  # noqa: S704  plots escapes its labels
            **values,
        )
    )


def both_widths(draw: Callable[[int], str]) -> tuple[Markup, ...]:
    """Return a plot for wide windows and one for narrow windows. The style sheet shows the one that fits."""
    svgs = (draw(width) for width in (plots.WIDE, plots.NARROW))
    return tuple(Markup(svg) for svg in svgs if svg)  # noqa: S704  plots escapes its labels


def environment() -> Environment:
    """Return the templates. They escape all text that is not marked as safe."""
    return Environment(
        loader=PackageLoader("tinyllm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # Markup is ours
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
