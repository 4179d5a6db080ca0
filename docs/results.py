"""Makes docs/results.md, and the short table in README.md, from the kept answers in `results/`: `python docs/results.py`.

`--check` only says whether they are up to date.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tinyllm.comparison.results import Results, read_results
from tinyllm.report._experiment.content import comparisons, tried, viewed
from tinyllm.report._experiment.statements import statements
from tinyllm.report._experiment.tables import Row, Table, as_markdown, markdown, runs_text, tables
from tinyllm.system.news import duration

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
_IN_README = ("few-labels", "few-labels-obqa")  # with the same methods and baseline
_BEGIN, _END = "<!-- made by docs/results.py -->", "<!-- end -->"
_INTRO = """\
# Results

`python docs/results.py` makes this page from the answers that are kept in `results/`. Only this paragraph and the comments
above each table are written by hand. Every answer of every run is kept, so you can compute any other test without a model.
`tinyllm experiment results/NAME` continues an experiment. `tinyllm report results/NAME` makes its page.
"""
_COMMENTS = Path(__file__).parent / "results"


def _kept() -> dict[Path, Results]:
    """Return every experiment that is kept and has a finished run, by its folder."""
    folders = sorted(f.parent for f in (ROOT / "results").glob("*/outline.json"))
    found = {folder: read_results(folder) for folder in folders}
    return {folder: results for folder, results in found.items() if results.scorers}


def page() -> str:
    """Return the page as Markdown: every experiment that is kept."""
    parts = [_INTRO]
    for folder, results in _kept().items():
        parts += _experiment(results, folder)
    return "\n".join(parts)


def _experiment(results: Results, folder: Path) -> Iterator[str]:
    scorer = results.scorers[0]
    yield f"## {results.outline.name}\n"
    comment = _COMMENTS / f"{folder.name}.md"
    if comment.is_file():
        yield comment.read_text("utf-8")
    yield "What the figures say, in words that are made of them:\n"
    for statement in statements(results, scorer):
        yield f"- **{statement.kind.capitalize()}.** {markdown(statement.text)}"
    yield ""
    for table in tables(results, scorer):
        yield f"### {table.title}\n"
        yield as_markdown(table)
    yield from _compared(results)
    yield from _withheld(results)
    yield from _tried(results)
    yield from _made_with(results)


def _compared(results: Results) -> Iterator[str]:
    baseline = results.outline.method(results.outline.baseline).label
    yield f"### Against {baseline}, in numbers\n"
    yield "On the seeds that both have finished. p and Holm's correction where there are two or more.\n"
    yield "| dataset | method | common seeds | difference | 95 % interval | relative | p | after Holm |\n|---|---|---:|---:|---:|---:|---:|---:|"
    for row in comparisons(results, results.scorers[0]):
        yield f"| {' | '.join(map(markdown, row))} |"
    yield ""


def _withheld(results: Results) -> Iterator[str]:
    rows = viewed(results, "choices-only")
    if rows:
        yield "### Question withheld\n"
        yield "Asked with the first seed alone; the accuracy as asked is of the same runs.\n"
        yield "| dataset | method | as asked | choices only |\n|---|---|---:|---:|"
        for row in rows:
            yield f"| {markdown(row.where)} | {markdown(row.method)} | {row.asked} | {row.other} |"
        yield ""


def _tried(results: Results) -> Iterator[str]:
    rows = tried(results)
    if rows:
        yield "### Settings to choose from\n"
        yield (
            "Accuracy on the validation questions with the first seed; the best, in bold, is trained with the others. As the "
            "highest of several it is optimistic; *again* is its validation accuracy with the other seeds, which did not "
            "choose.\n"
        )
        yield "| dataset | method | candidates | again |\n|---|---|---|---:|"
    for (where, method), of in itertools.groupby(rows, key=lambda r: (r.where, r.method)):
        candidates = list(of)
        cells = [f"{r.settings}: {f'**{r.valid}**' if r.is_chosen else r.valid}" for r in candidates]
        again = next((r.again for r in candidates if r.again), "–")
        yield f"| {markdown(where)} | {markdown(method)} | {'; '.join(map(markdown, cells))} | {again} |"
    if rows:
        yield ""


def _made_with(results: Results) -> Iterator[str]:
    runs = [r for p in results.places() for r in results.all_of(p)]
    machines = results.machines()
    made_on = " and ".join(
        f"{name} ({count} runs)" if len(machines) > 1 else name for name, count in machines.most_common()
    )
    dates = sorted(str((r.figures.get("environment") or {}).get("date"))[:10] for r in runs)
    hours = sum(float(r.figures.get("seconds") or 0.0) for r in runs)
    used: dict[str, set[str]] = {}
    for run in runs:
        for package, version in ((run.figures.get("environment") or {}).get("packages") or {}).items():
            used.setdefault(package, set()).add(version)
    versions = ", ".join(f"{package} {' and '.join(sorted(of))}" for package, of in used.items())
    yield (
        f"<sub>{len(runs)} runs, {duration(hours)} in all, {dates[0]} to {dates[-1]}, on {made_on}. {versions}.</sub>\n"
    )


def readme() -> str:
    """Return README.md with a short table of some experiments in its place."""
    before, rest = README.read_text("utf-8").split(_BEGIN)
    after = rest.split(_END)[1]
    chosen = [results for folder, results in _kept().items() if folder.name in _IN_README]
    return f"{before}{_BEGIN}\n{_short(chosen) if chosen else 'No results yet.'}\n{_END}{after}"


def _short(experiments: Sequence[Results]) -> str:
    """Return one table of the methods and controls that have a figure with all seeds, a column for each dataset."""
    shown = [_finished_rows(results) for results in experiments]
    widths = [len(rows["Chance"].cells) for rows in shown]
    merged = []
    for label in dict.fromkeys(label for rows in shown for label in rows):
        first = next(rows[label] for rows in shown if label in rows)
        cells = [
            cell
            for rows, width in zip(shown, widths, strict=True)
            for cell in (rows[label].cells if label in rows else (None,) * width)
        ]
        merged.append(replace(first, cells=() if first.kind == "head" else tuple(cells)))
    outline = experiments[0].outline
    note = "Accuracy in per cent with 95 % intervals over questions and seeds."
    if len(outline.seeds) > 1:
        note += (
            f" ▲ or ▼: better or worse than {outline.method(outline.baseline).label} (paired test, p < 0.05 after "
            "Holm's correction for all comparisons on the dataset). No mark: no difference is shown."
        )
    columns = tuple(name for results in experiments for name in results.outline.datasets)
    return as_markdown(Table("readme", "", columns, tuple(merged), note)).rstrip()


def _finished_rows(results: Results) -> dict[str, Row]:
    """Return the rows of an experiment by their labels, without those that are quoted or not finished."""
    first, *others = tables(results, results.scorers[0])
    controls = [row for table in others for row in table.rows if row.kind == "control"]
    rows = [row for row in first.rows if row.kind != "relative"] + controls
    return {row.label: replace(row, note="") for row in rows if row.kind == "head" or _is_finished(row)}


def _is_finished(row: Row) -> bool:
    return row.kind != "quoted" and any(cell is not None and not runs_text(cell) for cell in row.cells)


def main() -> None:
    """Write the pages, or check them."""
    wanted = {PAGE: page(), README: readme()}
    for file, text in wanted.items():
        if "--check" not in sys.argv[1:]:
            file.write_text(text, "utf-8")
        elif not file.is_file() or file.read_text("utf-8") != text:
            sys.exit(f"{file.relative_to(ROOT)} is out of date: run `python docs/results.py`")


if __name__ == "__main__":
    main()
