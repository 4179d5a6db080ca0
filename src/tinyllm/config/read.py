"""Read a configuration: from YAML to a frozen `Config`, or to one message with all problems.

Four steps: parse the YAML (with the line of each key), merge `--set` over it, merge that over the preset, validate it
with the schemas. All problems of all sections are collected before anything is raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from tinyllm.config.schema import (
    ANSWER_TASK,
    PRESETS,
    SAMPLING_DEFAULTS,
    AutoSection,
    Config,
    DataSection,
    ExamplesSection,
    PrefixesSection,
    TeacherConfig,
    TrainSection,
    candidates_of,
    task_prefixes,
    ways_of,
)
from tinyllm.config.vllm_arguments import without_speed
from tinyllm.config.yaml_file import Lines, NotYamlError, parse_yaml, read_yaml
from tinyllm.errors import ConfigError, did_you_mean, printable

_SHOWN = 200  # characters of a wrong value that are shown
_MOST_KEYS = 10
_UNUSABLE = re.compile(r"[\x00\ud800-\udfff]")
SPEED_ONLY = frozenset({
    "micro_batch_tokens", "gradient_checkpointing", "compile", "save_steps", "logging_steps", "report_to",
    "concurrency", "requests_per_minute", "tokens_per_minute", "connect_s", "first_byte_s", "stall_s", "timeout_s",
    "max_attempts", "requests_per_batch", "poll_s", "slots", "threads", "gpu_layers", "batch_tokens", "api_key_env",
    "price", "tokenizer", "budget", "engine", "headers", "auth_header", "stream", "ray_address", "ray_workers",
    "executable", "start_s", "store",
})  # fmt: skip
"""Settings that do not change the results. A run may be continued with other values."""


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
    tree: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    source: str = "configuration",
    lines: Lines | None = None,
) -> Config:
    """Turn a mapping into a configuration; see `load_config`."""
    problems: list[str] = []
    merged = apply_overrides(tree, overrides, problems)
    for preset, settings in PRESETS.items():
        if merged.get("preset") == preset:
            merged = merge(settings, merged)
    problems += _unusable_texts(merged)
    config = _validate(merged, without_overridden(lines or {}, overrides), problems)
    if config is not None:
        problems += _contradictions(config)
    if config is None or problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{source}: {count}\n" + "\n".join(f"  - {p}" for p in problems), page=_page_of(problems))
    return config


def _page_of(problems: Sequence[str]) -> str:
    """Return the page of the settings, at their section if all problems are in one."""
    found = {re.sub(r"^(line \d+: |--set )?(\w+).*", r"\2", problem, flags=re.DOTALL) for problem in problems}
    sections = {n for n, f in Config.model_fields.items() if n == "teachers" or hasattr(f.annotation, "model_fields")}
    return "configuration.md" + (f"#{found.pop()}" if len(found) == 1 and found <= sections else "")


def dump_config(config: Config) -> str:
    """Return the resolved configuration as YAML. `load_config` reads an equal configuration from it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def describe_differences(old: Config, new: Config) -> list[str]:
    """Return `section.key: old → new` for every different setting, except settings that only change the speed."""
    before, after = (_with_defaults(_flatten(_without_speed(config.model_dump(mode="json")))) for config in (old, new))
    keys = sorted(before.keys() | after.keys())
    return [f"{k}: {before.get(k)!r} → {after.get(k)!r}" for k in keys if before.get(k) != after.get(k)]


# --- overriding --------------------------------------------------------------------------------------------------


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str], problems: list[str]) -> dict[str, Any]:
    """Merge `section.key=value` settings over a mapping. Unreadable settings are added to the problems."""
    merged = dict(tree)
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.split(".")
        if not equals or not all(keys) or len(keys) > _MOST_KEYS:
            problems.append(f"--set {_short(override)}: expected section.key=value, as in --set train.seed=1")
            continue
        try:
            value = plain_number(parse_yaml(text)[0])
        except NotYamlError:
            value = text
        patch: Any = value
        for key in reversed(keys):
            patch = {key: patch}
        merged = merge(merged, patch)
    return merged


def without_overridden(lines: Lines, overrides: Sequence[str]) -> Lines:
    """Return the line of each key. A key that an override sets has line 0, which means the command line."""
    paths = [tuple(o.partition("=")[0].split(".")) for o in overrides]
    set_there: dict[tuple[str | int, ...], int] = dict.fromkeys(paths, 0)
    return {k: n for k, n in lines.items() if not any(k[: len(p)] == p for p in paths)} | set_there


def plain_number(value: Any) -> Any:
    """Return `5e-5` as a number. YAML 1.1 reads it as text, because it has no dot."""
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


