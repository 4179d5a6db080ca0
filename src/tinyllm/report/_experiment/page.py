"""Writing an experiment's report: the page, and each table and figure as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.records import EXPERIMENT_FILE
from tinyllm.comparison.results import Figure, Results, read_results
from tinyllm.errors import RunFolderError
from tinyllm.report import _plots as plots
from tinyllm.report._browser import SCORERS
from tinyllm.report._experiment import content, figures
from tinyllm.report._experiment.browser import islands
from tinyllm.report._experiment.statements import headline, statements
from tinyllm.report._experiment.tables import as_csv, as_latex, as_markdown, cell_text, mark, runs_text, sign, tables
from tinyllm.report._page import both_widths, rendered, write_page
from tinyllm.report._words import count, duration, interval, percent
from tinyllm.system.files import write_text


def write_experiment(folder: Path, tell: Callable[[str], object] | None = None) -> Path:
    """Write `report.html`, `tables/` and `figures/` into an experiment's folder, from its records.

    `figures/` needs matplotlib. Without it, the page says so. The plots of the page do not need it.

    Args:
        tell: takes the sentences that the page begins with.

    Raises:
        RunFolderError: the folder holds no experiment, or a damaged record, or cannot be written.
    """
    results = read_results(folder)
    if not results.scorers:
        raise RunFolderError(f"{folder} holds no finished run yet; `tinyllm experiment {folder}` runs them.")
    for scorer in results.scorers:
        for table in tables(results, scorer):
            name = table.name if scorer == results.scorers[0] else f"{table.name}-{scorer}"
            for kind, write in (("csv", as_csv), ("md", as_markdown), ("tex", as_latex)):
                write_text(folder / "tables" / f"{name}.{kind}", write(table))
    if figures.can_draw():
        figures.write_figures(results, results.scorers[0], folder / "figures")
    if tell is not None:
        tell(headline(results, results.scorers[0]))
    return write_page(folder, render(results, folder))


def render(results: Results, folder: Path) -> str:
    """Return the page of an experiment as HTML."""
    values = _parts(results, results.scorers[0], folder)
    return rendered("experiment.html.j2", "experiment.js", **values, text=cell_text, mark=mark, runs=runs_text)


def _parts(results: Results, scorer: Scorer, folder: Path) -> dict[str, Any]:
    questions, left_out = islands(results, folder, scorer)
    settings = folder / EXPERIMENT_FILE
    return {
        "name": results.outline.name,
        "facts_": list(_facts(results)),
        "scorer": SCORERS[scorer],
        "headline": headline(results, scorer),
        "statements": statements(results, scorer),
        "tables": [(SCORERS[s], tables(results, s)[: None if s == scorer else 1]) for s in results.scorers],
        "comparisons": content.comparisons(results, scorer),
        "forests": list(_forests(results, scorer)),
        "alphas": list(_lines(results, "alpha", scorer)),
        "losses": list(_lines(results, "loss", scorer)),
        "calibrations": list(_lines(results, "calibration", scorer)),
        "uncalibrated": list(_lines(results, "uncalibrated", scorer)),
        "costs": content.costs(results),
        "machines": results.machines(),
        "given": content.given(results),
        "rotations": content.viewed(results, "rotated"),
        "without": content.viewed(results, "choices-only"),
        "overlaps": content.overlaps(results, scorer),
        "met": content.met_in_training(results),
        "tried": content.tried(results),
        "islands": [(label, Markup(data)) for label, data in questions],  # noqa: S704  browser.safe_json escaped it
        "left_out": left_out,
        "has_texts": all('"q":' in data for _, data in questions),
        "has_figures": figures.can_draw(),
        "settings": settings.read_text("utf-8") if settings.is_file() else "",
        "environment": _environment(results),
    }


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    outline = results.outline
    done = sum(len(results.all_of(p)) for p in results.places())
    sizes = [f"{dataset} ({count(f.questions['test'])} test questions)" for dataset, f in outline.datasets.items()]
    yield "Students", ", ".join(outline.students)
    yield "Datasets", ", ".join(sizes)
    yield "Seeds", str(len(outline.seeds))
    yield "Runs", f"{done:,} done" + (f", {len(results.failures):,} failed" if results.failures else "")
    runs = (record for place in results.places() for record in results.all_of(place))
    yield "Computing time", duration(sum(float(r.figures.get("seconds") or 0.0) for r in runs))


def _environment(results: Results) -> list[tuple[str, str]]:
    """Return the environment of the first run, with all machines if there are several."""
    first = next((record for place in results.places() for record in results.of(place)), None)
    if first is None:
        return []
    found = first.figures.get("environment") or {}
    packages = ", ".join(f"{k} {v}" for k, v in (found.get("packages") or {}).items())
    facts = [(str(k), str(v)) for k, v in found.items() if k != "packages"] + [("packages", packages)]
    machines = results.machines().most_common()
    if len(machines) > 1:
        facts.append(("machines", "; ".join(f"{name}: {runs} runs" for name, runs in machines)))
    return facts


def _forests(results: Results, scorer: Scorer) -> Iterator[dict[str, Any]]:
    """Yield for each dataset and student the accuracies of all methods with their intervals."""
    found = results.figures(scorer)
    for student in results.outline.students:
        for dataset, facts in results.outline.datasets.items():
            own = {p.method: f for p, f in found.items() if p.student == student and p.dataset == dataset}
            if not own:
                continue
            dots = [_forest_dot(results, method, figure) for method, figure in own.items()]
            marks = [plots.Mark(f"Chance {percent(facts.chance)}", facts.chance)]
            marks.append(plots.Mark(f"Majority {percent(facts.majority)}", facts.majority))
            if (base := own.get(results.outline.baseline)) is not None:
                label = results.outline.method(results.outline.baseline).label
                marks.append(plots.Mark(f"{label} {percent(base.accuracy.value)}", base.accuracy.value))
            draw = partial(plots.dot_plot, dots, marks)
            yield {"title": results.outline.where(student, dataset), "plots": both_widths(draw), "legend": ()}


def _forest_dot(results: Results, method: str, figure: Figure) -> plots.Dot:
    a, trained = figure.accuracy, results.is_trained(method)
    beyond = {1: " ▲", -1: " ▼"}.get(sign(figure), " †" if trained and not a.knows_seeds else "")
    return plots.Dot(
        results.outline.method(method).label,
        f"{percent(a.value)} ({interval(*a.ci95)}){beyond}",
        f"{percent(a.value)}{beyond}",
        a.value,
        *a.ci95,
        hollow=not trained,
    )


def _lines(results: Results, kind: str, scorer: Scorer) -> Iterator[dict[str, Any]]:
    """Yield a plot of lines with its legend, for each dataset and student that has some."""
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
                legend = [(line.label, line.colour) for line in lines]
                yield {"title": results.outline.where(student, dataset), "plots": both_widths(draw), "legend": legend}
