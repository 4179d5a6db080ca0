"""`tinyllm store …`: what a person does with a store of replies by hand."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tinyllm.replies import Asked, Contents, Salvaged, Selected, Tell
    from tinyllm.spending.charges import Spent

store_app = typer.Typer(
    help="Look into the store of replies; take replies out and in; delete them; save a damaged store.",
    no_args_is_help=True,
)

StorePath = Annotated[
    Path, typer.Argument(help="The store, a folder that holds one, or a run's folder.", metavar="STORE")
]
TeacherName = Annotated[str | None, typer.Option("--teacher", help="Only replies of this teacher.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout; news go to stderr.")]

_DEFAULT = Path("runs/replies.sqlite")
_PATIENCE_S = 2.0


@store_app.command("ls")
def list_contents(path: StorePath = _DEFAULT, as_json: AsJson = False) -> None:
    """Show what is in a store, by teacher and model, and what each run has spent."""
    from tinyllm.replies import contents, find_store

    with _telling("Reading the store") as tell:
        found = contents(find_store(path), tell)
    _print(asdict(found), as_json, lambda: _contents_text(found))


@store_app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="The file to write, .jsonl or .parquet.")],
    path: StorePath = _DEFAULT,
    teacher: TeacherName = None,
    since: Annotated[str | None, typer.Option(help="Only replies stored then or later.", metavar="DATE")] = None,
    as_json: AsJson = False,
) -> None:
    """Write every reply, with what was asked, to a file."""
    from tinyllm.replies import Selection, export_replies, find_store

    with _telling("Writing replies") as tell:
        count = export_replies(find_store(path), out, Selection(teacher, since=_date(since)), tell)
    _print({"replies": count, "file": str(out)}, as_json, lambda: f"Wrote {_count(count, 'reply')} to {out}")


@store_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    into: Annotated[Path, typer.Option("--into", help="The store; made if it is not there.", metavar="STORE")],
    as_json: AsJson = False,
) -> None:
    """Take the replies of a file into a store; replies that it has already stay as they are."""
    from tinyllm.replies import import_replies

    with _telling("Reading replies") as tell:
        done = import_replies(file, into, tell)
    _print(
        asdict(done),
        as_json,
        lambda: f"{_count(done.new, 'reply')} taken into {into}; {done.known} were answered there already.",
    )


@store_app.command()
def prune(
    path: StorePath = _DEFAULT,
    teacher: TeacherName = None,
    before: Annotated[str | None, typer.Option(help="Only replies stored before then.", metavar="DATE")] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="Delete notes of requests that got no reply, and no replies.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete replies for good. What they answered will be asked, and paid for, again."""
    from tinyllm import replies
    from tinyllm.errors import TinyLLMError

    store, selection = replies.find_store(path), replies.Selection(teacher, before=_date(before))
    selected = replies.prune(store, selection, failures=failures, dry_run=True)
    if selected != replies.Selected() and not yes:
        if not sys.stdin.isatty():
            raise TinyLLMError(f"This would delete {_selected_text(selected)} of {store}. Add --yes to do so.")
        if not typer.confirm(f"Delete {_selected_text(selected)} of {store} for good?", err=True):
            selected = replies.Selected()
    if selected != replies.Selected():
        selected = replies.prune(store, selection, failures=failures)
    _print(
        asdict(selected),
        as_json,
        lambda: f"Deleted {_selected_text(selected)}." if selected != replies.Selected() else "Nothing was deleted.",
    )


@store_app.command()
def salvage(
    damaged: Annotated[Path, typer.Argument(help="The damaged store; it is only read.")],
    out: Annotated[Path, typer.Option("--out", help="The new store, which must not be there yet.", metavar="NEW")],
    as_json: AsJson = False,
) -> None:
    """Save every reply of a damaged store that is whole into a new one."""
    from tinyllm.replies import salvage as save

    with _telling("Reading pages") as tell:
        found = save(damaged, out, tell)
    _print(asdict(found), as_json, lambda: _salvaged_text(found, damaged, out))


