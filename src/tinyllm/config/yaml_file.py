"""Parse a YAML file of a user: the value and the line of each key, or one message about the mistake."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tinyllm.errors import ConfigError, did_you_mean, printable

Lines = Mapping[tuple[str | int, ...], int]
"""The line of each key of a YAML file, by its path."""

_DEEPEST = 50  # levels; a configuration has six
_LISTED = 10
_QUESTIONS = frozenset((".csv", ".tsv", ".jsonl", ".parquet", ".xlsx", ".xls", ".ods", ".gift", ".aiken"))
_MOST = 100_000  # values; values repeated by an alias count each time


class NotYamlError(ValueError):
    """A text is not YAML, or it is too large or too deeply nested. `line` is 0 if the line is unknown."""

    def __init__(self, words: str, line: int = 0) -> None:
        super().__init__(words)
        self.line = line


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """Return the value of a YAML text, and its tree of nodes.

    Raises:
        NotYamlError: it is not YAML, or it is nested too deeply, or it has too many values.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check_size(node)
        return loader.construct_document(node), node
    except NotYamlError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise NotYamlError(_in_words(error, text), mark.line + 1 if mark else 0) from None
    except RecursionError:
        raise NotYamlError(f"it is nested deeper than {_DEEPEST} levels") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML does not catch these: the 30th of February, a number with 5,000 digits, `!!int x`.
        raise NotYamlError(f"a value in it cannot be read: {error}") from None


def _in_words(error: yaml.YAMLError, text: str) -> str:
    """Return what is wrong, in plain words for the usual mistakes."""
    problem, context = (str(getattr(error, name, None) or "") for name in ("problem", "context"))
    begun, mark = (getattr(error, name, None) for name in ("context_mark", "problem_mark"))
    indentation = "the indentation of this line fits no line above; keys of one level begin in the same column"
    if "'\\t'" in problem:
        return "a tab cannot indent; use spaces"
    if re.search(r"expected ',' or '[\]}]'", problem) and begun is not None:
        return (
            f"the bracket {text[begun.index : begun.index + 1]} that is opened in line {begun.line + 1} is not closed"
        )
    if "quoted scalar" in context and begun is not None:
        return f"the quote that is opened in line {begun.line + 1} is not closed"
    if "mapping values are not allowed" in problem:
        if mark is not None and ": " not in text.splitlines()[mark.line][: mark.column]:
            return indentation
        return "a second `: ` in this line; put a text that has one in quotes, or begin a new line"
    if "expected <block end>" in problem and "scalar" in problem:
        return "a text follows a quoted text; put the whole text in one pair of quotes"
    if "expected <block end>" in problem:
        return indentation
    return problem or str(error)


def _check_size(root: yaml.Node) -> None:
    found = 0
    open_: list[tuple[yaml.Node, int]] = [(root, 1)]
    while open_:
        node, depth = open_.pop()
        found += 1
        line = node.start_mark.line + 1
        if depth > _DEEPEST:
            raise NotYamlError(f"it is nested deeper than {_DEEPEST} levels, or an alias contains itself", line)
        if found > _MOST:
            raise NotYamlError(f"it has more than {_MOST:,} values, including those repeated by aliases", line)
        if isinstance(node, yaml.SequenceNode):
            open_.extend((value, depth + 1) for value in node.value)
        elif isinstance(node, yaml.MappingNode):
            open_.extend((part, depth + 1) for pair in node.value for part in pair)


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a mapping from a YAML file, and the line of each key.

    Raises:
        ConfigError: there is no such file, it is not YAML, or it is not a mapping.
    """
    if path.suffix.lower() in _QUESTIONS and path.is_file():
        raise ConfigError(
            f"{path} is a file of questions, not a configuration. First run `tinyllm init {shlex.quote(str(path))}`. "
            "It writes a configuration; give that to this command.",
            page="questions.md",
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
        tree, node = parse_yaml(text)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path} is a symbolic link to {path.readlink()}, which does not exist.") from None
        here = sorted(str(p) for p in path.parent.glob("[!.]*.y*ml")) if path.parent.is_dir() else []
        known = (
            f" Configurations there: {', '.join(here[:_LISTED])}{', …' if len(here) > _LISTED else ''}." if here else ""
        )
        raise ConfigError(
            f"There is no configuration {path}.{did_you_mean(str(path), here) or known} `tinyllm init {path}` writes a "
            "new one."
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give a YAML file, or a run folder with a config.yaml in it.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
    except NotYamlError as error:
        where = f", line {error.line}" if error.line else ""
        raise ConfigError(f"{path}{where}: not YAML: {printable(str(error))}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not a mapping; it needs at least `data:`. `tinyllm init` writes an example.")
    if twice := list(_twice(node, "")):
        raise ConfigError(f"{path}: these keys occur twice, and YAML would use only the last one:\n" + "\n".join(twice))
    return tree, dict(_line_numbers(node, ()))


def _twice(node: yaml.Node | None, at: str) -> Iterable[str]:
    """Yield the keys that a mapping has more than once, with their lines."""
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _twice(value, at)
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in first:
                yield f"  - {at}{name}: lines {first[name]} and {line}; keep one"
            first.setdefault(name, line)
            yield from _twice(value, f"{at}{name}.")


def _line_numbers(node: yaml.Node | None, at: tuple[str | int, ...]) -> Iterable[tuple[tuple[str | int, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*at, str(key.value)), key.start_mark.line + 1
            yield from _line_numbers(value, (*at, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*at, index), value.start_mark.line + 1
            yield from _line_numbers(value, (*at, index))
