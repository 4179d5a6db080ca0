"""What the page shows of the search of `method: auto`; and that it is safe."""

from __future__ import annotations

from typing import Any

import pytest
from made_up import EVIL_TEACHER, SCRIPT, write_json

from tinyllm.errors import RunFolderError
from tinyllm.report import write_report


def search(**more: Any) -> dict[str, Any]:
    look = {"rung": 0, "steps": 24, "accuracy": 0.385, "log_loss": 1.306, "seconds": 9.0}
    tried = [
        {"number": 1, "name": "answer text", "settings": {}, "steps": 210, "looks": [look]},
        {"number": 2, "name": EVIL_TEACHER, "settings": {}, "steps": 210, "looks": [look, look | {"steps": 210}]},
    ]
    return {
        "chosen": 2, "why": "it is right more often", "validation_questions": 200, "steps": 1234,
        "left_out": ["epochs 9"], "candidates": tried, **more,
    }  # fmt: skip


def test_the_panel_shows_what_was_tried_and_why_one_was_chosen(tmp_path):
    write_json(tmp_path / "auto.json", search())
    html = write_report(tmp_path).read_text("utf-8")
    for words in (
        "1. answer text", "24 of 210", "210 of 210", "38.5\u00a0%", "1.31", "1,234 optimizer steps in all",
        "200 validation questions", "Candidate 2 was chosen: it is right more often.", "Left out by auto.budget: epochs 9",
    ):  # fmt: skip
        assert words in html, words
    assert html.count("(chosen)") == 1
    assert SCRIPT not in html


def test_a_search_under_way_a_run_without_one_and_a_damaged_file(tmp_path):
    assert 'id="search"' not in write_report(tmp_path).read_text("utf-8")
    write_json(tmp_path / "auto.json", search(chosen=None, why=""))
    assert "The search has not ended." in write_report(tmp_path).read_text("utf-8")
    write_json(tmp_path / "auto.json", {"chosen": 1})
    with pytest.raises(RunFolderError, match=r"auto.json is damaged"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        ({"chosen": {"name": "answer choices"}, "targets": {"answer": 9}}, "ada, bob (auto chose to learn from none of them)"),
        ({"chosen": {"name": "soft"}, "targets": {"answer": 9}, "soft": {"weights": {"ada": 1.0, "bob": 0.0}}}, "ada, bob (auto chose to learn from ada)"),
        ({"chosen": {"name": "method tinyllm"}, "targets": {"answer": 9, "ada": 8, "bob": 7}}, "ada, bob<"),
        ({"chosen": {"name": "rationales input"}, "targets": {"answer": 9}}, "ada, bob<"),
        ({"targets": {"answer": 9}}, "ada, bob<"),
    ],
)  # fmt: skip
def test_the_head_names_the_teachers_that_auto_chose(tmp_path, trained, said):
    write_json(tmp_path / "metrics.json", {"train": trained, "teachers": {"ada": {"kept": 9}, "bob": {"kept": 9}}})
    assert said in write_report(tmp_path).read_text("utf-8")
