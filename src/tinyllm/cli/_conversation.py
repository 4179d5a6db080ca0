"""The questions that `tinyllm init` asks on a terminal when it is called without arguments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tinyllm.errors import DataError

if TYPE_CHECKING:
    from tinyllm.questions.intake import Wishes

_TEACHERS = """\
Which models teach? They write rationales of your answers, or, where many answers are missing, opinions.
  1  two small models on this machine: free, offline; they know little
  2  a service, or a server of your own, with OpenAI's protocol (OpenAI, OpenRouter, vLLM, Ollama, …)
  3  nobody: learn the answers alone"""
_NO_KEY = "-"


def converse() -> tuple[Path, Path | None, Wishes, dict[str, Any]]:
    """Ask for the questions, the teachers, the student and the file to write. Enter takes the answer in brackets.

    Returns:
        The configuration to write, the file of questions (None: the starter dataset), how it is to be read, and other
        arguments of `write_config`.

    Raises:
        DataError: the questions cannot be read.
    """
    from tinyllm.questions.intake import Wishes
    from tinyllm.stages.init import config_for

    typer.echo("Enter takes the answer in brackets. Everything can be changed in the file that is written.\n")
    data = _data()
    wishes = Wishes() if data is None else _wishes(data)
    typer.echo(_TEACHERS)
    while (number := typer.prompt("Number", default="1").strip()) not in ("1", "2", "3"):
        typer.echo(f"'{number}' is none of them; type 1, 2 or 3.")
    teachers: list[dict[str, Any]] | None = {"1": None, "3": []}.get(number)
    if number == "2":
        teachers = [_service()]
    student = typer.prompt("Student: a name on the Hugging Face hub, a folder, or", default="smollm2-135m-instruct")
    proposed = _free(Path("tinyllm.yaml") if data is None else config_for(data) or Path("tinyllm.yaml"))
    while (path := Path(typer.prompt("Write to", default=str(proposed)))).exists():
        typer.echo(f"{path} is there already; give another name.")
    return path, data, wishes, {"teachers": teachers, "student": student.strip()}


def _free(path: Path) -> Path:
    """Return the path; with a number if a file, or converted questions, are there already."""
    tried, number = path, 1
    while tried.exists() or tried.with_name(f"{tried.stem}.questions.jsonl").exists():
        number += 1
        tried = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return tried


def _data() -> Path | None:
    while True:
        text = typer.prompt("A file or folder of questions", default="320 starter questions").strip()
        if text == "320 starter questions":
            return None
        if (data := Path(text).expanduser()).exists():
            return data
        typer.echo(f"There is no {data}.")


def _wishes(data: Path) -> Wishes:
    """Try to read the questions before more is asked. If they cannot be read, ask for classes."""
    from tinyllm.questions.intake import Wishes, find_reading

    wishes = Wishes()
    while True:
        try:
            find_reading(data, wishes)
        except DataError as error:
            typer.echo(f"{error}\n")
            named = typer.prompt("If texts are to be classified: the classes, with commas (Enter: stop)", default="")
            if not (classes := tuple(part.strip() for part in named.split(",") if part.strip())):
                raise
            wishes = Wishes(classes=classes)
        else:
            return wishes


def _service() -> dict[str, Any]:
    model = typer.prompt("Model, as the service calls it", default="gpt-4o-mini").strip()
    url = typer.prompt("Address, with /v1", default="https://api.openai.com/v1").strip()
    key = typer.prompt(f"Environment variable that holds the key ({_NO_KEY}: no key)", default="OPENAI_API_KEY").strip()
    return {
        "name": "teacher",
        "kind": "openai",
        "model": model,
        "base_url": url,
        "api_key_env": None if key == _NO_KEY else key,
    }
