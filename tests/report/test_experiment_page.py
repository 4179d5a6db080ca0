"""The report of an experiment: tables, figures, and a page that is safe and loads nothing."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest
from test_page import Parsed

from comparison.made_up import METHODS, made_up_experiment
from tinyllm.comparison._seeds import findable
from tinyllm.comparison.answers import Answer, Answers
from tinyllm.comparison.results import Place, read_results
from tinyllm.errors import RunFolderError
from tinyllm.report import write_experiment
from tinyllm.report._experiment.content import comparisons, tried
from tinyllm.report._experiment.page import render
from tinyllm.report._experiment.statements import headline, statements
from tinyllm.report._experiment.tables import as_csv, as_latex, as_markdown, tables


@pytest.fixture
def folder(tmp_path):
    """A made-up experiment with an α sweep."""
    made_up_experiment(tmp_path, alphas=(0.1, 1.0), seeds=range(5))
    return tmp_path


@pytest.fixture
def results(folder):
    return read_results(folder)


def test_it_leaves_a_page_tables_and_figures(folder):
    page = write_experiment(folder)
    assert page == folder / "report.html"
    names = {str(f.relative_to(folder)) for kind in ("tables", "figures") for f in (folder / kind).iterdir()}
    assert {
        f"tables/{n}.{k}" for n in ("table1", "controls", "table1-generation") for k in ("csv", "md", "tex")
    } <= names
    assert {
        f"figures/{n}.{k}"
        for n in ("accuracy", "figure2-tiny", "losses-tiny", "calibration-tiny")
        for k in ("svg", "png")
    } <= names
    for file in (folder / "figures").glob("*.svg"):
        text = file.read_text("utf-8")
        assert text.startswith("<?xml")
        assert "<script" not in text
    assert (folder / "figures" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_records_make_the_same_files(folder):
    write_experiment(folder)
    first = {
        f: f.read_bytes() for f in [folder / "report.html", *folder.glob("tables/*"), *folder.glob("figures/*.svg")]
    }
    write_experiment(folder)
    assert {f: f.read_bytes() for f in first} == first


def test_the_page_begins_with_the_answer(results, tmp_path):
    assert headline(results, "likelihood").startswith("Better than “Fine-tuning”, beyond noise: “Tinyllm” on ")
    made_up_experiment(tmp_path / "alone", seeds=(0,))
    alone = headline(read_results(tmp_path / "alone"), "likelihood")
    assert alone.startswith(
        "Nothing is tested, because there is only one seed. The largest difference from “Fine-tuning”:"
    )


def test_a_long_list_of_methods_without_a_difference_is_shortened(tmp_path, monkeypatch):
    many = {f"router-{n}": ("router", 0.5) for n in range(6)}
    monkeypatch.setattr("comparison.made_up.METHODS", METHODS | many)
    made_up_experiment(tmp_path / "many", seeds=range(5))
    found = read_results(tmp_path / "many")
    said = [s.text for s in statements(found, "likelihood") if s.kind == "noise" and s.text.startswith("arc")]
    assert len(said) == 1
    named = re.findall(r"(\S+) [−+±][\d.]+.points \(", said[0])
    others = re.search(r"; (\d) others \([−+±][\d.]+ to [−+±][\d.]+.points, intervals in the tables\)", said[0])
    assert others is not None
    assert len(named) + int(others[1]) == 7  # six, and one-random
    for method in named:
        low, high = found.figures("likelihood")[Place("tiny", "arc", method.lower())].gain.ci95
        assert not low <= 0 <= high
    assert {c.method for c in comparisons(found, "likelihood")} >= {f"Router-{n}" for n in range(6)}


def test_the_page_says_what_helped_and_what_is_noise(results, folder):
    page = Parsed(render(results, folder))
    for words in (
        "arc: Tinyllm helped",
        "arc: Shuffled hurt",
        "no difference from Fine-tuning is shown for One-random",
        "it matters what the teachers say",
        "Figure 2: accuracy by α",
        "Question withheld",
        "Choices moved by one place",
        "Settings to choose from",
        "All 4 candidates",
        "196 clean questions",
        "GPT <quoted>",
        "Always the majority",
    ):
        assert words in page.text, words


def test_the_page_asks_for_nothing_and_runs_only_its_own_script(results, folder):
    html = render(results, folder)
    page = Parsed(html)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not [a for _, a in page.elements if {"src", "srcset"} & a.keys()]
    assert all((a.get("href") or "#").startswith("#") for _, a in page.elements)
    assert not [a for _, a in page.elements if any(k.startswith("on") for k in a) or "style" in a]
    assert html.count("<script") == 1 + 2  # one island a dataset, and the script
    assert "<script>alert" not in html
    assert "<i>up" not in html
    assert "made &lt;i&gt;up" in html


def test_the_islands_hold_every_answer_and_the_texts(results, folder):
    page = Parsed(render(results, folder))
    data = json.loads(page.scripts[0])
    tests = [q for q in data["questions"] if q["split"] == "test"]
    assert len(tests) == 200
    assert data["methods"][data["baseline"]] == "Fine-tuning"
    assert data["methods"][data["chief"]] == "Tinyllm"
    assert [len(a) for a in tests[0]["a"]] == [1, 5, 5, 5, 5]
    assert tests[0]["k"] == 0
    assert tests[0]["c"][0] == "c0 </script>"
    assert tests[0]["given"][0] == ["ada", "It is c0, because & so on."]


def test_without_the_data_the_page_shows_the_answers_alone(tmp_path):
    made_up_experiment(tmp_path, texts=False)
    page = Parsed(write_experiment(tmp_path).read_text("utf-8"))
    assert "q" not in json.loads(page.scripts[0])["questions"][0]


def test_every_plot_has_words_for_those_who_cannot_see_it(results, folder):
    page = Parsed(render(results, folder))
    plots = [a for t, a in page.elements if t == "svg" and "plot" in str(a.get("class"))]
    assert len(plots) >= 2 * (2 + 2 + 2 + 2)
    assert all(a.get("role") == "img" and len(a.get("aria-label") or "") > 20 for a in plots)


# --- tables ---------------------------------------------------------------------------------------------------------


def test_csv_keeps_every_digit_and_is_read_back(results):
    rows = list(csv.DictReader(as_csv(tables(results, "likelihood")[0]).splitlines()))
    by = {(r["row"], r["column"]): r for r in rows}
    mine = by["Tinyllm", "arc"]
    assert float(mine["ci95_low"]) < float(mine["accuracy"]) < float(mine["ci95_high"])
    assert float(mine["p_holm"]) < 0.05
    assert (mine["seeds"], mine["questions"]) == ("5", "200")
    assert by["Chance", "arc"]["accuracy"] == "0.25"
    assert by["GPT <quoted> (quoted)", "arc"]["accuracy"] == "0.815"
    assert ("Tinyllm", "Average") in by


def test_markdown_has_as_many_cells_in_every_row(results):
    for table in tables(results, "likelihood"):
        lines = [line for line in as_markdown(table).splitlines() if line.startswith("|")]
        assert {line.count("|") - line.count("\\|") for line in lines} == {len(table.columns) + 2}
        assert "&lt;b>obqa" in lines[0]


def test_latex_escapes_and_has_as_many_cells(results):
    table = tables(results, "likelihood")[0]
    text = as_latex(table)
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns)}
    assert r"\blacktriangle" in text
    assert r"\label{tab:table1}" in text
    assert r"\caption{Methods. " in text
    packages, _, rest = text.partition("\n")
    assert packages.startswith("% ")
    assert not re.search(r"(?<!\\)[#%_]", rest.replace(r"\%", ""))


def test_the_papers_figures_stand_beside_its_students(tmp_path):
    made_up_experiment(tmp_path, students=("t5",))
    results = read_results(tmp_path)
    rows = {r.label: r for r in tables(results, "likelihood")[0].rows}
    assert rows["TinyLLM, the paper, exact match (quoted)"].cells[0].value == pytest.approx(0.3193)
    assert rows["TinyLLM, the paper, exact match (quoted)"].cells[-1] is None  # its average is of six datasets


def test_a_cell_says_how_many_seeds_are_lacking(tmp_path):
    made_up_experiment(tmp_path, seeds=(0, 1))
    for file in (tmp_path / "cells").glob("arc--tiny--tinyllm--1/run.json"):
        file.unlink()
    results = read_results(tmp_path)
    table = tables(results, "likelihood")[0]
    assert "[1 of 2 seeds†]" in as_markdown(table)
    assert r"$^{\text{1 of 2 seeds$\dagger$}}$" in as_latex(table)
    rows = {(r["row"], r["column"]): r for r in csv.DictReader(as_csv(table).splitlines())}
    assert (rows["Tinyllm", "arc"]["seeds"], rows["Tinyllm", "arc"]["seeds_wanted"]) == ("1", "2")
    assert rows["Inference", "arc"]["p"] == ""  # what is not tested has no p-value
    assert any("with one seed only" in s.text for s in statements(results, "likelihood"))


def test_one_seed_of_each_says_nothing_of_methods(tmp_path):
    made_up_experiment(tmp_path, seeds=(0,))
    results = read_results(tmp_path)
    said = [s for s in statements(results, "likelihood") if s.text.startswith("arc: ")]
    assert {s.kind for s in said} == {"note"}
    assert any("Only one seed is common" in s.text and "Tinyllm +" in s.text for s in said)
    table = tables(results, "likelihood")[0]
    assert "▲" not in "".join(as_markdown(table).splitlines()[:-2])
    assert "nothing is tested" in table.note


def test_an_unfinished_table_marks_figures_with_one_seed(tmp_path):
    made_up_experiment(tmp_path, seeds=(0, 1))
    for file in (tmp_path / "cells").glob("*--1/run.json"):
        file.unlink()
    text = as_markdown(tables(read_results(tmp_path), "likelihood")[0])
    assert "[1 of 2 seeds†]" in text
    assert "† One seed: an interval over questions alone, for this one training; not tested." in text


def test_settings_that_are_not_chosen_yet_differ_from_missing_runs(tmp_path):
    outline = made_up_experiment(tmp_path)
    tuned = ({"train.epochs": 1}, {"train.epochs": 2})
    methods = [replace(m, sweep=replace(m.sweep, tuned=tuned)) if m.id == "tinyllm" else m for m in outline.methods]
    methods = [m for m in methods if m.id != "shuffled"]
    methods.append(replace(methods[-1], id="keywords", like="keywords", label="Keywords"))
    replace(outline, methods=tuple(methods)).write(tmp_path)
    said = [s.text for s in statements(read_results(tmp_path), "likelihood")]
    assert "2 cells of the tables without a finished run." in said
    assert "2 cells without chosen settings, because candidates are not finished." in said
    assert any("Tinyllm (2) had more candidates" in s for s in said)


def test_methods_that_do_not_beat_the_majority_answer_are_named(tmp_path):
    made_up_experiment(tmp_path, seeds=range(4), datasets=("arc",))
    results = read_results(tmp_path)
    told = "".join(s.text for s in statements(results, "likelihood") if "not shown to beat always giving" in s.text)
    for place, tested in results.against_majority.items():
        label = results.outline.method(place.method).label
        assert (f"{label} " in told) == (tested.gain.value <= 0 or tested.holm >= 0.05), label
    assert "Inference" in told
    assert "Tinyllm" not in told
    assert "Holm-corrected over all 5 comparisons with that answer" in told


def test_the_detectable_difference_is_found_with_the_stated_power(tmp_path):
    made_up_experiment(tmp_path, seeds=range(5), datasets=("arc",))
    results = read_results(tmp_path)
    said = next(s.text for s in statements(results, "likelihood") if s.kind == "noise")
    gain = results.figures("likelihood")[Place("tiny", "arc", "one-random")].gain
    effect = findable([gain.spread], results.planned())
    assert f"a true difference of {100 * effect:.1f} points is found with a probability of 0.8" in said
    assert gain.spread.power(effect, 0.05 / results.planned()) == pytest.approx(0.8, abs=0.001)


def test_no_mark_stands_in_the_tables_of_other_scorers(tmp_path):
    made_up_experiment(tmp_path, seeds=range(5))
    results = read_results(tmp_path)
    chief, other = (as_markdown(tables(results, s)[0]) for s in ("likelihood", "generation"))
    assert "Nothing is tested here" in other
    assert ") ▲" in chief
    assert ") ▲" not in other


def test_the_family_of_comparisons_is_stated(tmp_path):
    made_up_experiment(tmp_path, seeds=range(3))
    results = read_results(tmp_path)
    note = tables(results, "likelihood")[0].note
    assert f"over all {results.planned()} comparisons of the experiment" in note
    assert "methods with the baseline on each dataset and on the average, controls with their twin" in note


def test_an_experiment_without_runs_says_so(tmp_path):
    made_up_experiment(tmp_path)
    for file in (tmp_path / "cells").glob("*/run.json"):
        file.unlink()
    with pytest.raises(RunFolderError, match="no finished run yet"):
        write_experiment(tmp_path)


def test_the_command_makes_it_again(folder, cli):
    said = cli("report", folder)
    assert said.code == 0
    assert "report.html" in said.out


def test_ties_are_counted_and_shown(tmp_path):
    made_up_experiment(tmp_path)
    assert not any("are ties" in s.text for s in statements(read_results(tmp_path), "likelihood"))
    (folder,) = (tmp_path / "cells").glob("arc--tiny--tinyllm--1")
    rows = Answers.read(folder).table.to_pylist()
    for row in (r for r in rows if r["id"] in ("t0", "t1", "t2")):
        row["total"] = [-1.0, -1.0, -1.0, -3.0]
    Answers.of([Answer(**row) for row in rows]).write(folder)
    results = read_results(tmp_path)
    assert results.ties(Place("tiny", "arc", "tinyllm"), "likelihood") == (3, 400)
    (said,) = (s.text for s in statements(results, "likelihood") if "are ties" in s.text)
    assert said.startswith("3 of 3,600 answers are ties")
    assert said.endswith("Most: arc, Tinyllm, 0.8\u00a0%.")


def test_a_validation_accuracy_of_zero_with_the_other_seeds_is_shown(tmp_path):
    outline = made_up_experiment(tmp_path)
    searched = tuple(
        replace(m, sweep=replace(m.sweep, tuned=({}, {"a": 1}))) if m.id == "tinyllm" else m for m in outline.methods
    )
    replace(outline, methods=searched, datasets={"arc": outline.datasets["arc"]}).write(tmp_path)
    results = read_results(tmp_path)
    place = Place("tiny", "arc", "tinyllm")
    results.settings[place] = {}
    for record in results.all_of(place):
        record.figures["accuracy"]["valid"]["likelihood"] = 0.0
    assert [row.again for row in tried(results) if row.is_chosen] == ["0.0\u00a0%"]
