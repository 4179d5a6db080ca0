"""The panel of the teachers' opinions."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from made_up import EVIL_TEACHER, SCRIPT, write_json

from tinyllm.errors import RunFolderError
from tinyllm.opinions.files import writing_opinions
from tinyllm.opinions.types import Opinion
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
    assert panel.count('class="whisker') == 4  # each bin has its interval, in both plots
    assert SCRIPT not in html


def test_the_panel_counts_the_requests_that_gave_no_opinion(tmp_path):
    rejected = {"no_choice": 1, "failed": 1200}
    write_json(tmp_path / "opinions.json", {"teachers": {"qwen": teacher(rejected=rejected)}, "agreement": []})
    assert '<td data-label="Rejected">1,200 failed, 1 no_choice</td>' in write_report(tmp_path).read_text("utf-8")


def of(run, split, number):
    island = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', write_report(run).read_text("utf-8"))[1]
    rows = json.loads(island)["questions"]
    return next(row for row in rows if (row["split"], row["id"]) == (split, f"train-{number}"))


def test_each_question_shows_the_opinions_on_it_and_the_pooled_one(made_up_run):
    """The pooled one has the weights of the training; before there are any, equal weights."""
    qwen, odd = (0.7, 0.1, 0.1, 0.1), (0.1, 0.6, 0.2, 0.1)
    with writing_opinions(made_up_run) as add:
        for number in (0, 1):
            found = {"qwen": qwen} | ({EVIL_TEACHER: odd} if number else {})
            opinions = {name: Opinion(f"train-{number}", name, shares, "letters", 2) for name, shares in found.items()}
            add("train", opinions)
    assert "opinions" not in of(made_up_run, "train", 2)
    shown = dict(of(made_up_run, "train", 1)["opinions"])
    assert (shown["qwen"], shown[EVIL_TEACHER]) == (list(qwen), list(odd))
    equal = [(q * o) ** 0.5 for q, o in zip(qwen, odd, strict=True)]
    assert shown[""] == pytest.approx([share / sum(equal) for share in equal], abs=1e-3)
    write_json(made_up_run / "train_result.json", {"soft": {"weights": {"qwen": 0.0, EVIL_TEACHER: 1.0}}})
    assert dict(of(made_up_run, "train", 1)["opinions"])[""] == pytest.approx(list(odd), abs=1e-3)
    assert [name for name, _ in of(made_up_run, "train", 0)["opinions"]] == ["qwen"]  # the other teacher is silent
    assert SCRIPT not in write_report(made_up_run).read_text("utf-8")


def test_a_run_without_opinions_has_no_panel_and_a_damaged_file_is_named(tmp_path):
    assert 'id="opinions"' not in write_report(tmp_path).read_text("utf-8")
    write_json(tmp_path / "opinions.json", {"teachers": {"qwen": {}}, "agreement": []})
    with pytest.raises(RunFolderError, match=r"opinions.json is damaged"):
        write_report(tmp_path)
