"""Write the reference: `docs/configuration.md` from the schemas, `cli.md` from the commands, `api.md` from docstrings.

`--check` only says whether they are up to date.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import typer.main
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import tinyllm
from tinyllm.cli.app import app
from tinyllm.config import Config, TeacherConfig
from tinyllm.config.schema import PRESETS
from tinyllm.experiments._methods import METHODS
from tinyllm.experiments._schema import Grid, MethodEntry

DOCS = Path(__file__).parent
ENDPOINTS = DOCS / "fragments" / "endpoints.md"


def configuration() -> str:
    """Return the reference of all settings as Markdown."""
    lines = [
        "# Configuration",
        "",
        "This page lists every setting. `make docs` makes it from the schemas. A configuration is a YAML file.",
        "`tinyllm check FILE` lists all its mistakes at once. `--set section.key=value` overrides one setting of a command.",
        "Paths are relative to the current folder. How to use the settings: [questions.md](questions.md),",
        "[teachers.md](teachers.md), [opinions.md](opinions.md), [training.md](training.md), [experiments.md](experiments.md).",
        "",
    ]
    for name, field in Config.model_fields.items():
        section = _section(field)
        if name == "teachers":
            lines += _teachers()
        elif section is not None:
            lines += _table(f"## `{name}`", name, section)
        else:
            lines += [f"**`{name}`** ({_type(field)}, default {_default(field)}): {field.description}", ""]
    lines += _experiments()
    presets = yaml.safe_dump({k: dict(v) for k, v in PRESETS.items() if v}, sort_keys=False).rstrip()
    lines += ["## Presets", "", "`paper` means the defaults above. The others replace these defaults:", ""]
    lines += ["```yaml", presets, "```", ""]
    return "\n".join(lines)


def _experiments() -> list[str]:
    lines = [
        "## Experiments",
        "",
        "An experiment file (`tinyllm experiment FILE`) is a grid of runs. The configuration of each run combines `base`, the",
        "settings of its dataset, its student and its method, and the settings that are swept. Later ones replace earlier",
        "ones.",
        "",
        *_table("### The file", "", Grid),
        *_table("### An entry of `methods` with settings of its own", "", MethodEntry),
        "Methods by name, given the teachers `a` and `b`:",
        "",
        "| name | stands for | in tables |",
        "|---|---|---|",
    ]
    teachers = [{"name": "a", "kind": "llamacpp", "model": "…"}, {"name": "b", "kind": "given"}]
    for name, expand in METHODS.items():
        specs = expand(teachers)
        lines.append(f"| `{name}` | {', '.join(f'`{s.id}`' for s in specs)} | {', '.join(s.label for s in specs)} |")
    return [*lines, ""]


def _teachers() -> list[str]:
    lines = ["## `teachers`", "", "A list. `kind` says which of these a teacher is.", ""]
    lines += [*ENDPOINTS.read_text(encoding="utf-8").rstrip().splitlines(), ""]
    for kind in typing.get_args(typing.get_args(TeacherConfig)[0]):
        tag = typing.get_args(kind.model_fields["kind"].annotation)[0]
        lines += _table(f"### `kind: {tag}`", "", kind, leave_out={"kind"})
    return lines


def _table(title: str, path: str, section: type[BaseModel], leave_out: typing.Collection[str] = ()) -> list[str]:
    lines = [
        title,
        "",
        " ".join((section.__doc__ or "").split()),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    inner = []
    for name, field in section.model_fields.items():
        if name in leave_out:
            continue
        below = None if title == "### The file" else _section(field)
        if below is not None:
            inner.append((f"{path}.{name}" if path else name, below))
            lines.append(f"| `{name}` | section | | {field.description} See below. |")
        else:
            lines.append(f"| `{name}` | {_type(field)} | {_default(field)} | {field.description or ''} |")
    lines.append("")
    for inner_path, below in inner:
        lines += _table(f"### `{inner_path}`", inner_path, below)
    return lines


def _section(field: FieldInfo) -> type[BaseModel] | None:
    arms = [field.annotation, *typing.get_args(field.annotation)]
    return next((a for a in arms if isinstance(a, type) and issubclass(a, BaseModel)), None)


def _type(field: FieldInfo) -> str:
    return _type_name(field.annotation).replace("|", "\\|")


def _type_name(kind: typing.Any) -> str:
    origin, arms = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " | ".join(f"`{a}`" for a in arms)
    if origin is typing.Annotated:
        return _type_name(arms[0])
    if origin is tuple:
        return f"list of {_type_name(arms[0])}"
    if origin is dict:
        return f"mapping to {_type_name(arms[1])}"
    if arms:
        return " | ".join(_type_name(a) for a in arms)
    names = {str: "text", int: "whole number", float: "number", bool: "true | false", Path: "path", type(None): "null"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    value = list(default) if isinstance(default, tuple) else default
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace("|", "\\|")


def commands() -> str:
    """Return the reference of the command line as Markdown."""
    lines = [
        "# Commands",
        "",
        "`make docs` makes this page from the commands. Each of them prints the same with `--help`.",
        "",
        "Exit codes: 0 done · 2 a mistake of yours, with one message · 3 finished, but some requests got no reply or some runs of an",
        "experiment failed, and the same command tries them again · 130 interrupted, all results kept. Anything else is a bug.",
        "",
    ]
    for name, command in typing.cast("typing.Any", typer.main.get_command(app)).commands.items():
        inner = getattr(command, "commands", None)
        lines += [f"## {name if inner else f'`tinyllm {name}`'}", "", _sentence(command), ""]
        if inner is None:
            lines += _parameters(name, command)
        else:
            for below, one in inner.items():
                lines += [f"### `tinyllm {name} {below}`", "", _sentence(one), "", *_parameters(f"{name} {below}", one)]
    return "\n".join(lines)


def _sentence(command: typing.Any) -> str:
    return " ".join((command.help or "").split("\f")[0].split())


def _parameters(name: str, command: typing.Any) -> list[str]:
    arguments = [_argument(p) for p in command.params if _is_argument(p)]
    usage = ["```text", " ".join(["tinyllm", name, *arguments, "[OPTIONS]"]), "```", ""]
    rows = [_parameter(p) for p in command.params if p.name != "help"]
    return [*usage, "| | | meaning |", "|---|---|---|", *rows, ""] if rows else usage


def _is_argument(parameter: typing.Any) -> bool:
    return not parameter.opts[0].startswith("-")


def _argument(parameter: typing.Any) -> str:
    return str(parameter.metavar or parameter.name.upper()) + ("…" if parameter.nargs == -1 else "")


def _parameter(parameter: typing.Any) -> str:
    names = _argument(parameter) if _is_argument(parameter) else ", ".join(parameter.opts)
    default = parameter.default
    has_default = isinstance(default, str | int | float | Path) and default is not False and default != ""
    needed = "required" if parameter.required else f"default `{default}`" if has_default else ""
    meaning = " ".join((parameter.help or "").split()).replace("<", "&lt;")
    cells = (cell.replace("|", "\\|") for cell in (f"`{names}`", needed, meaning))
    return f"| {' | '.join(cells)} |"


def api() -> str:
    """Return the reference of `tinyllm`'s public names as Markdown."""
    lines = [
        "# Python: all public names",
        "",
        "`make docs` makes this page from the docstrings. How to use them: [python.md](python.md). Modules below `tinyllm` that other",
        "pages import from are open to you, too, but may change before 1.0.",
        "",
    ]
    for name in tinyllm.__all__:
        thing = getattr(tinyllm, name)
        lines += [f"## `tinyllm.{name}`", "", *_documented(name, thing)]
        if name == "load":
            lines += _class("the student that `load` returns", typing.get_type_hints(thing)["return"])
        elif inspect.isclass(thing) and not issubclass(thing, BaseModel):
            lines += _members(thing)
    return "\n".join(lines).rstrip() + "\n"


