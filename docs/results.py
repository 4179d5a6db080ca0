"""Makes docs/results.md, and the short table in README.md, from the kept answers in `results/`: `python docs/results.py`.

`--check` only says whether they are up to date.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tinyllm.comparison.results import Place, Results, read_results
from tinyllm.report._experiment.content import comparisons, tried, viewed
from tinyllm.report._experiment.statements import statements
from tinyllm.report._experiment.tables import as_markdown, markdown, tables
from tinyllm.system.news import duration

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
_FEW, _ALL = ("few-labels", "few-labels-obqa", "few-labels-more"), ("choose", "choose-more", "text-or-choices")
_ASKED = (
    ("100 labels, and opinions on the rest", "100 labels, stopped early", _FEW, "opinions", "choices-short"),
    ("Opinions, and no label", "100 labels, stopped early", _FEW, "no-labels", "choices-short"),
    ("All labels, and opinions", "all labels", _ALL, "opinions", "choices"),
    ("To choose", "to write the answer", _ALL, "choices", "fine-tuning"),
    ("To write and to choose", "to write the answer", _ALL, "both", "fine-tuning"),
    ("By `method: auto`", "fine-tuning", _ALL, "auto", "fine-tuning"),
    ("A student of 0.5B: to choose", "the same, untrained", ("qwen-student",), "choices", "inference"),
    ("The paper's method", "fine-tuning", ("smollm2",), "tinyllm", "fine-tuning"),
)
"""The rows of README.md: what is learnt, what it is compared with, the experiments, and the two methods."""
_DATASETS = {
    "arc": "ARC",
    "obqa": "OBQA",
    "riddle": "RiddleSense",
    "piqa": "PIQA",
    "pubmedqa": "PubMedQA",
    "bioasq": "BioASQ",
}
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
    """Return README.md with the table of differences in its place."""
    before, rest = README.read_text("utf-8").split(_BEGIN)
    after = rest.split(_END)[1]
    table = "\n".join(_asked({folder.name: results for folder, results in _kept().items()}))
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


def _asked(kept: Mapping[str, Results]) -> Iterator[str]:
    """Yield a table: a row for each comparison, a column for each dataset."""
    asked = [(*said, _answers(kept, names, method, other)) for *said, names, method, other in _ASKED]
    columns = [name for name in _DATASETS if any(name in answers for *_, answers in asked)]
    yield "| " + " | ".join(["The student learns", "compared with", *(_DATASETS[c] for c in columns)]) + " |"
    yield "|---|---|" + "---:|" * len(columns)
    for learnt, compared, answers in asked:
        yield "| " + " | ".join([learnt, compared, *(answers.get(c, "–") for c in columns)]) + " |"


def _answers(kept: Mapping[str, Results], names: tuple[str, ...], method: str, other: str) -> dict[str, str]:
    """Return how much better one method is than another, in words, by dataset without its number of questions."""
    found = {}
    for results in (kept[name] for name in names if name in kept):
        (student,) = results.outline.students
        for dataset in results.outline.datasets:
            place = Place(student, dataset, method)
            if results.of(place) and (told := _difference(results, place, other)):
                found[dataset.partition("-")[0]] = told
    return found


def _difference(results: Results, place: Place, other: str) -> str | None:
    """Return the accuracy of a method and its difference from another one; None without common seeds."""
    gain = results.compare(place, other, results.outline.scorer)
    if gain is None:
        return None
    figures = results.figures(results.outline.scorer)
    planned = {place.method, other} - {results.outline.baseline}
    holm = figures[replace(place, method=planned.pop())].holm if len(planned) == 1 else None
    low, high = (f"{100 * end:+.1f}" for end in gain.ci95)
    value = f"{100 * gain.value:+.1f}"
    value = f"**{value}**" if holm is not None and holm < 0.05 else value
    mark = "" if gain.p is not None else " ¹"
    accuracy = 100 * figures[place].accuracy.value
    return f"{accuracy:.1f}<br>{value} ({low} to {high}){mark}".replace("-", "−")


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
