"""From paired figures to a row, from results to the page."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import common, table

Reach, Result, paired, row = common.Reach, common.Result, common.paired, common.row

positive = st.floats(0.1, 1e6)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=9))
def test_the_ratio_is_the_median_of_the_rounds_and_lies_in_its_spread(figures):
    ours, peer = zip(*figures, strict=True)
    made = row("r", ours, peer, unit="x", reach=Reach("ratio", "at least", 1))
    assert made.spread[0] <= made.ratio <= made.spread[1]
    assert made.rounds == len(figures)


@pytest.mark.parametrize(
    ("reach", "ours", "peer", "met"),
    [
        (Reach("ratio", "at least", 0.9), [9, 9, 1], [10, 10, 10], True),
        (Reach("ratio", "at least", 0.9), [8, 8, 10], [10, 10, 10], False),
        (Reach("ratio", "at most", 1.2), [13], [10], False),
        (Reach("ours", "at most", 2), [1, 2, 30], [], True),
        (Reach("ratio", "at least", 0.9), [9], [], False),
    ],
)
def test_a_reach_is_met_or_not(reach, ours, peer, met):
    assert row("r", ours, peer, unit="x", reach=reach).met is met


def test_sides_take_turns_and_the_first_round_does_not_count():
    called = []
    sides = [lambda: called.append("ours") or float(len(called)), lambda: called.append("peer") or float(len(called))]
    figures = paired(2, *sides, say=lambda _: None)
    assert called == ["peer", "ours", "ours", "peer", "peer", "ours"]
    assert figures == [[3.0, 6.0], [4.0, 5.0]]


def result(name="throughput", **more):
    rows = [
        row("128 in flight", [570.0, 600.0], [600.0, 600.0], unit="requests/s", peer_name="loop",
            reach=Reach("ratio", "at least", 0.9)),
        row("peak", [1.5], unit="s", reach=Reach("ours", "at most", 1)),
    ]  # fmt: skip
    return Result(name, "Throughput", "What it is.", f"python -m benchmarks.generate {name}", rows, **more)


def test_a_result_has_what_the_contract_asks_for_and_names_no_place(tmp_path):
    file = common.write(result(), tmp_path, None)
    content = json.loads(file.read_text())
    assert file.name == "throughput.json"
    assert {"machine", "versions", "date", "commit", "rows"} <= content.keys()
    assert {"name", "ours", "peer", "peer_name", "ratio", "reach", "met", "unit"} <= content["rows"][0].keys()
    assert str(common.ROOT) not in file.read_text()
    assert content["rows"] == json.loads(json.dumps([asdict(r) for r in result().rows]))


def test_a_note_stays_until_another_is_given(tmp_path):
    common.write(result(), tmp_path, "The disk is slow.")
    assert json.loads(common.write(result(), tmp_path, None).read_text())["note"] == "The disk is slow."
    assert json.loads(common.write(result(), tmp_path, "").read_text())["note"] == ""


def test_the_page_shows_every_result_and_says_what_is_not_met(tmp_path):
    common.write(result("startup"), tmp_path, "Tried: a smaller page.")
    common.write(result("throughput"), tmp_path, None)
    text = table.page(table.read(tmp_path))
    assert text.index("generate throughput") < text.index("generate startup")
    assert "| 128 in flight | 585 requests/s | 600 requests/s, loop | 0.975 (0.95–1) | ratio ≥ 0.9 | yes |" in text
    assert "| peak | 1.5 s |  |  | ours ≤ 1 | **no** |" in text
    assert "Tried: a smaller page." in text


def test_the_page_shows_results_that_hold_only_what_the_contract_asks_for():
    told = {"machine": common.machine(), "versions": {}, "date": "2026-01-01T00:00:00", "commit": "abc"}
    line = {"name": "tests", "ours": 5, "peer": None, "peer_name": "", "ratio": None, "reach": "", "met": None}
    text = table.page({"another": {**told, "rows": [{**line, "unit": "kills"}]}})
    assert "## another" in text
    assert "| tests | 5 kills |  |  |  |  |" in text


def test_the_page_in_the_repository_is_up_to_date():
    assert table.PAGE.read_text("utf-8") == table.page(table.read(common.RESULTS))
