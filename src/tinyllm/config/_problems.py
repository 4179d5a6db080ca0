"""Messages for the errors that a schema finds: line, setting, what it got, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tinyllm.config._teachers import TeacherConfig
from tinyllm.config.yaml_file import Lines
from tinyllm.errors import did_you_mean, printable

_KNOWN = " Known: "
_SHOWN = 200  # characters of a wrong value that are shown
_PLAINLY = {
    "tuple_type": "a list is needed, as in [1, 2]",
    "int_parsing": "a whole number is needed",
    "int_type": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "float_parsing": "a number is needed",
    "float_type": "a number is needed",
    "string_type": "a text is needed",
    "bool_parsing": "true or false is needed",
    "dict_type": "a mapping is needed",
    "model_type": "a mapping is needed",
    "bool_type": "true or false is needed",
    "path_type": "a path is needed",
}
_EXAMPLES = {
    "price": " (US dollars per million tokens, as in {prompt: 0.15, completion: 0.6})", "budget": " (as in {usd: 5})",
}  # fmt: skip
_IS_NEEDED = re.compile(r"(?P<where>.*?): (?P<kind>[^:]*) is needed(?P<got>, got .*)", re.DOTALL)
_MAY_HOLD_SECRETS = ("base_url", "api_key_env", "headers", "query", "extra_body", "arguments")
"""Settings into which users paste keys by mistake. Messages do not repeat their values."""

_TEACHER_KINDS = {
    str(get_args(kind.model_fields["kind"].annotation)[0]): kind for kind in get_args(get_args(TeacherConfig)[0])
}


def problems_of(error: ValidationError, root: type[BaseModel], lines: Lines) -> list[str]:
    """Return a schema's errors as messages. Each names line and setting, what it got, and what is allowed."""
    found = [_one_problem(detail, root, lines) for detail in error.errors() if not _follows(detail)]
    kinds: dict[tuple[str, str], list[str]] = {}  # what may stand in a place, where the schema allows several
    for problem in found:
        if alike := _IS_NEEDED.fullmatch(problem):
            kinds.setdefault((alike["where"], alike["got"]), []).append(alike["kind"])
    return _listed_once([*dict.fromkeys(_together(problem, kinds) for problem in found)])


def _listed_once(problems: Sequence[str]) -> list[str]:
    """Leave out a list of what is known where a later problem has the same one."""
    split = [problem.rpartition(_KNOWN) for problem in problems]
    later = [{known for _, mark, known in split[n + 1 :] if mark} for n in range(len(split))]
    return [
        before if mark and known in after else problem
        for problem, (before, mark, known), after in zip(problems, split, later, strict=True)
    ]


def _together(problem: str, kinds: Mapping[tuple[str, str], list[str]]) -> str:
    alike = _IS_NEEDED.fullmatch(problem)
    if alike is None:
        return problem
    return f"{alike['where']}: {' or '.join(kinds[alike['where'], alike['got']])} is needed{alike['got']}"


def _follows(detail: Any) -> bool:
    """Whether a list is only too short because pydantic left out its wrong items, which are reported themselves."""
    return bool(detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"])


@dataclass(frozen=True)
class _Place:
    """The place of an error: the keys as the user wrote them, and the known keys there."""

    keys: tuple[str | int, ...]
    known: tuple[str, ...]

    def __str__(self) -> str:
        text = ""
        for key in self.keys:
            text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
        return text


def _one_problem(detail: Any, root: type[BaseModel], lines: Lines) -> str:
    place = _place(detail["loc"], root)
    line = next((lines[place.keys[:n]] for n in range(len(place.keys), 0, -1) if place.keys[:n] in lines), None)
    where = str(place) if line is None else f"line {line}: {place}" if line else f"--set {place}"
    got = detail.get("input")
    if detail["type"] == "extra_forbidden":
        key = str(place.keys[-1])
        meant = did_you_mean(key, place.known) or _within_a_section(key, root if len(place.keys) == 1 else None)
        return f"{where}: unknown key.{meant}{_KNOWN}{', '.join(place.known)}"
    if detail["type"] == "missing":
        return f"{where}: missing; this setting has no default"
    if detail["type"] == "union_tag_invalid":
        kind = str(detail["ctx"]["tag"])
        known = ", ".join(_TEACHER_KINDS)
        return f"{where}.kind: unknown kind {kind!r}.{did_you_mean(kind, _TEACHER_KINDS)}{_KNOWN}{known}"
    if detail["type"] == "union_tag_not_found":
        return f"{where}.kind: missing; one of {', '.join(_TEACHER_KINDS)}"
    if detail["type"] == "too_short":
        least = detail["ctx"]["min_length"]
        wanted = "it must not be empty" if least == 1 else f"at least {least} are needed"
        return f"{where}: {wanted}, got {short(repr(got))}"
    if any(key in _MAY_HOLD_SECRETS for key in place.keys):
        return f"{where}: {detail['msg'].removeprefix('Value error, ')}"
    if detail["type"] in _PLAINLY:
        point = " (write a point, not a comma)" if re.fullmatch(r"-?\d+,\d+", str(got)) else ""
        example = _EXAMPLES.get(str(place.keys[-1]), "") if detail["type"] == "model_type" else ""
        return f"{where}: {_PLAINLY[detail['type']]}{example}, got {short(repr(got))}{point}"
    hint = did_you_mean(str(got), re.findall(r"'([^']+)'", detail["msg"])) if detail["type"] == "literal_error" else ""
    if (
        detail["type"] in ("less_than", "less_than_equal")
        and 1 in detail["ctx"].values()
        and isinstance(got, int | float)
    ):
        hint = " It is a share, as in 0.3"
    return f"{where}: {detail['msg']}, got {short(repr(got))}.{hint}"


def _within_a_section(key: str, root: type[BaseModel] | None) -> str:
    """Return `" Did you mean 'train.epochs'?"` for a setting that is given without its section."""
    for name, section in root.model_fields.items() if root else ():
        kind = section.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
            return f" Did you mean '{name}.{key}'?"
    return ""


def short(text: str) -> str:
    """Return a text fit for one line of a message: printable, and cut if it is long."""
    text = printable(text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"


def _place(loc: Sequence[str | int], root: type[BaseModel]) -> _Place:
    """Follow an error's location through the schema, without the names that pydantic adds for members of a union."""
    keys: list[str | int] = []
    model: type[BaseModel] = root
    kind: Any = root
    for step in loc:
        arms = _arms(kind)
        if len(arms) > 1:
            kind = arms.get(str(step).partition("[")[0])
        elif step != "[key]":
            keys.append(step)
            kind = _within(next(iter(arms.values()), kind), step)
        inner = [*_arms(kind).values(), kind]
        model = next((k for k in inner if isinstance(k, type) and issubclass(k, BaseModel)), model)
    return _Place(tuple(keys), tuple(model.model_fields))


def _arms(kind: Any) -> dict[str, Any]:
    """Return the members of a union, except null, by the names that pydantic gives them; empty for other types."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) not in (Union, UnionType):
        return {}
    tags = {kind: tag for tag, kind in _TEACHER_KINDS.items()}
    plain = [(get_origin(arm) or arm, arm) for arm in get_args(kind) if arm is not type(None)]
    return {tags.get(of) or of.__name__: arm for of, arm in plain}


def _within(kind: Any, step: str | int) -> Any:
    """Return the type of a section's field, or of the items of a list or mapping."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_fields[str(step)].annotation if step in kind.model_fields else None
    if get_origin(kind) in (tuple, list):
        return get_args(kind)[0]
    return get_args(kind)[1] if get_origin(kind) is dict else None
