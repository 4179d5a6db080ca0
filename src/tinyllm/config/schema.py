"""The configuration of a run: all sections, the presets, and functions that combine several sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tinyllm.config._data import DataSection
from tinyllm.config._evaluate import EvaluateSection
from tinyllm.config._opinions import OpinionsSection
from tinyllm.config._rationales import RationalesSection
from tinyllm.config._student import ANSWER_TASK, StudentSection, task_prefixes
from tinyllm.config._teachers import TeacherConfig
from tinyllm.config._train import AutoSection, TrainSection
from tinyllm.config.section import Name, Section

Preset = Literal["paper", "release"]


class Config(Section):
    """The configuration of a run."""

    name: Name = Field("run", description="Name of the run and of its folder.")
    preset: Preset = Field("paper", description="Settings of the paper, or of the authors' released code.")
    data: DataSection
    teachers: tuple[TeacherConfig, ...] = ()
    rationales: RationalesSection = Field(default_factory=RationalesSection)
    opinions: OpinionsSection = Field(default_factory=OpinionsSection)
    student: StudentSection = Field(default_factory=StudentSection)
    train: TrainSection = Field(default_factory=TrainSection)
    auto: AutoSection = Field(default_factory=AutoSection)
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection)


# The defaults of the sections are those of the paper. `release` holds the values that differ in the released code.
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "paper": {},
    "release": {
        "rationales": {"checks": [], "repair": False},
        "student": {"layout": "release", "prefixes": {"answer": "predict: ", "ordered": ["explain: ", "rationale: "]}},
        "train": {"normalisation": "tokens", "batch_size": 64, "max_input_tokens": 100, "max_target_tokens": 256},
        "evaluate": {"scorers": ["generation"]},
    },
}


def teacher_weights(config: Config) -> dict[str, float]:
    """Return α_m of every teacher, in the order of `teachers`. A student writes no rationales, so its α is 0."""
    alpha = config.train.alpha
    return {
        t.name: 0.0 if t.kind == "student" else alpha[t.name] if isinstance(alpha, dict) else alpha
        for t in config.teachers
    }


def candidates_of(config: Config) -> tuple[Config, ...]:
    """Return the configurations that `method: auto` tries. With any other method, return only the given one.

    Raises:
        ValidationError: a candidate has wrong settings. `build_config` reports them earlier, as a message.
    """
    if config.train.method != "auto":
        return (config,)
    base = config.train.model_dump() | {"method": "fine-tuning"}
    patches = config.auto.candidates or _usual_candidates(config)
    return tuple(config.model_copy(update={"train": TrainSection.model_validate(base | p)}) for p in patches)


def _usual_candidates(config: Config) -> tuple[dict[str, Any], ...]:
    """Return the default candidates, the most promising first, because the budget cuts the list from its end."""
    train = config.train
    rate = train.learning_rate or (2e-4 if config.student.adapter == "lora" else 5e-5)
    choices = {"method": "fine-tuning", "answer": "choices", "learning_rate": rate, "rationales": "target"}
    # With a weight of 1 no answer is used, so that nothing is tried that learns from answers.
    uses_answers = train.soft is None or train.soft.weight < 1
    can_explain = any(teacher_weights(config).values()) and (uses_answers or config.rationales.pooled)
    taught = [choices | {"method": "tinyllm"}] if can_explain else []
    soft = [choices | {"soft": train.soft.model_dump() | {"weight": 0}}] if train.soft and uses_answers else []
    return (
        choices,
        *soft,
        choices | {"learning_rate": 3 * rate},
        *(t | {"answer": "both"} for t in taught),
        choices | {"epochs": 2 * train.epochs},
        *(t | {"rationales": "input"} for t in taught),
        choices | {"learning_rate": rate / 3},
        choices | {"answer": "both"},
        *(t | {"answer": "text"} for t in taught),
        choices | {"answer": "text"},
    )


def teachers_in_use(config: Config) -> tuple[TeacherConfig, ...]:
    """Return the teachers that the method uses. Requests to other teachers would waste money."""
    train = config.train
    if train.method == "auto":
        used = {t.name for candidate in candidates_of(config) for t in teachers_in_use(candidate)}
        return tuple(t for t in config.teachers if t.name in used)
    if train.method == "fine-tuning":
        return ()
    if train.method == "step-by-step" and train.teacher is not None:
        return tuple(t for t in config.teachers if t.name == train.teacher)
    weights = teacher_weights(config)
    return tuple(t for t in config.teachers if weights[t.name] > 0)


def prefixes_in_use(config: Config) -> dict[str, str]:
    """Return the prefix of each task that is trained. A teacher's prefix does not depend on which others are used."""
    tasks = task_prefixes(config.student.prefixes, [t.name for t in config.teachers])
    learnt = {ANSWER_TASK, *(t.name for t in teachers_in_use(config))}
    return {task: prefix for task, prefix in tasks.items() if task in learnt}
