"""Options that several commands have, and how a result is printed."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyllm.cli import _completion

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override a setting: section.key=value.",
        metavar="KEY=VALUE",
        autocompletion=_completion.settings,
    ),
]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Folder of the run; default: runs/<name>.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout; messages go to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]

DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only check, and forecast what it will take. Asks no teacher and writes no file."),
]


def print_result(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a result as JSON, or as text for a person."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text())


# --- how a file of questions is read -------------------------------------------------------------------------------


class AnswersAs(enum.Enum):
    """What the answers of a file are."""

    LETTER = "letter"
    NUMBER = "number"
    TEXT = "text"


QuestionColumn = Annotated[str | None, typer.Option("--question", help="Column of the question.")]
ChoicesColumns = Annotated[
    str | None, typer.Option("--choices", help="Columns of the choices (A,B,C), or the column that holds lists.")
]
AnswerColumn = Annotated[str | None, typer.Option("--answer", help="Column of the answer.")]
ContextColumn = Annotated[str | None, typer.Option("--context", help="Column of the text that the question is about.")]
NoContext = Annotated[bool, typer.Option("--no-context", help="There is no such text.")]
NoAnswers = Annotated[bool, typer.Option("--no-answers", help="Read the questions without answers.")]
AnswersAsOption = Annotated[AnswersAs | None, typer.Option("--answers-as", help="What the answers are.")]
AnswersFrom = Annotated[
    int | None,
    typer.Option("--answers-from", min=0, max=1, help="The number of the first choice, if answers are numbers."),
]
Classes = Annotated[
    str | None,
    typer.Option("--classes", help="The names of the classes (spam,ham), if texts are to be classified."),
]
Sheet = Annotated[str | None, typer.Option("--sheet", help="Sheet of a workbook.")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Encoding of a text file, as windows-1252.")]
Separator = Annotated[str | None, typer.Option("--separator", help="Separator of the cells: ; or | or tab.")]


def listed(text: str | None) -> tuple[str, ...]:
    """Return the parts of a text that are separated by commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
