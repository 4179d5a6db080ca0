"""Checks of several settings together: each value is valid, but the combination is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tinyllm.config._data import DataSection
from tinyllm.config._opinions import ways_of
from tinyllm.config._problems import problems_of
from tinyllm.config._student import ANSWER_TASK, PrefixesSection, task_prefixes
from tinyllm.config._teachers import LiteLLMTeacher, OpenAIBatchTeacher, OpenAITeacher, TeacherConfig
from tinyllm.config._train import AutoSection, TrainSection
from tinyllm.config.schema import Config, candidates_of
from tinyllm.errors import did_you_mean


def contradictions(config: Config) -> list[str]:
    """Return the problems that involve several settings."""
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
        *_rationales_problems(config),
        *_opinions_problems(config),
        *_soft_problems(config),
    ]


def contradictions_of_names(tree: Mapping[str, Any]) -> Iterable[str]:
    """Yield the problems of teachers' names and weights, if the schema has found problems elsewhere."""
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
        yield "data: no questions are named; give one of `dataset: starter`, `folder: DIR` or `train: FILE`"
    if data.train is not None and (data.folder is not None or data.dataset is not None):
        yield "data: `train` cannot be combined with `dataset` or `folder`; give either `train` or these"
    if data.cut is not None and data.cut.valid + data.cut.test >= 1:
        yield (
            f"data.cut: valid {data.cut.valid} and test {data.cut.test} leave no questions for training; their sum "
            "must be below 1"
        )
    if data.fields.answer_as == "label" and data.fields.labels is None:
        yield "data.fields.labels: missing; `answer_as: label` needs it; name the column of the choices' labels"
    if data.choices is not None and (twice := sorted({c for c in data.choices if data.choices.count(c) > 1})):
        yield f"data.choices: {', '.join(map(repr, twice))} is listed more than once; every choice must differ"

    for number, more in enumerate(data.more):
        named = [name for name in ("dataset", "folder", "train") if getattr(more, name) is not None]
        if len(named) != 1:
            yield (
                f"data.more[{number}]: it names {' and '.join(named) or 'no questions'}; give a file, or exactly one "
                "of `dataset: NAME`, `folder: DIR` and `train: FILE`"
            )


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
            yield f"{where}: a weight must be a finite number, at least 0, got {weight}"
    if isinstance(alpha, dict):
        for name in names:
            if name not in alpha:
                yield f"train.alpha: teacher '{name}' has no weight; add `{name}: 1.0` (0 leaves it out)"


def _method_problems(train: TrainSection, names: Sequence[str]) -> Iterable[str]:
    weights = train.alpha if isinstance(train.alpha, dict) else {"": train.alpha}
    if train.method == "auto":
        return
    if train.method != "fine-tuning" and not names:
        yield (
            f"teachers: `method: {train.method}` needs a teacher that writes rationales (not of `kind: student`); add "
            "one, or use `method: fine-tuning`"
        )
    if train.method == "step-by-step":
        if names and train.teacher is None and len(names) != 1:
            yield f"train.teacher: missing; `step-by-step` learns from one teacher; choose one of {', '.join(names)}"
        if train.teacher is not None and train.teacher not in names:
            yield f"train.teacher: '{train.teacher}': {_no_teacher(train.teacher, names)}"
        one = train.teacher or (names[0] if len(names) == 1 else "")
        if one in names and weights.get(one, weights.get("")) == 0:
            yield f"train.alpha: `step-by-step` learns from '{one}', so its weight must be above 0"
    elif train.method != "fine-tuning" and names and not any(weights.values()):
        yield "train.alpha: all weights are 0, so no teacher is used; raise one, or use `method: fine-tuning`"
    if train.method == "fine-tuning" and train.rationales != "target":
        yield (
            f"train.rationales: `{train.rationales}` needs rationales, and `method: fine-tuning` uses none; set "
            "`method: tinyllm`, or remove `rationales`"
        )
    if train.rationales == "input" and train.alpha_schedule != "constant":
        yield (
            "train.alpha_schedule: it has no effect with `rationales: input`, because the student does not learn to "
            "write rationales; remove it (`answers_only` sets when rationales leave the input)"
        )


