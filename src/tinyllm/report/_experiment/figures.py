"""Figures for papers and slides as SVG and PNG, drawn by matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.results import Place, Results
from tinyllm.report._experiment.content import alpha_lines, calibration_lines, loss_lines
from tinyllm.report._plots import Line
from tinyllm.system.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The palette of Okabe and Ito, which is safe for colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#555555")
_DOTS_PER_INCH = 200
_FEW = 30  # lines with more points have no dots


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write_figures(results: Results, scorer: Scorer, folder: Path) -> list[Path]:
    """Write all figures that have data, as SVG and as PNG, and return the files. It needs matplotlib (`can_draw`)."""
    written: list[Path] = []
    for name, figure in _figures(results, scorer):
        written += [_save(figure, folder / f"{name}.{kind}") for kind in ("svg", "png")]
    return written


def _save(figure: Figure, file: Path) -> Path:
    import matplotlib as mpl

    # Without a date and with fixed ids, the same figures give the same file.
    with replacing(file) as draft, mpl.rc_context({"svg.hashsalt": "tinyllm"}):
        metadata: dict[str, Any] = {"Date": None} if file.suffix == ".svg" else {}
        figure.savefig(draft, format=file.suffix[1:], dpi=_DOTS_PER_INCH, bbox_inches="tight", metadata=metadata)
    return file


def _figures(results: Results, scorer: Scorer) -> Iterable[tuple[str, Figure]]:
    yield "accuracy", _accuracy(results, scorer)
    datasets = results.outline.datasets
    for student in results.outline.students:
        panels = {d: alpha_lines(results, student, d, scorer) for d in datasets}
        if any(panels.values()):
            yield f"figure2-{student}", _lines(panels, "α", "accuracy (%)", log_x=True)
        panels = {d: loss_lines(results, student, d) for d in datasets}
        if any(panels.values()):
            yield f"losses-{student}", _lines(panels, "optimizer step", "loss")
        for name, calibrated in (("calibration", True), ("uncalibrated", False)):
            panels = {d: calibration_lines(results, student, d, calibrated=calibrated) for d in datasets}
            if any(panels.values()):
                yield f"{name}-{student}", _lines(panels, "confidence (%)", "accuracy (%)", diagonal=True)


def _panels(count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(figsize=(4.2 * count, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(visible=True, color="#e4e4e4", linewidth=0.7)
        axis.set_axisbelow(True)
    return figure, axes


def _accuracy(results: Results, scorer: Scorer) -> Figure:
    """Draw the accuracy of each method with its interval, one panel for each dataset."""
    outline, figures = results.outline, results.figures(scorer)
    rows = [(s, m) for s in outline.students for m in outline.methods]
    figure, axes = _panels(len(outline.datasets), 0.32 * len(rows) + 1.2)
    for axis, (dataset, facts) in zip(axes, outline.datasets.items(), strict=True):
        axis.set_title(_plain(dataset), loc="left")
        axis.axvline(100 * facts.majority, color="#888888", linestyle="--", linewidth=1, label="majority")
        axis.axvline(100 * facts.chance, color="#888888", linestyle=":", linewidth=1, label="chance")
        for place, (student, method) in enumerate(rows):
            found = figures.get(Place(student, dataset, method.id))
            if found is not None:
                low, high = found.accuracy.ci95
                value, colour = 100 * found.accuracy.value, _COLOURS[list(outline.students).index(student) % 7]
                axis.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=1.6)
                axis.plot([value], [place], "o", color=colour, markersize=5)
        several = len(outline.students) > 1
        labels = [_plain(f"{m.label}, {s}" if several else m.label) for s, m in rows]
        axis.set_yticks(range(len(rows)), labels if axis is axes[0] else [""] * len(rows))
        axis.invert_yaxis()
        axis.set_xlabel("accuracy (%), 95 % intervals")
    figure.legend(
        *axes[-1].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False, fontsize="small"
    )
    return figure


def _lines(
    panels: Mapping[str, Sequence[Line]], x: str, y: str, *, log_x: bool = False, diagonal: bool = False
) -> Figure:
    figure, axes = _panels(len(panels), 3.2)
    for axis, (dataset, lines) in zip(axes, panels.items(), strict=True):
        axis.set_title(_plain(dataset), loc="left")
        axis.set_xlabel(x)
        if log_x:
            axis.set_xscale("log")
        if diagonal:
            axis.plot([0, 100], [0, 100], color="#888888", linestyle=":", linewidth=1)
        for line in lines:
            _line(axis, line)
    axes[0].set_ylabel(y)
    named = {t: h for a in axes for h, t in zip(*a.get_legend_handles_labels(), strict=True)}
    if named:
        look = {"ncols": 2 * len(panels), "frameon": False, "fontsize": "small"}
        figure.legend(named.values(), named.keys(), loc="outside lower center", **look)
    return figure


def _plain(text: str) -> str:
    """Escape a text, so that matplotlib does not read it as a formula."""
    return text.replace("$", r"\$")


def _line(axis: Axes, line: Line) -> None:
    colour = _COLOURS[line.colour % len(_COLOURS)]
    xs, ys = [p.x for p in line.points], [p.y for p in line.points]
    marker = "o" if len(xs) < _FEW else ""
    axis.plot(xs, ys, color=colour, linewidth=1.5, marker=marker, markersize=4, label=_plain(line.label))
    if all(p.low is not None and p.high is not None for p in line.points):
        lows, highs = [p.low or 0.0 for p in line.points], [p.high or 0.0 for p in line.points]
        axis.fill_between(xs, lows, highs, color=colour, alpha=0.15, linewidth=0)
