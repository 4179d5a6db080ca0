"""All settings: one frozen schema per section. Each field has a type, a default and a description."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

ANSWER_TASK = "answer"
"""The name of the answer task. Every other task has the name of a teacher."""

CHOICES_TASK = "answer (choices)"
"""The name of the answer task in logs and counts if choices are compared. No teacher's name has a bracket."""

Preset = Literal["paper", "release"]
Method = Literal[
    "fine-tuning", "step-by-step", "tinyllm",
    "shuffled", "keywords",  # controls
    "one-random", "shortest", "similarity", "student-likelihood",  # routers
    "auto",  # whichever of several does best on validation questions
]  # fmt: skip
Form = Literal["chat", "completion"]
Layout = Literal["labelled", "release", "cloze"]
CheckName = Literal["refused", "empty", "cut_off", "runs_on", "repeats", "wrong_answer", "encoding"]
Way = Literal["letters", "texts", "votes", "given"]
AlphaSchedule = Literal["constant", "linear"]
AnswerKind = Literal["text", "choices", "both"]
RationaleUse = Literal["target", "before", "input"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """Base of every section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FieldMap(Section):
    """The columns of a file. Dots reach into nested columns (`choices.text`)."""

    id: str | None = Field(
        "id", description="Column of the question's id; rows without one are numbered; null: all are numbered."
    )
    question: str = Field("question", description="Column of the question's text.")
    context: str = Field("context", description="Column of the optional context.")
    choices: str | tuple[str, ...] = Field(
        "choices", description="Column that holds the list of choices, or a list of columns, one per choice."
    )
    answer: str | None = Field(
        "answer",
        description="Column of the answer; an empty cell or null: the answer of this question is unknown. "
        "`answer: null`: no question has an answer.",
    )
    answer_as: Literal["index", "number", "letter", "text", "label"] = Field(
        "index",
        description="How the answer is given: index (0 is the first choice), number (1 is the first), letter A…, "
        "the choice's text, or a label.",
    )
    no_answer: int | str | None = Field(
        None,
        description="Value in the answer's column that means an unknown answer, as -1; null: no value.",
    )
    labels: str | None = Field(None, description="Column of the choices' labels, for `answer_as: label`.")
    rationales: str = Field("rationales", description="Column of rationales: a mapping from teacher to text.")
    opinions: str = Field(
        "opinions",
        description="Column of opinions: a mapping from teacher to one score per choice (weights, or log-probabilities "
        "if one is below 0).",
    )


class CutSection(Section):
    """A seeded cut of the training file into splits."""

    valid: float = Field(0.1, ge=0, lt=1, description="Share of the questions for validation.")
    test: float = Field(0.2, ge=0, lt=1, description="Share of the questions for testing.")
    seed: int = Field(0, description="Seed of the cut.")


_Number = Annotated[int, Field(ge=1)]


class MoreSection(Section):
    """More questions to train on: of a file, or the training questions of a named dataset or a folder."""

    name: Name | None = Field(None, description="Stands before their ids; null: the dataset's or the file's name.")
    dataset: str | None = Field(None, description="A named dataset, or owner/name of one on the Hugging Face hub.")
    subset: str | None = Field(None, description="Configuration name of a hub dataset.")
    folder: Path | None = Field(None, description="Folder with a training file.")
    train: Path | None = Field(None, description="A file of questions (.jsonl, .csv or .parquet).")
    fields: FieldMap | None = Field(
        None, description="Which column holds what; null: as `data.fields`, for a dataset its own."
    )
    choices: tuple[str, ...] | None = Field(None, min_length=2, description="The same choices for every question.")
    question: str | None = Field(None, min_length=1, description="The same question for every row.")
    limit: int | None = Field(None, ge=1, description="At most so many questions.")
    answers: bool = Field(True, description="Use their answers; false: learn from the teachers' opinions alone.")


def _files(value: Any) -> Any:
    """A file may stand where a section of more questions may."""
    if not isinstance(value, list | tuple):
        return value
    return tuple({"train": item} if isinstance(item, str | Path) else item for item in value)


class DataSection(Section):
    """Where the questions come from: a named dataset, a folder with one file per split, or files."""

    dataset: str | None = Field(
        None,
        description="A named dataset (starter, arc-easy, arc-challenge, obqa, csqa, mmlu, mmlu-pro, race, qasc, siqa, "
        "piqa, winogrande, hellaswag, boolq, sciq, medmcqa, medqa, pubmedqa, truthfulqa-mc1, logiqa, riddlesense, arc, "
        "riddle, bioasq), or owner/name of one on the Hugging Face hub.",
    )
    subset: str | None = Field(None, description="Configuration name of a hub dataset.")
    folder: Path | None = Field(None, description="Folder with train, valid and test files (.jsonl, .csv, .parquet).")
    train: Path | None = Field(None, description="Questions to train on (.jsonl, .csv or .parquet).")
    valid: Path | None = Field(None, description="Questions to select on.")
    test: Path | None = Field(None, description="Questions to evaluate on.")
    cut: CutSection | None = Field(None, description="Cut missing splits from `train`; default 10 % and 20 %.")
    fields: FieldMap = Field(default_factory=FieldMap, description="Which column holds what.")
    choices: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="The same choices for every question: the classes, if texts are to be classified; "
        "null: each row has its own.",
    )
    question: str | None = Field(
        None,
        min_length=1,
        description="The same question for every row, as in `Which class fits?`; the text in the question's column "
        "becomes the context. null: each row has its own.",
    )
    limit: _Number | dict[Literal["train", "valid", "test"], _Number] | None = Field(
        None, description="Use at most this many questions of each split; or of some splits, as in `{train: 100}`."
    )
    on_invalid: Literal["error", "drop"] = Field("error", description="What to do about invalid rows.")
    more: Annotated[tuple[MoreSection, ...], BeforeValidator(_files)] = Field(
        (),
        description="More questions for training only, as in `[more.jsonl, {dataset: obqa}]`, with answers or without. "
        "Those that are the same as a validation or test question, or nearly, are left out and counted. So are those "
        "that are the same as another training question.",
    )


class _TeacherSection(Section):
    """Settings of every kind of teacher."""

    name: Name = Field(description="The teacher's name, used in `alpha`, files and reports.")


class PriceSection(Section):
    """Prices of a teacher's tokens."""

    prompt: float = Field(ge=0, description="US dollars per million prompt tokens.")
    completion: float = Field(ge=0, description="US dollars per million tokens of replies.")
    cached: float | None = Field(
        None, ge=0, description="US dollars per million cached prompt tokens; null: as other prompt tokens."
    )


class PromptedTeacher(_TeacherSection):
    """Settings of every kind of teacher that gets a prompt."""

    stop: tuple[str, ...] = Field(("\n\n", "\nQuestion:"), description="Stop sequences of a completion prompt.")
    thinking_tokens: int | None = Field(
        None,
        ge=0,
        description="Tokens for its thinking, added to `rationales.max_tokens`. If the thinking uses all of them, the "
        "request is sent again with twice as many. null: none; 4,096 after the thinking of this teacher was cut off.",
    )
    price: PriceSection | None = Field(None, description="Prices of its tokens; null: free.")
    tokenizer: str | None = Field(
        None, description="Hub name or folder of its tokenizer, for forecasts; null: its own, if it is available."
    )


def _listed(value: Any) -> Any:
    """Accept a single value instead of a list."""
    return (value,) if isinstance(value, str) else value


def _texts(value: Any) -> Any:
    """Turn dates and numbers into text. YAML reads `2024-10-21` as a date, but in a URL or a header it is a text."""
    if not isinstance(value, Mapping):
        return value
    return {name: _as_text(v) for name, v in value.items()}


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float | date) else value


