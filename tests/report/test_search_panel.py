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
