"""The questions that `tinyllm init` asks on a terminal when it is called without arguments."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from tinyllm.cli._options import Reading, reads_questions
from tinyllm.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from tinyllm.questions.intake import Wishes

_INTRODUCTION = """\
This writes a configuration. Enter takes the answer in brackets. All can be changed in the file later.
No teacher is asked and nothing is trained yet.

Your questions are in a table, JSON or a quiz file, with answers or without. To look around first, Enter takes
440 science and everyday questions that come with TinyLLM."""
_STUDENT = """\
The student is the small model that is trained. The proposed one has 135 million parameters and knows English; it
comes as a package."""
_TEACHERS = """\
Which models teach? They explain your answers (rationales). Where many answers are
missing, they answer themselves (opinions).
  1  two small models on this machine: free, offline; they know little
  2  a service, or a server of your own, with OpenAI's protocol (OpenAI, OpenRouter, vLLM, Ollama, …)
  3  nobody: learn the answers alone"""
_NO_KEY = "-"
_OPENAI = "https://api.openai.com/v1"
_STARTER = "440 starter questions"


@dataclass(frozen=True, slots=True)
class Answers:
    """What a person answered.

    Attributes:
        path: the configuration to write.
        data: the file of questions; None: the starter dataset.
        wishes: how the questions are to be read.
        chosen: other arguments of `write_config`.
        shown: lines on the questions that were shown.
    """

    path: Path
    data: Path | None
    wishes: Wishes
    chosen: Mapping[str, Any]
    shown: tuple[str, ...]


def converse() -> Answers:
    """Ask for the questions, the teachers, the student and the file to write. Enter takes the answer in brackets.

    Raises:
        Exit: nobody wants other questions in place of those that cannot be read.
    """
    from tinyllm.stages.init import free_config
    from tinyllm.system.packaged import known_models

    typer.echo(_INTRODUCTION)
    data, wishes, shown = _questions()
    typer.echo(_TEACHERS)
    while (number := typer.prompt("Number", default="1").strip()) not in ("1", "2", "3"):
        typer.echo(f"'{number}' is none of them; type 1, 2 or 3.")
    teachers: list[dict[str, Any]] | None = {"1": None, "3": []}.get(number)
    if number == "2":
        teachers = [_service()]
    typer.echo(_STUDENT)
    student = _asked("Student: a name on the Hugging Face hub, a folder, or", "smollm2-135m-instruct", _no_student)
    if student not in known_models() and not Path(student).expanduser().exists():
        typer.echo(f"{student} is taken from the Hugging Face hub; `tinyllm check` looks it up.")
    path = Path(_asked("Write to", str(free_config(data)), _no_place))
    return Answers(path, data, wishes, {"teachers": teachers, "student": student}, shown)


def _asked(question: str, default: str | None, problem_of: Callable[[str], str]) -> str:
    """Ask until the answer has no problem."""
    while problem := problem_of(answer := str(typer.prompt(question, default=default)).strip()):
        typer.echo(problem)
    return answer


def _no_student(name: str) -> str:
    from tinyllm.system.packaged import known_models

    if name in known_models() or re.fullmatch(r"[\w.-]+/[\w.-]+", name) or Path(name).expanduser().exists():
        return ""
    if "/" in name or " " in name:
        return f"There is no folder '{name}', and this is no name on the hub (OWNER/NAME)."
    begins = next((f" Did you mean '{known}'?" for known in known_models() if known.startswith(name.lower())), "")
    meant = did_you_mean(name, known_models()) or begins
    return f"There is no packaged model, and no folder, '{name}'.{meant}" if meant else ""


def _no_place(name: str) -> str:
    if Path(name).exists():
        return f"{name} is there already; give another name."
    return "" if Path(name).suffix in (".yaml", ".yml") else "A configuration has a name that ends in .yaml."


def _questions() -> tuple[Path | None, Wishes, tuple[str, ...]]:
    """Ask for questions until they can be read. Return them, how they are read, and the lines that said so."""
    from tinyllm.questions.intake import Tally, find_reading

    text, options = _file(), list[str]()
    while text != _STARTER:
        if not (data := Path(text).expanduser()).exists():
            here = [str(data.parent / p.name) for p in data.parent.iterdir()] if data.parent.is_dir() else []
            typer.echo(f"There is no {data}.{did_you_mean(str(data), here)}")
            text = _file()
            continue
        try:
            wishes = _wishes(options)
            found, tally = find_reading(data, wishes), Tally()
            for _ in found.counted(tally):
                pass
        except DataError as error:
            typer.echo(f"{error}\n")
            text = _otherwise(data, options)
        else:
            lines = (*found.read_as(), *found.not_read(), *tally.shown())
            typer.echo("\n".join([f"Read {tally.questions} questions from {data}", *lines, ""]))
            if typer.confirm("Is it read as you mean it?", default=True):
                return data, wishes, lines
            text = _otherwise(data, options)
    return None, _wishes([]), ()


def _file() -> str:
    return str(typer.prompt("A file or folder of questions", default=_STARTER)).strip()


def _otherwise(data: Path, options: list[str]) -> str:
    """Ask for another file, and return it; or for options to read this one, which are added to the others."""
    typer.echo("Type an option of `tinyllm init` (as --answer COLUMN), or another file. To classify texts, type the")
    typer.echo("classes with commas. Enter stops.")
    while text := str(typer.prompt("Option, file or classes", default="", show_default=False)).strip():
        if Path(text).expanduser().exists():
            options.clear()
            return text
        more = shlex.split(text) if text.startswith("--") else ["--classes", text] if "," in text else []
        if not more:
            typer.echo(f"There is no {text}.")
            continue
        try:
            _wishes([*options, *more])
        except Exception as error:
            if not hasattr(error, "format_message"):  # of a wrong option
                raise
            typer.echo(error.format_message())
            continue
        options += more
        return str(data)
    typer.echo("Nothing was written.")
    raise typer.Exit(2)


def _wishes(options: Sequence[str]) -> Wishes:
    """Return what options as those of `tinyllm init` say of how a file is to be read."""
    told: list[Wishes] = []
    reader = typer.Typer(add_completion=False)

    @reader.command(context_settings={"help_option_names": []})
    @reads_questions
    def read(reading: Reading = Reading()) -> None:
        told.append(reading.wishes())

    reader(list(options), standalone_mode=False)
    return told[0]


def _service() -> dict[str, Any]:
    from pydantic import ValidationError

    from tinyllm.config import OpenAITeacher

    teacher: dict[str, Any] = {"name": "teacher", "kind": "openai"}

    def problem_of(setting: str, text: str) -> str:
        """Say what is wrong with a setting, without the text: it may be a key that was pasted."""
        teacher[setting] = None if (setting, text) == ("api_key_env", _NO_KEY) else text
        try:
            OpenAITeacher(**{"model": "m", **teacher})
        except ValidationError as error:
            return f"Not taken: {error.errors()[0]['msg']}."
        return ""

    url = _asked("Address, with /v1", _OPENAI, partial(problem_of, "base_url"))
    if not url.rstrip("/").endswith("/v1"):
        typer.echo("Most addresses end in /v1. `tinyllm doctor` tries this one, at no cost.")
    model = "gpt-4o-mini" if url == _OPENAI else None
    _asked("Model, as the service calls it", model, partial(problem_of, "model"))
    key = f"Environment variable that holds the key ({_NO_KEY}: no key)"
    here = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    _asked(key, _NO_KEY if here else "OPENAI_API_KEY", partial(problem_of, "api_key_env"))
    if (name := teacher["api_key_env"]) is not None and not os.environ.get(name):
        typer.echo(f"{name} is not set now. Set it before `tinyllm check`: export {name}=…")
    if name is not None:
        typer.echo("It may cost money. With a price in the file, `tinyllm check` forecasts how much: docs/costs.md")
    return teacher
