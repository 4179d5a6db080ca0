"""Plots as SVG text. The page's style sheet sets the colours. Labels are escaped.

A plot is drawn for a width in CSS pixels. The page holds one for wide and one for narrow windows, so that text has the
same size in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from markupsafe import escape

WIDE, NARROW = 860, 335
_COLOURS = 6  # the number in page.css; more lines use the colours again with another dash
_MAX_POINTS = 400
_MARKED = 30  # a line with more points has no dots
_CHARACTER = 8.2  # the width of a label's character, at most on average
_MARGIN = 0.03  # of accuracy, at both ends of the axis
_TOLD = 12  # points of a line in the text for screen readers


@dataclass(frozen=True, slots=True)
class Dot:
    """A row of the dot plot: a share with its interval. `short` replaces `text` in narrow plots."""

    label: str
    text: str
    short: str
    value: float
    low: float
    high: float
    hollow: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """A share to compare with, drawn as a vertical line."""

    label: str
    value: float


class Point(NamedTuple):
    """A point of a line, with the interval of its value if there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A named line. Its points are in order of x, and finite. `colour` numbers the colours of the style sheet."""

    label: str
    points: tuple[Point, ...]
    colour: int


def dot_plot(dots: Sequence[Dot], marks: Sequence[Mark], width: int) -> str:
    """Draw shares with their intervals on one axis, with the shares to compare with."""
    wide = width >= 600
    longest = max((len(dot.label) for dot in dots), default=0)
    left, right = (min(max(90, round(_CHARACTER * longest) + 16), 250), 200) if wide else (8, 8)
    row, top = (34 if wide else 46), 22 * len(marks) + 10
    bottom = top + row * len(dots)
    span = width - left - right
    ends = [end for dot in dots for end in (dot.low, dot.high)] + [mark.value for mark in marks]
    low, high = max(0.0, min(ends, default=0) - _MARGIN), min(1.0, max(ends, default=1) + _MARGIN)

    def x(share: float) -> float:
        return left + span * (share - low) / (high - low)

    parts: list[str] = []
    percents = ticks(100 * low, 100 * high, 6 if wide else 4)
    for tick in percents:
        at = x(tick / 100)
        anchor = "middle" if wide else {percents[-1]: "end", percents[0]: "start"}.get(tick, "middle")
        parts.append(_line(at, top, at, bottom, "grid"))
        parts.append(_text(at, bottom + 20, f"{_tick(tick)}\u00a0%", "tick", anchor))
    for index, mark in enumerate(marks):
        at, y = x(mark.value), 14 + 22 * index
        end, needed = at > left + span / 2, 6 + _CHARACTER * len(mark.label)
        room = {True: at, False: width - at}
        end = end if room[end] >= needed else not end
        fits = room[end] >= needed
        parts += [_line(at, y - 10 if fits else y + 5, at, top, f"mark m{index}")]
        for number, dot in enumerate(dots):
            texts = left + _CHARACTER * len(dot.label), width - right - _CHARACTER * len(dot.short)
            start = top + row * number + (0 if wide or texts[0] < at < texts[1] else row - 24)
            parts.append(_line(at, start, at, top + row * (number + 1), f"mark m{index}"))
        place = (at - 6 if end else at + 6) if fits else width  # a long name in a narrow plot stands above its line
        parts.append(_text(place, y, mark.label, "tick", "end" if end or not fits else "start"))
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


class _Frame:
    """The axes of a plot of lines."""

    _LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 26, 44

    def __init__(self, width: int, xs: Sequence[float], ys: Sequence[float], *, log_x: bool = False) -> None:
        self.width, self.height = width, 360 if width >= 600 else 260
        self._log = log_x
        self._x_ticks = sorted(set(xs)) if log_x else ticks(min(xs), max(xs), 8 if width >= 600 else 4)
        from_zero = 0 <= min(ys) < 0.4 * max(ys) or 0 < min(ys) == max(ys)
        low = 0.0 if from_zero else min(ys)
        self._y_ticks = _covering(ticks(low, max(ys), 5), low, max(ys))
        self._x = self._across(min(xs)), max(self._across(max(xs)), self._across(min(xs)) + (0.1 if log_x else 1))
        self._y = self._y_ticks[0], max(self._y_ticks[-1], self._y_ticks[0] + 1e-9)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point."""
        across = (self._across(x) - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        inner = self.width - self._LEFT - self._RIGHT, self.height - self._TOP - self._BOTTOM
        return self._LEFT + across * inner[0], self.height - self._BOTTOM - up * inner[1]

    def _across(self, x: float) -> float:
        return math.log10(x) if self._log else x

    def grid(self, x_label: str, y_label: str) -> list[str]:
        """Return the grid with its labels, and the names of the axes."""
        parts: list[str] = []
        end, floor = self.width - self._RIGHT, self.height - self._BOTTOM
        for tick in self._y_ticks:
            y = self.place(self._x_ticks[0], tick)[1]
            parts.append(_line(self._LEFT, y, end, y, "grid"))
            parts.append(_text(self._LEFT - 8, y + 4, _tick(tick), "tick", "end"))
        for tick in self._x_ticks:
            x = self.place(tick, self._y[0])[0]
            parts.append(_text(x, floor + 20, _tick(tick), "tick", "end" if x > end - 14 else "middle"))
        parts.append(_text(0, 12, y_label, "tick"))
        parts.append(_text((self._LEFT + end) / 2, self.height - 6, x_label, "tick", "middle"))
        return parts

    def path(self, points: Iterable[Point], kind: str) -> str:
        """Draw a line through points."""
        pixels = (self.place(p.x, p.y) for p in points)
        return f'<path class="{kind}" d="M{"L".join(f"{_n(x)} {_n(y)}" for x, y in pixels)}"/>'

    def dot(self, point: Point, colour: int) -> str:
        """Draw a dot at a point."""
        x, y = self.place(point.x, point.y)
        return f'<circle class="point {task_class(colour)}" cx="{_n(x)}" cy="{_n(y)}" r="4"/>'


def learning_curve(curves: Sequence[Line], width: int) -> str:
    """Draw the losses of each task: a light line for the steps, a strong line for the moving mean."""
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return ""
    frame = _Frame(width, [p.x for c in drawn for p in c.points], [p.y for c in drawn for p in c.points])
    parts = frame.grid("optimizer step", "loss")
    parts += [frame.path(thin(c.points, _MAX_POINTS), f"curve raw {task_class(c.colour)}") for c in drawn]
    for curve in drawn:
        mean = thin(smooth(curve.points, window(len(curve.points))), _MAX_POINTS)
        parts.append(frame.path(mean, f"curve {task_class(curve.colour)}"))
        if len(mean) == 1:
            parts.append(frame.dot(mean[0], curve.colour))
    names = ", ".join(curve.label for curve in drawn)
    return _svg(width, frame.height, f"Training loss by optimizer step, one line a task: {names}", parts)


def line_plot(
    lines: Sequence[Line], x_label: str, y_label: str, width: int, *, log_x: bool = False, diagonal: bool = False
) -> str:
    """Draw lines with the intervals of their points. Empty without points.

    Args:
        log_x: use a logarithmic x axis with a label at each point.
        diagonal: draw the line on which x and y are equal.
    """
    drawn = [line for line in lines if line.points]
    if not drawn:
        return ""
    points = [p for line in drawn for p in line.points]
    xs = [p.x for p in points]
    ys = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    frame = _Frame(width, xs, ys + (xs if diagonal else []), log_x=log_x)
    parts = frame.grid(x_label, y_label)
    if diagonal:
        parts.append(frame.path((Point(min(xs), min(xs)), Point(max(xs), max(xs))), "mark line"))
    for line in drawn:
        kind = task_class(line.colour)
        for p in line.points:
            if p.low is not None and p.high is not None:
                (x, top), (_, bottom) = frame.place(p.x, p.high), frame.place(p.x, p.low)
                parts.append(_line(x, top, x, bottom, f"whisker {kind}"))
        parts.append(frame.path(line.points, f"curve {kind}"))
        parts += [frame.dot(p, line.colour) for p in line.points if len(line.points) <= _MARKED]
    told = "; ".join(f"{n.label}: " + ", ".join(f"{p.y:.3g} at {p.x:g}" for p in n.points[:_TOLD]) for n in drawn)
    return _svg(width, frame.height, f"{y_label} by {x_label}. {told}", parts)


def swatch(colour: int) -> str:
    """Draw a sample of a line for a legend."""
    line = _line(1, 6, 27, 6, f"curve {task_class(colour)}")
    return f'<svg class="swatch" width="28" height="12" viewBox="0 0 28 12" aria-hidden="true">{line}</svg>'


def share_bar(parts: Sequence[tuple[str, float]]) -> str:
    """Draw (class, share) pairs as one bar. The rest up to 1 stays empty."""
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
    """Return the CSS classes for the colour and the dash of a line."""
    return f"c{colour % _COLOURS} d{colour // _COLOURS % 3}"


def window(number: int) -> int:
    """Return the number of steps in the moving mean of a line with so many points: odd, and 1 for a short line."""
    return 1 if number < 10 else 2 * (number // 40) + 3


def smooth(points: Sequence[Point], width: int) -> list[Point]:
    """Replace each value by the mean of the `width` points around it, with fewer at the ends."""
    sums = [0.0, *accumulate(point.y for point in points)]
    smoothed = []
    for index, point in enumerate(points):
        first, last = max(0, index - width // 2), min(len(points), index + width // 2 + 1)
        smoothed.append(Point(point.x, (sums[last] - sums[first]) / (last - first)))
    return smoothed


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """Keep about `most` points at most: the lowest and the highest of each stretch, so that spikes stay visible."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / most)
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept += sorted({min(stretch, key=lambda p: p.y), max(stretch, key=lambda p: p.y)})
    return kept


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return about `most` round numbers at most between low and high, in steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _covering(inner: Sequence[float], low: float, high: float) -> list[float]:
    """Add a tick at an end where values lie beyond the last tick."""
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


def _svg(width: int, height: float, summary: str, parts: Iterable[str]) -> str:
    size = f'width="{width}" height="{_n(height)}" viewBox="0 0 {width} {_n(height)}"'
    return f'<svg class="plot" {size} role="img" aria-label="{escape(summary)}">{"".join(parts)}</svg>'
