"""Salvage: reads the replies of a damaged store directly from its bytes, without SQLite.

A row of `replies` contains checksums of all its columns, so a row that is found anywhere can be verified. The header,
the tree and the indexes of the database may be damaged. The file format: https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tinyllm.errors import RunFolderError
from tinyllm.replies._errors import explained
from tinyllm.replies._place import resolved
from tinyllm.replies._store import PAGE_BYTES, Row, Store, crc_of
from tinyllm.replies._tools import Tell, silent

_MAGIC = b"SQLite format 3\0"
_LEAF_OF_TABLE = 0x0D
_OTHER_PAGES = (0x00, 0x02, 0x05, 0x0A)  # overflow pages, inner pages, leaves of indexes: they hold no rows
_LEAF_HEADER_BYTES = 8
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_NUMBER_BYTES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)  # of the serial types 0 to 9
_REAL, _FIRST_BLOB, _KEY = 7, 12, 12 + 2 * 32
_COLUMNS_OF_VERSION_2 = 13  # rows that were written before an upgrade lack its new columns
_COLUMNS = 15
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Salvaged:
    """The result of a salvage.

    Attributes:
        damaged: replies that were recognised but are incomplete; they were left out.
        unreadable_pages: pages that could not be read in full; their contents are unknown.
    """

    replies: int
    damaged: int
    pages: int
    unreadable_pages: int


def salvage(damaged: Path, out: Path, tell: Tell = silent) -> Salvaged:
    """Write a new store with every reply of a damaged store whose checksums are correct.

    The damaged store and its log (`-wal`) are only read. Failures and accounts have no checksums and are not copied.

    Args:
        out: the new store; it must not exist.
        tell: receives the number of pages done, and of all pages.

    Raises:
        RunFolderError: there is no such store, no reply was found, or `out` exists.
        OSError: a file cannot be read or written at all.
    """
    damaged, out = resolved(damaged), resolved(out)
    if not damaged.is_file():
        raise RunFolderError(f"There is no store {damaged} to salvage.")
    for file in (out, *(out.with_name(out.name + end) for end in ("-wal", "-journal"))):
        if file.exists():
            raise RunFolderError(f"{file} is there already; salvage writes a new store: give --out another name.")
    sizes = _page_sizes(damaged)
    # The draft gets its own folder, because a database is several files until it is closed.
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            draft = Path(folder) / out.name
            with Store(draft) as store:
                found = _fill(store, damaged, sizes, tell)
            if found.replies == 0:
                raise RunFolderError(
                    f"No whole reply was found in {damaged} ({found.pages} pages of {PAGE_BYTES} bytes). Either it is "
                    "no store, or nothing is left of it, or its format is version 1, which had no checksums."
                )
            draft.replace(out)
    return found


def _fill(store: Store, damaged: Path, sizes: Sequence[int], tell: Tell) -> Salvaged:
    scans = []
    incomplete: set[bytes] = set()
    for size in sizes:
        with _Pages.opened(damaged, size) as pages:
            scan = _Scan(pages, incomplete)
            rows: list[Row] = []
            for done, page in enumerate(pages, 1):
                rows += scan.rows(page)
                if len(rows) >= _ROWS_AT_ONCE:
                    store.adopt(rows)
                    rows.clear()
                tell(done, len(pages))
            store.adopt(rows)
            scans.append(scan)
    best = max(scans, key=lambda scan: scan.proved)
    saved = store.get_many([key.hex() for key in incomplete])  # of these, another copy was whole
    return Salvaged(len(store), len(incomplete) - len(saved), len(best.pages), best.unreadable)


def _page_sizes(damaged: Path) -> list[int]:
    """Return the page sizes to try: that of all stores, and the header's, which may be damaged, if it differs."""
    with damaged.open("rb") as file:
        head = file.read(100)
    said = int.from_bytes(head[16:18], "big")
    said = 65536 if said == 1 else said
    is_size = head.startswith(_MAGIC) and said >= 512 and said & (said - 1) == 0
    return [PAGE_BYTES, said] if is_size and said != PAGE_BYTES else [PAGE_BYTES]


