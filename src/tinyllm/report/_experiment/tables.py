"""The tables of an experiment, as data, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinyllm.comparison import Difference
from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.outline import AVERAGE, Kind, MethodOutline
from tinyllm.comparison.results import Figure, Place, Results
from tinyllm.report._experiment import paper
from tinyllm.report._words import plural

SIGNIFICANT = 0.05
_MARKS = {1: "▲", -1: "▼", 0: ""}
_ALONE = "†"
_FAMILY = "methods with the baseline on each dataset and on the average, controls with their twin"
_LATEX_MARKS = {1: r"$^{\blacktriangle}$", -1: r"$^{\blacktriangledown}$", 0: ""}


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure. Accuracies are shares between 0 and 1.

    Attributes:
        low, high: 95 % interval; None for a quoted or an exact figure.
        figure: the figure of a method of this experiment.
        wanted: the number of planned runs of such a figure.
    """

    value: float
    low: float | None = None
    high: float | None = None
    figure: Figure | None = None
    wanted: int = 0

    @property
    def sign(self) -> int:
        """1 for a figure significantly above the baseline, -1 for one below, else 0."""
        return 0 if self.figure is None else sign(self.figure)

    @property
    def is_of_one_seed(self) -> bool:
        """Whether the interval is over questions only."""
        return self.figure is not None and not self.figure.accuracy.knows_seeds


