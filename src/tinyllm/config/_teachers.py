"""`teachers`: one class for each kind of teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tinyllm.config._teacher_types import (
    BaseUrl,
    Texts,
    Variable,
    litellm_arguments,
    no_secrets,
    own_fields,
    service_first,
)
from tinyllm.config.section import Name, Section

Form = Literal["chat", "completion"]
Parameter = Literal["temperature", "top_p", "seed", "stop"]


class _TeacherSection(Section):
    """Settings of every kind of teacher."""

    name: Name = Field(description="The teacher's name, used in `alpha`, files and reports.")


class PriceSection(Section):
    """Prices of a teacher's tokens."""

    prompt: float = Field(ge=0, description="US dollars per million prompt tokens.")
    completion: float = Field(ge=0, description="US dollars per million tokens of replies.")
    cached: float | None = Field(None, ge=0, description="US dollars per million cached prompt tokens. null: `prompt`.")


class PromptedTeacher(_TeacherSection):
    """Settings of every kind of teacher that gets a prompt."""

    stop: tuple[str, ...] = Field(("\n\n", "\nQuestion:"), description="Stop sequences, for `form: completion`.")
    thinking_tokens: int | None = Field(
        None,
        ge=0,
        description="Token limit for the model's thinking, added to `rationales.max_tokens`. If the thinking reaches "
        "the limit, the request is sent again with twice the limit. null: 0, or 4,096 after the thinking of this "
        "teacher was cut off.",
    )
    price: PriceSection | None = Field(None, description="Prices of the teacher's tokens. null: free.")
    tokenizer: str | None = Field(
        None,
        description="Hub name or folder of the tokenizer that counts tokens for forecasts. null: the model's own, if "
        "it is available.",
    )


def _listed(value: Any) -> Any:
    """Accept a single value instead of a list."""
    return (value,) if isinstance(value, str) else value


class EndpointTeacher(PromptedTeacher):
    """Rate limits and timeouts of an endpoint. They are also settings of each kind of teacher that is asked there."""

    form: Form = Field("chat", description="Send chat messages, or one plain text to complete.")
    concurrency: int | None = Field(
        None,
        ge=1,
        description="Maximum number of parallel requests. null: as many as the endpoint can handle, found by trying.",
    )
    requests_per_minute: float | None = Field(
        None, gt=0, description="Maximum number of requests per minute. null: no limit."
    )
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Maximum number of prompt and reply tokens per minute. null: no limit."
    )
    connect_s: float = Field(10.0, gt=0, description="Timeout for connecting, in seconds.")
    first_byte_s: float | None = Field(
        None, gt=0, description="Timeout until the reply begins, in seconds. null: `timeout_s`."
    )
    stall_s: float = Field(30.0, gt=0, description="Timeout between two parts of a reply, in seconds.")
    timeout_s: float = Field(
        600.0,
        gt=0,
        description="Timeout of one attempt, from sending to the end of the reply, in seconds. Many services bill an "
        "attempt that was not waited for.",
    )
    max_attempts: int = Field(
        5,
        ge=1,
        description="Maximum number of attempts per request. An attempt that meets a rate limit does not count. "
        "Up to as many attempts that meet an overload (503, 504, 529) do not count while the number of parallel "
        "requests goes down.",
    )


class _HostedTeacher(Section):
    """Settings of a hosted service: URL parameters, headers and the API key. `${NAME}` stands for an environment
    variable.
    """

    query: Texts = Field(
        default_factory=dict, description="Query parameters of every URL, as in `{api-version: 2024-10-21}`."
    )
    headers: Texts = Field(
        default_factory=dict,
        description="Headers of every request. `${NAME}` stands for an environment variable.",
    )
    auth_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = Field(
        "Authorization",
        description="Header that holds the API key. `Authorization` sends it as a bearer token. Any other header "
        "holds the key alone.",
    )
    api_key_env: Variable | None = Field(
        "OPENAI_API_KEY", description="Environment variable that holds the API key. null: no key."
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
        description="Address of the endpoint, including /v1, without user, password or query; or a list of replicas "
        "that serve the same model. Requests are spread over the replicas. The first address identifies the service "
        "in the store.",
    )
    extra_body: Annotated[dict[str, Any], AfterValidator(own_fields), AfterValidator(no_secrets)] = Field(
        default_factory=dict, description="Additional fields of every request, as in `{reasoning_effort: low}`."
    )
    stream: bool | Literal["auto"] = Field(
        "auto", description="Request replies as streams. auto: only if the endpoint requires it."
    )


