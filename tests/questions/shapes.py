"""Made-up questions, written in the shapes that question files come in; used by test_intake.py."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa


class Q(NamedTuple):
    """A question as it should come out."""

    question: str
    choices: tuple[str, ...]
    answer: int | None
    context: str | None = None


PLAIN = (
    Q("Which of these floats on water?", ("A stone", "A cork", "An anvil", "A coin"), 1),
    Q("Where does the river end?", ("In the sea", "In a cup", "On the roof", "In the sky"), 0),
    Q("What do we call a young dog?", ("A calf", "A foal", "A kitten", "A puppy"), 3),
    Q("Who repairs shoes?", ("The baker", "The tailor", "The cobbler", "The smith"), 2),
)
UNPROVEN = tuple(q for q in PLAIN if q.answer in (1, 2))
STORIES = (
    "A kite got caught in the old tree by the mill, and nobody could reach it for two days.",
    "The bakery on the corner sells bread in the morning, and in the afternoon it is closed.",
    "Every summer the lake is full of boats, and in winter children skate on the thick ice.",
    "When the lights went out in the whole street, Ms Weber lit candles in all her windows.",
)
WITH_CONTEXT = tuple(q._replace(context=c) for q, c in zip(PLAIN, STORIES, strict=True))


def table(header: Sequence[str] | None, rows: Sequence[Sequence[Any]], separator: str = ",") -> str:
    """Return a table as text."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    if header is not None:
        writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def lettered(questions: Sequence[Q] = PLAIN, name: str = "{}") -> list[list[str]]:
    """Return rows of question, choices and letter."""
    return [[q.question, *q.choices, name.format("ABCDEFGH"[q.answer or 0])] for q in questions]


def lines(rows: Sequence[Any]) -> str:
    """Return rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def packed(name: str, data: bytes) -> bytes:
    """Return data packed as its name says."""
    if name.endswith(".gz"):
        return gzip.compress(data)
    if name.endswith(".bz2"):
        return bz2.compress(data)
    if name.endswith(".xz"):
        return lzma.compress(data)
    if name.endswith(".zst"):
        return pa.compress(data, codec="zstd", asbytes=True)
    if name.endswith(".zip"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(name.removesuffix(".zip"), data)
            archive.writestr("__MACOSX/._x", b"\0")
        return out.getvalue()
    return data


def workbook(path: Path, sheets: dict[str, Sequence[Sequence[Any]]]) -> None:
    """Write an .xlsx with cells of text, numbers, booleans and dates (as numbers with a date's format)."""
    import datetime
    from xml.sax.saxutils import escape

    def cell(value: Any, ref: str) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return f'<c r="{ref}" t="b"><v>{int(value)}</v></c>'
        if isinstance(value, datetime.date):
            return f'<c r="{ref}" s="1"><v>{(value - datetime.date(1899, 12, 30)).days}</v></c>'
        if isinstance(value, int | float):
            return f'<c r="{ref}"><v>{value}</v></c>'
        return f'<c r="{ref}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'

    kind = "http://schemas.openxmlformats.org"
    with zipfile.ZipFile(path, "w") as out:
        parts = "".join(
            f'<Override PartName="/xl/worksheets/sheet{k}.xml" '
            'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
            for k in range(1, len(sheets) + 1)
        )
        out.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{kind}/package/2006/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
            'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override '
            'PartName="/xl/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/>'
            f"{parts}</Types>",
        )
        relations = f'<Relationships xmlns="{kind}/package/2006/relationships">'
        of = f"{kind}/officeDocument/2006/relationships"
        out.writestr(
            "_rels/.rels",
            f'{relations}<Relationship Id="r1" Type="{of}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        names = "".join(f'<sheet name="{n}" sheetId="{k}" r:id="r{k}"/>' for k, n in enumerate(sheets, 1))
        main = f'xmlns="{kind}/spreadsheetml/2006/main"'
        out.writestr("xl/workbook.xml", f'<workbook {main} xmlns:r="{of}"><sheets>{names}</sheets></workbook>')
        targets = "".join(
            f'<Relationship Id="r{k}" Type="{of}/worksheet" Target="worksheets/sheet{k}.xml"/>'
            for k in range(1, len(sheets) + 1)
        )
        out.writestr(
            "xl/_rels/workbook.xml.rels",
            f'{relations}{targets}<Relationship Id="s" Type="{of}/styles" Target="styles.xml"/></Relationships>',
        )
        out.writestr(
            "xl/styles.xml",
            f'<styleSheet {main}><fonts count="1"><font/></fonts><fills count="1"><fill/></fills><borders count="1"><border/>'
            '</borders><cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="2"><xf numFmtId="0"/>'
            '<xf numFmtId="14" applyNumberFormat="1"/></cellXfs></styleSheet>',
        )
        for k, rows in enumerate(sheets.values(), 1):
            body = "".join(
                f'<row r="{r}">' + "".join(cell(v, f"{chr(65 + c)}{r}") for c, v in enumerate(row)) + "</row>"
                for r, row in enumerate(rows, 1)
            )
            out.writestr(f"xl/worksheets/sheet{k}.xml", f"<worksheet {main}><sheetData>{body}</sheetData></worksheet>")
