"""From `auto.json` to what the page shows of the search of `method: auto`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyllm.errors import RunFolderError
from tinyllm.report._words import count, decimal, percent, plural


def search_of(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the panel's content: what was tried, and why one was chosen; no rows where nothing was searched.

    Raises:
        RunFolderError: the file holds something else than a search.
    """
    if not found:
        return {"rows": []}
    try:
        chosen = found["chosen"]
        said = f"{plural(found['steps'], 'optimizer step')} in all, "
        said += f"{plural(found['validation_questions'], 'validation question')}."
        said += f" Candidate {chosen} was chosen: {found['why']}." if chosen else " The search has not ended."
        if chosen and len(found["candidates"]) > 1:
            said += " Its validation accuracy is optimistic, because it is the highest of several."
        rows = [_row(candidate, chosen) for candidate in found["candidates"]]
        return {"rows": rows, "said": said, "left_out": list(map(str, found["left_out"]))}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunFolderError(
            f"auto.json is damaged ({error!r}); remove it, and `tinyllm train` searches anew."
        ) from None


def _row(candidate: Mapping[str, Any], chosen: int | None) -> dict[str, Any]:
    """Return how a candidate did at its last look."""
    looks = candidate["looks"]
    last = looks[-1] if looks else {}
    failed = bool(last.get("failed"))
    return {
        "number": str(candidate["number"]),
        "name": str(candidate["name"]),
        "is_chosen": candidate["number"] == chosen,
        "rungs": str(len(looks)),
        "steps": f"{count(last.get('steps', 0))} of {count(candidate['steps'])}",
        "accuracy": "failed" if failed else percent(last.get("accuracy")),
        "log_loss": decimal(None if failed else last.get("log_loss")),
    }
