"""Write `docs/configuration.md` from the schemas; `--check` only says whether it is up to date."""

from __future__ import annotations

import argparse
import json
import sys
import typing
from pathlib import Path

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tinyllm.config import Config, TeacherConfig
from tinyllm.config.schema import PRESETS
from tinyllm.experiments._methods import METHODS
from tinyllm.experiments._schema import Grid, MethodEntry

PAGE = Path(__file__).with_name("configuration.md")
ENDPOINTS = Path(__file__).parent / "fragments" / "endpoints.md"


def page() -> str:
    """Return the whole reference as Markdown."""
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is not up to date")
    if parser.parse_args().check:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
            sys.exit("docs/configuration.md is out of date: run `make docs`")
    else:
        PAGE.write_text(page(), encoding="utf-8")
