"""What the report's page shows: words and numbers ready to print, nothing drawn or escaped."""

from __future__ import annotations

from dataclasses import dataclass

from tinyllm.report._opinions import Opinions
from tinyllm.report._plots import Curve, Dot, Line, Mark
from tinyllm.report._verdict import Outcomes


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what it is."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that has not run, what is missing without it, and the command that runs it."""

    name: str
    without: str
    command: str


@dataclass(frozen=True, slots=True)
class Card:
    """The accuracy by one scorer, its verdict, and the same questions before and after."""

    label: str
    before: str | None
    after: str | None
    change: str
    stage: str
    note: str
    verdict: str
    outcomes: Outcomes | None


@dataclass(frozen=True, slots=True)
class Loss:
    """A line of the learning curve in numbers."""

    label: str
    colour: int
    steps: str
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Share:
    """A count with its share of what was asked."""

    name: str
    number: str
    share: str


@dataclass(frozen=True, slots=True)
class TeacherRow:
    """What one teacher gave. `bar` holds (class, share) of kept, rejected and missing."""

    name: str
    what: str
    alpha: str
    asked: str
    kept: Share
    missing: Share
    repaired: tuple[Share, ...]
    rejected: tuple[Share, ...]
    resampled: tuple[Share, ...]
    tokens: tuple[Share, ...]
    bar: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row of the data that was left out."""

    split: str
    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Page:
    """Everything on the page, in its order."""

    name: str
    facts: tuple[Fact, ...]
    missing_stages: tuple[Stage, ...]
    cards: tuple[Card, ...]
    dots: tuple[Dot, ...]
    marks: tuple[Mark, ...]
    curves: tuple[Curve, ...]
    losses: tuple[Loss, ...]
    smoothing: int
    not_finite: int
    training: tuple[Fact, ...]
    calibration: tuple[Line, ...]
    teachers: tuple[TeacherRow, ...]
    meanings: tuple[Fact, ...]
    opinions: Opinions
    data: tuple[Fact, ...]
    dropped: tuple[DroppedRow, ...]
    dropped_more: int
    warnings: tuple[Fact, ...]
    only_rationales: bool
    questions: int
    questions_left_out: int
    island: str
    config_text: str | None
    environment: tuple[Fact, ...]