# --- words --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _telling(label: str) -> Iterator[Tell]:
    """Give something to tell progress to, which is shown once the person has waited for a while."""
    from tinyllm.system.news import News, Task

    began = time.monotonic()
    shown: list[Task] = []
    with contextlib.ExitStack() as stack:

        def tell(done: int, total: int) -> None:
            if not shown and time.monotonic() - began > _PATIENCE_S:
                shown.append(stack.enter_context(News().task(label, total)))
            if shown:
                shown[0].update(done, total)

        yield tell


def _print(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text())


def _date(text: str | None) -> datetime | None:
    from tinyllm.errors import TinyLLMError

    if text is None:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise TinyLLMError(
            f"'{text}' is no date. Write it as 2026-01-31 or 2026-01-31T14:30; it is taken as UTC."
        ) from None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing.removesuffix('y')}ies"


def _selected_text(selected: Selected) -> str:
    if selected.failures:
        return f"{selected.failures:,} notes of requests that got no reply"
    return (
        f"{_count(selected.replies, 'reply')} ({selected.prompt_tokens:,} prompt and "
        f"{selected.completion_tokens:,} completion tokens)"
    )


def _salvaged_text(found: Salvaged, damaged: Path, out: Path) -> str:
    lost = f"{_count(found.damaged, 'reply')} left out as damaged" if found.damaged else "none was found damaged"
    if found.unreadable_pages:
        lost += f"; {found.unreadable_pages:,} of {found.pages:,} pages hold what cannot be read"
    return (
        f"Saved {_count(found.replies, 'reply')} to {out}; {lost}.\n"
        f"What is lost is asked again by the next run. To go on with the new store, move {damaged} and what is beside "
        f"it ({damaged.name}-wal, {damaged.name}-shm) away, and {out} there."
    )


def _contents_text(found: Contents) -> str:
    replies = sum(asked.replies for asked in found.teachers)
    parts = [f"{found.store}: {_count(replies, 'reply')}, {found.bytes / 1e6:,.1f} MB"]
    asked = [
        [a.teacher, _model(a.identity), *_amounts(a), a.first[:16].replace("T", " "), a.last[:16].replace("T", " ")]
        for a in found.teachers
    ]
    columns = ["replies", "prompt tokens", "completion tokens", "cached tokens"]
    if asked:
        parts.append(_table(["teacher", "model", *columns, "first (UTC)", "last (UTC)"], asked))
    if found.failures:
        failed = [[f.teacher, f.reason, f"{f.requests:,}"] for f in found.failures]
        parts.append(_table(["teacher", "no reply because", "requests"], failed))
    if found.spent:
        spent = [
            [p.run, p.teacher, *_amounts(p.spent), _usd(p.spent), f"{p.spent.lost:,}", f"{p.spent.seconds / 3600:.2f}"]
            for p in found.spent
        ]
        parts.append(_table(["spent by run", "teacher", *columns, "US dollars", "cost unknown", "hours"], spent))
    return "\n\n".join(parts)


def _usd(spent: Spent) -> str:
    """What was paid, with the most that attempts may have cost whose cost nobody knows."""
    return "—" if spent.usd is None else f"{spent.usd + spent.lost_usd:,.4f}"


def _amounts(of: Asked | Spent) -> list[str]:
    amounts = (of.replies, of.prompt_tokens, of.completion_tokens, of.cached_tokens)
    return ["—" if amount is None else f"{amount:,}" for amount in amounts]


def _model(identity: Mapping[str, str]) -> str:
    """What a person calls the model; else what tells it from others, but not all of a checksum."""
    named = identity.get("model") or identity.get("name")
    return named or " ".join(value[:12] for key, value in identity.items() if key != "kind")


def _table(head: list[str], lines: list[list[str]]) -> str:
    """Columns of words to the left, columns of numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *lines, strict=True)]
    to_right = [all(cell[:1] in "0123456789—" for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, to_right, strict=True)
        ).rstrip()
        for line in (head, *lines)
    )
