"""Configuration: the settings of each section, and how a YAML file is read (`read`).

Add a setting: a field with its sentence in the file of its section (`_data`, `_teachers`, `_rationales`, `_opinions`,
`_student`, `_train` with `auto`, `_evaluate`); `make docs` writes its reference. A section: a file like those, and its
field in `schema: Config`. A rule about several settings: `_contradictions`.
"""

from tinyllm.config._data import CutSection, DataSection, FieldMap, MoreSection
from tinyllm.config._evaluate import EvaluateSection
from tinyllm.config._opinions import OpinionsSection, Way, ways_of
from tinyllm.config._rationales import BudgetSection, CheckName, ExamplesSection, RationalesSection
from tinyllm.config._student import (
    ANSWER_TASK,
    CHOICES_TASK,
    Layout,
    LoraSection,
    StudentSection,
    compares_by_token,
    task_prefixes,
)
from tinyllm.config._teachers import (
    EndpointTeacher,
    Form,
    GivenTeacher,
    LiteLLMTeacher,
    LlamaCppTeacher,
    OpenAIBatchTeacher,
    OpenAITeacher,
    PriceSection,
    PromptedTeacher,
    ScriptedTeacher,
    StudentTeacher,
    TeacherConfig,
    TransformersTeacher,
    VllmTeacher,
)
from tinyllm.config._train import AnswerKind, Method, RationaleUse, SoftSection, TrainSection
from tinyllm.config.read import build_config, describe_differences, dump_config, load_config
from tinyllm.config.schema import Config, candidates_of, prefixes_in_use, teacher_weights, teachers_in_use

__all__ = [
    "ANSWER_TASK", "CHOICES_TASK", "AnswerKind", "BudgetSection", "CheckName", "Config", "CutSection",
    "DataSection", "EndpointTeacher", "EvaluateSection", "ExamplesSection", "FieldMap", "Form", "GivenTeacher",
    "Layout", "LiteLLMTeacher", "LlamaCppTeacher", "LoraSection", "Method", "MoreSection", "OpenAIBatchTeacher",
    "OpenAITeacher", "OpinionsSection", "PriceSection", "PromptedTeacher", "RationaleUse", "RationalesSection",
    "ScriptedTeacher", "SoftSection", "StudentSection", "StudentTeacher", "TeacherConfig", "TrainSection",
    "TransformersTeacher", "VllmTeacher", "Way", "build_config", "candidates_of", "compares_by_token",
    "describe_differences", "dump_config", "load_config", "prefixes_in_use", "task_prefixes",
    "teacher_weights", "teachers_in_use", "ways_of",
]  # fmt: skip