class LiteLLMTeacher(EndpointTeacher):
    """A model behind a service with its own protocol (Anthropic, Gemini, Bedrock, …), requested through litellm."""

    kind: Literal["litellm"]
    model: Annotated[str, AfterValidator(service_first)] = Field(
        description="Service and model as litellm writes them: anthropic/claude-sonnet-4-5, gemini/gemini-2.5-flash, "
        "bedrock/anthropic.claude-3-haiku-20240307-v1:0."
    )
    form: Literal["chat"] = Field("chat", description="Chat messages.")
    base_url: BaseUrl | None = Field(
        None,
        description="Address of a proxy or local server, without user, password or query. null: the service's own.",
    )
    api_key_env: Variable | None = Field(
        None,
        description="Environment variable that holds the API key. null: the service's own variables "
        "(ANTHROPIC_API_KEY, GEMINI_API_KEY, AWS_ACCESS_KEY_ID, …).",
    )
    omit: tuple[Parameter, ...] = Field(
        (), description="Sampling parameters that are not sent to this teacher; the service uses its defaults."
    )
    arguments: Annotated[dict[str, Any], AfterValidator(litellm_arguments)] = Field(
        default_factory=dict,
        description="Additional arguments of litellm's `acompletion`, as in `{reasoning_effort: low}` or "
        "`{aws_region_name: eu-central-1}`.",
    )


class OpenAIBatchTeacher(PromptedTeacher, _HostedTeacher):
    """A model behind the OpenAI Batch protocol. Replies cost half the price, but take hours instead of seconds."""

    kind: Literal["openai-batch"]
    model: str = Field(description="The model's name at the endpoint.")
    base_url: BaseUrl = Field(
        "https://api.openai.com/v1",
        description="Address of the endpoint, including /v1, without user, password or query.",
    )
    form: Form = Field("chat", description="Send chat messages, or one plain text to complete.")
    requests_per_batch: int = Field(5000, ge=1, le=50_000, description="Maximum number of requests in one batch.")
    poll_s: float = Field(30.0, gt=0, description="Seconds between two status requests for a batch.")
    max_attempts: int = Field(
        5, ge=1, description="Maximum number of attempts per call, and of batches in which a request is sent."
    )


class LlamaCppTeacher(PromptedTeacher):
    """A GGUF model served in this process by llama.cpp."""

    kind: Literal["llamacpp"]
    model: str = Field(description="A packaged model (`tinyllm models list`), or the path of a .gguf file.")
    form: Form = Field("completion", description="Send chat messages, or one plain text to complete.")
    slots: int | None = Field(
        None, ge=1, description="Number of parallel requests. null: chosen by the number of cores and the free memory."
    )
    threads: int | None = Field(None, ge=1, description="Number of processor threads. null: the number of cores.")
    context_tokens: int = Field(
        2048, ge=128, description="Context length of one slot: tokens of prompt and reply together."
    )
    gpu_layers: int = Field(0, ge=-1, description="Number of layers on the GPU. -1: all.")


class VllmTeacher(EndpointTeacher):
    """A model served on this machine by `vllm serve`. TinyLLM starts the server when it is needed, and stops it
    afterwards.
    """

    kind: Literal["vllm"]
    model: str = Field(description="Hub name or folder.")
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    executable: str = Field("vllm", description="The vLLM command. Give a path if vLLM has an environment of its own.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Data type of the weights.")
    context_tokens: int | None = Field(
        None, ge=128, description="Context length: tokens of prompt and reply together. null: the model's."
    )
    arguments: tuple[str, ...] = Field(
        (),
        description="Additional arguments of `vllm serve`, as on its command line. If arguments about memory, "
        "scheduling, parallelism or logs (such as --gpu-memory-utilization) change, stored replies are still used.",
    )
    start_s: float = Field(900.0, gt=0, description="Timeout until the server answers, in seconds.")
    timeout_s: float = Field(
        3600.0, gt=0, description="Timeout of one attempt, in seconds. It is long, because the machine may be slow."
    )


class TransformersTeacher(PromptedTeacher):
    """A causal or encoder-decoder model that transformers runs in this process, in batches."""

    kind: Literal["transformers"]
    model: str = Field(description="Hub name or folder.")
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    form: Form = Field("completion", description="Give the model chat messages, or one plain text to complete.")
    batch_size: int = Field(8, ge=1, description="Prompts in one batch.")
    device: str | None = Field(None, description="cpu, cuda, cuda:1 or mps. null: the best one available.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Data type of the weights.")


class GivenTeacher(_TeacherSection):
    """Rationales that come with the questions."""

    kind: Literal["given"]
    source: str | None = Field(
        None, description="The teacher's key in the questions' `rationales` and `opinions`. null: the teacher's name."
    )


def _two_folds(folds: int) -> int:
    if folds == 1:
        raise ValueError("1 fold leaves no questions to train on; write 2 or more, or 0 to ask the student itself")
    return folds


class StudentTeacher(_TeacherSection):
    """A trained student that gives opinions on questions. It writes no rationales."""

    kind: Literal["student"]
    run: Path = Field(description="Folder of the run that trained the student, or of the student itself.")
    folds: Annotated[int, Field(ge=0, le=100), AfterValidator(_two_folds)] = Field(
        5,
        description="Number of folds of the questions that the student learnt from. For each fold, a new student is "
        "trained without the questions of the fold, and gives the opinions on them. 0: the student gives opinions on "
        "all questions, although it has learnt some of the answers.",
    )
    batch_size: int = Field(32, ge=1, description="Questions in one batch.")


class ScriptedTeacher(_TeacherSection):
    """A teacher that fills in a template. It is for tests and dry runs."""

    kind: Literal["scripted"]
    template: str = Field(
        "It is {answer}, because that is what {question} asks for.",
        description="Text of a rationale. {question} and {answer} are replaced.",
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
