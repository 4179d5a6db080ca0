"""Detect the kind of a file by its first bytes, unpack it, and decode text."""

from __future__ import annotations

import bz2
import codecs
import functools
import gzip
import io
import lzma
import re
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from tinyllm.errors import DataError

Kind = Literal["text", "parquet", "arrow", "workbook"]
_SNIFFED = 1 << 20  # bytes from which an encoding is detected
_FEW_ZEROS = 0.01  # share of zero bytes that a damaged text may have; UTF-16 has many
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF; copy the questions into a table or a text file"),
    (b"SQLite format 3", "an SQLite database; export the table as CSV"),
    (b"{\\rtf", "a document (RTF); save it as plain text"),
    (b"\x89HDF", "an HDF5 file; save the table as CSV or Parquet"),
    (b"\x93NUMPY", "a NumPy array; save the questions as JSONL or CSV"),
    (b"\x80\x04", "a Python pickle, which could run code; save the questions as JSONL"),
    (b"\x80\x05", "a Python pickle, which could run code; save the questions as JSONL"),
    (b"Obj\x01", "an Avro file; save the table as Parquet or CSV"),
    (b"ORC", "an ORC file; save the table as Parquet or CSV"),
    (b"\x89PNG", "a picture; copy the questions into a table or a text file"),
    (b"\xff\xd8\xff", "a picture; copy the questions into a table or a text file"),
)


@dataclass(frozen=True, slots=True)
class Bytes:
    """An unpacked file. Each `open` starts at its beginning.

    Attributes:
        name: the name without the ending of a compression.
        packed: the compression; empty: none.
    """

    path: Path
    name: str
    kind: Kind
    open: Callable[[], IO[bytes]]
    packed: str = ""