def _with_defaults(flat: dict[str, Any]) -> dict[str, Any]:
    """Replace null by its meaning, because earlier versions wrote the values out."""
    named = {f"rationales.{name}": value for name, value in SAMPLING_DEFAULTS.items()}
    return {key: named[key] if value is None and key in named else value for key, value in flat.items()}


def _flatten(tree: Any, at: str = "") -> dict[str, Any]:
    if isinstance(tree, dict) and tree:
        return {k: v for key, sub in tree.items() for k, v in _flatten(sub, f"{at}.{key}" if at else key).items()}
    return {at: tree}


# --- checking ----------------------------------------------------------------------------------------------------


def _validate(tree: Mapping[str, Any], lines: Lines, problems: list[str]) -> Config | None:
    if tree.get("data") is None:
        problems.append("data: missing; say where the questions are, as in `data: {train: questions.csv}`")
        tree = {**tree, "data": {}}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems.extend(_contradictions_of_names(tree))
        problems.extend(problems_of(error, Config, lines))
        return None


def _unusable_texts(tree: Any, at: str = "") -> Iterable[str]:
    """Yield the texts with characters that no file name, file or message can hold."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _unusable_texts(value, f"{at}.{key}" if at else str(key))
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from _unusable_texts(value, f"{at}[{number}]")
    elif isinstance(tree, str) and _UNUSABLE.search(tree):
        yield f"{printable(at)}: holds a zero byte or half a surrogate pair, got {tree!a}"


def problems_of(error: ValidationError, root: type[BaseModel], lines: Lines) -> list[str]:
    """Return the messages of a schema's errors: line, setting, what it got, what is allowed."""
    return [_one_problem(detail, root, lines) for detail in error.errors()]


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
        return f"{where}: unknown key.{did_you_mean(key, place.known)} Known: {', '.join(place.known)}"
    if detail["type"] == "missing":
        return f"{where}: missing"
    if detail["type"] == "union_tag_invalid":
        kind = str(detail["ctx"]["tag"])
        kinds = [str(k) for k in _TEACHER_KINDS]
        return f"{where}.kind: unknown kind {kind!r}.{did_you_mean(kind, kinds)} Known: {', '.join(kinds)}"
    if detail["type"] == "union_tag_not_found":
        return f"{where}.kind: missing; one of {', '.join(_TEACHER_KINDS)}"
    if any(key in _MAY_HOLD_SECRETS for key in place.keys):
        return f"{where}: {detail['msg'].removeprefix('Value error, ')}"
    if detail["type"] in _PLAINLY:
        return f"{where}: {_PLAINLY[detail['type']]}, got {_short(repr(got))}"
    hint = did_you_mean(str(got), re.findall(r"'([^']+)'", detail["msg"])) if detail["type"] == "literal_error" else ""
    return f"{where}: {detail['msg']}, got {_short(repr(got))}.{hint}"


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"


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
    "too_short": "it must not be empty",
}
_MAY_HOLD_SECRETS = ("base_url", "api_key_env", "headers", "query", "extra_body", "arguments")
"""Fields into which users paste keys by mistake. Messages do not repeat their values."""

_TEACHER_KINDS = {
    str(get_args(kind.model_fields["kind"].annotation)[0]): kind for kind in get_args(get_args(TeacherConfig)[0])
}


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


def _contradictions(config: Config) -> list[str]:
    """Return the problems that involve several fields."""
    all_names = [t.name for t in config.teachers]
    names = [t.name for t in config.teachers if t.kind != "student"]
    return [
        *_data_problems(config.data),
        *_teacher_problems(all_names),
        *_alpha_problems(config.train.alpha, names),
        *_method_problems(config.train, names),
        *_training_problems(config.train, names),
        *_auto_problems(config, names),
        *_prefix_problems(config.student.prefixes, names),
        *_budget_problems(config),
        *_examples_problems(config.rationales.examples),
        *_several_problems(config),
        *_opinions_problems(config),
        *_soft_problems(config),
    ]


def _contradictions_of_names(tree: Mapping[str, Any]) -> Iterable[str]:
    """Yield the problems of teachers and weights when the schema has already found other problems."""
    teachers, train = tree.get("teachers") or [], tree.get("train") or {}
    if not (isinstance(teachers, list) and all(isinstance(t, dict) for t in teachers) and isinstance(train, dict)):
        return
    yield from _teacher_problems([str(t.get("name")) for t in teachers])
    names = [str(t.get("name")) for t in teachers if t.get("kind") != "student"]
    alpha = train.get("alpha", 1.0)
    if isinstance(alpha, dict) and all(isinstance(a, int | float) for a in alpha.values()):
        yield from _alpha_problems(alpha, names)