def _no_secrets(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse API keys in the configuration, at any depth, because it is copied into run folders."""
    for name, text in _named_as_secrets(value):
        if "${" not in text:
            raise ValueError(
                f"'{name}' looks like a key; keys are only read from the environment: write the name of a variable, "
                f"`{name}: ${{MY_KEY}}`, and set it (export MY_KEY=…)"
            )
    return value


def _named_as_secrets(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts whose names sound secret, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str) and inner and _SECRET.search(str(name)):
                yield str(name), inner
            yield from _named_as_secrets(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named_as_secrets(inner)


def _own_fields(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse fields of a request that have their own settings."""
    for name in value:
        if name in _OWN_FIELDS:
            raise ValueError(f"'{name}' is set elsewhere: {_OWN_FIELDS[name]}")
    return value


_SECRET = re.compile(
    r"authori[sz]ation|api[-_]?key|(?:^|[-_])(?:key|token|secret|sig|signature|password|passwd|cookie)(?:$|[-_])",
    re.IGNORECASE,
)
_OWN_FIELDS: Mapping[str, str] = {
    "model": "by the teacher's `model`", "messages": "by the question", "prompt": "by the question",
    "stream": "by the teacher's `stream`", "stream_options": "by the teacher's `stream`",
    "n": "one reply a request; `rationales.samples` asks again", "temperature": "by `rationales.temperature`",
    "max_tokens": "by `rationales.max_tokens` and the teacher's `thinking_tokens`",
    "max_completion_tokens": "by `rationales.max_tokens` and the teacher's `thinking_tokens`",
    "top_p": "by `rationales.top_p`", "seed": "by `rationales.seed`", "stop": "by the teacher's `stop`",
}  # fmt: skip
_OWN_ARGUMENTS: Mapping[str, str] = {
    "api_key": "by the teacher's `api_key_env`", "base_url": "by the teacher's `base_url`",
    "api_base": "by the teacher's `base_url`", "custom_llm_provider": "by the teacher's `model`",
    "timeout": "by the teacher's `timeout_s`", "drop_params": "by the teacher's `omit`",
    "additional_drop_params": "by the teacher's `omit`", "model_list": "by the teachers of the configuration",
    "caching": "by `rationales.store`", "cache": "by `rationales.store`", "client": "by TinyLLM",
    "shared_session": "by TinyLLM", "no-log": "by TinyLLM", "acompletion": "by TinyLLM", "logger_fn": "by TinyLLM",
    "vertex_credentials": "by the environment variable GOOGLE_APPLICATION_CREDENTIALS",
    **{name: f"by the environment variable {name.upper()}"
       for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")},
}  # fmt: skip
Texts = Annotated[dict[str, str], BeforeValidator(_texts), AfterValidator(_no_secrets)]
Parameter = Literal["temperature", "top_p", "seed", "stop"]
_HOST = r"[A-Za-z0-9._-]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?"  # a name or IPv4; IPv6 with a zone


def _reachable(url: str) -> str:
    """Refuse an unusable address. The message does not repeat it, because it may contain a pasted key."""
    import yarl  # aiohttp, which sends the requests, parses addresses with it

    try:
        parsed = yarl.URL(url)
        host = parsed.raw_host or ""
        host.encode("idna")
    except (ValueError, TypeError):  # also UnicodeError, for an impossible host name
        host, parsed = "", None
    if parsed is None or not re.fullmatch(_HOST, host) or not parsed.port:
        raise PydanticCustomError("address", "its host must be a name or an address, and its port 1 to 65535")
    return url


BaseUrl = Annotated[str, Field(pattern=r"^https?://[^@?#\s]+$"), AfterValidator(_reachable)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class EndpointTeacher(PromptedTeacher):
    """Rate limits and timeouts of an endpoint."""

    form: Form = Field("chat", description="Chat messages, or one plain text to complete.")
    concurrency: int | None = Field(
        None, ge=1, description="Parallel requests; null: as many as the endpoint can handle."
    )
    requests_per_minute: float | None = Field(None, gt=0, description="Limit of requests per minute; null: none.")
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Limit of prompt and reply tokens per minute; null: none."
    )
    connect_s: float = Field(10.0, gt=0, description="Timeout for connecting.")
    first_byte_s: float | None = Field(None, gt=0, description="Seconds until a reply begins; null: as `timeout_s`.")
    stall_s: float = Field(30.0, gt=0, description="Timeout between two parts of a reply.")
    timeout_s: float = Field(120.0, gt=0, description="Timeout of one whole attempt.")
    max_attempts: int = Field(5, ge=1, description="Attempts per request; a rate limit does not count.")


class _HostedTeacher(Section):
    """What a service may need besides the protocol. `${NAME}` stands for an environment variable."""

    query: Texts = Field(
        default_factory=dict, description="Parameters of every URL, as in `{api-version: 2024-10-21}`."
    )
    headers: Texts = Field(
        default_factory=dict,
        description="Headers of every request; `${NAME}` stands for an environment variable.",
    )
    auth_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = Field(
        "Authorization",
        description="Header with the key; `Authorization` sends it as a bearer token, other headers as it is.",
    )
    api_key_env: Variable | None = Field(
        "OPENAI_API_KEY", description="Environment variable with the key; null: no key."
    )
    omit: tuple[Parameter, ...] = Field(
        (), description="Sampling parameters that are not sent to this teacher; the endpoint uses its defaults."
    )


class OpenAITeacher(EndpointTeacher, _HostedTeacher):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["openai"]
    model: str = Field(description="The model's name at the endpoint.")
    base_url: Annotated[tuple[BaseUrl, ...], Field(min_length=1), BeforeValidator(_listed)] = Field(
        ("https://api.openai.com/v1",),
        description="The endpoint, including /v1, without user, password or query; or a list of replicas that "
        "serve the same model and share the work. The first one identifies the service in the store.",
    )
    extra_body: Annotated[dict[str, Any], AfterValidator(_own_fields), AfterValidator(_no_secrets)] = Field(
        default_factory=dict, description="Further fields of every request, as in `{reasoning_effort: low}`."
    )
    stream: bool | Literal["auto"] = Field(
        "auto", description="Request replies as streams; auto: only if the endpoint requires it."
    )


def _service_first(model: str) -> str:
    service, _, rest = model.partition("/")
    if not (service and rest) or any(c.isspace() for c in model):
        raise ValueError(
            f"'{model}' does not name a service; write service/model, as in anthropic/claude-sonnet-4-5, "
            "gemini/gemini-2.5-flash or bedrock/anthropic.claude-3-haiku-20240307-v1:0"
        )
    return model


def _arguments(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse arguments of the library that have their own settings, or that would bypass our retries and limits."""
    for name, inner in value.items():
        if name == "extra_body" and isinstance(inner, Mapping):
            _arguments(inner)
        if (place := {**_OWN_FIELDS, **_OWN_ARGUMENTS}.get(name)) is not None:
            raise ValueError(f"'{name}' is set elsewhere: {place}")
        if name.startswith(("mock_", "litellm_")) or "callback" in name or "fallback" in name or "retr" in name:
            raise ValueError(f"'{name}' is not allowed: one attempt is one request to the service, and TinyLLM retries")
    for name, _ in _named_as_secrets(value):
        raise ValueError(f"'{name}' looks like a key; keys are read from the environment alone: see `api_key_env`")
    return value


class LiteLLMTeacher(EndpointTeacher):
    """A model behind a service with its own protocol (Anthropic, Gemini, Bedrock, …), requested through litellm."""

    kind: Literal["litellm"]
    model: Annotated[str, AfterValidator(_service_first)] = Field(
        description="Service and model as litellm writes them: anthropic/claude-sonnet-4-5, gemini/gemini-2.5-flash, "
        "bedrock/anthropic.claude-3-haiku-20240307-v1:0."
    )
    form: Literal["chat"] = Field("chat", description="Chat messages.")
    base_url: BaseUrl | None = Field(
        None, description="Address of a proxy or local server, without user, password or query; null: the service's."
    )
    api_key_env: Variable | None = Field(
        None,
        description="Environment variable with the key; null: the service's own variables (ANTHROPIC_API_KEY, "
        "GEMINI_API_KEY, AWS_ACCESS_KEY_ID, …).",
    )
    omit: tuple[Parameter, ...] = Field(
        (), description="Sampling parameters that are not sent to this teacher; the service uses its defaults."
    )
    arguments: Annotated[dict[str, Any], AfterValidator(_arguments)] = Field(
        default_factory=dict,
        description="Further arguments of litellm's `acompletion`, as in `{reasoning_effort: low}` or "
        "`{aws_region_name: eu-central-1}`.",
    )


class OpenAIBatchTeacher(PromptedTeacher, _HostedTeacher):
    """A model behind the OpenAI Batch protocol: replies take hours instead of seconds and cost half."""

    kind: Literal["openai-batch"]
    model: str = Field(description="The model's name at the endpoint.")
    base_url: BaseUrl = Field("https://api.openai.com/v1", description="The endpoint, including /v1.")
    form: Form = Field("chat", description="Chat messages, or one plain text to complete.")
    requests_per_batch: int = Field(5000, ge=1, le=50_000, description="Requests in one batch.")
    poll_s: float = Field(30.0, gt=0, description="Seconds between two status requests for a batch.")
    max_attempts: int = Field(5, ge=1, description="Attempts per call, and batches per request.")


class LlamaCppTeacher(PromptedTeacher):
    """A GGUF model served in this process by llama.cpp."""

    kind: Literal["llamacpp"]
    model: str = Field(description="A packaged model (`tinyllm models list`), or the path of a .gguf file.")
    form: Form = Field("completion", description="Chat messages, or one plain text to complete.")
    slots: int | None = Field(None, ge=1, description="Parallel requests; null: depends on the machine.")
    threads: int | None = Field(None, ge=1, description="Processor threads; null: depends on the machine.")
    context_tokens: int = Field(2048, ge=128, description="Tokens of prompt and reply per slot.")
    gpu_layers: int = Field(0, ge=-1, description="Layers on the GPU; -1: all.")


class VllmTeacher(EndpointTeacher):
    """A model served on this machine by `vllm serve`. The server is started when it is needed, and then stopped."""

    kind: Literal["vllm"]
    model: str = Field(description="Hub name or folder.")
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    executable: str = Field("vllm", description="The command; give a path if vLLM has its own environment.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Type of the weights.")
    context_tokens: int | None = Field(None, ge=128, description="Longest prompt and reply; null: the model's.")
    arguments: tuple[str, ...] = Field(
        (),
        description="More arguments of `vllm serve`, as on its command line. Arguments about memory, scheduling, "
        "parallelism and logs (such as --gpu-memory-utilization) may change without new requests.",
    )
    start_s: float = Field(900.0, gt=0, description="Timeout until the server is healthy, in seconds.")
    timeout_s: float = Field(3600.0, gt=0, description="Timeout of one whole attempt; the machine may be slow.")


class TransformersTeacher(PromptedTeacher):
    """A model run in this process by transformers, in batches; causal or encoder-decoder."""

    kind: Literal["transformers"]
    model: str = Field(description="Hub name or folder.")
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    form: Form = Field("completion", description="Chat messages, or one plain text to complete.")
    batch_size: int = Field(8, ge=1, description="Prompts in one batch.")
    device: str | None = Field(None, description="cpu, cuda, cuda:1, mps; null: the best one.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Type of the weights.")


class GivenTeacher(_TeacherSection):
    """Rationales that come with the questions."""

    kind: Literal["given"]
    source: str | None = Field(None, description="Key in the questions' `rationales`; null: the teacher's name.")


def _two_folds(folds: int) -> int:
    if folds == 1:
        raise ValueError("1 fold leaves no questions to train on; write 2 or more, or 0 to ask the student itself")
    return folds


class StudentTeacher(_TeacherSection):
    """A trained student that gives opinions. It writes no rationales."""

    kind: Literal["student"]
    run: Path = Field(description="Folder of the run that trained it, or of the student itself.")
    folds: Annotated[int, Field(ge=0, le=100), AfterValidator(_two_folds)] = Field(
        5,
        description="Where it is asked about questions that it learnt from, so many students are trained in its place, "
        "each without the questions that it is asked. 0: it is asked itself, though it knows the answers.",
    )
    batch_size: int = Field(32, ge=1, description="Questions in one batch.")


class ScriptedTeacher(_TeacherSection):
    """A teacher that fills in a template, for tests and dry runs."""

    kind: Literal["scripted"]
    template: str = Field(
        "It is {answer}, because that is what {question} asks for.",
        description="Text with {question} and {answer} in it.",
    )


TeacherConfig = Annotated[
    OpenAITeacher
    | OpenAIBatchTeacher
    | LiteLLMTeacher
    | LlamaCppTeacher
    | VllmTeacher
    | TransformersTeacher
    | GivenTeacher
    | StudentTeacher
    | ScriptedTeacher,
    Field(discriminator="kind"),
]


class ExamplesSection(Section):
    """The in-context examples before the question in a teacher's prompt."""

    strategy: Literal["random", "similar", "diverse", "fixed", "none"] = Field(
        "random",
        description="Which training questions are shown: random ones (the paper), the most similar by BM25, similar "
        "ones that differ from each other, the same ones for all questions, or none.",
    )
    count: int = Field(2, ge=0, le=32, description="Examples per prompt.")
    worked: str | None = Field(
        "worked",
        description="Pick from the questions that have a rationale under this key, and show it; "
        "null, or none in the data: examples show only question, choices and answer.",
    )
    ids: tuple[str, ...] = Field((), description="Training questions to show, for `fixed`; empty: drawn by the seed.")
    scope: Literal["question", "block"] = Field(
        "question",
        description="Pick examples for each question, or for a block of consecutive questions. The prompts of a block "
        "begin alike, which is faster on servers with a prefix cache.",
    )
    block: int = Field(32, ge=2, description="Questions in a block; at most half of all questions.")
    seed: int = Field(0, description="Seed of the pick.")


class BudgetSection(Section):
    """Limits of what a run may spend in total, also if it is interrupted. Requests count before they are sent."""

    usd: float | None = Field(None, ge=0, description="US dollars, by the teachers' prices.")
    tokens: int | None = Field(None, ge=0, description="Tokens of prompts and replies.")
    hours: float | None = Field(None, ge=0, description="Hours of requests; requests already sent are awaited.")


SAMPLING_DEFAULTS: Mapping[str, float] = {"temperature": 0.7, "top_p": 0.95, "seed": 0}
"""The meaning of null in `rationales`, unless an endpoint does not accept the parameter."""


class RationalesSection(Section):
    """How rationales are requested, checked and stored."""

    examples: ExamplesSection = Field(default_factory=ExamplesSection, description="In-context examples.")
    teacher_forcing: bool = Field(True, description="Tell the teacher the right answer and ask why (the paper).")
    max_tokens: int = Field(
        256, ge=1, description="Longest rationale, in the teacher's tokens, without its `thinking_tokens`."
    )
    temperature: float | None = Field(
        None, ge=0, description="Sampling temperature; 0: greedy. null: 0.7, or none if an endpoint does not accept it."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Nucleus sampling. null: 0.95, or none if an endpoint does not accept it."
    )
    seed: int | None = Field(None, description="Sampling seed. null: 0, or none if an endpoint does not accept it.")
    samples: int = Field(
        3,
        ge=1,
        le=100,
        description="Attempts per question and teacher until a reply passes the checks; greedy: 1.",
    )
    several: int = Field(
        1,
        ge=1,
        le=100,
        description="Rationales that each teacher writes for a question (SCoTD), each with `samples` tries. Those that "
        "come with the questions are one.",
    )
    checks: tuple[CheckName, ...] = Field(
        get_args(CheckName),
        description="Checks that a rationale must pass; others are counted and left out.",
    )
    repair: bool = Field(
        True, description="Before the checks, cut a text after its last good sentence if it is cut off or runs on."
    )
    store: Path | None = Field(
        None,
        description="Database of replies; null: replies.sqlite beside the run folder (beside its target, if the "
        "folder is a symbolic link).",
    )
    pooled: bool = Field(
        False,
        description="Also explain questions without an answer, and those of `data.more`; a question without an answer "
        "is explained as if the pooled opinion (`train.soft`) were right, and its rationale is marked.",
    )
    budget: BudgetSection = Field(default_factory=BudgetSection, description="A hard limit on the spending.")
    engine: Literal["local", "ray"] = Field("local", description="Send requests from this process, or from Ray.")
    ray_address: str | None = Field(None, description="Address of a Ray cluster, or `auto`; null: Ray on this machine.")
    ray_workers: int = Field(1, ge=1, description="Workers per teacher; the workers of an endpoint share its limits.")

    @property
    def written(self) -> frozenset[str]:
        """The sampling parameters that the user has set."""
        return frozenset(name for name in SAMPLING_DEFAULTS if getattr(self, name) is not None)

    def sampling(self, name: Literal["temperature", "top_p", "seed"]) -> float:
        """Return a sampling parameter, or the meaning of null."""
        value: float | None = getattr(self, name)
        return SAMPLING_DEFAULTS[name] if value is None else value


def _ways(value: Any) -> Any:
    """Accept a list of teachers instead of a mapping from teacher to way."""
    return dict.fromkeys(value, "auto") if isinstance(value, list | tuple) else value


class OpinionsSection(Section):
    """What the teachers themselves would answer, asked without the answer: one probability per choice."""

    teachers: Annotated[dict[str, Way | Literal["auto"]], BeforeValidator(_ways)] = Field(
        default_factory=dict,
        description="Which teachers are asked, and how, as in `{qwen: letters, gpt: votes}`; a list of names: each in "
        "its best way. `letters`: log-probabilities of the choices' letters. `texts`: likelihood of the choices. "
        "`votes`: replies are counted. `given`: scores that come with the questions.",
    )
    splits: tuple[Literal["train", "valid"], ...] = Field(
        ("train",),
        min_length=1,
        description="The questions that are asked. Never the test questions. With `train.soft` also those of "
        "`data.more`, and the validation questions where weights or trust are learned on them.",
    )
    orders: int = Field(
        2,
        ge=1,
        le=24,
        description="Orders in which the choices are listed, for `letters` and `votes`; the mean over them removes a "
        "teacher's preference for a place.",
    )
    votes: int = Field(8, ge=1, le=100, description="Replies that are counted, for `votes`, over all orders.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of `votes`.")
    max_tokens: int = Field(16, ge=1, description="Longest reply of `votes`, without `thinking_tokens`.")
    seed: int = Field(0, ge=0, description="Seed of the orders and of `votes`.")


class LoraSection(Section):
    """Low-rank adapters."""

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(32, ge=1, description="Scale of the adapters, divided by the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters.")
    targets: tuple[str, ...] | None = Field(None, description="Names of modules; null: all linear ones, not the head.")


class PrefixesSection(Section):
    """The prefix p of each task (the paper's p_A and p_m)."""

    answer: str = Field("predict: ", description="Prefix of the answer task.")
    rationale: str = Field("explain as {teacher}: ", description="Prefix of a teacher's task; {teacher} is its name.")
    ordered: tuple[str, ...] = Field((), description="Prefixes of the first, second, … teacher; before `rationale`.")


class StudentSection(Section):
    """The small model that is trained."""

    model: str = Field(
        "google/flan-t5-small",
        description="Hub name, folder, .gguf file, a packaged model (`tinyllm models list`), or "
        "tiny-untrained, a tiny model with random weights, for dry runs.",
    )
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    adapter: Literal["full", "lora"] = Field("full", description="Train all weights, or low-rank adapters.")
    lora: LoraSection = Field(default_factory=LoraSection, description="Settings of `adapter: lora`.")
    prefixes: PrefixesSection = Field(default_factory=PrefixesSection, description="One prefix per task.")
    layout: Layout = Field(
        "labelled",
        description="The form of a question: with its choices (`labelled`; `release`: as in the authors' code), "
        "or without them (`cloze`), which is better for small causal students ranked by likelihood.",
    )


class SoftSection(Section):
    """Pooled opinions as targets: (1 - weight) · the right answer + weight · what the teachers think."""

    weight: float = Field(
        0.5, ge=0, le=1, description="Share of the pooled opinion where the answer is known; elsewhere it is all."
    )
    temperature: float = Field(1.0, gt=0, description="Of the pooled opinion: above 1 flatter, below 1 sharper.")
    teachers: Literal["pooled"] | dict[str, float] = Field(
        "pooled",
        description="Weights of the teachers: the pooled opinion is proportional to the product of theirs, each to the "
        "power of its weight. `pooled`: learned on the validation questions whose answer is known; of training "
        "questions where there are too few; else by how often the teachers agree.",
    )
    trust: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto",
        description="Questions without an answer are learnt where the pooled opinion gives one choice at least this "
        "probability. `auto`: decided on validation questions; without answers there, all are learnt.",
    )
    shuffle: bool = Field(
        False, description="A control: each question gets the pooled opinion on another one with as many choices."
    )


class TrainSection(Section):
    """What the student is trained on, and how."""

    method: Method = Field(
        "tinyllm",
        description="The mixture: which targets the student sees, with what weight. `auto` tries several settings of "
        "this section and keeps the student that does best on validation questions; see `auto`.",
    )
    answer: AnswerKind = Field(
        "text",
        description="How the answer is learnt: as a text to write (`text`), by comparing the choices as evaluation "
        "does (`choices`: cross-entropy of the softmax over their log-likelihoods), or by both, with equal weight.",
    )
    soft: SoftSection | None = Field(
        None,
        description="Learn from the teachers' opinions, too: on questions with an answer beside it, on others alone. "
        "With `answer: text` they only say what the answer of a question without one is. null: answers only.",
    )
    rationales: RationaleUse = Field(
        "target",
        description="What the student does with a rationale. `target`: it learns to write it, beside the answer (the "
        "paper). `before`: it learns to write it and then to answer, and does so when it is asked. `input`: it reads "
        "it with the question, less of it in each step, and nothing in the share `answers_only` (SKIntern).",
    )
    teacher: str | None = Field(None, description="The one teacher of `step-by-step`; null: the only one there is.")
    alpha: float | dict[str, float] = Field(
        1.0,
        description="α_m, the weight of each teacher's loss; one for all, or one per teacher; 0 leaves a teacher out.",
    )
    alpha_schedule: AlphaSchedule | dict[str, AlphaSchedule] = Field(
        "constant",
        description="How α_m changes during training: `constant`, or `linear` down to 0 (rationales first, answers "
        "last); one for all teachers, or one per teacher.",
    )
    answers_only: float = Field(
        0.0, ge=0, lt=1, description="Share of the steps, at the end, that train on answers only."
    )
    normalisation: Literal["tokens", "examples"] = Field(
        "examples",
        description="Each L is the mean over all target tokens of the batch, or over examples of the mean over tokens.",
    )
    learning_rate: float | None = Field(None, gt=0, description="Peak rate; null: 5e-5 for full, 2e-4 for lora.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Rate after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Optimizer steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradient clipping; 0: none.")
    batch_size: int = Field(16, ge=1, description="Questions in one optimizer step.")
    micro_batch_tokens: int = Field(
        2048,
        ge=16,
        description="Tokens in one forward pass, including the memory of attention. Changes memory, not results.",
    )
    max_input_tokens: int = Field(1024, ge=16, description="Longest input; only the context is cut to fit.")
    max_target_tokens: int = Field(
        256, ge=1, description="Longest target, in the student's tokens; longer ones are cut."
    )
    epochs: int = Field(1, ge=1, description="Passes over the training questions.")
    max_steps: int | None = Field(None, ge=1, description="Stop after this many optimizer steps.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Precision; bf16 and fp16 use autocast.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, more time.")
    compile: bool = Field(
        False, description="Compile the student's layers (torch.compile), for long training on a GPU."
    )
    validate_steps: int | None = Field(
        None,
        ge=1,
        description="Optimizer steps between two validations; null: no validation. The accuracy is by likelihood; with "
        "`student.layout: cloze` by likelihood per token.",
    )
    validate_questions: int = Field(200, ge=1, description="Maximum number of questions per validation.")
    patience: int | None = Field(
        None, ge=1, description="Stop after this many validations without improvement; null: never."
    )
    keep: Literal["last", "best"] = Field(
        "last", description="The student to keep: the last, or the best by validation accuracy (never by test)."
    )
    save_steps: int | None = Field(
        None, ge=1, description="Optimizer steps between checkpoints; null: every two minutes or so."
    )
    logging_steps: int = Field(1, ge=1, description="Optimizer steps between lines of the training log.")
    report_to: tuple[str, ...] = Field((), description="Loggers of transformers: tensorboard, wandb, mlflow, trackio…")
    seed: int = Field(0, ge=0, description="Seed of the order of questions, of dropout and of new weights.")


class AutoSection(Section):
    """The search of `train.method: auto`: successive halving on validation questions, never on test questions."""

    candidates: tuple[dict[str, Any], ...] = Field(
        (),
        description="Settings of `train` to try, each laid over that section, as in `[{answer: choices, epochs: 3}, "
        "{method: tinyllm, alpha: 0.1}]`; the method is fine-tuning where none is given. Empty: a list that goes by "
        "the teachers (`tinyllm check` shows it).",
    )
    rungs: int = Field(
        3, ge=1, le=6, description="Looks at the candidates: after each, the worse ones stop. The last ends a training."
    )
    keep: int = Field(
        3, ge=2, le=10, description="One in so many candidates goes on, with so many times the optimizer steps."
    )
    budget: float = Field(
        4.0,
        ge=1,
        description="Optimizer steps that the search may take in all, as a multiple of those of the longest candidate. "
        "The last candidates of the list are left out until it suffices.",
    )


class EvaluateSection(Section):
    """How the student is scored."""

    scorers: tuple[Literal["likelihood", "generation"], ...] = Field(
        ("likelihood", "generation"),
        min_length=1,
        description="Rank the choices by likelihood; generate the answer and match it.",
    )
    before: bool = Field(True, description="Score the untrained student too.")
    max_new_tokens: int = Field(
        48, ge=1, description="Longest generated answer, in tokens; at least as long as the longest choice."
    )
    batch_tokens: int = Field(4096, ge=16, description="Padded tokens in one forward pass.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Precision; bf16 uses autocast.")
    rationales: int = Field(8, ge=0, description="Test questions for which the student also writes rationales.")
    train_questions: int = Field(
        32, ge=0, description="Training questions that are answered for the report; they never count in a result."
    )
    max_rationale_tokens: int = Field(96, ge=1, description="Longest generated rationale.")


class Config(Section):
    """One run."""

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


# The defaults of the schemas are the paper's. `release` has the values that differ in the authors' released code.
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "paper": {},
    "release": {
        "rationales": {"checks": [], "repair": False},
        "student": {"layout": "release", "prefixes": {"answer": "predict: ", "ordered": ["explain: ", "rationale: "]}},
        "train": {"normalisation": "tokens", "batch_size": 64, "max_input_tokens": 100, "max_target_tokens": 256},
        "evaluate": {"scorers": ["generation"]},
    },
}


def compares_by_token(layout: Layout) -> bool:
    """Tell whether choices are compared by mean log-likelihood per token, or by the total (decisions 13 and 17).

    The total decreases with every token. A student that sees the choices knows which texts are possible, so the total
    is right. A student that does not see them would choose the shortest.
    """
    return layout == "cloze"


def teacher_weights(config: Config) -> dict[str, float]:
    """Return α_m of every teacher, in the order of `teachers`. A student writes no rationales, so its α is 0."""
    alpha = config.train.alpha
    return {
        t.name: 0.0 if t.kind == "student" else alpha[t.name] if isinstance(alpha, dict) else alpha
        for t in config.teachers
    }


def candidates_of(config: Config) -> tuple[Config, ...]:
    """Return the configurations among which `method: auto` chooses; of any other method its own alone.

    Raises:
        ValidationError: the settings of a candidate are none (`build_config` tells them before).
    """
    if config.train.method != "auto":
        return (config,)
    base = config.train.model_dump() | {"method": "fine-tuning"}
    patches = config.auto.candidates or _usual_candidates(config)
    return tuple(config.model_copy(update={"train": TrainSection.model_validate(base | p)}) for p in patches)


def _usual_candidates(config: Config) -> tuple[dict[str, Any], ...]:
    """Return settings worth a try, the most promising first: budgets cut the list from its end."""
    train = config.train
    rate = train.learning_rate or (2e-4 if config.student.adapter == "lora" else 5e-5)
    choices = {"method": "fine-tuning", "answer": "choices", "learning_rate": rate, "rationales": "target"}
    taught = [choices | {"method": "tinyllm"}] if any(teacher_weights(config).values()) else []
    soft = [] if train.soft is None else [choices | {"soft": train.soft.model_dump() | {"weight": 0}}]
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
    """Return the teachers that the method uses. Requests to others would be wasted money."""
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


def task_prefixes(prefixes: PrefixesSection, teachers: Sequence[str]) -> dict[str, str]:
    """Return the prefix of every task: p_A for answering, p_m for each teacher (the paper's notation)."""
    named = {ANSWER_TASK: prefixes.answer}
    for index, teacher in enumerate(teachers):
        ordered = prefixes.ordered[index] if index < len(prefixes.ordered) else None
        named[teacher] = prefixes.rationale.replace("{teacher}", teacher) if ordered is None else ordered
    return named


def ways_of(kind: str) -> tuple[Way, ...]:
    """Return the ways to ask a kind of teacher for its opinion, the best first."""
    ways: Mapping[str, tuple[Way, ...]] = {
        "openai": ("letters", "votes"), "llamacpp": ("letters", "votes"), "vllm": ("letters", "votes"),
        "transformers": ("texts", "letters", "votes"), "given": ("given",), "student": ("texts",),
    }  # fmt: skip
    return ways.get(kind, ("votes",))
