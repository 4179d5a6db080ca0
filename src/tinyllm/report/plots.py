"""Plots as SVG text: pure functions, colours left to the page's style sheet, every label escaped.

A plot is drawn for a width in CSS pixels, at which its text has its natural size. The page holds one for wide
and one for narrow windows and shows the one that fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import escape

WIDE, NARROW = 860, 335
_MANY_COLOURS = 6  # as many as page.css has; then they start over with another dash
_MAX_POINTS = 400


@dataclass(frozen=True, slots=True)
class Dot:
    """A row of the dot plot: a share with its interval. `hollow` is before training, `short` is for narrow plots."""

    label: str
    text: str
    short: str
    value: float
    low: float
    high: float
    hollow: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """A share to compare with, drawn as a line through all rows."""

    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line of (step, value) points, in order of steps; values are finite. A task keeps its colour."""

    label: str
    points: tuple[tuple[float, float], ...]
    colour: int


def dot_plot(dots: Sequence[Dot], marks: Sequence[Mark], width: int) -> str:
    """Draw shares with their intervals on one axis from 0 to 100 %, together with the rates to compare with."""
    wide = width >= 600
    left, right = (250, 200) if wide else (8, 8)
    row, top = (34 if wide else 46), 22 * len(marks) + 10
    bottom = top + row * len(dots)
    span = width - left - right

    def x(share: float) -> float:
        return left + span * min(max(share, 0.0), 1.0)

    parts: list[str] = []
    for tick in range(0, 101, 20 if wide else 25):
        at = x(tick / 100)
        anchor = "start" if tick == 0 and not wide else "end" if tick == 100 and not wide else "middle"
        parts.append(_line(at, top, at, bottom, "grid"))
        parts.append(_text(at, bottom + 20, f"{tick}\u00a0%", "tick", anchor))
    for index, mark in enumerate(marks):
        at, y = x(mark.value), 14 + 22 * index
        end = mark.value > 0.5
        parts.append(_line(at, y - 10, at, bottom, f"mark m{index}"))
        parts.append(_text(at + (-6 if end else 6), y, mark.label, "tick", "end" if end else "start"))
    for index, dot in enumerate(dots):
        y = top + row * index + (row // 2 if wide else row - 12)
        if wide:
            parts.append(_text(0, y + 5, dot.label, "label"))
            parts.append(_text(width - right + 16, y + 5, dot.text, "value"))
        else:
            parts.append(_text(left, y - 12, dot.label, "label"))
            parts.append(_text(width - right, y - 12, dot.short, "value", "end"))
        kind = "before" if dot.hollow else "after"
        parts.append(_line(x(dot.low), y, x(dot.high), y, f"interval {kind}"))
        parts += [_line(x(end), y - 5, x(end), y + 5, f"interval {kind}") for end in (dot.low, dot.high)]
        parts.append(f'<circle class="dot {kind}" cx="{_n(x(dot.value))}" cy="{_n(y)}" r="6"/>')
    summary = "; ".join([f"{d.label} {d.text}" for d in dots] + [m.label for m in marks])
    return _svg(width, bottom + 30, f"Accuracies with 95 % intervals: {summary}", parts)


def learning_curve(curves: Sequence[Curve], width: int) -> str:
    """Draw one line a task, each step lightly and the moving mean strongly, over the optimizer steps."""
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return ""
    height, left, right, top, bottom = (360 if width >= 600 else 260), 46, 10, 26, 44
    steps = [step for curve in drawn for step, _ in curve.points]
    values = [value for curve in drawn for _, value in curve.points]
    x_ticks = ticks(min(steps), max(steps), 8 if width >= 600 else 4)
    low = 0.0 if 0 <= min(values) < 0.4 * max(values) else min(values)
    y_ticks = _covering(ticks(low, max(values), 5), low, max(values))
    x_low, x_high = min(steps), max(max(steps), min(steps) + 1)
    y_low, y_high = y_ticks[0], max(y_ticks[-1], y_ticks[0] + 1e-9)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - x_low) / (x_high - x_low)
        up = (point[1] - y_low) / (y_high - y_low)
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    parts: list[str] = []
    for tick in y_ticks:
        y = place((x_low, tick))[1]
        parts.append(_line(left, y, width - right, y, "grid"))
        parts.append(_text(left - 8, y + 4, _tick(tick), "tick", "end"))
    for tick in x_ticks:
        x = place((tick, y_low))[0]
        anchor = "end" if x > width - right - 14 else "middle"
        parts.append(_text(x, height - bottom + 20, _tick(tick), "tick", anchor))
    parts.append(_text(0, 12, "loss", "tick"))
    parts.append(_text((left + width - right) / 2, height - 6, "optimizer step", "tick", "middle"))
    parts += [_path(map(place, thin(c.points, _MAX_POINTS)), f"curve raw {task_class(c.colour)}") for c in drawn]
    for curve in drawn:
        mean = thin(smooth(curve.points, window(len(curve.points))), _MAX_POINTS)
        parts.append(_path(map(place, mean), f"curve {task_class(curve.colour)}"))
        if len(mean) == 1:
            at = place(mean[0])
            parts.append(f'<circle class="point {task_class(curve.colour)}" cx="{_n(at[0])}" cy="{_n(at[1])}" r="4"/>')
    names = ", ".join(curve.label for curve in drawn)
    return _svg(width, height, f"Training loss by optimizer step, one line a task: {names}", parts)


