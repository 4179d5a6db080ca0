"""The page of a run: of a finished run, of a run in progress, of a damaged one, and of hostile texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_up import (
    EVIL_TEACHER,
    SCRIPT,
    made_up_predictions,
    made_up_rationales,
    write_json,
    write_lines,
    write_rationales,
)

from tinyllm.errors import RunFolderError
from tinyllm.report import write_report


class Parsed(HTMLParser):
    """A page as a browser reads it: elements as (tag, attributes), the contents of scripts, and all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += re.sub(r"[ \n]+", " ", data)


def report(run: Path) -> Parsed:
    return Parsed(write_report(run).read_text("utf-8"))


def island(page: Parsed) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(page.scripts[0])
    return data


def test_a_full_run_shows_its_figures(made_up_run: Path) -> None:
    path = write_report(made_up_run)
    page = Parsed(path.read_text("utf-8"))
    assert path == made_up_run / "report.html"
    for text in (
        "made-up", "tinyllm", "smollm2-135m-instruct, lora", "paper", "2026-01-31",
        "31.0\u00a0%", "46.0\u00a0%", "36.2 to 55.8\u00a0%", "+15.0\u00a0points",
        "Chance 25.0\u00a0%", "Majority 27.0\u00a0%",
        "3\u00a0min 7\u00a0s", "48,211", "6.4\u00a0%", "1.80\u00a0GiB", "6.42",
        "wrong_answer 14 (7.0\u00a0%)", "cut_off 44 (25.7\u00a0%)", "171 (85.5\u00a0%)", "2 (1.0\u00a0%)",
        "a wrong choice stands twice × 3", "train.jsonl, line 17", "And 11 more.", "340 of 401 rows were used.",
        "machine.processor", "two cores", "alpha: {smollm2: 1.0, gemma3: 0.5}",
    ):  # fmt: skip
        assert text in page.text, text
    assert "has not run" not in page.text
    assert "test.jsonl, line 48" in page.text
    assert "test.jsonl, line 49" not in page.text  # 50 dropped rows are shown, of 61
    assert sum(tag == "svg" and "plot" in (a.get("class") or "") for tag, a in page.elements) == 4


def test_the_verdict_stands_first_and_follows_the_figures(made_up_run: Path, edit_metrics: Callable[..., None]) -> None:
    said = report(made_up_run).text
    assert ": 31.0\u00a0% to 46.0\u00a0% (+" in said
    same = {"likelihood": {"value": 0.46, "ci95": [0.36, 0.56], "n": 100}}
    edit_metrics(before=same, accuracy=same)
    assert ": 46.0\u00a0% to 46.0\u00a0% (" in report(made_up_run).text


def test_a_student_that_is_not_shown_the_choices_is_judged_per_token(made_up_run: Path) -> None:
    assert island(report(made_up_run))["scorers"][0][0] == "likelihood"
    totals = {q["id"]: q["after"]["pred"] for q in island(report(made_up_run))["questions"] if "after" in q}
    config = made_up_run / "config.yaml"
    config.write_text(config.read_text("utf-8").replace("adapter: lora", "adapter: lora, layout: cloze"), "utf-8")
    page = report(made_up_run)
    assert island(page)["scorers"][0][0] == "likelihood_normalised"
    cards = re.findall(r"<h3>(.*?)</h3>", (made_up_run / "report.html").read_text("utf-8"))
    assert cards[:3] == ["Likelihood per token", "Likelihood", "Generated answer"]
    for question in island(page)["questions"]:
        if "after" in question:
            total, mean, written = totals[question["id"]]
            assert question["after"]["pred"] == [mean, total, written]


def test_outcomes_add_up_to_the_test_questions(made_up_run: Path) -> None:
    html = write_report(made_up_run).read_text("utf-8")
    row = re.search(r'<th scope="row">Likelihood</th>(.*?)</tr>', html)
    assert row is not None
    numbers = [int(n) for n in re.findall(r">(\d+)</td>", row[1])]
    assert len(numbers) == 4
    assert sum(numbers) == 100  # not the 30 training questions


def test_nothing_from_teachers_or_data_becomes_markup(made_up_run: Path) -> None:
    html = write_report(made_up_run).read_text("utf-8")
    page = Parsed(html)
    assert SCRIPT not in html
    assert "alert(1)" in page.text  # a dropped row's reason, a teacher's name: there, as text
    assert [a.get("type") for tag, a in page.elements if tag == "script"] == ["application/json", None]
    data = island(page)
    rows = {row["id"]: row for row in data["questions"]}
    assert rows["train-2"]["question"] == f"What does {SCRIPT} do?"
    assert rows["train-0"]["kept"][0]["text"] == f"Because of {SCRIPT}</script><!--\u2028 & more."
    assert rows["train-1"]["kept"][-1]["teacher"] == EVIL_TEACHER
    assert SCRIPT in rows["train-3"]["rejected"][0]["text"]
    assert not set("<>&\u2028\u2029") & set(page.scripts[0])


