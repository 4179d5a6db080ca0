"""How a column names the right choice: by letter, number or text. Each way is tried on every row."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinyllm.errors import printable
from tinyllm.questions.intake._cells import fold, is_scalar, number_of, text_of
from tinyllm.questions.intake._choices import Options
from tinyllm.questions.intake._names import place_of_mark, plain

Way = Literal["label", "text", "from 0", "from 1"]
WAYS: tuple[Way, ...] = ("label", "text", "from 0", "from 1")
NOTHING, UNFIT, SEVERAL = -1, -2, -3  # no answer; none of the choices; several choices
SAID: Mapping[Way, str] = {
    "label": "the letter or label of the right choice",
    "text": "the text of the right choice",
    "from 0": "its number, counted from 0",
    "from 1": "its number, counted from 1",
}
_SHOWN, _SHOWN_CHARACTERS = 3, 40  # cells that mean no choice, and how much of each
_TOLERATED = 0.05  # such a share of the rows may match no choice (they are left out and reported)

_LEAD = re.compile(
    r"^\s*(?:(?:the\s+)?(?:correct|right|best)?\s*"
    r"(?:answer|option|choice|ans|antwort|lösung|réponse|reponse|respuesta|risposta|odpowiedź|opción|opcja|вариант|ответ|"
    r"答案|选项|選項|正解|答え|정답)\s*(?:is|ist|est|es)?\s*[:：=#_\- ]?\s*)+(?=\S)",
    re.IGNORECASE,
)
_BARE = re.compile(r"^[\s(\[{<\"'「（【#№]*([^\W_]{1,4}|[①-⑧])[\s)\]}>.:、．）】\"'」]*$")
_WITH_TEXT = re.compile(r"^\s*[(\[（【]?\s*([^\W_]{1,3}|[①-⑧])\s*[)\].:、．）】\-–]\s*(\S.*)$", re.DOTALL)
_SEVERAL = re.compile(r"\s*(?:[,;/|&+、，]|\band\b|\bund\b|\bet\b|\by\b|\s)\s*", re.IGNORECASE)


def single(value: Any) -> Any:
    """Return the item of a list of one; any other value unchanged."""
    return single(value[0]) if isinstance(value, list) and len(value) == 1 else value


def misfits_allowed(rows: int) -> float:
    """Return how many rows may match no choice."""
    return _TOLERATED * rows if rows >= 20 else 0


def is_nothing(value: Any) -> bool:
    """Tell whether the answer is unknown: the cell is empty, or -1, which marks withheld answers."""
    value = single(value)
    return value is None or value == [] or (isinstance(value, str) and not value.strip()) or number_of(value) == -1


def by_label(value: Any, options: Options, columns: Sequence[str] = ()) -> int:
    """Return the choice that a value names by its label: `B`, `(b)`, `B.`, `Answer: B`, `B. its text`, `option_b`.

    Args:
        columns: the columns of the choices. Their names are labels, too.
    """
    value = single(value)
    if not is_scalar(value) or isinstance(value, bool):
        return SEVERAL if isinstance(value, list) and len(value) > 1 else UNFIT
    text = text_of(value)
    folded = [fold(label) for label in options.labels]
    if columns and (named := [k for k, c in enumerate(columns) if _joined(c) == _joined(text)]):
        return options.places.index(named[0]) if len(named) == 1 and named[0] in options.places else UNFIT
    bare = text if fold(text) in folded else _LEAD.sub("", text)
    if match := _BARE.match(bare):
        place = _place(match[1], folded)
        if place is not None:
            return place
    if match := _WITH_TEXT.match(bare):
        place = _place(match[1], folded)
        if place is not None and fold(match[2]) == fold(options.texts[place]):
            return place
    return _several(bare, folded)


def _joined(name: str) -> str:
    return plain(name).replace(" ", "")


def _place(mark: str, folded: Sequence[str]) -> int | None:
    if folded.count(fold(mark)) == 1:
        return folded.index(fold(mark))
    # A letter of another alphabet or case stands for its place, if the labels are letters, too.
    found, ours = place_of_mark(mark), [place_of_mark(label) for label in folded]
    if found is not None and found in ours:
        return ours.index(found)
    return None


def _several(text: str, folded: Sequence[str]) -> int:
    parts = [p for p in _SEVERAL.split(text) if p]
    if len(parts) == 1 and 1 < len(parts[0]) <= len(folded):
        parts = list(parts[0])  # `AC`
    marks = [m[1] if (m := _BARE.match(p)) else "" for p in parts]
    places = [_place(mark, folded) for mark in marks]
    return SEVERAL if len(parts) > 1 and None not in places and len(set(places)) == len(places) else UNFIT


def by_text(value: Any, options: Options) -> int:
    """Return the choice whose text equals a value, exactly or without regard to white space and case."""
    value = single(value)
    if isinstance(value, list):
        return SEVERAL if len(value) > 1 and all(by_text(v, options) >= 0 for v in value) else UNFIT
    if not is_scalar(value):
        return UNFIT
    text = text_of(value)
    if isinstance(value, bool):
        said = ("true", "yes") if value else ("false", "no")
        equal = [k for k, t in enumerate(options.texts) if fold(t) in said]
        return equal[0] if len(equal) == 1 else UNFIT
    for known in (text, fold(text)):
        texts = options.texts if known is text else tuple(map(fold, options.texts))
        if texts.count(known) == 1:
            return texts.index(known)
        if known in texts:
            return UNFIT  # two choices have this text
    number = _as_number(text)
    equal = [k for k, t in enumerate(options.texts) if number is not None and _as_number(t) == number]
    return equal[0] if len(equal) == 1 else UNFIT


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def by_number(value: Any, options: Options, first: int) -> int:
    """Return the choice with a number. The first choice has the number `first`."""
    value = single(value)
    number = number_of(value)
    if number is None and isinstance(value, str) and _LEAD.match(value):
        number = number_of(_LEAD.sub("", value))
    if number is None and isinstance(value, str) and (match := _BARE.match(value)):
        number = number_of(match[1])
    if number is None:
        parts = value if isinstance(value, list) else [p for p in _SEVERAL.split(text_of(value)) if p]
        numbers = [number_of(p) for p in parts]
        inside = all(n is not None and n - first in options.places for n in numbers)
        return SEVERAL if len(parts) > 1 and inside else UNFIT
    return options.places.index(number - first) if number - first in options.places else UNFIT


@dataclass
class Trial:
    """For every row, the choice that a cell means in each way of reading it, or why it means none.

    Attributes:
        columns: the columns of the choices.
        names: the names of the classes, if the column holds class numbers.
        zero: place of the first 0.
        last: place of the first number that equals the number of choices in its row.
        misfits: places and values of the first cells that are not empty and mean no choice, for each way.
    """

    column: str
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    found: dict[Way, array[int]] = field(default_factory=lambda: {way: array("h") for way in WAYS})
    misfits: dict[Way, list[str]] = field(default_factory=lambda: {way: [] for way in WAYS})
    zero: str | None = None
    last: str | None = None

    def see(self, place: str, cells: Mapping[str, Any], options: Options) -> None:
        """Look at a row."""
        value = single(cells.get(self.column))
        number = number_of(value)
        if number == 0 and self.zero is None:
            self.zero = place
        if number == options.places[-1] + 1 and self.last is None:
            self.last = place
        for way in WAYS:
            choice = resolve(value, options, way, self.columns, self.names)
            self.found[way].append(choice)
            if choice < NOTHING and len(self.misfits[way]) < _SHOWN:
                shown = f"{place}: '{printable(str(value))[:_SHOWN_CHARACTERS]}'"
                is_empty = names_empty(value, options, way, self.columns)
                self.misfits[way].append(f"{shown} (this choice is empty there)" if is_empty else shown)

    def fits(self, way: Way) -> bool:
        """Tell whether this way gives a choice in nearly every row."""
        found = self.results(way)
        there = found[found != NOTHING]
        fit, unfit = int((there >= 0).sum()), int((there == UNFIT).sum())
        return fit > 0 and unfit <= misfits_allowed(len(there))

    def results(self, way: Way) -> NDArray[np.int16]:
        """Return the choice of each row in one way, or NOTHING, UNFIT, SEVERAL."""
        return np.frombuffer(self.found[way], np.int16) if len(self.found[way]) else np.zeros(0, np.int16)

    @property
    def is_empty(self) -> bool:
        """Whether no row has an answer."""
        return bool((self.results("label") == NOTHING).all())


def names_empty(value: Any, options: Options, way: Way, columns: Sequence[str]) -> bool:
    """Tell whether a value that means no choice means an empty one."""
    if not options.empty or way == "text":
        return False
    labels, places = zip(*options.empty, strict=True)
    return resolve(value, Options(labels, labels, places), way, columns) >= 0


def resolve(value: Any, options: Options, way: Way, columns: Sequence[str] = (), names: Sequence[str] = ()) -> int:
    """Return the choice that a value means in one way; otherwise NOTHING, UNFIT or SEVERAL."""
    if is_nothing(value):
        return NOTHING
    if names and way in ("label", "text"):
        number = number_of(single(value))
        if number is not None and number < len(names):
            value = names[number]
    if way == "label":
        return by_label(value, options, columns)
    if way == "text":
        return by_text(value, options)
    return by_number(value, options, 0 if way == "from 0" else 1)
