"""Read a configuration: from YAML to a frozen `Config`, or to one message with all problems.

Four steps: parse the YAML (with the line of each key), merge `--set` over it, merge that over the preset, validate it
with the schemas. All problems of all sections are collected before anything is raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tinyllm.config._contradictions import contradictions, contradictions_of_names
from tinyllm.config._problems import problems_of as problems_of
from tinyllm.config._problems import short
from tinyllm.config._rationales import SAMPLING_DEFAULTS
from tinyllm.config.schema import PRESETS, Config
from tinyllm.config.section import Section
from tinyllm.config.vllm_arguments import without_speed
from tinyllm.config.yaml_file import Lines, NotYamlError, parse_yaml, read_yaml
from tinyllm.errors import ConfigError, printable

_MOST_KEYS = 10
_SHOWN = 60  # characters of a value that differs
_Keys = tuple[str | int, ...]
_ABSENT = object()
_UNUSABLE = re.compile(r"[\x00\ud800-\udfff]")
SPEED_ONLY = frozenset({
    "micro_batch_tokens", "gradient_checkpointing", "compile", "save_steps", "logging_steps", "report_to",
    "concurrency", "requests_per_minute", "tokens_per_minute", "connect_s", "first_byte_s", "stall_s", "timeout_s",
    "max_attempts", "requests_per_batch", "poll_s", "slots", "threads", "gpu_layers", "batch_tokens", "api_key_env",
    "price", "tokenizer", "budget", "engine", "headers", "auth_header", "stream", "ray_address", "ray_workers",
    "executable", "start_s", "store",
})  # fmt: skip
"""Settings that do not change the results. They may change when a run is continued."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration from a YAML file and `section.key=value` overrides.

    Raises:
        ConfigError: the file cannot be read, or it has problems. One message lists all of them.
    """
    tree, lines = read_yaml(path)
    if "datasets" in tree and "data" not in tree:
        raise ConfigError(f"{path} describes an experiment, not a run; use: tinyllm experiment {path}")
    return build_config(tree, overrides, source=str(path), lines=lines)


def build_config(
    tree: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str = "configuration", lines: Lines | None = None
) -> Config:
    """Turn a mapping into a configuration; see `load_config`."""
    problems: list[str] = []
    merged, lines = apply_overrides(tree, lines or {}, overrides, problems)
    for preset, settings in PRESETS.items():
        if merged.get("preset") == preset:
            merged = merge(settings, merged)
    problems += _unusable_texts(merged)
    config = _validate(merged, lines, problems)
    if config is not None:
        problems += contradictions(config)
    if config is None or problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{source}: {count}\n" + "\n".join(f"  - {p}" for p in problems), page=_page_of(problems))
    return config


def _page_of(problems: Sequence[str]) -> str:
    """Return the page of the settings, at their section if all problems are in one."""
    found = {re.sub(r"^(line \d+: |--set )?(\w+).*", r"\2", problem, flags=re.DOTALL) for problem in problems}
    sections = {n for n, f in Config.model_fields.items() if n == "teachers" or hasattr(f.annotation, "model_fields")}
    return "configuration.md" + (f"#{found.pop()}" if len(found) == 1 and found <= sections else "")


def dump_config(config: Section) -> str:
    """Return a resolved configuration as YAML. An equal one can be read from it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def describe_differences(old: Config, new: Config) -> list[str]:
    """Return `section.key: old → new` for every different setting, except settings that only change the speed.

    Items of a list that have names, such as teachers, are compared by name; items of other lists by their place. Long
    values are cut to the part that differs.
    """
    before, after = (_with_defaults(_without_speed(config.model_dump(mode="json"))) for config in (old, new))
    told = []
    for keys, was, now in _differences(before, after):
        place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
        if isinstance(was, dict) != isinstance(now, dict):  # only one has the section: its defaults say nothing
            was, now = _unusual(old, keys, was), _unusual(new, keys, now)
        told.append(f"{place}: {_change(was, now)}")
    return told