def test_marks_that_turn_the_direction_of_writing_do_not_reach_the_page(made_up_run: Path) -> None:
    file = made_up_run / "config.yaml"
    file.write_text(file.read_text("utf-8").replace("model: gemma3-270m", 'model: "a\\u202ebc\\u0007"'), "utf-8")
    text = write_report(made_up_run).read_text("utf-8")
    assert "abc" in text
    assert "\u202e" not in text


def test_the_script_parses_no_html() -> None:
    script = (Path(__file__).parents[2] / "src/tinyllm/report/templates/page.js").read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_the_page_needs_no_network_and_forbids_it(made_up_run: Path) -> None:
    html = write_report(made_up_run).read_text("utf-8")
    page = Parsed(html)
    assert not re.search(r"""(?:src|href|url|action)\s*[=(]\s*["']?\s*(?:https?:)?//""", html)
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_questions_bring_rationales_answers_and_own_words_together(made_up_run: Path) -> None:
    data = island(report(made_up_run))
    assert [row["split"] for row in data["questions"]] == ["test"] * 100 + ["train"] * 30
    rows = {row["id"]: row for row in data["questions"]}
    train, test = rows["train-3"], rows["test-1"]
    assert [note["teacher"] for note in train["kept"]] == ["smollm2"]
    assert train["kept"][0]["repaired"] == ["cut_off"]
    assert train["rejected"][0]["reason"] == "repeats"
    assert "kept" not in test
    assert test["context"].startswith("Experiments were made")
    assert test["after"]["rationales"]["gemma3"] == "Heat moves from warm to cold."
    assert test["after"]["text"] in test["choices"]
    assert test["before"]["pred"][2] is None  # generated, but not readable
    assert test["after"]["total"][test["after"]["pred"][0]] == max(test["after"]["total"])


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("rationales.parquet", "tinyllm generate {run}"),
        ("train_log.jsonl", "tinyllm train {run}"),
        ("metrics.json", "tinyllm evaluate {run}"),
        ("predictions.jsonl", "tinyllm evaluate {run}"),
        ("config.yaml", None),
        ("environment.json", None),
        ("rejected.jsonl", None),
    ],
)
def test_a_missing_file_leaves_the_rest_and_names_the_command(
    made_up_run: Path, missing: str, said: str | None
) -> None:
    (made_up_run / missing).unlink()
    text = report(made_up_run).text
    assert text.count("has not run") == (said is not None)
    assert said is None or said.format(run=made_up_run) in text
    assert "made-up" in text


def test_an_empty_folder_has_a_page_that_says_what_to_run(tmp_path: Path) -> None:
    text = report(tmp_path).text
    for stage in ("generate", "train", "evaluate"):
        assert f"tinyllm {stage} CONFIG --run-dir {tmp_path}" in text
    assert "No questions yet." in text


def test_rationales_can_be_read_before_any_evaluation(made_up_run: Path) -> None:
    for name in ("metrics.json", "predictions.jsonl", "train_log.jsonl"):
        (made_up_run / name).unlink()
    page = report(made_up_run)
    rows = island(page)["questions"]
    assert len(rows) == 30
    assert rows[1]["kept"][0]["text"].startswith("Water")
    assert "So far there are the teachers' rationales" in page.text
    assert "29 (96.7\u00a0%)" in page.text  # gemma3, counted from the files
    yields = {"gemma3": {"rationales": 29, "missing": 10, "rejected": {"repeats": 1}, "repaired": {}}}
    write_json(made_up_run / "yields.json", yields)
    assert "29 (72.5\u00a0%)" in report(made_up_run).text  # once generation has counted what is missing


def test_tokens_their_cached_share_and_what_was_asked_anew_are_shown(made_up_run: Path) -> None:
    text = report(made_up_run).text
    words = " ".join(text.split())
    assert "prompt 60,000 cached 45,000 (75.0 %) replies 14,000" in words
    assert "repeats 31" in words


def test_a_run_without_teachers_misses_no_rationales(made_up_run: Path) -> None:
    (made_up_run / "config.yaml").write_text("name: plain\ntrain: {method: fine-tuning}\nteachers: []\n", "utf-8")
    (made_up_run / "rationales.parquet").unlink()
    assert "has not run" not in report(made_up_run).text


def test_a_run_without_a_score_before_training_shows_the_score_after(
    made_up_run: Path, edit_metrics: Callable[..., None]
) -> None:
    edit_metrics(before=None)
    write_lines(made_up_run / "predictions.jsonl", [p for p in made_up_predictions() if p["stage"] == "after"])
    text = report(made_up_run).text
    assert "it was not scored before training" in text
    assert "Question by question" not in text


