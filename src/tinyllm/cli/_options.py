"""Options that several commands have, and how a result is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: section.key=value.", metavar="KEY=VALUE")
]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Folder of the run; default: runs/<name>.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout; messages go to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]


def print_result(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a result as JSON, or as text for a person."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text())