def _data_problems(data: DataSection) -> Iterable[str]:
    if data.dataset is None and data.folder is None and data.train is None:
        yield "data: nothing to read; give one of `dataset: starter`, `folder: DIR`, or `train: FILE`"
    if data.train is not None and (data.folder is not None or data.dataset is not None):
        yield "data: give either `train` (with `valid`, `test`), or `dataset` / `folder`, not both"
    if data.cut is not None and data.cut.valid + data.cut.test >= 1:
        yield f"data.cut: valid {data.cut.valid} and test {data.cut.test} leave nothing to train on"
    if data.fields.answer_as == "label" and data.fields.labels is None:
        yield "data.fields.labels: missing; `answer_as: label` needs the column of the labels"
    if data.choices is not None and (twice := sorted({c for c in data.choices if data.choices.count(c) > 1})):
        yield f"data.choices: {', '.join(map(repr, twice))} twice; give each choice its own name"

    for number, more in enumerate(data.more):
        if sum(place is not None for place in (more.dataset, more.folder, more.train)) != 1:
            yield f"data.more[{number}]: give a file, or one of `dataset: NAME`, `folder: DIR` and `train: FILE`"


def _teacher_problems(names: Sequence[str]) -> Iterable[str]:
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"teachers: the name '{name}' is used {names.count(name)} times; give each teacher its own name"
    if ANSWER_TASK in names:
        yield f"teachers: '{ANSWER_TASK}' is the name of the answer task; give the teacher another name"


def _no_teacher(name: str, names: Sequence[str]) -> str:
    return f"no such teacher.{did_you_mean(name, names)} Teachers: {', '.join(names) or 'none'}"


def _alpha_problems(alpha: float | dict[str, float], names: Sequence[str]) -> Iterable[str]:
    weights = alpha if isinstance(alpha, dict) else {"": alpha}
    for name, weight in weights.items():
        where = f"train.alpha.{name}" if name else "train.alpha"
        if name and name not in names:
            yield f"{where}: {_no_teacher(name, names)}"
        if not 0 <= weight < float("inf"):
            yield f"{where}: a weight is a finite number, at least 0, got {weight}"
    if isinstance(alpha, dict):
        for name in names:
            if name not in alpha:
                yield f"train.alpha: teacher '{name}' has no weight; add `{name}: 1.0` (0 leaves it out)"


def _method_problems(train: TrainSection, names: Sequence[str]) -> Iterable[str]:
    weights = train.alpha if isinstance(train.alpha, dict) else {"": train.alpha}
    if train.method == "auto":
        return
    if train.method == "step-by-step":
        if train.teacher is None and len(names) != 1:
            yield f"train.teacher: `step-by-step` learns from one teacher; choose one of {', '.join(names) or 'none'}"
        if train.teacher is not None and train.teacher not in names:
            yield f"train.teacher: '{train.teacher}': {_no_teacher(train.teacher, names)}"
        one = train.teacher or (names[0] if len(names) == 1 else "")
        if weights.get(one, weights.get("")) == 0:
            yield f"train.alpha: `step-by-step` learns from '{one}', so its weight must be above 0"
    elif train.method != "fine-tuning" and not names:
        yield f"teachers: `method: {train.method}` needs at least one teacher; or use `method: fine-tuning`"
    elif train.method != "fine-tuning" and not any(weights.values()):
        yield "train.alpha: all weights are 0, so no teacher is used; use `method: fine-tuning` for that"
    if train.method == "fine-tuning" and train.rationales != "target":
        yield (
            f"train.rationales: `{train.rationales}` needs rationales, and `method: fine-tuning` learns from none; use "
            "`method: tinyllm`, or leave it out"
        )
    if train.rationales == "input" and train.alpha_schedule != "constant":
        yield (
            "train.alpha_schedule: rationales in the input have no loss to be weighted, and go by `answers_only` alone;"
            " leave it out"
        )


def _auto_problems(config: Config, names: Sequence[str]) -> Iterable[str]:
    """Return what is wrong with each candidate of `method: auto`."""
    if config.train.method != "auto":
        return
    for number, patch in enumerate(config.auto.candidates):
        where = f"auto.candidates[{number}]"
        alone = config.model_copy(update={"auto": AutoSection(candidates=(patch,))})
        try:
            (candidate,) = candidates_of(alone)
        except ValidationError as error:
            yield from (f"{where}.{problem}" for problem in problems_of(error, TrainSection, {}))
            continue
        if candidate.train.soft is not None and config.train.soft is None:
            yield f"{where}.soft: no opinions are asked for it; write `soft` under `train`, too"
        if candidate.train.method == "auto":
            yield f"{where}.method: a candidate cannot be `auto` itself; name one of the other methods"
            continue
        yield from (
            f"{where}: {problem}"
            for problem in (
                *_alpha_problems(candidate.train.alpha, names),
                *_method_problems(candidate.train, names),
                *_training_problems(candidate.train, names),
            )
        )