def _class(title: str, kind: type) -> list[str]:
    return [f"### {title[0].upper()}{title[1:]}", "", *_docstring(kind), *_members(kind)]


def _documented(name: str, thing: typing.Any) -> list[str]:
    if inspect.isclass(thing) and issubclass(thing, BaseModel):
        return [*_docstring(thing), "Its fields: [configuration.md](configuration.md).", ""]
    has_signature = not (inspect.isclass(thing) and issubclass(thing, Exception))
    return [*(_signature(name, thing) if has_signature else ()), *_docstring(thing)]


def _members(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        if isinstance(member, property):
            yield from [f"**`.{name}`**: {_one_line(member.fget)}", ""]
        else:
            yield from [*_signature(f".{name}", member), *_docstring(member)]


def _one_line(thing: typing.Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


def _signature(name: str, thing: typing.Any) -> list[str]:
    text = str(inspect.signature(thing)).replace("self, ", "").replace("(self)", "()")
    text = re.sub(r"\b(?:[A-Za-z_]\w*\.)+(\w+)", r"\1", text.replace("'", ""))
    parts = (
        text if len(name + text) < 100 else re.sub(r"(^\(|, )(?=\*|\w+: )", lambda m: m[1].rstrip() + "\n    ", text)
    )
    return ["```text", f"{name}{parts}", "```", ""]


def _docstring(thing: typing.Any) -> list[str]:
    """Return a docstring; its sections `Args:`, `Returns:`, … as lists."""
    lines: list[str] = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if re.fullmatch(r"(?:Args|Attributes|Returns|Raises|Yields):", line):
            lines += [f"*{line}*", ""]
        elif line.startswith("    ") and not line.startswith("     "):
            lines.append(f"- {line.strip()}")
        else:
            lines.append(f"  {line.strip()}" if line.startswith("     ") else line)
    return [*lines, ""]


PAGES: typing.Mapping[str, typing.Callable[[], str]] = {
    "configuration.md": configuration,
    "cli.md": commands,
    "api.md": api,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a page is not up to date")
    is_check = parser.parse_args().check
    for file, page in PAGES.items():
        path = DOCS / file
        if is_check and (not path.is_file() or path.read_text(encoding="utf-8") != page()):
            sys.exit(f"docs/{file} is out of date: run `make docs`")
        if not is_check:
            path.write_text(page(), encoding="utf-8")
