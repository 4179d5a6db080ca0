"""Options that several commands have, and how a result is printed."""

from __future__ import annotations

import enum
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from tinyllm.cli import _completion
from tinyllm.errors import DataError

if TYPE_CHECKING:
    from tinyllm.questions.intake import Wishes

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override a setting: section.key=value.", metavar="KEY=VALUE", autocompletion=_completion.settings
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
    from tinyllm.system.news import News

    typer.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else News.wrapped(text(), sys.stdout))


# --- how a file of questions is read -------------------------------------------------------------------------------


class AnswersAs(enum.Enum):
    """How a file names the right choice."""

    LETTER = "letter"
    NUMBER = "number"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Reading:
    """The options for reading a file of questions. `reads_questions` gives them to a command."""

    question: Annotated[str | None, typer.Option("--question", help="Column of the question.")] = None
    choices: Annotated[
        str | None, typer.Option("--choices", help="Columns of the choices (A,B,C), or the column that holds lists.")
    ] = None
    answer: Annotated[str | None, typer.Option("--answer", help="Column of the answer.")] = None
    context: Annotated[str | None, typer.Option("--context", help="Column of a text that the question is about.")] = (
        None
    )
    no_context: Annotated[bool, typer.Option("--no-context", help="Read the questions without such a text.")] = False
    no_answers: Annotated[bool, typer.Option("--no-answers", help="Read the questions without answers.")] = False
    answers_as: Annotated[
        AnswersAs | None, typer.Option("--answers-as", help="How the answer column names the right choice.")
    ] = None
    answers_from: Annotated[
        int | None,
        typer.Option("--answers-from", min=0, max=1, help="The number of the first choice, if answers are numbers."),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="The names of the classes (spam,ham), for the classification of texts."),
    ] = None
    sheet: Annotated[str | None, typer.Option("--sheet", help="Sheet of a workbook.")] = None
    encoding: Annotated[str | None, typer.Option("--encoding", help="Encoding of a text file, as windows-1252.")] = None
    separator: Annotated[
        str | None, typer.Option("--separator", help="Character between the cells: ; or | or the word tab.")
    ] = None

    def wishes(self) -> Wishes:
        """Return the options as `questions.intake` takes them."""
        from tinyllm.questions.intake import Wishes

        if self.classes is not None and len(_listed(self.classes)) < 2:
            raise DataError(f"--classes needs two or more names, with commas between them; got '{self.classes}'.")
        return Wishes(
            question=self.question,
            choices=_listed(self.choices),
            answer=self.answer,
            context=self.context,
            has_context=not self.no_context,
            has_answers=not self.no_answers,
            answers_from=self.answers_from,
            answers_as=None if self.answers_as is None else self.answers_as.value,
            classes=_listed(self.classes),
            sheet=self.sheet,
            encoding=self.encoding,
            separator=self.separator,
        )


def reads_questions(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `reading` of a command by the options of `Reading`."""
    kinds = get_type_hints(Reading, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(f.name, keyword, default=f.default, annotation=kinds[f.name]) for f in fields(Reading)]
    parameters: list[inspect.Parameter] = []
    for own in inspect.signature(command, eval_str=True).parameters.values():
        parameters += options if own.name == "reading" else [own.replace(kind=keyword)]

    def with_options(**given: Any) -> None:
        reading = Reading(**{option.name: given.pop(option.name) for option in options})
        command(reading=reading, **given)

    # typer reads the options of a command from these attributes.
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_options


def _listed(text: str | None) -> tuple[str, ...]:
    """Return the parts of a text that are separated by commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
