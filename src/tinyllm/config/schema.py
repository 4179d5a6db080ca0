"""What can be configured: one frozen schema a section; each field has a type, a default and a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

ANSWER_TASK = "answer"
"""The name of the task of answering; every other task bears the name of a teacher."""

CHOICES_TASK = "answer (choices)"
"""What logs and counts call answers that are learnt by comparing the choices; no teacher's name has a bracket."""

Preset = Literal["paper", "release"]
Method = Literal[
    "fine-tuning", "step-by-step", "tinyllm",
    "shuffled", "keywords",  # controls
    "one-random", "shortest", "similarity", "student-likelihood",  # routers
]  # fmt: skip
Form = Literal["chat", "completion"]
Layout = Literal["labelled", "release", "cloze"]
CheckName = Literal["refused", "empty", "cut_off", "runs_on", "repeats", "wrong_answer", "encoding"]
Way = Literal["letters", "texts", "votes", "given"]
AlphaSchedule = Literal["constant", "linear"]
AnswerKind = Literal["text", "choices", "both"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """Base of every section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FieldMap(Section):
    """Which column of a file holds what. Dots reach into nested columns (`choices.text`)."""

    id: str | None = Field(
        "id", description="Column of the question's name; rows without one are numbered; null: all are numbered."
    )
    question: str = Field("question", description="Column of the question's text.")
    context: str = Field("context", description="Column of the optional context.")
    choices: str | tuple[str, ...] = Field(
        "choices", description="Column that holds the list of choices, or a list of columns, one a choice."
    )
    answer: str | None = Field(
        "answer",
        description="Column of the answer; an empty cell or null: this question has no known answer. "
        "`answer: null`: none of them has one.",
    )
    answer_as: Literal["index", "number", "letter", "text", "label"] = Field(
        "index",
        description="How the answer is given: index (0 is the first choice), number (1 is the first), letter A…, "
        "the choice's text, or a label.",
    )
    no_answer: int | str | None = Field(
        None, description="What stands in the answer's column where the answer is not known, as -1; null: nothing does."
    )
    labels: str | None = Field(None, description="Column of the choices' labels, for `answer_as: label`.")
    rationales: str = Field("rationales", description="Column of rationales: a mapping from teacher to text.")
    opinions: str = Field(
        "opinions",
        description="Column of opinions: a mapping from teacher to one score a choice (weights, or log-probabilities "
        "where one is below 0).",
    )


class CutSection(Section):
    """A seeded cut of the training file into splits."""

    valid: float = Field(0.1, ge=0, lt=1, description="Share of the questions for validation.")
    test: float = Field(0.2, ge=0, lt=1, description="Share of the questions for testing.")
    seed: int = Field(0, description="Seed of the cut.")


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
    """Where the questions come from: a named dataset, a folder with one file a split, or files."""

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
    cut: CutSection | None = Field(None, description="Cut the missing splits from `train`; default 10 % and 20 %.")
    fields: FieldMap = Field(default_factory=FieldMap, description="Which column holds what.")
    choices: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="The same choices for every question: the classes, where texts are to be classified; "
        "null: each row has its own.",
    )
    question: str | None = Field(
        None,
        min_length=1,
        description="The same question for every row, as `Which class fits?`; the text in the question's column is "
        "then the context. null: each row has its own.",
    )
    limit: int | None = Field(None, ge=1, description="At most so many questions of each split.")
    on_invalid: Literal["error", "drop"] = Field("error", description="What to do about rows that are no questions.")
    more: Annotated[tuple[MoreSection, ...], BeforeValidator(_files)] = Field(
        (),
        description="More questions for training only, as in `[more.jsonl, {dataset: obqa}]`, with answers or without. "
        "Those that are the same as a validation or test question, or nearly, are left out and counted.",
    )


class _TeacherSection(Section):
    """What every kind of teacher has."""

    name: Name = Field(description="The teacher's name, used in `alpha`, files and reports.")


class PriceSection(Section):
    """What a teacher's tokens cost."""

    prompt: float = Field(ge=0, description="US dollars for a million prompt tokens.")
    completion: float = Field(ge=0, description="US dollars for a million tokens of replies.")
    cached: float | None = Field(
        None, ge=0, description="For a million prompt tokens found in a cache; null: as others."
    )


class PromptedTeacher(_TeacherSection):
    """What every kind of teacher that is asked with a prompt has."""

    stop: tuple[str, ...] = Field(("\n\n", "\nQuestion:"), description="Stop sequences of a completion prompt.")
    thinking_tokens: int | None = Field(
        None,
        ge=0,
        description="Tokens that its thoughts may take, added to `rationales.max_tokens`. A thought that fills them is "
        "asked for again with twice as many. null: none, until a thought of this teacher was cut off; then 4,096.",
    )
    price: PriceSection | None = Field(None, description="What its tokens cost; null: nothing.")
    tokenizer: str | None = Field(
        None, description="Hub name or folder of its tokenizer, to forecast with; null: its own, where it is at hand."
    )


def _listed(value: Any) -> Any:
    """One value may stand where a list of them may."""
    return (value,) if isinstance(value, str) else value


def _texts(value: Any) -> Any:
    """YAML takes `2024-10-21` for a date and `1` for a number; as values of a URL or a header they are texts."""
    if not isinstance(value, Mapping):
        return value
    return {name: _as_text(v) for name, v in value.items()}


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float | date) else value


