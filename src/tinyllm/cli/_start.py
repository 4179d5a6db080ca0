"""The commands before a run: `tinyllm init` and `tinyllm import-release`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from tinyllm.cli._options import AsJson, print_result


class AnswersAs(enum.Enum):
    """What the answers of a file are."""

    LETTER = "letter"
    NUMBER = "number"
    TEXT = "text"


def init(
    path: Annotated[
        Path, typer.Argument(help="A file or folder of questions to read; or the configuration (.yaml) to write.")
    ] = Path("tinyllm.yaml"),
    data: Annotated[Path | None, typer.Option("--data", help="The questions, where PATH is the configuration.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The configuration to write; else quiz.yaml for quiz.csv, in this folder."),
    ] = None,
    question: Annotated[str | None, typer.Option(help="Column of the question.")] = None,
    choices: Annotated[str | None, typer.Option(help="Columns of the choices (A,B,C), or the one with lists.")] = None,
    answer: Annotated[str | None, typer.Option(help="Column of the answer.")] = None,
    context: Annotated[str | None, typer.Option(help="Column of a text that the question is about.")] = None,
    no_context: Annotated[bool, typer.Option("--no-context", help="No column is such a text.")] = False,
    no_answers: Annotated[bool, typer.Option("--no-answers", help="Read the questions without answers.")] = False,
    answers_as: Annotated[AnswersAs | None, typer.Option(help="What the answers are.")] = None,
    answers_from: Annotated[
        int | None, typer.Option(min=0, max=1, help="The number of the first choice, where answers are numbers.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="The same choices for every text: the names of its classes (spam,ham).")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of a workbook.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of a text file, as windows-1252.")] = None,
    separator: Annotated[str | None, typer.Option(help="What separates the cells: ; or | or tab.")] = None,
) -> None:
    """Write a configuration to start from, fitted to a file of questions; says how it read them, and why."""
    from tinyllm.questions.intake import Wishes
    from tinyllm.stages.init import config_for, is_questions, write_config

    if data is None and is_questions(path):
        data, path = path, config_for(path)
    wishes = Wishes(
        question=question,
        choices=tuple(_listed(choices)),
        answer=answer,
        context=context,
        has_context=not no_context,
        has_answers=not no_answers,
        answers_from=answers_from,
        answers_as=None if answers_as is None else answers_as.value,
        classes=tuple(_listed(classes)),
        sheet=sheet,
        encoding=encoding,
        separator=separator,
    )
    written = write_config(out or path, data, wishes)
    for line in written.lines:
        typer.echo(line)
    made = written.config
    typer.echo(f"Wrote {made}. Look at it, then: tinyllm check {made}, and tinyllm run {made}")


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def import_release(
    folder: Annotated[Path, typer.Argument(help="The authors' repository, or its folder `datasets`.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write <dataset>/<split>.jsonl.")] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Read the paper authors' published questions and rationales into questions files."""
    from tinyllm.questions import import_release as read

    counts = read(folder, out)
    lines = [f"{name}: " + ", ".join(f"{n} {what}" for what, n in found.items()) for name, found in counts.items()]
    print_result(
        counts, as_json, lambda: "\n".join(lines) + f"\nWritten to {out}. Use it with: data: {{folder: {out}/arc}}"
    )
