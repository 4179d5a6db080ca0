"""The panel of the teachers' opinions."""

from __future__ import annotations

from typing import Any

import pytest
from made_up import EVIL_TEACHER, SCRIPT, write_json

from tinyllm.errors import RunFolderError
from tinyllm.report import write_report


def teacher(**more: Any) -> dict[str, Any]:
    return {
        "way": "letters", "questions": 100, "opinions": 98, "replies": 196, "prompt_tokens": 17_000,
        "completion_tokens": 196, "rejected": {}, "usd": None, "ece": 0.123,
        "accuracy": {"value": 0.59, "ci95": [0.52, 0.66], "n": 98},
        "reliability": [{"n": 40, "confidence": 0.55, "accuracy": 0.5}, {"n": 58, "confidence": 0.95, "accuracy": 0.65}],
        **more,
    }  # fmt: skip


def test_the_panel_shows_accuracy_calibration_agreement_and_cost(tmp_path):
    unlabelled = teacher(accuracy=None, ece=None, reliability=[], usd=0.25)
    agreement = [{"teachers": ["qwen", EVIL_TEACHER], "n": 98, "same": 0.7}]
    write_json(
        tmp_path / "opinions.json", {"teachers": {"qwen": teacher(), EVIL_TEACHER: unlabelled}, "agreement": agreement}
    )
    html = write_report(tmp_path).read_text("utf-8")
    panel = html[html.index('<section id="opinions"') : html.index('<section id="data"')]
    for words in ("59.0\u00a0%", "52.0 to 66.0\u00a0%", "0.123", "17,196", "$0.2500", "70.0\u00a0%", "Reliability"):
        assert words in panel, words
    assert panel.count("<svg") == 4  # two samples of lines, the plot for wide windows and the one for narrow ones
    assert SCRIPT not in html


def test_a_run_without_opinions_has_no_panel_and_a_damaged_file_is_named(tmp_path):
    assert 'id="opinions"' not in write_report(tmp_path).read_text("utf-8")
    write_json(tmp_path / "opinions.json", {"teachers": {"qwen": {}}, "agreement": []})
    with pytest.raises(RunFolderError, match=r"opinions.json is damaged"):
        write_report(tmp_path)