# --- pages --------------------------------------------------------------------------------------------------------


class _Pages:
    """The pages of a database file, followed by those in its write-ahead log. None: the disk does not return a page.

    Attributes:
        views: possible states of the log. Each maps page numbers to the positions of newer pages in the log.
    """

    def __init__(self, file: int, log: int | None, size: int) -> None:
        self.size = size
        self._file, self._log = file, log
        self._count = -(-os.fstat(file).st_size // size)
        self._frame_bytes = _FRAME_HEADER_BYTES + size
        self._frames = 0 if log is None else max(0, os.fstat(log).st_size - _LOG_HEADER_BYTES) // self._frame_bytes
        self.views = self._make_views()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, size: int) -> Iterator[Self]:
        with contextlib.ExitStack() as stack:
            log = path.with_name(path.name + "-wal")
            files = [stack.enter_context(p.open("rb", buffering=0)) for p in (path, log) if p.is_file()]
            yield cls(files[0].fileno(), files[1].fileno() if len(files) == 2 else None, size)

    def _make_views(self) -> list[Mapping[int, int]]:
        """Return three views: the frames of the current log, all frames (the salt may be damaged), and no frame."""
        newest: dict[int, int] = {}
        current: dict[int, int] = {}
        salt = b""
        for frame in range(self._frames):
            at = _LOG_HEADER_BYTES + frame * self._frame_bytes
            head = self._read(self._log, at, _FRAME_HEADER_BYTES) or bytes(_FRAME_HEADER_BYTES)
            salt = salt or head[8:16]  # older frames, left from an earlier use of the log, have another salt
            number = int.from_bytes(head[:4], "big")
            newest[number] = at + _FRAME_HEADER_BYTES
            if head[8:16] == salt:
                current[number] = at + _FRAME_HEADER_BYTES
        views: list[Mapping[int, int]] = []
        for view in (current, newest, {}):
            if view not in views:
                views.append(view)
        return views

    def __len__(self) -> int:
        return self._count + self._frames

    def __iter__(self) -> Iterator[bytes | None]:
        for number in range(self._count):
            yield self._read(self._file, number * self.size, self.size)
        for frame in range(self._frames):
            at = _LOG_HEADER_BYTES + frame * self._frame_bytes + _FRAME_HEADER_BYTES
            yield self._read(self._log, at, self.size)

    def page(self, number: int, view: Mapping[int, int]) -> bytes | None:
        """Return a page by its number; None if there is none."""
        if number in view:
            return self._read(self._log, view[number], self.size)
        return self._read(self._file, (number - 1) * self.size, self.size) if 1 <= number <= self._count else None

    @staticmethod
    def _read(file: int | None, at: int, count: int) -> bytes | None:
        """Return bytes at a position, with zeros after the end of the file. None: the disk does not return them."""
        assert file is not None  # noqa: S101 - without a log there are no frames
        try:
            return os.pread(file, count, at).ljust(count, b"\0")
        except OSError:
            return None


# --- rows ---------------------------------------------------------------------------------------------------------


class _NonsenseError(Exception):
    """These bytes are not a row."""


