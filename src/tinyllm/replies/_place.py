"""The path of a run's store. One store has one path, whether the user writes `.`, `..` or a symbolic link.

Everything that belongs to a store lies beside that path: SQLite's log, the claims, the journal of batches.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

from tinyllm.errors import RunFolderError

STORE = "replies.sqlite"


def resolved(path: Path) -> Path:
    """Return a path without `.`, `..` and symbolic links. The file need not exist.

    Raises:
        RunFolderError: symbolic links form a loop, or the text is not a path.
    """
    try:
        found = path.resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # told where it is opened
            found.stat()  # `resolve` raises for no loop since Python 3.13
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a zero byte
        raise RunFolderError(f"{str(path)!r} is no usable path: {error}. Give another one.") from None
    return found


def store_of(run: Path, configured: Path | None) -> Path:
    """Return the path of the store that a run uses.

    Args:
        run: the run folder; it need not exist yet.
        configured: `rationales.store`; None: beside the run folder, or beside the link's target if it is a link.

    Raises:
        RunFolderError: no file can be at that path; or an earlier version, which did not resolve links, has stored
            replies of this run at another path.
    """
    store = resolved(configured or resolved(run).parent / STORE)
    nearest = next(place for place in (store, *store.parents) if place.exists())
    if nearest.is_dir() == (nearest == store):
        what = "a folder" if nearest == store else "no folder"
        raise RunFolderError(f"The store cannot be {store}: {nearest} is {what}. Give `rationales.store` another path.")
    unresolved = (configured or run.parent / STORE).absolute()
    journal = unresolved.with_name(unresolved.name + ".batches")
    has_batches = resolved(journal) != store.with_name(store.name + ".batches") and any(journal.glob("*/*.json"))
    if resolved(unresolved) == store:
        left_behind = has_batches  # a link names the store, and the journal lies beside the link
    else:
        is_unused = has_batches and not store.exists() and (run / ".account").is_file()
        left_behind = not _has_paid(run, store) and (_has_paid(run, unresolved) or is_unused)
    if left_behind:
        raise RunFolderError(
            f"Replies of this run, or notes of batches at a provider, are stored under {unresolved}. An earlier "
            f"version chose that path; they belong to {store} now. So that nothing is asked and paid again, move "
            f"every file beside {unresolved} whose name begins with '{unresolved.name}' to {store.parent}. If that "
            f"folder has a store already, set `rationales.store: {resolved(unresolved)}` instead."
        )
    return store


def _has_paid(run: Path, store: Path) -> bool:
    """Return whether a store has an account of this run."""
    with contextlib.suppress(OSError, UnicodeDecodeError, sqlite3.Error):
        account = (run / ".account").read_text(encoding="utf-8").strip()
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(store))}?mode=ro", uri=True)) as db:
            return db.execute("SELECT 1 FROM spent WHERE run = ?", (account,)).fetchone() is not None
    return False
