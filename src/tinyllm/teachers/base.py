"""The interface of all teachers: what is asked, what comes back, and what every kind of teacher must offer.

A teacher is an asynchronous context manager with one method, `ask`. Entering it starts a server, loads a model or opens
connections; leaving it stops them again. `ask` may run concurrently, at most `concurrency` times. The scheduler
(`rationales`) decides how often and how fast a teacher is asked, and what it may cost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, runtime_checkable

from tinyllm.config import Form
from tinyllm.prompts import Prompt
from tinyllm.questions import Question
from tinyllm.teachers.manners import Manners, SentForm

FinishReason = Literal["stop", "length", "content_filter", "refusal", "unknown"]
FailureReason = Literal["failed", "too_long", "content_filter", "bad_request"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters that are sent. None: not sent, so the endpoint's default applies.

    Attributes:
        max_tokens: the longest reply in the teacher's tokens, including thoughts.
    """

    max_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One question for one teacher.

    Attributes:
        options: texts that may follow the prompt. If given, their log-probabilities are requested instead of a reply.
            Endpoints return those of the most likely first tokens, so each option needs a different first token.
    """

    question_id: str
    prompt: Prompt
    sampling: Sampling
    sample: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A teacher's unchanged output, including thoughts and markup. Token counts are None if not reported.

    Attributes:
        completion_tokens: all tokens that are billed as output, including thoughts.
        latency_s: seconds from sending the request to the complete reply, for the successful attempt.
        cached_tokens: the prompt tokens that were in the server's prefix cache.
        thinking_tokens: the completion tokens that were thoughts.
        message: the reply's message as JSON, if it has more than a text (typed parts, thoughts, a refusal). If
            log-probabilities were requested: `top_logprobs`, the most likely first tokens with theirs, or
            `option_logprobs`, for each option the sum over its tokens and their number.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float = 0.0
    cached_tokens: int | None = None
    thinking_tokens: int | None = None
    message: str | None = None


class RequestFailed(Exception):
    """One request got no reply after all attempts. Other requests may succeed. The scheduler handles it.

    A teacher that can answer nothing at all (wrong key, no such model) raises `errors.TeacherError` instead.

    Args:
        words: what happened, in the server's own words if it gave any.
        reason: `failed`: a later attempt may succeed. `too_long`, `content_filter`, `bad_request`: the prompt is not
            accepted, and a later attempt will fail, too.
    """

    def __init__(self, words: str, reason: FailureReason = "failed") -> None:
        super().__init__(words)
        self.reason: FailureReason = reason


class ParameterRefused(Exception):
    """The endpoint does not accept a part of the request. Nothing was billed. The scheduler handles it.

    Args:
        names: the refused parts, in the order in which to leave them out; see `Manners.without`.
        words: the endpoint's own.
        limit: the endpoint's limit, if it refused a number and named its limit.

    Attributes:
        form: the form of the refused request. Later requests may have another form already.
        manners: with which the request was sent; None: unknown.
    """

    def __init__(self, names: Sequence[str], words: str, limit: int | None = None) -> None:
        super().__init__(words)
        self.names = tuple(names)
        self.limit = limit
        self.form = SentForm()
        self.manners: Manners | None = None


class Meter:
    """Accounts for the attempts of one request. This base class allows every attempt and records nothing.

    A teacher calls `begin` before each attempt, which reserves the most that the attempt can cost. If `ask` returns a
    reply, its usage replaces the reservation. `free` releases the reservation. Otherwise it is charged for good.
    """

    async def begin(self) -> None:
        """Call this directly before an attempt. It raises if nothing more may be sent; `ask` must not catch that."""

    def free(self) -> None:
        """Call this if the last attempt cost nothing: it did not arrive, or the service refused it."""

    def lost(self, words: str = "") -> None:
        """Call this if the cost of the last attempt is unknown. `words` say what happened."""


UNMETERED = Meter()


class Teacher(Protocol):
    """A named source of rationales."""

    @property
    def name(self) -> str:
        """The name in the configuration."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything besides the request that can change a reply: model, revision, checksum of a file.

        It is part of the store's key, so it must not contain what differs between runs, such as a port or an API key.
        """

    @property
    def concurrency(self) -> int:
        """How many calls of `ask` it can use at once. The number may change."""

    @property
    def stored(self) -> bool:
        """Whether replies are stored. False for rationales that come with the questions."""

    @property
    def local(self) -> bool:
        """Whether it computes on this machine. Local teachers are asked one after another."""

    def check(self) -> None:
        """Check that nothing is missing, without starting anything.

        Raises:
            TinyLLMError: a key, a package, a device or data are missing.
        """

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the reply; None if the teacher has nothing for this question (kind `given`).

        Raises:
            RequestFailed: this request got no reply.
            ParameterRefused: the endpoint does not accept a part of the request.
            TeacherError: the teacher can answer nothing at all.
        """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


@runtime_checkable
class Prompted(Protocol):
    """A teacher that reads a prompt. Teachers without these attributes receive only the question."""

    @property
    def form(self) -> Form:
        """Chat messages, or one plain text to complete."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop sequences of a completion. A chat reply ends by itself."""


@runtime_checkable
class AtHand(Protocol):
    """A teacher whose rationales come with the questions. It is not asked, costs nothing, and is not stored."""

    def reply(self, question: Question) -> Reply | None:
        """Return the question's rationale; None if it has none."""


@runtime_checkable
class Adapting(Protocol):
    """A teacher that can send requests in several forms. The scheduler sets `manners`."""

    manners: Manners


@runtime_checkable
class Counting(Protocol):
    """A teacher that can count its tokens."""

    async def tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the lengths of texts in the teacher's tokens. The teacher must be entered."""


@runtime_checkable
class Reachable(Protocol):
    """A teacher on other machines, which tells at no cost whether it can be reached."""

    async def look(self) -> list[str]:
        """Return what each of its servers answers, in words. No completion is requested.

        Raises:
            TeacherError: a server does not answer, or refuses the key.
        """


@runtime_checkable
class Resumable(Protocol):
    """A teacher that says how far it is. Its work may go on at a provider (a batch), to be collected later."""

    @property
    def resumable(self) -> bool:
        """Whether an interrupted run may stop waiting at once."""

    def note(self) -> str:
        """Return the progress as text for the progress bar; empty where there is nothing to say."""


# --- the key of a request -----------------------------------------------------------------------------------------


def key_of(asked: str) -> str:
    """Return the key of a request: the SHA-256, in hexadecimal, of its canonical form."""
    return hashlib.sha256(asked.encode("ascii")).hexdigest()


def canonical(identity: Mapping[str, str], request: Request) -> str:
    """Return, as JSON, everything that can change the reply, and nothing else."""
    sampling = request.sampling
    how: dict[str, Any] = {"max_tokens": sampling.max_tokens, "stop": list(sampling.stop)}
    if sampling.temperature is not None:
        how["temperature"] = float(sampling.temperature)
    if sampling.temperature != 0:  # greedy decoding ignores the others
        how |= {} if sampling.top_p is None else {"top_p": float(sampling.top_p)}
        how |= {} if sampling.seed is None else {"seed": sampling.seed}
    prompt = request.prompt
    shown: Any = [[m.role, m.content] for m in prompt.messages] if prompt.messages else prompt.text
    asked = {"identity": dict(identity), "prompt": shown, "sampling": how, "sample": request.sample}
    if request.options:
        asked["options"] = list(request.options)
    return json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
