"""Writing an experiment's report: the page, and beside it each table and figure as a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.records import EXPERIMENT_FILE
from tinyllm.comparison.results import Figure, Place, Results, read_results
from tinyllm.errors import RunFolderError
from tinyllm.report import _plots as plots
from tinyllm.report._browser import SCORERS
from tinyllm.report._experiment import content, figures
from tinyllm.report._experiment.browser import islands
from tinyllm.report._experiment.statements import statements
from tinyllm.report._experiment.tables import as_csv, as_latex, as_markdown, cell_text, mark, runs_text, tables
from tinyllm.report._page import REPORT_NAME, asset, both_widths, environment, policy
from tinyllm.report._view import Fact
from tinyllm.report._words import count, interval, percent
from tinyllm.system.files import write_text

TABLES, FIGURES = "tables", "figures"
_MARGIN = 0.03  # of accuracy, beyond what is drawn


@dataclass(frozen=True, slots=True)
class Panel:
    """A drawing of one dataset, wide and narrow, with the legend of its lines."""

    title: str
    plots: tuple[Markup, ...]
    legend: tuple[tuple[str, int], ...] = ()


def write_experiment(folder: Path) -> Path:
    """Write `report.html`, `tables/` and `figures/` into an experiment's folder, from its records alone.

    Figures need matplotlib; without it they are left out, and the page, which draws its own, says so.

    Raises:
        RunFolderError: the folder holds no experiment, or a damaged record.
    """
    results = read_results(folder)
    if not results.scorers:
        raise RunFolderError(f"{folder} holds no finished run yet; `tinyllm experiment {folder}` runs them.")
    for scorer in results.scorers:
        for table in tables(results, scorer):
            name = table.name if scorer == results.scorers[0] else f"{table.name}-{scorer}"
            for kind, write in (("csv", as_csv), ("md", as_markdown), ("tex", as_latex)):
                write_text(folder / TABLES / f"{name}.{kind}", write(table))
    if figures.can_draw():
        figures.write_figures(results, results.scorers[0], folder / FIGURES)
    path = folder / REPORT_NAME
    write_text(path, render(results, folder).encode("utf-8", errors="replace").decode("utf-8"))
    return path


def render(results: Results, folder: Path) -> str:
    """Return the page as HTML that needs nothing from outside itself, and is forbidden to ask for it."""
    style, script = asset("page.css"), asset("common.js") + asset("experiment.js")
    scorer = results.scorers[0]
    return (
        environment()
        .get_template("experiment.html.j2")
        .render(
            name=results.outline.name,
            facts_=list(_facts(results)),
            style=Markup(style),  # noqa: S704  ours, shipped
            script=Markup(script),  # noqa: S704  ours, shipped
            policy=policy(style, script),
            **_parts(results, scorer, folder),
            text=cell_text,
            mark=mark,
            runs=runs_text,
            swatch=lambda colour: Markup(plots.swatch(colour)),  # noqa: S704  plots escapes its labels
        )
    )


def _parts(results: Results, scorer: Scorer, folder: Path) -> dict[str, Any]:
    others = [(SCORERS[s], t) for s in results.scorers[1:] for t in tables(results, s)[:1]]
    return {
        "scorer": SCORERS[scorer],
        "statements": statements(results, scorer),
        "tables": tables(results, scorer),
        "other_tables": others,
        "comparisons": content.comparisons(results, scorer),
        "forests": list(_forests(results, scorer)),
        "alphas": list(_lines(results, "alpha", scorer)),
        "losses": list(_lines(results, "loss", scorer)),
        "calibrations": list(_lines(results, "calibration", scorer)),
        "uncalibrated": list(_lines(results, "uncalibrated", scorer)),
        "costs": content.costs(results),
        "machines": results.machines(),
        "given": content.given(results),
        "rotations": content.rotations(results),
        "without": content.without_questions(results),
        "overlaps": content.overlaps(results, scorer),
        "met": content.met_in_training(results),
        "tried": content.tried(results),
        **_questions(results, scorer, folder),
        "has_figures": figures.can_draw(),
        "settings": _settings(folder),
        "environment": _environment(results),
    }


def _questions(results: Results, scorer: Scorer, folder: Path) -> dict[str, Any]:
    found, left_out = islands(results, folder, scorer)
    return {
        "islands": [(label, Markup(data)) for label, data in found],  # noqa: S704  browser.safe_json escaped it
        "left_out": left_out,
        "has_texts": all('"q":' in data for _, data in found),
    }


def _facts(results: Results) -> Iterator[Fact]:
    outline = results.outline
    done = sum(len(results.all_of(p)) for p in results.places())
    yield Fact("Students", ", ".join(outline.students))
    sizes = [f"{dataset} ({count(f.questions['test'])} test questions)" for dataset, f in outline.datasets.items()]
    yield Fact("Datasets", ", ".join(sizes))
    yield Fact("Seeds", str(len(outline.seeds)))
    failed = f", {len(results.failures):,} failed" if results.failures else ""
    yield Fact("Runs", f"{done:,} done{failed}")


def _settings(folder: Path) -> str:
    file = folder / EXPERIMENT_FILE
    return file.read_text("utf-8") if file.is_file() else ""


def _environment(results: Results) -> list[Fact]:
    for place in results.places():
        for record in results.of(place):
            found = record.figures.get("environment") or {}
            packages = ", ".join(f"{k} {v}" for k, v in (found.get("packages") or {}).items())
            plain = [Fact(str(k), str(v)) for k, v in found.items() if k != "packages"]
            machines = results.machines().most_common()
            others = [Fact("machines", "; ".join(f"{name}: {count} runs" for name, count in machines))]
            return [*plain, Fact("packages", packages), *(others if len(machines) > 1 else [])]
    return []


def _forests(results: Results, scorer: Scorer) -> Iterator[Panel]:
    """Yield, for each dataset and student, every method's accuracy with its interval."""
    found = results.figures(scorer)
    for student in results.outline.students:
        for dataset, facts in results.outline.datasets.items():
            own = {p.method: f for p, f in found.items() if p.student == student and p.dataset == dataset}
            if not own:
                continue
            dots = [_forest_dot(results, method, figure) for method, figure in own.items()]
            marks = [plots.Mark(f"Chance {percent(facts.chance)}", facts.chance)]
            marks.append(plots.Mark(f"Majority {percent(facts.majority)}", facts.majority))
            ends = [v for d in dots for v in (d.low, d.high)] + [m.value for m in marks]
            scale = max(0.0, min(ends) - _MARGIN), min(1.0, max(ends) + _MARGIN)
            draw = partial(plots.dot_plot, dots, marks, scale=scale)
            yield Panel(content.where(results, Place(student, dataset, "")), both_widths(draw))


def _forest_dot(results: Results, method: str, figure: Figure) -> plots.Dot:
    a = figure.accuracy
    return plots.Dot(
        results.outline.method(method).label,
        f"{percent(a.value)} ({interval(*a.ci95)})",
        percent(a.value),
        a.value,
        *a.ci95,
        hollow=results.outline.method(method).kind == "reference",
    )


def _lines(results: Results, kind: str, scorer: Scorer) -> Iterator[Panel]:
    for student in results.outline.students:
        for dataset in results.outline.datasets:
            if kind == "alpha":
                lines, axes = content.alpha_lines(results, student, dataset, scorer), ("α", "accuracy, %")
            elif kind == "loss":
                lines, axes = content.loss_lines(results, student, dataset), ("optimizer step", "loss")
            else:
                lines = content.calibration_lines(results, student, dataset, calibrated=kind == "calibration")
                axes = ("confidence, %", "accuracy, %")
            if lines:
                diagonal = kind in ("calibration", "uncalibrated")
                draw = partial(plots.line_plot, lines, *axes, log_x=kind == "alpha", diagonal=diagonal)
                legend = tuple((line.label, line.colour) for line in lines)
                yield Panel(content.where(results, Place(student, dataset, "")), both_widths(draw), legend)