def test_a_line_being_written_is_left_out_and_a_damaged_one_is_named(made_up_run: Path) -> None:
    log = made_up_run / "train_log.jsonl"
    whole = log.read_text("utf-8")
    log.write_text(whole + '{"step": 121, "los', "utf-8")
    assert "answer" in report(made_up_run).text
    lines = whole.splitlines()
    log.write_text("\n".join([*lines[:4], '{"step": ', *lines[5:]]) + "\n", "utf-8")
    with pytest.raises(RunFolderError, match=r"train_log\.jsonl is damaged: line 5 is not JSON.*tinyllm train"):
        write_report(made_up_run)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.json", '{"accuracy": [', r"metrics\.json is damaged: line 1 is not JSON"),
        ("metrics.json", '{"accuracy": {"likelihood": {"value": "high"}}}', "value: expected a number, got 'high'"),
        ("metrics.json", '{"accuracy": {"likelihood": {"value": 0.5, "n": 3}}}', "`ci95` of two numbers"),
        ("metrics.json", "[]", "expected a mapping, got list"),
        ("predictions.jsonl", '{"stage": "after"}\n', r"predictions\.jsonl is damaged: line 1: no 'choices'"),
        ("rationales.parquet", "no parquet", r"rationales\.parquet"),
        ("config.yaml", "a: [", r"config\.yaml is damaged: not YAML"),
    ],
)
def test_a_damaged_file_is_named_and_the_old_report_stays(
    made_up_run: Path, name: str, content: str, said: str
) -> None:
    write_report(made_up_run)
    old = (made_up_run / "report.html").read_bytes()
    (made_up_run / name).write_text(content, "utf-8")
    with pytest.raises(RunFolderError, match=said):
        write_report(made_up_run)
    assert (made_up_run / "report.html").read_bytes() == old
    assert not list(made_up_run.glob(".report*"))


def test_no_folder_is_the_persons_mistake(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not there"):
        write_report(tmp_path / "nowhere")


def test_a_page_that_cannot_be_put_in_place_leaves_nothing_behind(made_up_run: Path) -> None:
    (made_up_run / "report.html").mkdir()
    with pytest.raises(RunFolderError, match="Cannot write"):
        write_report(made_up_run)
    assert sorted(p.name for p in made_up_run.iterdir() if "report" in p.name) == ["report.html"]


def test_text_with_half_a_character_is_still_a_page(made_up_run: Path) -> None:
    rows = made_up_predictions()
    rows[0]["question"] = "broken \ud83d emoji"
    write_lines(made_up_run / "predictions.jsonl", rows)
    assert island(report(made_up_run))["questions"][0]["question"] == "broken ? emoji"


def test_an_impossible_choice_has_no_number(made_up_run: Path) -> None:
    rows = made_up_predictions(test=2, train=0)
    for row in rows:
        row["likelihood"]["total"][3] = float("-inf")
    write_lines(made_up_run / "predictions.jsonl", rows)
    assert island(report(made_up_run))["questions"][0]["after"]["total"][3] is None


def test_an_id_that_returns_in_another_split_keeps_its_own_rationales(made_up_run: Path) -> None:
    rows = [row | {"id": "same"} for row in made_up_predictions(test=1, train=1)]
    write_lines(made_up_run / "predictions.jsonl", rows)
    note = {"question_id": "same", "teacher": "smollm2", "text": "Of the training question.", "repaired": []}
    write_rationales(made_up_run / "rationales.parquet", [note])
    test, train = island(report(made_up_run))["questions"]
    assert "kept" not in test
    assert train["kept"][0]["text"] == "Of the training question."


def test_twenty_thousand_questions_fit_and_more_are_left_out_openly(made_up_run: Path) -> None:
    rows = [row for row in made_up_predictions(test=500, train=19_600) if row["stage"] == "after"]
    write_lines(made_up_run / "predictions.jsonl", rows)
    write_rationales(made_up_run / "rationales.parquet", made_up_rationales(train=19_600))
    page = report(made_up_run)
    assert len(island(page)["questions"]) == 20_000
    assert "first 20,000 questions; 100 more" in page.text
    assert (made_up_run / "report.html").stat().st_size < 20 * 2**20


def test_the_folder_needs_no_name_of_its_own(made_up_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("metrics.json", "config.yaml"):
        (made_up_run / name).unlink()
    monkeypatch.chdir(made_up_run)
    assert "made-up · TinyLLM report" in report(Path()).text


def test_the_report_can_be_written_again(made_up_run: Path) -> None:
    first = write_report(made_up_run).read_bytes()
    assert write_report(made_up_run).read_bytes() == first
