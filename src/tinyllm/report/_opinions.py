"""From `opinions.json` to what the page shows of the teachers' opinions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinyllm.comparison import Accuracy
from tinyllm.config import SoftSection
from tinyllm.errors import RunFolderError
from tinyllm.opinions.files import OPINIONS, read_opinions
from tinyllm.opinions.pool import pool_opinions
from tinyllm.opinions.types import Opinion
from tinyllm.questions import Question
from tinyllm.report._files import RunFiles
from tinyllm.report._plots import Line, Point
from tinyllm.report._words import NONE, count, decimal, interval, percent

Shares = tuple[float, ...]
"""One probability per choice."""


def opinions_of(figures: Mapping[str, Any] | None) -> dict[str, list[Any]]:
    """Return the panel's content: its rows, the agreement of each two teachers, and the lines of its plot.

    Raises:
        RunFolderError: the file holds something else than its figures.
    """
    known = figures or {"teachers": {}, "agreement": []}
    try:
        teachers = [(name, colour, found) for colour, (name, found) in enumerate(known["teachers"].items())]
        agreement = [
            {"teachers": " and ".join(map(str, a["teachers"])), "same": percent(a["same"]), "questions": count(a["n"])}
            for a in known["agreement"]
        ]
        lines = [reliability_line(name, colour, found["reliability"]) for name, colour, found in teachers]
        return {"rows": [_row(*teacher) for teacher in teachers], "agreement": agreement, "lines": lines}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunFolderError(
            f"opinions.json is damaged ({error!r}); `tinyllm generate` writes it anew, and stored replies cost nothing."
        ) from None


def opinions_on(
    files: RunFiles, questions: Mapping[tuple[str, str], Question]
) -> dict[tuple[str, str], dict[str, Shares]]:
    """Return the opinions on questions, by split and id, then by teacher. The name of the pooled opinion is empty.

    It is pooled with the weights of the training, or else with equal weights if there are several teachers.
    """
    if not (files.folder / OPINIONS).is_file():
        return {}
    found: dict[tuple[str, str], dict[str, Shares]] = {}
    for split in dict.fromkeys(split for split, _ in questions):
        asked = {name: q for (of, name), q in questions.items() if of == split}
        opinions = [o for o in read_opinions(files.folder, split) if o.question_id in asked]
        for opinion in opinions:
            found.setdefault((split, opinion.question_id), {})[opinion.teacher] = opinion.probabilities
        for name, shares in _pooled(files, list(asked.values()), opinions).items():
            found[split, name][""] = shares
    return found


def _pooled(files: RunFiles, questions: Sequence[Question], opinions: Sequence[Opinion]) -> Mapping[str, Shares]:
    teachers = sorted({o.teacher for o in opinions})
    weights = ((files.trained or {}).get("soft") or {}).get("weights")
    if weights is None:
        if len(teachers) < 2:
            return {}
        weights = dict.fromkeys(teachers, 1 / len(teachers))
    section = SoftSection(teachers=weights, trust=0.0)
    return pool_opinions(section, teachers, (questions, opinions), ((), ())).shares


def _row(name: str, colour: int, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return one teacher's opinions, and what they are worth on the questions whose answer is known."""
    accuracy = found["accuracy"]
    rejected = sorted(found["rejected"].items(), key=lambda item: -item[1])
    return {
        "name": name,
        "colour": colour,
        "way": str(found["way"]),
        "opinions": count(found["opinions"]),
        "missing": count(found["questions"] - found["opinions"]),
        "rejected": ", ".join(f"{count(n)} {reason}" for reason, n in rejected) or "0",
        "accuracy": percent(accuracy["value"]) if accuracy else NONE,
        "interval": interval(*accuracy["ci95"]) if accuracy else "",
        "ece": decimal(found["ece"]),
        "tokens": count(found["prompt_tokens"] + found["completion_tokens"]),
        "cost": NONE if found["usd"] is None else f"${found['usd']:,.4f}",
    }


def reliability_line(name: str, colour: int, bins: Sequence[Mapping[str, Any]]) -> Line:
    """Accuracy by confidence, in percent, with its interval: a bin of few questions says little."""
    points: list[Point] = []
    for found in bins:
        low, high = Accuracy.of(found["accuracy"] * found["n"], found["n"]).ci95
        points.append(Point(100 * found["confidence"], 100 * found["accuracy"], 100 * low, 100 * high))
    return Line(name, tuple(points), colour)