def _auto_problems(config: Config, names: Sequence[str]) -> Iterable[str]:
    """Yield the problems of each candidate of `method: auto`."""
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
            yield f"{where}.soft: opinions are only requested if `train.soft` is set; set it, too"
        if candidate.train.method == "auto":
            yield f"{where}.method: a candidate cannot be `auto`; name another method"
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
        yield "train.compile: it has no effect together with gradient_checkpointing; remove one of the two"
    if train.validate_steps is None:
        needy = [f"patience: {train.patience}"] if train.patience is not None else []
        needy += ["keep: best"] if train.keep == "best" else []
        if needy:
            yield f"train.validate_steps: missing; it is required for {' and '.join(needy)}; set it, for example to 25"


def _is_paid(teacher: TeacherConfig) -> bool:
    """Return whether a teacher probably costs money: a service that asks for a key."""
    if isinstance(teacher, LiteLLMTeacher):
        return teacher.base_url is None
    return isinstance(teacher, OpenAITeacher | OpenAIBatchTeacher) and teacher.api_key_env is not None


def _rationales_problems(config: Config) -> Iterable[str]:
    section, examples = config.rationales, config.rationales.examples
    unpriced = [t for t in config.teachers if getattr(t, "price", None) is None]
    missing = "no teacher has a price" if len(unpriced) == len(config.teachers) else ""
    missing = missing or ", ".join(f"'{t.name}' has no price" for t in unpriced if _is_paid(t))
    if section.budget.usd is not None and missing:
        yield (
            f"rationales.budget.usd: {missing}, so what it costs does not count; add one, such as "
            "`price: {prompt: 0.15, completion: 0.6}` (US dollars per million tokens; 0 if it is free)"
        )
    if examples.ids and examples.strategy != "fixed":
        yield (
            f"rationales.examples.ids: `strategy: {examples.strategy}` does not use them; set `strategy: fixed`, or "
            "remove `ids`"
        )
    if section.several > 1 and section.temperature == 0:
        yield "rationales.several: at temperature 0 all rationales would be the same; raise rationales.temperature"
    if section.several > 1 and any(c.train.method == "student-likelihood" for c in _readable_candidates(config)):
        yield (
            "rationales.several: `method: student-likelihood` compares one rationale per teacher; set several to 1, or "
            "use another method"
        )


def _readable_candidates(config: Config) -> tuple[Config, ...]:
    """Return the candidates of `method: auto`, or none if one is wrong. `_auto_problems` reports that."""
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
            yield "rationales.pooled: there is no pooled opinion without `train.soft`; set `train: {soft: {}}`, too"
        return
    if not config.rationales.pooled and any(map(_explains_unused_answers, _readable_candidates(config))):
        yield (
            "train.soft.weight: 1 uses no answer of a training question, but rationales explain these answers; set "
            "`method: fine-tuning`, a weight below 1, or `rationales: {pooled: true}`"
        )
    if not asked:
        yield "train.soft: no teacher is asked for an opinion; name teachers, as in `opinions: {teachers: [NAME]}`"
    elif "train" not in config.opinions.splits:
        yield "opinions.splits: `train.soft` learns from opinions on the training questions; add `train`"
    weights = {} if soft.teachers == "pooled" else soft.teachers
    for name, weight in weights.items():
        if asked and name not in asked:
            known = f"{did_you_mean(name, asked)} Known: {', '.join(asked)}"
            yield f"train.soft.teachers.{name}: not in `opinions.teachers`.{known}"
        if not 0 <= weight < float("inf"):
            yield f"train.soft.teachers.{name}: a weight must be a finite number, at least 0, got {weight}"
    if soft.teachers != "pooled" and not any(weights.values()):
        yield "train.soft.teachers: no teacher has a weight above 0; give one, or write `pooled`"


def _explains_unused_answers(config: Config) -> bool:
    return config.train.soft is not None and config.train.soft.weight == 1 and config.train.method != "fine-tuning"


def _prefix_problems(prefixes: PrefixesSection, names: Sequence[str]) -> Iterable[str]:
    # Compare them without spaces at the end, because a causal student never sees these.
    tasks = {task: prefix.rstrip() for task, prefix in task_prefixes(prefixes, names).items()}
    for text in sorted({p for p in tasks.values() if list(tasks.values()).count(p) > 1}):
        same = ", ".join(t for t, p in tasks.items() if p == text)
        yield f"student.prefixes: several tasks have the prefix {text!r} ({same}); give each task its own prefix"
