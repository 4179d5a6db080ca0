"""Where a run's store is. However folder and store are spelt (`.`, `..`, a symbolic link), one store has one path.

Everything that belongs to a store stands beside that path: SQLite's log, the claims, the journal of batches.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

from tinyllm.errors import RunFolderError

STORE = "replies.sqlite"


def resolved(path: Path) -> Path:
    """Return a path without `.`, `..` and symbolic links; nothing has to be there.

    Raises:
        RunFolderError: symbolic links that lead to each other, or what is no path.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a zero byte
        raise RunFolderError(f"{str(path)!r} is no usable path: {error}. Give another one.") from None


def store_of(run: Path, configured: Path | None) -> Path:
    """Return the path of the store that a run uses.

    Args:
        run: the run's folder, which need not be there yet.
        configured: `rationales.store`; None: beside the folder, and beside its target where it is a symbolic link.

    Raises:
        RunFolderError: no file can be there; or an earlier version, which went by the spelling, has left this run's
            replies at another place.
    """
    store = resolved(configured or resolved(run).parent / STORE)
    there = next(place for place in (store, *store.parents) if place.exists())
    if there.is_dir() if there == store else not there.is_dir():
        what = "a folder" if there == store else "no folder"
        raise RunFolderError(f"The store cannot be {store}: {there} is {what}. Give `rationales.store` another path.")
    spelt = (configured or run.parent / STORE).absolute()
    journal = spelt.with_name(spelt.name + ".batches")
    has_batches = resolved(journal) != store.with_name(store.name + ".batches") and any(journal.glob("*/*.json"))
    if resolved(spelt) == store:
        left_behind = has_batches  # the store is named by a link, and the journal stood beside that
    else:
        is_new = not _has_paid(run, store)
        left_behind = is_new and (_has_paid(run, spelt) or (has_batches and not store.exists() and _is_known(run)))
    if left_behind:
        raise RunFolderError(
            f"Replies of this run, or notes of batches that are at a provider, are kept under {spelt}, a name that "
            f"depends on how the run or the store is written. They belong to {store} now. So that nothing is asked "
            f"and paid again, move every file beside {spelt} whose name begins with '{spelt.name}' to {store.parent}; "
            f"or, where another store is there already, set `rationales.store: {resolved(spelt)}`."
        )
    return store


def _is_known(run: Path) -> bool:
    return (run / ".account").is_file()


def _has_paid(run: Path, store: Path) -> bool:
    """Whether a store has an account of this run."""
    with contextlib.suppress(OSError, UnicodeDecodeError, sqlite3.Error):
        account = (run / ".account").read_text(encoding="utf-8").strip()
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(store))}?mode=ro", uri=True)) as db:
            return db.execute("SELECT 1 FROM spent WHERE run = ?", (account,)).fetchone() is not None
    return False
