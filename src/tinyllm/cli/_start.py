"""The commands before a run: `tinyllm init` and `tinyllm import-release`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinyllm.cli._options import (
    AnswerColumn,
    AnswersAsOption,
    AnswersFrom,
    AsJson,
    ChoicesColumns,
    Classes,
    ContextColumn,
    Encoding,
    NoAnswers,
    NoContext,
    QuestionColumn,
    Separator,
    Sheet,
    listed,
    print_result,
)


def init(
    path: Annotated[
        Path, typer.Argument(help="A file or folder of questions to read; or the configuration (.yaml) to write.")
    ] = Path("tinyllm.yaml"),
    data: Annotated[Path | None, typer.Option("--data", help="The questions, where PATH is the configuration.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The configuration to write; else quiz.yaml for quiz.csv, in this folder."),
    ] = None,
    question: QuestionColumn = None,
    choices: ChoicesColumns = None,
    answer: AnswerColumn = None,
    context: ContextColumn = None,
    no_context: NoContext = False,
    no_answers: NoAnswers = False,
    answers_as: AnswersAsOption = None,
    answers_from: AnswersFrom = None,
    classes: Classes = None,
    sheet: Sheet = None,
    encoding: Encoding = None,
    separator: Separator = None,
) -> None:
    """Write a configuration to start from, fitted to a file of questions; says how it read them, and why."""
    from tinyllm.questions.intake import Wishes
    from tinyllm.stages.init import config_for, is_questions, write_config

    if data is None and is_questions(path):
        data, path = path, config_for(path)
    wishes = Wishes(
        question=question,
        choices=listed(choices),
        answer=answer,
        context=context,
        has_context=not no_context,
        has_answers=not no_answers,
        answers_from=answers_from,
        answers_as=None if answers_as is None else answers_as.value,
        classes=listed(classes),
        sheet=sheet,
        encoding=encoding,
        separator=separator,
    )
    written = write_config(out or path, data, wishes)
    for line in written.lines:
        typer.echo(line)
    made = written.config
    typer.echo(f"Wrote {made}. Look at it, then: tinyllm check {made}, and tinyllm run {made}")


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
