"""`tinyllm store …`: inspect and edit a store of replies."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyllm.cli._options import AsJson, print_result

if TYPE_CHECKING:
    from tinyllm.replies import Asked, Contents, Salvaged, Selected, Tell
    from tinyllm.spending.charges import Spent

store_app = typer.Typer(
    help="Show, export, import and delete stored replies; recover a damaged store.", no_args_is_help=True
)

StorePath = Annotated[Path, typer.Argument(help="The store, its folder, or the folder of a run.", metavar="STORE")]
TeacherName = Annotated[str | None, typer.Option("--teacher", help="Only replies of this teacher.")]

_DEFAULT = Path("runs/replies.sqlite")
_PATIENCE_S = 2.0


@store_app.command("ls")
def list_contents(path: StorePath = _DEFAULT, as_json: AsJson = False) -> None:
    """Show the replies in a store by teacher and model, and what each run has spent."""
    from tinyllm.replies import contents, find_store

    with _telling("Reading the store") as tell:
        found = contents(find_store(path), tell)
    print_result(asdict(found), as_json, lambda: _contents_text(found))


@store_app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="The file to write, .jsonl or .parquet.")],
    path: StorePath = _DEFAULT,
    teacher: TeacherName = None,
    since: Annotated[
        str | None, typer.Option(help="Only replies stored on or after this date.", metavar="DATE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write every reply, with its request, to a file."""
    from tinyllm.replies import Selection, export_replies, find_store

    with _telling("Writing replies") as tell:
        count = export_replies(find_store(path), out, Selection(teacher, since=_date(since)), tell)
    print_result({"replies": count, "file": str(out)}, as_json, lambda: f"Wrote {_count(count, 'reply')} to {out}")


@store_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `export` wrote.")],
    path: Annotated[Path, typer.Argument(help="The store; created if it does not exist.", metavar="STORE")] = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Add the replies in a file to a store. Replies that it already has are not changed."""
    from tinyllm.replies import import_replies

    with _telling("Reading replies") as tell:
        done = import_replies(file, path, tell)
    print_result(
        asdict(done), as_json, lambda: f"{_count(done.new, 'reply')} added to {path}; {done.known} were already there."
    )


@store_app.command()
def prune(
    path: StorePath = _DEFAULT,
    teacher: TeacherName = None,
    before: Annotated[str | None, typer.Option(help="Only replies stored before this date.", metavar="DATE")] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="Delete the records of requests that got no reply, and no replies.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete replies permanently. The next run sends, and pays for, their requests again."""
    from tinyllm import replies
    from tinyllm.errors import TinyLLMError

    store, selection = replies.find_store(path), replies.Selection(teacher, before=_date(before))
    selected = replies.prune(store, selection, failures=failures, dry_run=True)
    if selected != replies.Selected() and not yes:
        if not sys.stdin.isatty():
            raise TinyLLMError(f"This would delete {_selected_text(selected)} of {store}. Add --yes to delete them.")
        if not typer.confirm(f"Delete {_selected_text(selected)} of {store} permanently?", err=True):
            selected = replies.Selected()
    if selected != replies.Selected():
        selected = replies.prune(store, selection, failures=failures)
    print_result(
        asdict(selected),
        as_json,
        lambda: f"Deleted {_selected_text(selected)}." if selected != replies.Selected() else "Nothing was deleted.",
    )


@store_app.command()
def salvage(
    damaged: Annotated[Path, typer.Argument(help="The damaged store; it is not changed.")],
    out: Annotated[Path, typer.Option("--out", help="The new store; it must not exist yet.", metavar="NEW")],
    as_json: AsJson = False,
) -> None:
    """Copy all undamaged replies of a damaged store to a new one."""
    from tinyllm.replies import salvage as save

    with _telling("Reading pages") as tell:
        found = save(damaged, out, tell)
    print_result(asdict(found), as_json, lambda: _salvaged_text(found, damaged, out))


# --- words --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _telling(label: str) -> Iterator[Tell]:
    """Yield a function that reports progress. The progress is shown after two seconds."""
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


def _date(text: str | None) -> datetime | None:
    from tinyllm.errors import TinyLLMError

    if text is None:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise TinyLLMError(f"'{text}' is not a date. Write it as 2026-01-31 or 2026-01-31T14:30 (UTC).") from None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing.removesuffix('y')}ies"


def _selected_text(selected: Selected) -> str:
    if selected.failures:
        return f"{selected.failures:,} records of requests that got no reply"
    return (
        f"{_count(selected.replies, 'reply')} ({selected.prompt_tokens:,} prompt and "
        f"{selected.completion_tokens:,} completion tokens)"
    )


def _salvaged_text(found: Salvaged, damaged: Path, out: Path) -> str:
    lost = f"{_count(found.damaged, 'reply')} left out as damaged" if found.damaged else "no damaged reply was found"
    if found.unreadable_pages:
        lost += f"; {found.unreadable_pages:,} of {found.pages:,} pages cannot be read"
    return (
        f"Saved {_count(found.replies, 'reply')} to {out}; {lost}.\n"
        f"The next run sends the lost requests again. To use the new store, move {damaged} away, with "
        f"{damaged.name}-wal and {damaged.name}-shm beside it, and move {out} there."
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
    """Return what was paid, plus the most that attempts of unknown cost may have cost."""
    return "—" if spent.usd is None else f"{spent.usd + spent.lost_usd:,.4f}"


def _amounts(of: Asked | Spent) -> list[str]:
    amounts = (of.replies, of.prompt_tokens, of.completion_tokens, of.cached_tokens)
    return ["—" if amount is None else f"{amount:,}" for amount in amounts]


def _model(identity: Mapping[str, str]) -> str:
    """Return the name of the model; without a name, what identifies it, with shortened checksums."""
    named = identity.get("model") or identity.get("name")
    return named or " ".join(value[:12] for key, value in identity.items() if key != "kind")


def _table(head: list[str], lines: list[list[str]]) -> str:
    """Align columns of words left and columns of numbers right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *lines, strict=True)]
    to_right = [all(cell[:1] in "0123456789—" for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, to_right, strict=True)
        ).rstrip()
        for line in (head, *lines)
    )
