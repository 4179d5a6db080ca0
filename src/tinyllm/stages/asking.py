"""Asking for rationales: the teachers of a run with its store and its budget."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from tinyllm.config import Config, TeacherConfig, teachers_in_use
from tinyllm.questions.types import Question
from tinyllm.rationales.forecast import Forecast
from tinyllm.stages._asking import CHUNK, Asking, MakeRequests, ways_of_asking
from tinyllm.stages.folder import RunFolder
from tinyllm.system.news import duration
from tinyllm.teachers import Teacher

if TYPE_CHECKING:
    from tinyllm.rationales.requests import Requests
    from tinyllm.replies import Store


@contextlib.contextmanager
def opened_asking(
    config: Config,
    run: RunFolder,
    questions: Sequence[Question],
    *,
    examples: Sequence[Question] | None = None,
    may_write: bool = True,
    will_ask: bool = True,
    needs_keys: bool = True,
) -> Iterator[Asking]:
    """Make the teachers that the method learns from, and open the store, until the block ends.

    Args:
        questions: that are to be explained.
        examples: training questions among which in-context examples are chosen; None: `questions`.
        may_write: make the store if it is not there yet; otherwise nothing is written at all.
        will_ask: False for a forecast alone, for which nothing is needed.
        needs_keys: as `Asking` takes it.

    Raises:
        TeacherError: files, packages, keys or devices are missing; one message for all teachers.
        RunFolderError: the store cannot be used.
    """
    from tinyllm.replies import open_store, store_of

    specs = teachers_in_use(config)
    path = store_of(run.path, config.rationales.store) if any(spec.kind != "given" for spec in specs) else None
    wanted = path is not None and (may_write or path.is_file())
    with open_store(path) if path is not None and wanted else contextlib.nullcontext() as store:
        on_ray = config.rationales.engine == "ray"
        make = _for_rationales(config, questions, questions if examples is None else examples)
        yield Asking(
            config, specs, questions, store, run, make, on_ray=on_ray, will_ask=will_ask, needs_keys=needs_keys
        )


def _for_rationales(config: Config, questions: Sequence[Question], pool: Sequence[Question]) -> MakeRequests:
    from tinyllm.prompts import ExampleGenerator
    from tinyllm.rationales.requests import Requests

    examples = ExampleGenerator(pool, config.rationales.examples)
    as_before = cache(lambda: ExampleGenerator(pool, config.rationales.examples, by_place=True))

    def make(teacher: Teacher, spec: TeacherConfig, store: Store | None) -> Requests:
        known = ways_of_asking(teacher, spec, store)
        drawn = Requests(teacher, questions, examples, config.rationales, **known)
        if not examples.draws or _has_replies(store, drawn):
            return drawn
        # Replies to the examples that were drawn before decision 12 are not paid again.
        before = Requests(teacher, questions, as_before(), config.rationales, **known)
        return before if _has_replies(store, before) else drawn

    return make


def _has_replies(store: Store | None, requests: Requests) -> bool:
    """Whether a store has replies to the first of some requests."""
    if store is None:
        return False
    return bool(store.get_many([way.key for ask in requests.between(0, CHUNK) for way in requests.variants(ask)]))


def _dollars(usd: float | None) -> str:
    return "no price" if usd is None else f"${usd:.4f}" if usd < 1 else f"${usd:,.2f}"


_AT_MOST = "  At most: each question takes every attempt that it may, as long as allowed; a budget stops before"


def forecast_lines(forecasts: Sequence[Forecast]) -> list[str]:
    """Return the forecast as lines of a table."""
    if not forecasts:
        return []
    head = ("teacher", "stored", "requests", "prompt tokens", "reply tokens", "thoughts", "cost", "at most", "time")
    rows = [
        (
            f.teacher,
            f"{f.stored:,}",
            f"{f.requests:,}",
            f"{f.prompt_tokens:,}",
            f"{f.completion_tokens:,}",
            f"{f.thinking_tokens:,}",
            _dollars(f.usd),
            _dollars(f.usd_most),
            "unknown" if f.hours is None else duration(f.hours * 3600),
        )
        for f in forecasts
    ]
    empty = {"thoughts"} if not any(f.thinking_tokens for f in forecasts) else set()
    empty |= {"cost", "at most"} if all(f.usd is None for f in forecasts) else set()
    shown = [column for column, name in enumerate(head) if name not in empty]
    widths = {column: max(len(row[column]) for row in (head, *rows)) for column in shown}
    bases: dict[str, list[str]] = {}
    for f in forecasts:
        bases.setdefault(f.basis, []).append(f.teacher)
    unknown = ", ".join(f.teacher for f in forecasts if f.may_think and f.usd_most is not None)
    return [
        *("  " + "  ".join(row[column].ljust(widths[column]) for column in shown).rstrip() for row in (head, *rows)),
        *(f"  Tokens of {', '.join(names)}: {basis}" for basis, names in bases.items() if basis),
        *([_AT_MOST] if any((f.usd_most or 0) > (f.usd or 0) for f in forecasts) else ()),
        *([f"  With room for thoughts, in case they think: {unknown}. --pilot 8 finds out"] if unknown else ()),
    ]
