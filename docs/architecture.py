"""Draws `docs/images/architecture.svg` and the table of rooms in `docs/architecture.md` from the imports.

`--check` only says whether both are up to date.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tinyllm"
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
_BEGIN, _END = "<!-- made by docs/architecture.py -->", "<!-- end -->"
_ROW, _NAME, _SENTENCE, _CELL, _TOP = 30, 124, 540, 26, 124  # pixels
_INK, _BOX, _EDGE, _DOT, _LINE = "#1c2733", "#e3ecf7", "#7d9cc4", "#2f5d9b", "#d5dce4"


def rooms() -> list[str]:
    """Return the rooms from top to bottom, as the import linter holds them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [room for room in layers if not room.startswith("_")]


def files(room: str) -> list[Path]:
    """Return the modules of a room."""
    return sorted((SOURCE / room).rglob("*.py")) or [SOURCE / f"{room}.py"]


def imported(file: Path) -> set[str]:
    """Return the modules of TinyLLM that a file imports, with what it takes of them, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tinyllm":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "tinyllm"}
    return found


def imports(room: str) -> set[str]:
    """Return the other rooms that a room imports."""
    names = {name.split(".")[1] for file in files(room) for name in imported(file) if "." in name}
    return names - {room}


def sentences(room: str) -> tuple[str, str]:
    """Return what lives in a room, as `Name: sentence.`, and what is added there: two paragraphs of its docstring."""
    file = SOURCE / room / "__init__.py" if (SOURCE / room).is_dir() else SOURCE / f"{room}.py"
    parts = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n\n")
    lives, added = (" ".join(part.split()) for part in (*parts, "")[:2])
    return lives.partition(": ")[2], added if added.startswith("Add ") else ""


def picture() -> str:
    """Return the house as SVG: a row a room, and a dot in the column of each room that it imports."""
    order = rooms()
    left = _NAME + _SENTENCE
    width, height = left + _CELL * len(order) + 96, _TOP + _ROW * len(order) + 10
    right = left + _CELL * len(order)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<g font-family="sans-serif" font-size="13" fill="{_INK}">',
        "<title>The rooms of TinyLLM. A room imports rooms below it only.</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<text x="10" y="24">A room imports rooms below it only.</text>',
        '<text x="10" y="44">A dot: the room of this row imports the room of this column.</text>',
    ]
    for row, room in enumerate(order):
        x, y = left + _CELL * row + _CELL // 2, _TOP + _ROW * row
        out += [
            f'<line x1="{left}" x2="{right}" y1="{y + 15}" y2="{y + 15}" stroke="{_LINE}"/>',
            f'<text transform="translate({x + 4} {_TOP - 8}) rotate(-45)">{room}</text>',
            f'<rect x="10" y="{y + 3}" width="{_NAME - 20}" height="24" rx="5" fill="{_BOX}" stroke="{_EDGE}"/>',
            f'<text x="20" y="{y + 20}" font-weight="bold">{room}</text>',
            f'<text x="{_NAME + 4}" y="{y + 20}">{escape(sentences(room)[0].rstrip("."))}</text>',
            f'<rect x="{x - 6}" y="{y + 9}" width="12" height="12" fill="{_EDGE}"/>',
        ]
        columns = sorted(left + _CELL * order.index(other) + _CELL // 2 for other in imports(room))
        out += [f'<circle cx="{column}" cy="{y + 15}" r="5" fill="{_DOT}"/>' for column in columns]
    return "\n".join([*out, "</g>", "</svg>", ""])


def table() -> str:
    """Return the rooms as a table in Markdown."""
    lines = ["| room | what lives here | what you add here |", "|---|---|---|"]
    for room in rooms():
        lives, added = sentences(room)
        lines.append(f"| `{room}` | {lives} | {added.removeprefix('Add ')} |")
    return "\n".join(lines)


def page() -> str:
    """Return `docs/architecture.md` with the table as it is now."""
    before, _, rest = PAGE.read_text("utf-8").partition(_BEGIN)
    return f"{before}{_BEGIN}\n\n{table()}\n\n{_END}{rest.partition(_END)[2]}"


def main() -> None:
    """Write the picture and the table, or say that they are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for file, text in ((PICTURE, picture()), (PAGE, page())):
        if check and (not file.is_file() or file.read_text("utf-8") != text):
            sys.exit(f"{file.relative_to(ROOT)} is out of date: run `python docs/architecture.py`")
        if not check:
            file.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
