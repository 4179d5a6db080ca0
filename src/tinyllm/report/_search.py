"""From `auto.json` to what the page shows of the search of `method: auto`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyllm.errors import RunFolderError
from tinyllm.report._words import count, decimal, percent, plural


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One candidate: how it did at its last look."""

    number: str
    name: str
    is_chosen: bool
    rungs: str
    steps: str
    accuracy: str
    log_loss: str


@dataclass(frozen=True, slots=True)
class Search:
    """The panel: what was tried, and why one was chosen."""

    rows: tuple[CandidateRow, ...] = ()
    said: str = ""
    left_out: tuple[str, ...] = ()


def search_of(found: Mapping[str, Any] | None) -> Search:
    """Return the panel's content; nothing where nothing was searched.

    Raises:
        RunFolderError: the file holds something else than a search.
    """
    if not found:
        return Search()
    try:
        chosen = found["chosen"]
        said = f"{plural(found['steps'], 'optimizer step')} in all, "
        said += f"{plural(found['validation_questions'], 'validation question')}."
        said += f" Candidate {chosen} was chosen: {found['why']}." if chosen else " The search has not ended."
        rows = tuple(_row(candidate, chosen) for candidate in found["candidates"])
        return Search(rows, said, tuple(map(str, found["left_out"])))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunFolderError(
            f"auto.json is damaged ({error!r}); remove it, and `tinyllm train` searches anew."
        ) from None


def _row(candidate: Mapping[str, Any], chosen: int | None) -> CandidateRow:
    looks = candidate["looks"]
    last = looks[-1] if looks else {}
    return CandidateRow(
        number=str(candidate["number"]),
        name=str(candidate["name"]),
        is_chosen=candidate["number"] == chosen,
        rungs=str(len(looks)),
        steps=f"{count(last.get('steps', 0))} of {count(candidate['steps'])}",
        accuracy=percent(last.get("accuracy")),
        log_loss=decimal(last.get("log_loss")),
    )
