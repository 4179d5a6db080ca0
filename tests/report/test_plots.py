"""Plots: their positions, their escaped labels, and the contrast of their colours."""

from __future__ import annotations

import random
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.report import _plots as plots
from tinyllm.report._plots import Dot, Line, Mark, Point

CSS = (Path(__file__).parents[2] / "src/tinyllm/report/templates/page.css").read_text("utf-8")
EVIL = "<script>alert(1)</script>\"'&"


def curve(*values: float, label: str = "answer") -> Line:
    return Line(label, tuple(Point(step, value) for step, value in enumerate(values, 1)), 0)


@pytest.mark.parametrize("width", [plots.WIDE, plots.NARROW])
def test_dots_stand_at_their_share_between_their_ends(width: int) -> None:
    dots = [
        Dot("before", "31 %", "31 %", 0.31, 0.22, 0.41, True),
        Dot("after", "46 %", "46 %", 0.46, 0.37, 0.56, False),
    ]
    tree = ElementTree.fromstring(plots.dot_plot(dots, [Mark("Chance", 0.25)], width))
    first, second = (float(c.attrib["cx"]) for c in tree.iter("circle"))
    assert first < second
    ends = next(line for line in tree.iter("line") if line.attrib["class"] == "interval before")
    assert float(ends.attrib["x1"]) < first < float(ends.attrib["x2"])
    chance = next(line for line in tree.iter("line") if "mark" in line.attrib["class"])
    assert float(chance.attrib["x1"]) < first
    assert tree.attrib["role"] == "img"
    assert "after 46 %" in tree.attrib["aria-label"]


@pytest.mark.parametrize("width", [plots.WIDE, plots.NARROW])
@pytest.mark.parametrize("share", [0.3, 0.45, 0.5, 0.55, 0.7])
def test_the_name_of_a_line_is_not_cut_off(width: int, share: float) -> None:
    name = "100 labels, stopped early 32.5 %"
    dots = [Dot("one", "50 %", "50 %", 0.5, 0.3, 0.7, False)]
    tree = ElementTree.fromstring(plots.dot_plot(dots, [Mark(name, share)], width))
    text = next(t for t in tree.iter("text") if t.text == name)
    least = 6 * len(name)  # pixels at 12 pixels a line
    at, ends = float(text.attrib["x"]), text.attrib["text-anchor"] == "end"
    assert at - ends * least >= 0
    assert at + (not ends) * least <= width


def test_labels_are_escaped() -> None:
    svgs = [
        plots.dot_plot([Dot(EVIL, EVIL, EVIL, 0.5, 0.4, 0.6, False)], [Mark(EVIL, 0.2)], plots.WIDE),
        plots.dot_plot([Dot(EVIL, EVIL, EVIL, 0.5, 0.4, 0.6, False)], [Mark(EVIL, 0.2)], plots.NARROW),
        plots.learning_curve([curve(1, 2, label=EVIL)], plots.WIDE),
        plots.share_bar([(EVIL, 0.5)]),
    ]
    for svg in svgs:
        assert "<script" not in svg
        ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    "values", [(1.0,), (2.0, 2.0, 2.0), (0.0, 0.0), (-1.0, 3.0), (0.1, 2.99), (1e-9, 2e-9), (1e6, 5.0)]
)
def test_any_curve_stays_within_its_picture(values: tuple[float, ...]) -> None:
    svg = plots.learning_curve([curve(*values)], plots.NARROW)
    tree = ElementTree.fromstring(svg)
    height = float(tree.attrib["height"])
    for path in tree.iter("path"):
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.attrib["d"]):
            assert 0 <= float(x) <= plots.NARROW
            assert 0 <= float(y) <= height


def test_a_curve_of_one_height_is_drawn_above_zero() -> None:
    svg = plots.learning_curve([curve(0.9333702)], plots.NARROW)
    assert ">0<" in svg
    assert "0.93" not in svg, "a label as long as this is cut off"


def test_no_points_no_picture() -> None:
    assert plots.learning_curve([Line("answer", (), 0)], plots.WIDE) == ""


def test_smoothing_keeps_the_mean_of_a_constant_and_softens_a_spike() -> None:
    flat = plots.smooth(curve(*[2.0] * 30).points, 5)
    assert all(point.y == pytest.approx(2.0) for point in flat)
    spiked = plots.smooth(curve(0, 0, 0, 5, 0, 0, 0).points, 5)
    assert max(point.y for point in spiked) == pytest.approx(5 / 4)  # four points are near the third


@given(st.integers(1, 3000), st.integers(10, 400), st.randoms(use_true_random=False))
def test_thinning_loses_neither_top_nor_bottom(number: int, most: int, dice: random.Random) -> None:
    values = [dice.uniform(-1e3, 1e3) for _ in range(number)]
    kept = plots.thin(curve(*values).points, most)
    assert len(kept) <= most + 2
    assert {max(values), min(values)} <= {point.y for point in kept}
    assert kept == sorted(kept)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = plots.ticks(low, low + span, 5)
    assert len(found) <= 7
    assert all(low - 1e-6 * span - 1e-9 <= tick <= low + span + 1e-6 * span + 1e-9 for tick in found)


def test_tasks_past_the_palette_get_another_dash() -> None:
    assert len({plots.task_class(n) for n in range(18)}) == 18


# --- the style sheet's colours -----------------------------------------------------------------------------------


def themes() -> list[dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in (light, dark)]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
def test_contrast_suffices(theme: dict[str, str]) -> None:
    texts = [(name, ground) for name in ("ink", "muted", "accent", "good", "bad") for ground in ("ground", "raised")]
    for name, ground in [*texts, ("ink", "notice"), ("on-accent", "accent")]:
        assert contrast(theme[name], theme[ground]) >= 4.5, (name, ground)
    for task in range(6):
        assert contrast(theme[f"task{task}"], theme["ground"]) >= 3, task
