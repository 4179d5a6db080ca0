"""Numbers as text. A no-break space keeps a number and its unit on one line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tinyllm.system import news

NONE = "–"
_MINUS = "\u2212"


def percent(share: float | None) -> str:
    """Write a share between 0 and 1 as a percentage with one decimal."""
    return NONE if share is None else f"{100 * share:.1f}\u00a0%"


def interval(low: float, high: float) -> str:
    """Write an interval of shares: `36.6 to 55.7 %`."""
    return f"{100 * low:.1f} to {100 * high:.1f}\u00a0%"


def points(change: float) -> str:
    """Write a difference of two shares in percentage points, with its sign."""
    tenths = round(1000 * change)
    sign = "+" if tenths > 0 else _MINUS if tenths < 0 else "±"
    return f"{sign}{abs(tenths) / 10:.1f}\u00a0points"


def signed(change: float) -> str:
    """Write a difference of two shares in percentage points, with its sign and without a unit: `−3.0`."""
    return f"{100 * change:+.1f}".replace("-", _MINUS)


def count(number: float | None) -> str:
    """Write a whole number with separators."""
    return NONE if number is None else f"{number:,.0f}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun: `1 question`, `2 questions`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def decimal(number: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits. Very small ones look like `5e-5`."""
    return NONE if number is None else re.sub(r"e([+-])0", r"e\1", f"{number:.{digits}g}")


def p_value(p: float) -> str:
    """Write a p-value: `p = 0.012`."""
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.3f}" if p < 0.1 else f"p\u00a0=\u00a0{p:.2f}"


def duration(seconds: float | None) -> str:
    """Write a time in its two largest units."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f}\u00a0s"
    return re.sub(r"(?<=\d) ", "\u00a0", news.duration(seconds))


def size(number: float | None) -> str:
    """Write a number of bytes in a suitable unit."""
    if number is None:
        return NONE
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f}\u00a0{unit}"
        number /= 1024
    return f"{number:.2f}\u00a0GiB"


def moment(text: str) -> str:
    """Write a time in ISO 8601 to the minute. Any other text is returned unchanged."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    if at.tzinfo is None:
        return text
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
