"""Configuration: the schemas (`schema`), and how a YAML file is read (`read`).

Add a setting: a field with its sentence in `schema`; `make docs` writes its reference.
"""

from tinyllm.config.read import (
    build_config as build_config,
)
from tinyllm.config.read import (
    describe_differences as describe_differences,
)
from tinyllm.config.read import (
    dump_config as dump_config,
)
from tinyllm.config.read import (
    load_config as load_config,
)
from tinyllm.config.schema import (
    ANSWER_TASK as ANSWER_TASK,
)
from tinyllm.config.schema import (
    CHOICES_TASK as CHOICES_TASK,
)
from tinyllm.config.schema import (
    AnswerKind as AnswerKind,
)
from tinyllm.config.schema import (
    BudgetSection as BudgetSection,
)
from tinyllm.config.schema import (
    CheckName as CheckName,
)
from tinyllm.config.schema import (
    Config as Config,
)
from tinyllm.config.schema import (
    CutSection as CutSection,
)
from tinyllm.config.schema import (
    DataSection as DataSection,
)
from tinyllm.config.schema import (
    EndpointTeacher as EndpointTeacher,
)
from tinyllm.config.schema import (
    EvaluateSection as EvaluateSection,
)
from tinyllm.config.schema import (
    ExamplesSection as ExamplesSection,
)
from tinyllm.config.schema import (
    FieldMap as FieldMap,
)
from tinyllm.config.schema import (
    Form as Form,
)
from tinyllm.config.schema import (
    GivenTeacher as GivenTeacher,
)
from tinyllm.config.schema import (
    Layout as Layout,
)
from tinyllm.config.schema import (
    LiteLLMTeacher as LiteLLMTeacher,
)
from tinyllm.config.schema import (
    LlamaCppTeacher as LlamaCppTeacher,
)
from tinyllm.config.schema import (
    LoraSection as LoraSection,
)
from tinyllm.config.schema import (
    Method as Method,
)
from tinyllm.config.schema import (
    MoreSection as MoreSection,
)
from tinyllm.config.schema import (
    OpenAIBatchTeacher as OpenAIBatchTeacher,
)
from tinyllm.config.schema import (
    OpenAITeacher as OpenAITeacher,
)
from tinyllm.config.schema import (
    OpinionsSection as OpinionsSection,
)
from tinyllm.config.schema import (
    PriceSection as PriceSection,
)
from tinyllm.config.schema import (
    PromptedTeacher as PromptedTeacher,
)
from tinyllm.config.schema import (
    RationalesSection as RationalesSection,
)
from tinyllm.config.schema import (
    ScriptedTeacher as ScriptedTeacher,
)
from tinyllm.config.schema import (
    SoftSection as SoftSection,
)
from tinyllm.config.schema import (
    StudentSection as StudentSection,
)
from tinyllm.config.schema import (
    StudentTeacher as StudentTeacher,
)
from tinyllm.config.schema import (
    TeacherConfig as TeacherConfig,
)
from tinyllm.config.schema import (
    TrainSection as TrainSection,
)
from tinyllm.config.schema import (
    TransformersTeacher as TransformersTeacher,
)
from tinyllm.config.schema import (
    VllmTeacher as VllmTeacher,
)
from tinyllm.config.schema import (
    Way as Way,
)
from tinyllm.config.schema import (
    candidates_of as candidates_of,
)
from tinyllm.config.schema import (
    compares_by_token as compares_by_token,
)
from tinyllm.config.schema import (
    prefixes_in_use as prefixes_in_use,
)
from tinyllm.config.schema import (
    task_prefixes as task_prefixes,
)
from tinyllm.config.schema import (
    teacher_weights as teacher_weights,
)
from tinyllm.config.schema import (
    teachers_in_use as teachers_in_use,
)
from tinyllm.config.schema import (
    ways_of as ways_of,
)
