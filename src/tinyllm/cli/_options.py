"""What commands have in common: their options, and how a result is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: section.key=value.", metavar="KEY=VALUE")
]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Folder of the run; else runs/<name>.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout; news go to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No news, only the result.")]


def print_result(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a result for a program, or in words."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text())