def _differences(old: Any, new: Any, keys: _Keys = ()) -> Iterator[tuple[_Keys, Any, Any]]:
    """Yield the place of each difference, and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        # What only one kind of teacher has follows from the kind.
        is_same_kind = old.get("kind") == new.get("kind")
        for key in sorted(old.keys() | new.keys() if is_same_kind else old.keys() & new.keys()):
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), (*keys, key))
    elif isinstance(old, list) and isinstance(new, list):
        if all(isinstance(item, dict) and "name" in item for item in (*old, *new)):
            named, named_now = ({item["name"]: item for item in items} for items in (old, new))
            if named.keys() == named_now.keys() and [*named] != [*named_now]:
                yield keys, [*named], [*named_now]
            yield from _differences(named, named_now, keys)
            return
        for number, (item, item_now) in enumerate(zip_longest(old, new, fillvalue=_ABSENT)):
            yield from _differences(item, item_now, (*keys, number))
    elif old != new:
        yield keys, old, new


def _unusual(config: Config, keys: Sequence[str | int], value: Any) -> Any:
    """Return a section without the settings that have their default values; any other value as it is."""
    section: Any = config.model_dump(mode="json", exclude_defaults=True)
    for key in keys:
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(value, dict) and isinstance(section, dict) else value


def _change(old: Any, new: Any) -> str:
    texts = ["absent" if value is _ABSENT else "null" if value is None else repr(value) for value in (old, new)]
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    start = max(0, alike - _SHOWN // 3) if max(map(len, texts)) > _SHOWN else 0
    cut = [text[start : start + _SHOWN] + ("…" if len(text) > start + _SHOWN else "") for text in texts]
    return " → ".join(f"…{text}" if start else text for text in cut)


# --- overriding --------------------------------------------------------------------------------------------------


def apply_overrides(
    tree: Mapping[str, Any], lines: Lines, overrides: Sequence[str], problems: list[str]
) -> tuple[dict[str, Any], Lines]:
    """Merge `section.key=value` settings over a mapping. Unreadable settings are added to the problems.

    Returns:
        The settings, and the line of each key. A key that an override sets has line 0, which means the command line.
    """
    merged = dict(tree)
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.split(".")
        if not equals or not all(keys) or len(keys) > _MOST_KEYS:
            example = f"{path}=VALUE" if all(keys) and len(keys) > 1 and not equals else "train.seed=1"
            problems.append(f"--set {short(override)}: expected section.key=value, as in --set {short(example)}")
            continue
        try:
            value = plain_number(parse_yaml(text)[0])
        except NotYamlError:
            value = text
        patch: Any = value
        for key in reversed(keys):
            patch = {key: patch}
        merged = merge(merged, patch)
    paths = [tuple(o.partition("=")[0].split(".")) for o in overrides]
    set_there: dict[tuple[str | int, ...], int] = dict.fromkeys(paths, 0)
    return merged, {k: n for k, n in lines.items() if not any(k[: len(p)] == p for p in paths)} | set_there


def plain_number(value: Any) -> Any:
    """Turn a text such as `5e-5` into a number. YAML 1.1 reads it as text, because it has no dot."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one tree of settings over another."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _without_speed(tree: Any) -> Any:
    if isinstance(tree, dict):
        if tree.get("kind") == "vllm":
            tree = tree | {"arguments": list(without_speed(tree["arguments"]))}
        return {key: _without_speed(value) for key, value in tree.items() if key not in SPEED_ONLY}
    return [_without_speed(value) for value in tree] if isinstance(tree, list) else tree


def _with_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    """Replace null by the value that it stands for, because earlier versions saved the value."""
    section = tree["rationales"]
    named = {key: value for key, value in SAMPLING_DEFAULTS.items() if section.get(key, _ABSENT) is None}
    return tree | {"rationales": section | named}


# --- checking ----------------------------------------------------------------------------------------------------


def _validate(tree: Mapping[str, Any], lines: Lines, problems: list[str]) -> Config | None:
    if tree.get("data") is None:
        problems.append("data: missing; name the questions, as in `data: {train: questions.csv}`")
        tree = {**tree, "data": {}}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems.extend(contradictions_of_names(tree))
        problems.extend(problems_of(error, Config, lines))
        return None


def _unusable_texts(tree: Any, at: str = "") -> Iterable[str]:
    """Yield a problem for each text with a character that files and file names cannot contain."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _unusable_texts(value, f"{at}.{key}" if at else str(key))
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from _unusable_texts(value, f"{at}[{number}]")
    elif isinstance(tree, str) and _UNUSABLE.search(tree):
        yield f"{printable(at)}: contains a zero byte or half a surrogate pair, got {tree!a}; remove it"