def _no_secrets(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse keys that stand in the configuration, at any depth: it is copied into run folders."""
    for name, text in _named_as_secrets(value):
        if "${" not in text:
            raise ValueError(
                f"'{name}' looks like a key; keys are read from the environment alone: write the name of a variable, "
                f"`{name}: ${{MY_KEY}}`, and set it (export MY_KEY=…)"
            )
    return value


def _named_as_secrets(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts whose names say that they are secret, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str) and inner and _SECRET.search(str(name)):
                yield str(name), inner
            yield from _named_as_secrets(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named_as_secrets(inner)


def _own_fields(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse fields of a request that other settings stand for."""
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
    """Refuse an address that nothing can be sent to; its text is not repeated, since a key may be pasted into it."""
    import yarl  # what sends the requests understands addresses by

    try:
        parsed = yarl.URL(url)
        host = parsed.raw_host or ""
        host.encode("idna")
    except (ValueError, TypeError):  # also UnicodeError: no host may have such a name
        host, parsed = "", None
    if parsed is None or not re.fullmatch(_HOST, host) or not parsed.port:
        raise PydanticCustomError("address", "its host must be a name or an address, and its port 1 to 65535")
    return url


BaseUrl = Annotated[str, Field(pattern=r"^https?://[^@?#\s]+$"), AfterValidator(_reachable)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class EndpointTeacher(PromptedTeacher):
    """How fast and how patiently an endpoint is asked."""

    form: Form = Field("chat", description="Chat messages, or one plain text to complete.")
    concurrency: int | None = Field(
        None, ge=1, description="Requests in flight at once; null: what the endpoint bears."
    )
    requests_per_minute: float | None = Field(None, gt=0, description="Requests begun in a minute; null: any number.")
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Tokens of prompts and replies in a minute; null: any number."
    )
    connect_s: float = Field(10.0, gt=0, description="Seconds for a connection.")
    first_byte_s: float | None = Field(None, gt=0, description="Seconds until a reply begins; null: as `timeout_s`.")
    stall_s: float = Field(30.0, gt=0, description="Seconds in which a reply that has begun may stand still.")
    timeout_s: float = Field(120.0, gt=0, description="Seconds for one whole attempt.")
    max_attempts: int = Field(5, ge=1, description="Attempts a request gets; a rate limit is not an attempt.")


class _HostedTeacher(Section):
    """What a service may want besides the protocol. `${NAME}` stands for a variable of the environment."""

    query: Texts = Field(
        default_factory=dict, description="Parameters of every URL, as in `{api-version: 2024-10-21}`."
    )
    headers: Texts = Field(
        default_factory=dict,
        description="Headers of every request; `${NAME}` stands for a variable of the environment.",
    )
    auth_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = Field(
        "Authorization",
        description="Header that holds the key; `Authorization` holds it as a bearer token, others bare.",
    )
    api_key_env: Variable | None = Field(
        "OPENAI_API_KEY", description="Environment variable with the key; null: no key."
    )
    omit: tuple[Parameter, ...] = Field(
        (), description="Sampling parameters that are not sent to this teacher; the endpoint's own defaults then hold."
    )


class OpenAITeacher(EndpointTeacher, _HostedTeacher):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["openai"]
    model: str = Field(description="The model's name at the endpoint.")
    base_url: Annotated[tuple[BaseUrl, ...], Field(min_length=1), BeforeValidator(_listed)] = Field(
        ("https://api.openai.com/v1",),
        description="The endpoint, up to and with /v1, no user, password or query in it; or a list of replicas that "
        "serve the same model and share the work. The first names the service in the store.",
    )
    extra_body: Annotated[dict[str, Any], AfterValidator(_own_fields), AfterValidator(_no_secrets)] = Field(
        default_factory=dict, description="Further fields of every request, as in `{reasoning_effort: low}`."
    )
    stream: bool | Literal["auto"] = Field(
        "auto", description="Ask for replies as streams; auto: where the endpoint gives no others."
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
    """Refuse arguments of the library that other settings stand for, or that would work around ours."""
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
    """A model behind a service with a protocol of its own (Anthropic, Gemini, Bedrock, …), asked through litellm."""

    kind: Literal["litellm"]
    model: Annotated[str, AfterValidator(_service_first)] = Field(
        description="Service and model as litellm writes them: anthropic/claude-sonnet-4-5, gemini/gemini-2.5-flash, "
        "bedrock/anthropic.claude-3-haiku-20240307-v1:0."
    )
    form: Literal["chat"] = Field("chat", description="Chat messages.")
    base_url: BaseUrl | None = Field(
        None, description="Address of a proxy or a local server, no user, password or query in it; null: the service's."
    )
    api_key_env: Variable | None = Field(
        None,
        description="Environment variable with the key; null: the service's own variables (ANTHROPIC_API_KEY, "
        "GEMINI_API_KEY, AWS_ACCESS_KEY_ID, …).",
    )
    omit: tuple[Parameter, ...] = Field(
        (), description="Sampling parameters that are not sent to this teacher; the service's own defaults then hold."
    )
    arguments: Annotated[dict[str, Any], AfterValidator(_arguments)] = Field(
        default_factory=dict,
        description="Further arguments of litellm's `acompletion`, as in `{reasoning_effort: low}` or "
        "`{aws_region_name: eu-central-1}`.",
    )


class OpenAIBatchTeacher(PromptedTeacher, _HostedTeacher):
    """A model behind the OpenAI Batch protocol: hours instead of seconds, at half the price."""

    kind: Literal["openai-batch"]
    model: str = Field(description="The model's name at the endpoint.")
    base_url: BaseUrl = Field("https://api.openai.com/v1", description="The endpoint, up to and with /v1.")
    form: Form = Field("chat", description="Chat messages, or one plain text to complete.")
    requests_per_batch: int = Field(5000, ge=1, le=50_000, description="Requests in one batch.")
    poll_s: float = Field(30.0, gt=0, description="Seconds between two looks at a batch.")
    max_attempts: int = Field(5, ge=1, description="Attempts of each call, and batches that a request may be part of.")


class LlamaCppTeacher(PromptedTeacher):
    """A GGUF model served in this process by llama.cpp."""

    kind: Literal["llamacpp"]
    model: str = Field(description="A packaged model (`tinyllm models list`), or the path of a .gguf file.")
    form: Form = Field("completion", description="Chat messages, or one plain text to complete.")
    slots: int | None = Field(None, ge=1, description="Requests worked on at once; null: what suits the machine.")
    threads: int | None = Field(None, ge=1, description="Processor threads; null: what suits the machine.")
    context_tokens: int = Field(2048, ge=128, description="Tokens of prompt and reply that each slot holds.")
    gpu_layers: int = Field(0, ge=-1, description="Layers on the GPU; -1: all.")


class VllmTeacher(EndpointTeacher):
    """A model served on this machine by `vllm serve`, which is started when it is needed and stopped again."""

    kind: Literal["vllm"]
    model: str = Field(description="Hub name or folder.")
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    executable: str = Field("vllm", description="The command; give a path where vLLM has an environment of its own.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Type of the weights.")
    context_tokens: int | None = Field(None, ge=128, description="Longest prompt and reply; null: the model's.")
    arguments: tuple[str, ...] = Field(
        (),
        description="More arguments of `vllm serve`, as they are written there. Those of memory, scheduling, "
        "parallelism and logs (such as --gpu-memory-utilization) may change without asking again.",
    )
    start_s: float = Field(900.0, gt=0, description="Seconds until the server must be healthy.")
    timeout_s: float = Field(3600.0, gt=0, description="Seconds for one whole attempt; a slow machine is no failure.")


class TransformersTeacher(PromptedTeacher):
    """A model run in this process by transformers, in batches; causal or encoder-decoder."""

    kind: Literal["transformers"]
    model: str = Field(description="Hub name or folder.")
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    form: Form = Field("completion", description="Chat messages, or one plain text to complete.")
    batch_size: int = Field(8, ge=1, description="Prompts in one batch.")
    device: str | None = Field(None, description="cpu, cuda, cuda:1, mps; null: the best there is.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Type of the weights.")


class GivenTeacher(_TeacherSection):
    """Rationales that come with the questions."""

    kind: Literal["given"]
    source: str | None = Field(None, description="Key in the questions' `rationales`; null: the teacher's name.")


class StudentTeacher(_TeacherSection):
    """A student that was trained before, asked for its opinions; it writes no rationales."""

    kind: Literal["student"]
    run: Path = Field(description="Folder of the run that trained it, or of the student itself.")
    batch_size: int = Field(32, ge=1, description="Questions in one batch.")


class ScriptedTeacher(_TeacherSection):
    """A teacher that fills in a template; for tests and dry runs."""

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
    """The in-context example generator: what stands before the question in a teacher's prompt."""

    strategy: Literal["random", "similar", "diverse", "fixed", "none"] = Field(
        "random",
        description="Which training questions are shown: any (the paper), the nearest by BM25, near ones that differ "
        "from each other, the same for all, or none.",
    )
    count: int = Field(2, ge=0, le=32, description="Examples per prompt.")
    worked: str | None = Field(
        "worked",
        description="Pick among questions that carry a rationale under this key, and show it; "
        "null, or none in the data: examples show question, choices and answer only.",
    )
    ids: tuple[str, ...] = Field((), description="Training questions to show, for `fixed`; empty: drawn by the seed.")
    scope: Literal["question", "block"] = Field(
        "question",
        description="Pick for each question, or for a block of consecutive ones: their prompts then begin alike, "
        "which the prefix caches of servers turn into speed.",
    )
    block: int = Field(32, ge=2, description="Questions in a block; at most half of those there are.")
    seed: int = Field(0, description="Seed of the pick.")


class BudgetSection(Section):
    """What a run may spend, over all its interruptions; requests in flight are counted before they are sent."""

    usd: float | None = Field(None, ge=0, description="US dollars, by the teachers' prices.")
    tokens: int | None = Field(None, ge=0, description="Tokens of prompts and replies.")
    hours: float | None = Field(None, ge=0, description="Hours of asking; what is in flight then is awaited.")


SAMPLING_DEFAULTS: Mapping[str, float] = {"temperature": 0.7, "top_p": 0.95, "seed": 0}
"""What null stands for in `rationales`, unless an endpoint takes none."""


class RationalesSection(Section):
    """How rationales are asked for, checked and kept."""

    examples: ExamplesSection = Field(default_factory=ExamplesSection, description="In-context examples.")
    teacher_forcing: bool = Field(True, description="Tell the teacher the right answer and ask why (the paper).")
    max_tokens: int = Field(
        256, ge=1, description="Longest rationale, in the teacher's tokens; a teacher's `thinking_tokens` are added."
    )
    temperature: float | None = Field(
        None, ge=0, description="Sampling temperature; 0: greedy. null: 0.7, or none where an endpoint takes none."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Nucleus sampling. null: 0.95, or none where an endpoint takes none."
    )
    seed: int | None = Field(None, description="Sampling seed. null: 0, or none where an endpoint takes none.")
    samples: int = Field(
        3,
        ge=1,
        le=100,
        description="How often a question is put to a teacher until a reply passes the checks; greedy: once.",
    )
    checks: tuple[CheckName, ...] = Field(
        get_args(CheckName), description="Checks that a rationale must pass; a failing one is counted and left out."
    )
    repair: bool = Field(
        True, description="Cut a text that stops mid-sentence or runs on after its last good sentence, before checking."
    )
    store: Path | None = Field(
        None,
        description="Database of replies; null: replies.sqlite beside the run folder (beside its target, where the "
        "folder is a symbolic link).",
    )
    pooled: bool = Field(
        False,
        description="Also explain questions without an answer, and those of `data.more`; a question without an answer "
        "is explained as if the pooled opinion (`train.soft`) were right, and its rationale is marked.",
    )
    budget: BudgetSection = Field(default_factory=BudgetSection, description="A hard cap on what is spent.")
    engine: Literal["local", "ray"] = Field("local", description="Ask from this process, or over a Ray cluster.")
    ray_address: str | None = Field(None, description="Of a running Ray cluster (`auto`); null: Ray on this machine.")
    ray_workers: int = Field(1, ge=1, description="Workers of each teacher; those of an endpoint share its limits.")

    @property
    def written(self) -> frozenset[str]:
        """The sampling parameters that a person has set."""
        return frozenset(name for name in SAMPLING_DEFAULTS if getattr(self, name) is not None)

    def sampling(self, name: Literal["temperature", "top_p", "seed"]) -> float:
        """Return a sampling parameter, or what null stands for."""
        value: float | None = getattr(self, name)
        return SAMPLING_DEFAULTS[name] if value is None else value


def _ways(value: Any) -> Any:
    """A list of teachers may stand where a mapping from teacher to way may."""
    return dict.fromkeys(value, "auto") if isinstance(value, list | tuple) else value


class OpinionsSection(Section):
    """What the teachers themselves would answer, asked without the answer: one probability a choice."""

    teachers: Annotated[dict[str, Way | Literal["auto"]], BeforeValidator(_ways)] = Field(
        default_factory=dict,
        description="Who is asked, and how, as in `{qwen: letters, gpt: votes}`; a list of names asks each in the best "
        "way it has. `letters`: log-probabilities of the choices' letters. `texts`: likelihood of the choices' texts. "
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
        description="Orders in which the choices are listed, for `letters` and `votes`; the mean over them takes out "
        "that a teacher prefers a place.",
    )
    votes: int = Field(8, ge=1, le=100, description="Replies that are counted, for `votes`, over all orders.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of `votes`.")
    max_tokens: int = Field(16, ge=1, description="Longest reply of `votes`; a teacher's `thinking_tokens` are added.")
    seed: int = Field(0, ge=0, description="Seed of the orders and of `votes`.")


class LoraSection(Section):
    """Low-rank adapters."""

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(32, ge=1, description="Scale of the adapters, divided by the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters.")
    targets: tuple[str, ...] | None = Field(None, description="Names of modules; null: all linear ones but the head.")


class PrefixesSection(Section):
    """The prefix p that names the task, one a task (the paper's p_A and p_m)."""

    answer: str = Field("predict: ", description="Prefix of the task of answering.")
    rationale: str = Field("explain as {teacher}: ", description="Prefix of a teacher's task; {teacher} is its name.")
    ordered: tuple[str, ...] = Field((), description="Prefixes of the first, second, … teacher, instead.")


class StudentSection(Section):
    """The small model that learns."""

    model: str = Field(
        "google/flan-t5-small",
        description="Hub name, folder, .gguf file, a packaged model (`tinyllm models list`), or "
        "tiny-untrained, which is made here and knows nothing, for dry runs.",
    )
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    adapter: Literal["full", "lora"] = Field("full", description="Train all weights, or low-rank adapters.")
    lora: LoraSection = Field(default_factory=LoraSection, description="Settings of `adapter: lora`.")
    prefixes: PrefixesSection = Field(default_factory=PrefixesSection, description="One prefix a task.")
    layout: Layout = Field(
        "labelled",
        description="How a question is written out: with its choices (`labelled`; `release`: as the authors' code), "
        "or without them (`cloze`), which suits small causal students ranked by likelihood.",
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
    """What is learnt from what, and how."""

    method: Method = Field("tinyllm", description="The mixture: which targets the student sees, with what weight.")
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
    teacher: str | None = Field(None, description="The one teacher of `step-by-step`; null: the only one there is.")
    alpha: float | dict[str, float] = Field(
        1.0,
        description="α_m, the weight of each teacher's loss; one number for all, or one a teacher; 0 leaves it out.",
    )
    alpha_schedule: AlphaSchedule | dict[str, AlphaSchedule] = Field(
        "constant",
        description="How α_m goes over the training: `constant`, or `linear` down to 0 (rationales first, answers "
        "last); one for all teachers, or one a teacher.",
    )
    answers_only: float = Field(
        0.0, ge=0, lt=1, description="Share of the steps, at the end, in which nothing but answers is learnt."
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
        description="Tokens in one forward pass, attention's memory counted in: memory, not meaning.",
    )
    max_input_tokens: int = Field(1024, ge=16, description="Longest input; the context is cut to fit, nothing else.")
    max_target_tokens: int = Field(256, ge=1, description="Longest target, in the student's tokens; the rest is cut.")
    epochs: int = Field(1, ge=1, description="Passes over the training questions.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many optimizer steps.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Arithmetic; bf16 and fp16 are autocast.")
    gradient_checkpointing: bool = Field(False, description="Trade time for memory.")
    compile: bool = Field(
        False, description="Compile the student's layers (torch.compile): for long trainings on a GPU."
    )
    validate_steps: int | None = Field(
        None,
        ge=1,
        description="Optimizer steps between two looks at the accuracy on validation questions; null: none. "
        "By likelihood; with `student.layout: cloze` by likelihood a token.",
    )
    validate_questions: int = Field(200, ge=1, description="At most so many validation questions a look.")
    patience: int | None = Field(
        None, ge=1, description="Stop after so many looks in a row that were no better; null: never."
    )
    keep: Literal["last", "best"] = Field(
        "last", description="The student to keep: the last, or the best by validation accuracy (never by test)."
    )
    save_steps: int | None = Field(
        None, ge=1, description="Optimizer steps between checkpoints; null: about two minutes."
    )
    logging_steps: int = Field(1, ge=1, description="Optimizer steps between lines of the training log.")
    report_to: tuple[str, ...] = Field((), description="Loggers of transformers: tensorboard, wandb, mlflow, trackio…")
    seed: int = Field(0, ge=0, description="Seed of the order of questions, of dropout and of new weights.")


class EvaluateSection(Section):
    """How the student is scored."""

    scorers: tuple[Literal["likelihood", "generation"], ...] = Field(
        ("likelihood", "generation"),
        min_length=1,
        description="Rank the choices by likelihood; generate the answer and match it.",
    )
    before: bool = Field(True, description="Score the untrained student too.")
    max_new_tokens: int = Field(
        48, ge=1, description="Longest generated answer, in tokens; where a choice is longer, as long as that."
    )
    batch_tokens: int = Field(4096, ge=16, description="Padded tokens in one forward pass.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic; bf16 is autocast.")
    rationales: int = Field(8, ge=0, description="Test questions for which the student also writes its rationales.")
    train_questions: int = Field(
        32, ge=0, description="Training questions answered too, so that the report can show them; never in a figure."
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
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection)


SPEED_ONLY = frozenset({
    "micro_batch_tokens", "gradient_checkpointing", "compile", "save_steps", "logging_steps", "report_to",
    "concurrency", "requests_per_minute", "tokens_per_minute", "connect_s", "first_byte_s", "stall_s", "timeout_s",
    "max_attempts", "requests_per_batch", "poll_s", "slots", "threads", "gpu_layers", "batch_tokens", "api_key_env",
    "price", "tokenizer", "budget", "engine", "headers", "auth_header", "stream", "ray_address", "ray_workers",
    "executable", "start_s", "store",
})  # fmt: skip
"""Names of settings that do not change what comes out; a run may be continued with other ones."""

# The schemas' own defaults are the paper's; this is what the authors' released code does otherwise.
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
    """Whether choices are compared by their mean log-likelihood a token, else by the total (decisions 13 and 17).

    A total falls with every token. A student that is shown the choices knows which texts are possible, so that this is
    right; one that is not shown them would take the shortest.
    """
    return layout == "cloze"


def teacher_weights(config: Config) -> dict[str, float]:
    """Return α_m of every teacher, in the order of `teachers`; a student writes no rationales, so its α is 0."""
    alpha = config.train.alpha
    return {
        t.name: 0.0 if t.kind == "student" else alpha[t.name] if isinstance(alpha, dict) else alpha
        for t in config.teachers
    }


def teachers_in_use(config: Config) -> tuple[TeacherConfig, ...]:
    """Return the teachers that the method learns from: asking another one would be money for nothing."""
    train = config.train
    if train.method == "fine-tuning":
        return ()
    if train.method == "step-by-step" and train.teacher is not None:
        return tuple(t for t in config.teachers if t.name == train.teacher)
    weights = teacher_weights(config)
    return tuple(t for t in config.teachers if weights[t.name] > 0)


def prefixes_in_use(config: Config) -> dict[str, str]:
    """Return the prefix of each task that the student learns; a teacher's does not depend on who else is in use."""
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
    """Return the ways in which a kind of teacher can be asked for its opinion; the best one first."""
    ways: Mapping[str, tuple[Way, ...]] = {
        "openai": ("letters", "votes"), "llamacpp": ("letters", "votes"), "vllm": ("letters", "votes"),
        "transformers": ("texts", "letters", "votes"), "given": ("given",), "student": ("texts",),
    }  # fmt: skip
    return ways.get(kind, ("votes",))