def look_into(path: Path) -> list[Bytes]:
    """Return the file, or the files inside a zip.

    Raises:
        DataError: it cannot be read, or files of this kind are not supported.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if not head.strip():
            raise DataError(f"{path}: empty file; write one question per row")
        if head[:4] == b"PK\x03\x04" and not _is_workbook(path):
            return _unzipped(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    for magic, ending, name, opened in _PACKINGS:
        if head.startswith(magic):
            inner = path.name[: -len(path.suffix)] if path.suffix.lower() in ending else path.name
            return [_bytes(path, inner, functools.partial(opened, path), name)]
    return [_bytes(path, path.name, lambda: path.open("rb"), "")]


def _zstd(path: Path) -> IO[bytes]:
    import pyarrow

    return cast("IO[bytes]", io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd")))


_PACKINGS: tuple[tuple[bytes, tuple[str, ...], str, Callable[[Path], IO[bytes]]], ...] = (
    (b"\x1f\x8b", (".gz", ".gzip"), "gzip", lambda p: cast("IO[bytes]", gzip.open(p))),  # noqa: SIM115 - the caller closes it
    (b"BZh", (".bz2",), "bzip2", lambda p: cast("IO[bytes]", bz2.open(p))),  # noqa: SIM115
    (b"\xfd7zXZ\x00", (".xz", ".lzma"), "xz", lambda p: cast("IO[bytes]", lzma.open(p))),  # noqa: SIM115
    (b"\x28\xb5\x2f\xfd", (".zst", ".zstd"), "zstd", _zstd),
)


def _bytes(path: Path, name: str, opened: Callable[[], IO[bytes]], packed: str) -> Bytes:
    where = f"{path}" + (f" ({name})" if packed == "zip" else "")
    try:
        with opened() as file:
            head = file.read(1024)
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(f"{where}: cannot be unpacked ({error}); fetch it again") from None
    for magic, what in _REFUSED:
        if head.startswith(magic):
            raise DataError(f"{where}: is {what}")
    kind: Kind = "text"
    if head[:4] == b"PAR1":
        kind = "parquet"
    elif head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        kind = "arrow"
    elif head[:4] == b"\xd0\xcf\x11\xe0" or head[:4] == b"PK\x03\x04":
        kind = "workbook"
    elif head[257:262] == b"ustar" or head.startswith((b"7z\xbc\xaf", b"Rar!")):
        what = "a tar archive" if head[257:262] == b"ustar" else "an archive"
        raise DataError(f"{where}: is {what}; unpack it, and give the file or the folder with the questions")
    elif (start := head.removeprefix(codecs.BOM_UTF8).lstrip()[:200].lower()).startswith(b"<"):
        quiz = any(mark in start for mark in (b"<quiz", b"<questestinterop", b"<assessment", b"<?xml"))
        what = "a quiz in XML (Moodle, QTI)" if quiz else "a web page or XML"
        raise DataError(f"{where}: is {what}, which is not read; export the quiz as GIFT or Aiken, or the table as CSV")
    elif Path(name).suffix.lower() in (".yaml", ".yml"):
        raise DataError(f"{where}: is YAML, as a configuration is; give the file of the questions")
    return Bytes(path, name, kind, opened, packed)


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: is a damaged zip or workbook ({error}); fetch it again") from None
    if "word/document.xml" in names:
        raise DataError(f"{path}: is a Word document; save it as plain text (Aiken), or as a table in CSV")
    return bool({"xl/workbook.xml", "xl/workbook.bin", "content.xml"} & names)


def _unzipped(path: Path) -> list[Bytes]:
    with zipfile.ZipFile(path) as archive:
        inside = [i for i in archive.infolist() if not i.is_dir() and not re.search(r"(^|/)(__MACOSX/|\.)", i.filename)]
    if any(i.flag_bits & 1 for i in inside):
        raise DataError(f"{path}: is protected by a password; unpack it, and give the file inside")
    inside = [i for i in inside if not re.search(r"(readme|licen[cs]e)[^/]*$", i.filename, re.IGNORECASE)] or inside
    if not inside:
        raise DataError(f"{path}: is an empty zip")
    return [
        _bytes(path, i.filename, functools.partial(lambda name: zipfile.ZipFile(path).open(name), i.filename), "zip")
        for i in inside
    ]


# --- text --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """A file as text. Each `open` starts at the beginning. Line ends are not changed."""

    encoding: str
    open: Callable[[], io.TextIOBase]
    how: str


def as_text(file: Bytes, wanted: str | None) -> Text:
    """Return a file as text, in the encoding that the user gave or that was detected.

    Raises:
        DataError: the encoding is unknown, does not fit, or cannot be detected.
    """
    if wanted is not None:
        try:
            codecs.lookup(wanted)
        except LookupError:
            raise DataError(
                f"--encoding: unknown encoding '{wanted}'; examples: utf-8, windows-1252, windows-1250, shift_jis"
            ) from None
        encoding, how = wanted, f"encoding {wanted}, as --encoding says"
        _check_decodes(file, encoding)
    else:
        encoding, how = _detect(file)

    def opened() -> io.TextIOBase:
        return io.TextIOWrapper(file.open(), encoding=encoding, newline="")

    return Text(encoding, opened, how)


def _check_decodes(file: Bytes, encoding: str) -> None:
    try:
        with io.TextIOWrapper(file.open(), encoding=encoding, newline="") as text:
            while text.read(1 << 20):
                pass
    except UnicodeError as error:
        raise DataError(f"{file.path}: is not {encoding} ({error}); give another --encoding") from None


def _detect(file: Bytes) -> tuple[str, str]:
    with file.open() as raw:
        head = raw.read(_SNIFFED)
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    ):  # fmt: skip
        if head.startswith(mark):
            _check_decodes(file, name)
            return name, "" if name == "utf-8-sig" else f"encoding {name}"
    if head.count(0) <= _FEW_ZEROS * len(head):
        bad = _first_not_utf8(file)
        if bad is None:
            return "utf-8", ""
        # With few bytes that are not UTF-8, the file is damaged: another encoding would change all letters.
        text = head.decode("utf-8", "replace")
        letters, damaged = sum(not c.isascii() for c in text), text.count("\ufffd")
        if bad >= len(head) or letters - damaged > 4 * damaged:
            raise DataError(
                f"{file.path}: is UTF-8 except for some bytes, the first is byte {bad}; correct them, or give the "
                "encoding with --encoding"
            )
    return _detect_other(file, head)


def _first_not_utf8(file: Bytes) -> int | None:
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with file.open() as raw:
        while True:
            block = raw.read(1 << 16)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return done + error.start
            if not block:
                return None
            done += len(block)


def _detect_other(file: Bytes, head: bytes) -> tuple[str, str]:
    import chardet

    guess = chardet.detect(head)["encoding"]
    found = [g for g in (guess, *_OTHERS) if g is not None and _decoded(head, g) is not None]
    scores = {g: _odd_letters(_decoded(head, g) or "") for g in dict.fromkeys(found)}
    if guess is None or scores.get(guess, 1) > 0:
        clean = [g for g in scores if scores[g] == 0]
        texts = {_decoded(head, g) or "" for g in clean}
        usual = {t for t in texts if all(c in _USUAL for c in t if not c.isascii())}
        if len(texts) != 1 and len(usual) != 1:
            if sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head) > _FEW_CONTROLS * len(head):
                raise DataError(
                    f"{file.path}: is not text, although its name ends in {file.path.suffix or 'nothing'}. Give a "
                    "table or a text file: .csv, .xlsx, .jsonl, .json, .parquet, .txt, …"
                )
            raise DataError(
                f"{file.path}: is not UTF-8, and its encoding cannot be detected. Save it as UTF-8, or name it, "
                f"as in --encoding windows-1252 (it may be: {', '.join(found[:5]) or 'none that is known'})"
            )
        guess = next(g for g in clean if _decoded(head, g) in (usual or texts))
    _check_decodes(file, guess)
    text = _decoded(head, guess) or ""
    words = [w for w in re.findall(r"[^\s,;|\t\"]+", text) if not w.isascii()]
    shown = f" (as in “{words[0][:30]}”)" if words else ""
    return guess, f"encoding {guess.lower()}, detected{shown}; use --encoding if this is wrong"


_FEW_CONTROLS = 0.02  # the share of control characters that a text may have
_USUAL = frozenset("äöüÄÖÜßéèêëàâáãåæçñíìîïóòôõøúùûœÉÈÀÁÇÑÓÖØÅÆÍÚ€’‘“”„–—…«»°¿¡§£")
_OTHERS = ("windows-1252", "iso8859-15", "mac_roman", "cp850")


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data)
    except (UnicodeDecodeError, LookupError):
        return None


def _odd_letters(text: str) -> int:
    """Count unlikely characters: control characters, and signs or capitals inside a word."""
    odd = len(re.findall(r"[\x80-\x9f\x00-\x08¤]", text))
    odd += len(re.findall(r"(?<=[^\W\d_])[^\w\s\x00-\x7f’‘`´·\u0300-\u036f、-〿＀-￯·‧－–—…](?=[^\W\d_])", text))
    others = [c for c in text if not c.isascii() and c.isalpha()]
    latin = [c for c in others if unicodedata.name(c, "").startswith("LATIN")]
    if len(latin) == len(others):
        odd += len(re.findall(r"(?<=[a-z])[À-ÖØ-ÞŠŽŒ](?=[a-z])", text))  # a capital between small letters
    return odd