def swatch(colour: int) -> str:
    """Draw the sample of a line that stands in a legend."""
    line = _line(1, 6, 27, 6, f"curve {task_class(colour)}")
    return f'<svg class="swatch" width="28" height="12" viewBox="0 0 28 12" aria-hidden="true">{line}</svg>'


def share_bar(parts: Sequence[tuple[str, float]]) -> str:
    """Draw shares, each with the name of its class, as one bar; what they lack to 1 stays empty."""
    drawn, at = [], 0.0
    for kind, share in parts:
        if share > 0:
            drawn.append(
                f'<rect class="{escape(kind)}" x="{_n(100 * at)}" y="0" width="{_n(100 * share)}" height="8"/>'
            )
            at += share
    head = '<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
    return f"{head}{''.join(drawn)}</svg>"


def task_class(colour: int) -> str:
    """Return the classes that give a task its colour and dash."""
    return f"c{colour % _MANY_COLOURS} d{colour // _MANY_COLOURS % 3}"


def window(number: int) -> int:
    """Return over how many neighbouring steps a line of so many points is averaged: odd, 1 for a short one."""
    return 1 if number < 10 else 2 * (number // 40) + 3


def smooth(points: Sequence[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    """Replace each value by the mean over the `width` points around it, fewer at the ends."""
    sums = [0.0, *accumulate(value for _, value in points)]
    half = width // 2
    smoothed = []
    for index, (step, _) in enumerate(points):
        first, last = max(0, index - half), min(len(points), index + half + 1)
        smoothed.append((step, (sums[last] - sums[first]) / (last - first)))
    return smoothed


def thin(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Keep at most about `most` points: the lowest and highest of each stretch, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / most)
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most about `most` round numbers that span low to high (steps of 1, 2 or 5)."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _covering(inner: Sequence[float], low: float, high: float) -> list[float]:
    """Add a tick at either end where values lie beyond the last one."""
    step = inner[1] - inner[0] if len(inner) > 1 else max(high - low, 1.0)
    below = [round(inner[0] - step, 12)] if low < inner[0] else []
    above = [round(inner[-1] + step, 12)] if high > inner[-1] else []
    return [*below, *inner, *above]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}".replace("-", "\u2212")


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _path(points: Iterable[tuple[float, float]], kind: str) -> str:
    return f'<path class="{kind}" d="M{"L".join(f"{_n(x)} {_n(y)}" for x, y in points)}"/>'


def _svg(width: int, height: float, summary: str, parts: Iterable[str]) -> str:
    size = f'width="{width}" height="{_n(height)}" viewBox="0 0 {width} {_n(height)}"'
    return f'<svg class="plot" {size} role="img" aria-label="{escape(summary)}">{"".join(parts)}</svg>'