def _training_problems(train: TrainSection, names: Sequence[str]) -> Iterable[str]:
    for name in train.alpha_schedule if isinstance(train.alpha_schedule, dict) else ():
        if name not in names:
            yield f"train.alpha_schedule.{name}: {_no_teacher(name, names)}"
    if train.compile and train.gradient_checkpointing:
        yield "train.compile: with gradient_checkpointing nothing would be compiled; remove one of the two"
    if train.validate_steps is None:
        needy = [f"patience: {train.patience}"] if train.patience is not None else []
        needy += ["keep: best"] if train.keep == "best" else []
        if needy:
            yield f"train.validate_steps: missing; {' and '.join(needy)} need the validation accuracy; try 25"


def _budget_problems(config: Config) -> Iterable[str]:
    priced = [t.name for t in config.teachers if getattr(t, "price", None) is not None]
    if config.rationales.budget.usd is not None and not priced:
        yield (
            "rationales.budget.usd: no teacher has a price, so it would never be reached; add, for example, "
            "`price: {prompt: 0.15, completion: 0.6}` (US dollars per million tokens) to the teacher"
        )


def _examples_problems(examples: ExamplesSection) -> Iterable[str]:
    if examples.ids and examples.strategy != "fixed":
        yield f"rationales.examples.ids: only `strategy: fixed` uses them, but the strategy is '{examples.strategy}'"


def _several_problems(config: Config) -> Iterable[str]:
    section = config.rationales
    if section.several > 1 and section.temperature == 0:
        yield "rationales.several: at temperature 0 they would all be the same; raise rationales.temperature"
    if section.several > 1 and any(c.train.method == "student-likelihood" for c in _readable_candidates(config)):
        yield "rationales.several: `student-likelihood` compares one rationale a teacher; take another router, or 1"


def _readable_candidates(config: Config) -> tuple[Config, ...]:
    """Return the candidates of `method: auto`; none where one is wrong, which is said elsewhere."""
    try:
        return candidates_of(config)
    except ValidationError:
        return ()


def _opinions_problems(config: Config) -> Iterable[str]:
    kinds = {t.name: t.kind for t in config.teachers}
    for name, way in config.opinions.teachers.items():
        where = f"opinions.teachers.{name}"
        if name not in kinds:
            yield f"{where}: {_no_teacher(name, list(kinds))}"
        elif way != "auto" and way not in ways_of(kinds[name]):
            possible = ", ".join(ways_of(kinds[name]))
            yield f"{where}: a teacher of kind {kinds[name]} cannot be asked with `{way}`; possible: {possible}"


def _soft_problems(config: Config) -> Iterable[str]:
    soft, asked = config.train.soft, list(config.opinions.teachers)
    if soft is None:
        if config.rationales.pooled:
            yield "rationales.pooled: there is no pooled opinion without `train.soft`; write `train: {soft: {}}`"
        return
    if not asked:
        yield "train.soft: nobody is asked for an opinion; name teachers, as in `opinions: {teachers: [NAME]}`"
    elif "train" not in config.opinions.splits:
        yield "opinions.splits: `train.soft` learns from opinions on the training questions; add `train`"
    weights = {} if soft.teachers == "pooled" else soft.teachers
    for name, weight in weights.items():
        if asked and name not in asked:
            yield f"train.soft.teachers.{name}: not in `opinions.teachers`.{did_you_mean(name, asked)} There: {asked}"
        if not 0 <= weight < float("inf"):
            yield f"train.soft.teachers.{name}: a weight is a number from 0 up, got {weight}"
    if soft.teachers != "pooled" and not any(weights.values()):
        yield "train.soft.teachers: no teacher has a weight above 0; give one, or write `pooled`"


def _prefix_problems(prefixes: PrefixesSection, names: Sequence[str]) -> Iterable[str]:
    # Compare without the space at the end: a causal student never sees it.
    tasks = {task: prefix.rstrip() for task, prefix in task_prefixes(prefixes, names).items()}
    for text in sorted({p for p in tasks.values() if list(tasks.values()).count(p) > 1}):
        same = ", ".join(t for t, p in tasks.items() if p == text)
        yield f"student.prefixes: several tasks have the prefix {text!r} ({same}); give each task its own prefix"
