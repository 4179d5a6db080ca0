"""Replies: what teachers answered, stored unchanged in SQLite. A reply counts only after it is committed.

Add a column: a new version in `_store`. A tool for a person who has a store: a function in `_tools`, and a command in
`cli/_store.py`.
"""

from tinyllm.replies._files import export_replies, import_replies
from tinyllm.replies._place import store_of
from tinyllm.replies._read_only import ReadOnlyStore, open_store
from tinyllm.replies._salvage import Salvaged, salvage
from tinyllm.replies._store import Entry, Failure, Store
from tinyllm.replies._tools import Asked, Contents, Selected, Selection, Tell, contents, find_store, prune
from tinyllm.replies._writer import Writer

__all__ = [
    "Asked", "Contents", "Entry", "Failure", "ReadOnlyStore", "Salvaged", "Selected", "Selection", "Store", "Tell",
    "Writer", "contents", "export_replies", "find_store", "import_replies", "open_store", "prune", "salvage",
    "store_of",
]  # fmt: skip