@dataclass(frozen=True, slots=True)
class Row:
    """A method, or something to compare with. A row of the kind `head` begins a group and has no cells."""

    label: str
    kind: str
    cells: tuple[Cell | None, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of accuracies, with a row for each method and a column for each dataset."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str


def tables(results: Results, scorer: Scorer) -> list[Table]:
    """Return the tables that have rows: methods (Table 1), ablations (Table 2), controls."""
    figures = results.figures(scorer)
    made = [
        _table(results, figures, "table1", "Table 1: methods", ("reference", "method", "router"), with_paper=True),
        _table(results, figures, "table2", "Table 2: what each part gives", ("ablation",)),
        _table(results, figures, "controls", "Controls: altered rationales and opinions", ("control",)),
    ]
    return [t for t in made if t is not None]


def _table(
    results: Results,
    figures: Mapping[Place, Figure],
    name: str,
    title: str,
    kinds: Sequence[Kind],
    *,
    with_paper: bool = False,
) -> Table | None:
    outline = results.outline
    twins = [twin for control, twin in results.controls() if control.kind in kinds]
    methods = [
        m for m in outline.methods if m.kind in kinds or m in twins or m.id == outline.baseline or m.like == "tinyllm"
    ]
    if not any(m.kind in kinds for m in methods):
        return None
    datasets = tuple(outline.datasets)
    columns = (*datasets, AVERAGE) if len(datasets) > 1 else datasets
    rows: list[Row] = []
    if with_paper:
        teachers = list(dict.fromkeys(t for d in outline.datasets.values() for t in d.teachers))
        rows += _known(results, columns)
        rows += _quoted({**paper.of_teachers(teachers, columns), **outline.quoted}, columns)
    for student, model in outline.students.items():
        rows.append(Row(student if student == model else f"{student} ({model})", "head"))
        rows += [_method_row(results, figures, student, m, columns) for m in methods]
        if with_paper:
            rows += _relative(results, figures, student, columns)
            rows += _quoted(paper.of_student(model, columns), columns)
    one_seed = "questions (one seed: how much seeds differ is not known, so nothing is tested)"
    over = "questions and seeds" if len(outline.seeds) > 1 else one_seed
    note = f"Accuracy in per cent with 95 % intervals over {over}. {_marks(results, figures)}"
    if any(c is not None and c.is_of_one_seed and runs_text(c) for row in rows for c in row.cells):
        note += f" {_ALONE} One seed: an interval over questions alone, for this one training; not tested."
    if any(row.kind == "quoted" for row in rows):
        note += " Quoted figures are of other students, questions or scores, and are for orientation."
    return Table(name, title, columns, tuple(rows), note)


def _marks(results: Results, figures: Mapping[Place, Figure]) -> str:
    """Say what is tested, and what the marks mean."""
    baseline = results.outline.method(results.outline.baseline).label
    if all(f.holm is None for f in figures.values()):
        return "Nothing is tested here: no ▲ and no ▼."
    return (
        f"▲ above and ▼ below {baseline}: p < {SIGNIFICANT} in the test paired by question and seed, Holm-corrected "
        f"over all {plural(results.planned(), 'comparison')} of the experiment ({_FAMILY}). Unmarked: no difference "
        "shown."
    )


def _known(results: Results, columns: Sequence[str]) -> Iterator[Row]:
    facts = results.outline.datasets
    for label, name in (("Chance", "chance"), ("Always the majority", "majority")):
        values = [getattr(facts[c], name) for c in columns if c in facts]
        cells = [Cell(getattr(facts[c], name) if c in facts else sum(values) / len(values)) for c in columns]
        yield Row(label, "known", tuple(cells))


def _quoted(quoted: paper.Quoted, columns: Sequence[str]) -> Iterator[Row]:
    for label, values in quoted.items():
        if any(c in values for c in columns):
            cells = tuple(Cell(values[c] / 100) if c in values else None for c in columns)
            yield Row(f"{label} (quoted)", "quoted", cells)


def _method_row(
    results: Results, figures: Mapping[Place, Figure], student: str, method: MethodOutline, columns: Sequence[str]
) -> Row:
    places = [Place(student, column, method.id) for column in columns]
    wanted, found = len(method.sweep.seeds), [figures.get(p) for p in places]
    cells = [Cell(f.accuracy.value, *f.accuracy.ci95, f, wanted) if f is not None else None for f in found]
    picked = {p.dataset: results.settings.get(p) for p in places if results.settings.get(p)}
    note = "; ".join(f"{dataset}: {settings_text(settings)}" for dataset, settings in picked.items() if settings)
    note = note if method.sweep.chooses else ""
    return Row(method.label, method.kind, tuple(cells), note)


def sign(figure: Figure) -> int:
    """Return 1 for a figure significantly above the baseline, -1 for one below, else 0."""
    if figure.gain is None or figure.holm is None or figure.holm >= SIGNIFICANT:
        return 0
    return 1 if figure.gain.value > 0 else -1


def _relative(results: Results, figures: Mapping[Place, Figure], student: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield TinyLLM's gain in per cent of the baseline's accuracy, as in the paper."""
    tinyllm = next((m for m in results.outline.methods if m.like == "tinyllm"), None)
    if tinyllm is None:
        return
    found = [figures.get(Place(student, column, tinyllm.id)) for column in columns]
    cells = tuple(_relative_cell(f.gain) if f is not None else None for f in found)
    if any(cells):
        baseline = results.outline.method(results.outline.baseline).label
        yield Row(f"{tinyllm.label} over {baseline}, relative", "relative", cells)


def _relative_cell(gain: Difference | None) -> Cell | None:
    if gain is None or gain.relative is None or gain.relative_ci95 is None:
        return None
    low, high = gain.relative_ci95
    return Cell(gain.relative / 100, low / 100, high / 100)


def settings_text(settings: Mapping[str, object]) -> str:
    """Return settings as text: `learning rate 0.0003, epochs 2`."""
    return ", ".join(
        f"{k.rpartition('.')[2].replace('_', ' ')} {v:g}" if isinstance(v, float) else f"{k.rpartition('.')[2]} {v}"
        for k, v in settings.items()
    )


# --- as text ------------------------------------------------------------------------------------------------------


def cell_text(cell: Cell | None, kind: str) -> str:
    """Return a figure as text, without its mark: `62.0 (57.2 to 66.7)`."""
    if cell is None:
        return "–"
    sign, unit = ("+", " %") if kind == "relative" else ("", "")
    if cell.low is None or cell.high is None:
        return f"{100 * cell.value:{sign}.1f}{unit}"
    return f"{100 * cell.value:{sign}.1f}{unit} ({100 * cell.low:{sign}.1f} to {100 * cell.high:{sign}.1f})"


def mark(cell: Cell | None) -> str:
    """Return ▲ or ▼ for a figure significantly above or below the baseline."""
    return _MARKS[cell.sign] if cell is not None else ""


def runs_text(cell: Cell | None) -> str:
    """Return the number of finished runs where some are missing: `2 of 3 seeds`, and with † for a single one."""
    if cell is None or cell.figure is None or cell.figure.accuracy.seeds >= cell.wanted:
        return ""
    return f"{cell.figure.accuracy.seeds} of {cell.wanted} seeds{_ALONE if cell.is_of_one_seed else ''}"


def as_markdown(table: Table) -> str:
    """Return a table as Markdown."""
    lines = [f"| {' | '.join(['', *map(markdown, table.columns)])} |", f"|---|{'---:|' * len(table.columns)}"]
    for row in table.rows:
        if row.kind == "head":
            lines.append(f"| **{markdown(row.label)}** |{' |' * len(table.columns)}")
            continue
        seeds = [f"[{told}]" if (told := runs_text(c)) else "" for c in row.cells]
        texts = [(cell_text(c, row.kind), mark(c), of) for c, of in zip(row.cells, seeds, strict=True)]
        cells = [" ".join(filter(None, parts)) for parts in texts]
        lines.append(f"| {markdown(row.label)} | {' | '.join(cells)} |")
    picked = "; ".join(f"{markdown(row.label)} ({markdown(row.note)})" for row in table.rows if row.note)
    chosen = ["", f"Chosen on validation questions: {picked}."] if picked else []
    return "\n".join([*lines, "", markdown(table.note), *chosen, ""])


def markdown(text: str) -> str:
    """Escape a text for a line or a cell of Markdown."""
    escaped = text.replace("|", "\\|").replace("\n", " ")
    return re.sub("<(?=[^ ])", "&lt;", escaped)  # before a space it cannot open an element


def as_latex(table: Table) -> str:
    """Return a table as LaTeX."""
    title = table.title.removeprefix("Table 1: ").removeprefix("Table 2: ")  # LaTeX numbers tables itself
    lines = [
        r"% \usepackage{amsmath, amssymb, booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(title[:1].upper() + title[1:])}. {_latex(table.note)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["", *map(_latex, table.columns)]) + r" \\",
        r"\midrule",
    ]
    for place, row in enumerate(table.rows):
        if row.kind == "head":
            lines += [
                *([r"\midrule"] if place else []),
                rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\textit{{{_latex(row.label)}}}}} \\",
            ]
        else:
            lines.append(" & ".join([_latex(row.label), *(_latex_cell(c, row.kind) for c in row.cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_cell(cell: Cell | None, kind: str) -> str:
    if cell is None:
        return "--"
    if cell.low is None or cell.high is None:
        return _latex(cell_text(cell, kind))
    sign, unit = ("+", r"\,\%") if kind == "relative" else ("", "")
    low, high, value = (f"${100 * v:{sign}.1f}$" for v in (cell.low, cell.high, cell.value))
    lacking = rf"$^{{\text{{{_latex(runs_text(cell))}}}}}$" if runs_text(cell) else ""
    return rf"{value}{unit}{{\scriptsize\,[{low}, {high}]}}{_LATEX_MARKS[cell.sign]}{lacking}"


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {c: f"\\{c}" for c in "&%$#_{}"}
    special |= {"−": "$-$", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$", "α": r"$\alpha$", "†": r"$\dagger$"}
    special |= {c: f"${c}$" for c in "<>|"}
    return "".join(special.get(c, c) for c in text)


_COLUMNS = (
    "table", "group", "row", "kind", "column", "accuracy", "ci95_low", "ci95_high", "seeds", "seeds_wanted",
    "questions", "gain", "gain_low", "gain_high", "relative_gain_percent", "relative_low", "relative_high", "p",
    "p_holm",
)  # fmt: skip


def as_csv(table: Table) -> str:
    """Return a table with a line for each figure. Accuracies are shares between 0 and 1."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    group = ""
    for row in table.rows:
        if row.kind == "head":
            group = row.label
        for column, cell in zip(table.columns, row.cells, strict=False):
            if cell is not None and row.kind != "relative":
                writer.writerow([table.name, group, row.label, row.kind, column, *_numbers(cell)])
    return out.getvalue()


def _numbers(cell: Cell) -> list[str]:
    values: list[float | None] = [cell.value, cell.low, cell.high]
    figure = cell.figure
    values += [figure.accuracy.seeds, cell.wanted, figure.accuracy.questions] if figure is not None else [None] * 3
    gain = figure.gain if figure is not None else None
    if figure is None or gain is None:
        values += [None] * 8
    else:
        # A difference that is not tested gets no p-value, because an uncorrected one would be misread.
        p = gain.p if figure.holm is not None else None
        values += [gain.value, *gain.ci95, gain.relative, *(gain.relative_ci95 or (None, None)), p, figure.holm]
    return ["" if v is None else f"{v:.6g}" for v in values]