@dataclass
class _Scan:
    """Finds rows of `replies` on pages.

    Attributes:
        incomplete: keys of incomplete rows; the scan adds to them.
        proved: number of complete rows.
        unreadable: number of pages that could not be read in full.
    """

    pages: _Pages
    incomplete: set[bytes]
    proved: int = 0
    unreadable: int = 0

    def rows(self, page: bytes | None) -> list[Row]:
        """Return the complete replies on one page."""
        found: list[Row] = []
        readable = page is not None and (page[0] in (_LEAF_OF_TABLE, *_OTHER_PAGES) or page.startswith(_MAGIC))
        if page is not None and page[0] == _LEAF_OF_TABLE:
            count = int.from_bytes(page[3:5], "big")  # of cells; their positions follow the header, two bytes each
            for end in range(_LEAF_HEADER_BYTES + 2, min(_LEAF_HEADER_BYTES + 2 * count, len(page)) + 1, 2):
                try:
                    row = self._row(page, int.from_bytes(page[end - 2 : end], "big"))
                except (_NonsenseError, IndexError):
                    readable = False
                else:
                    found += [row] if row else []
        self.proved += len(found)
        self.unreadable += not readable
        return found

    def _row(self, page: bytes, at: int) -> Row | None:
        """Return the reply in one cell; None if it is incomplete, or a row of another table."""
        size, at = _varint(page, at)
        _, at = _varint(page, at)  # the row's id
        held = _bytes_on_leaf(size, self.pages.size)
        local = page[at : at + held]
        types = _types(local, size)
        if len(local) < held:
            raise _NonsenseError
        if not _is_reply(types):
            return None
        next_page = int.from_bytes(page[at + held : at + held + 4], "big")
        for view in self.pages.views:
            row = _verified(types, self._with_overflow(local, size, next_page, view))
            if row is not None:
                return row
        self.incomplete.add(_values(types[:2], local[local[0] :])[1])
        return None

    def _with_overflow(self, local: bytes, size: int, number: int, view: Mapping[int, int]) -> bytes:
        """Return a record with its overflow pages, as far as they can be found."""
        parts, missing = [local], size - len(local)
        while missing > 0:
            page = self.pages.page(number, view)
            if page is None:
                break
            parts.append(page[4 : 4 + missing])
            missing -= len(parts[-1])
            number = int.from_bytes(page[:4], "big")
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1


def _bytes_on_leaf(size: int, page_bytes: int) -> int:
    """Return how many bytes of a record are on the leaf itself."""
    most = page_bytes - 35
    if size <= most:
        return size
    least = (page_bytes - 12) * 32 // 255 - 23
    fitting = least + (size - least) % (page_bytes - 4)
    return fitting if fitting <= most else least


def _types(record: bytes, size: int) -> list[int]:
    """Return the serial types in a record's header, and check that they add up to the record's size."""
    end, at = _varint(record, 0)
    types: list[int] = []
    while at < end:
        type_, at = _varint(record, at)
        types.append(type_)
    if at != end or 10 in types or 11 in types or end + sum(map(_length, types)) != size:
        raise _NonsenseError
    return types


def _length(type_: int) -> int:
    return _NUMBER_BYTES[type_] if type_ < 10 else (type_ - _FIRST_BLOB) // 2


def _is_reply(types: list[int]) -> bool:
    are_texts = all(t > _FIRST_BLOB and t % 2 == 1 for t in types[2:7])
    are_numbers = all(t < 10 for t in types[7 : _COLUMNS - 1])
    has_message = len(types) < _COLUMNS or types[-1] == 0 or (types[-1] > _FIRST_BLOB and types[-1] % 2 == 1)
    is_long = len(types) in (_COLUMNS_OF_VERSION_2, _COLUMNS)
    return is_long and types[:2] == [0, _KEY] and are_texts and are_numbers and has_message


def _values(types: Sequence[int], body: bytes) -> list[Any]:
    values: list[Any] = []
    at = 0
    for type_ in types:
        raw = body[at : at + _length(type_)]
        at += len(raw)
        if type_ >= _FIRST_BLOB:
            values.append(raw if type_ % 2 == 0 else raw.decode("utf-8"))
        elif type_ in (8, 9):
            values.append(type_ - 8)
        elif type_ == _REAL:
            values.append(struct.unpack(">d", raw)[0])
        else:
            values.append(int.from_bytes(raw, "big", signed=True) if raw else None)
    return values


def _verified(types: Sequence[int], record: bytes) -> Row | None:
    """Return a record as a row if both of its checksums are correct, else None."""
    try:
        values = _values(types, record[record[0] :]) + [None] * (_COLUMNS - len(types))
        _, key, teacher, question_id, asked, *rest, crc, thinking_tokens, message = values
        *said, latency_s, created = rest
        said += [float(latency_s), float(created)]  # SQLite stores a whole number as an integer
    except (ValueError, TypeError, struct.error):
        return None  # not UTF-8, not a number, or too short
    more = thinking_tokens, message
    if hashlib.sha256(asked.encode()).digest() != key or crc_of(key, teacher, question_id, *said, *more) != crc:
        return None
    return key, teacher, question_id, asked, *said, crc, *more
