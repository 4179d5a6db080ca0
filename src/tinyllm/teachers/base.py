"""The one seam for teachers: what is asked, what comes back, and what every kind must offer.

A teacher of any kind is an asynchronous context manager with one method, `ask`. Entering it starts what has to be
started (a server, a model, a connection pool); leaving it stops that again. `ask` may be called concurrently, at
most `concurrency` times at once. How often, how fast and at which price is the scheduler's affair (`rationales`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self, runtime_checkable

from tinyllm.config import Form
from tinyllm.prompts import Prompt
from tinyllm.questions import Question
from tinyllm.teachers.manners import Manners, SentForm

FinishReason = Literal["stop", "length", "content_filter", "refusal", "unknown"]
FailureReason = Literal["failed", "too_long", "content_filter", "bad_request"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn, as it is sent. None: not sent, so the endpoint's own default holds.

    Attributes:
        max_tokens: longest reply in the teacher's tokens, thoughts included.
    """

    max_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One question put to one teacher.

    Attributes:
        options: texts that may follow the prompt, whose log-probabilities are wanted; none: a reply is wanted.
            Endpoints tell those of the likeliest first tokens, so each option must begin with a token of its own.
    """

    question_id: str
    prompt: Prompt
    sampling: Sampling
    sample: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A teacher's raw output, thoughts and markup included. Token counts are None where the teacher does not tell.

    Attributes:
        completion_tokens: all that are billed as output, thoughts included.
        latency_s: seconds from sending the request that was answered to the whole reply.
        cached_tokens: those of the prompt's tokens that the server had in its prefix cache.
        thinking_tokens: those of the completion's tokens that are thoughts, where the server counts them apart.
        message: the reply's message as JSON, where it holds more than a text (typed parts, thoughts, a refusal); with
            the log-probabilities, where they were asked for: `top_logprobs`, the likeliest first tokens with theirs, or
            `option_logprobs`, the sum over the tokens of each option and their number.
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
    """This one request got no reply, after all attempts; other requests may. Never leaves the generation loop.

    A teacher that can answer nothing at all (wrong key, no such model) raises `errors.TeacherError` instead.

    Args:
        words: what happened, in the server's own words where it gave any.
        reason: `failed`: asking again later may help. `too_long`, `content_filter`, `bad_request`: this prompt is
            not taken, and asking again will not help.
    """

    def __init__(self, words: str, reason: FailureReason = "failed") -> None:
        super().__init__(words)
        self.reason: FailureReason = reason


class ParameterRefused(Exception):
    """The endpoint does not take a part of the request. Nothing was answered or billed. Handled by the scheduler.

    Args:
        names: what it refuses, in the order of preference where one of several has to go; see `manners.without`.
        words: the endpoint's own.
        most_tokens: the most that it takes as a length, where it refused the length and said so.

    Attributes:
        form: of the request. Others may have learnt better since.
        manners: with which it was sent; None: not known.
    """

    def __init__(self, names: Sequence[str], words: str, most_tokens: int | None = None) -> None:
        super().__init__(words)
        self.names = tuple(names)
        self.most_tokens = most_tokens
        self.form = SentForm()
        self.manners: Manners | None = None


class Meter(Protocol):
    """Accounts for the attempts of one request. A teacher that retries calls it for each attempt.

    `begin` sets aside the most that an attempt can cost. What becomes of it: the usage of the reply that `ask` returns
    replaces it; `free` gives it back; otherwise it stays charged for ever.
    """

    async def begin(self) -> None:
        """Call right before an attempt is sent. Raises what `ask` must let through if nothing more may be sent."""
        ...

    def free(self) -> None:
        """The attempt begun last has cost nothing: it never arrived, or the service refused it."""
        ...

    def lost(self, words: str = "") -> None:
        """It cannot be known what the attempt begun last has cost.

        Args:
            words: what became of it.
        """
        ...


class _Unmetered:
    """A meter that lets everything through, for callers that account for nothing."""

    async def begin(self) -> None:
        """Let the attempt begin."""

    def free(self) -> None:
        """Do nothing."""

    def lost(self, words: str = "") -> None:
        """Do nothing."""


UNMETERED = _Unmetered()


class Teacher(Protocol):
    """A named source of rationales.

    Attributes:
        name: as in the configuration.
        identity: what, besides the request, could change a reply (model, revision, file checksum). Part of the
            store's key, so it holds nothing that changes from run to run, such as a port or a key.
        concurrency: how many `ask` calls it can use at once, now; it may change with what the endpoint bears.
        stored: whether replies cost something and so belong into the store. False for rationales at hand.
        local: whether it computes on this machine; local teachers are asked one after the other.
    """

    @property
    def name(self) -> str:
        """As in the configuration."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What, besides the request, could change a reply."""
        ...

    @property
    def concurrency(self) -> int:
        """How many `ask` calls it can use at once, now."""
        ...

    @property
    def stored(self) -> bool:
        """Whether replies belong into the store."""
        ...

    @property
    def local(self) -> bool:
        """Whether it computes on this machine."""
        ...

    def check(self) -> None:
        """Look, without starting anything, for what is missing.

        Raises:
            TinyLLMError: a key, a package, a device or data are missing.
        """
        ...

    async def ask(self, request: Request, meter: Meter = UNMETERED) -> Reply | None:
        """Return the reply, or None where the teacher has nothing for this question (kind `given`).

        Raises:
            RequestFailed: this request got no reply.
            ParameterRefused: the endpoint wants the request in another form.
            TeacherError: the teacher can answer nothing at all.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Prompted(Protocol):
    """What a teacher that reads its prompt says about it. A teacher without these is asked by question alone.

    Attributes:
        form: chat messages, or one plain text to complete.
        stop: stop sequences of a plain text; a chat ends by itself.
    """

    @property
    def form(self) -> Form:
        """Which form of prompt it reads."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Where a completion ends."""
        ...


@runtime_checkable
class AtHand(Protocol):
    """A teacher whose rationales come with the questions: it is not asked, it costs nothing, nothing is stored."""

    def reply(self, question: Question) -> Reply | None:
        """Return what the question carries, or None where it carries nothing."""
        ...


@runtime_checkable
class Adapting(Protocol):
    """A teacher that can ask in several ways.

    Attributes:
        manners: how it asks. Set by whoever learns, from `ParameterRefused`, what the endpoint wants.
    """

    manners: Manners


@runtime_checkable
class Counting(Protocol):
    """A teacher that can tell how long a text is in its tokens."""

    async def tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the lengths of texts in the teacher's tokens; it has been entered."""
        ...


@runtime_checkable
class Resumable(Protocol):
    """A teacher that goes on working when nobody waits for it (a batch at a provider), to be collected later."""

    @property
    def resumable(self) -> bool:
        """Whether to stop waiting at once when a run is interrupted."""
        ...

    def note(self) -> str:
        """Return how far it is, in words for the progress bar."""
        ...


# --- what a request is known by -----------------------------------------------------------------------------------


def reply_key(identity: Mapping[str, str], request: Request) -> str:
    """Return the SHA-256, in hexadecimal, of everything that could change the reply, and of nothing else."""
    return key_of(canonical(identity, request))


def key_of(asked: str) -> str:
    """Return the key of a request in its canonical form."""
    return hashlib.sha256(asked.encode("ascii")).hexdigest()


def canonical(identity: Mapping[str, str], request: Request) -> str:
    """Return, as JSON, what `reply_key` is the checksum of: who is asked, what is shown, how it is sampled."""
    sampling = request.sampling
    how: dict[str, Any] = {"max_tokens": sampling.max_tokens, "stop": list(sampling.stop)}
    if sampling.temperature is not None:
        how["temperature"] = float(sampling.temperature)
    if sampling.temperature != 0:  # a greedy reply is drawn from nothing
        how |= {} if sampling.top_p is None else {"top_p": float(sampling.top_p)}
        how |= {} if sampling.seed is None else {"seed": sampling.seed}
    prompt = request.prompt
    shown: Any = [[m.role, m.content] for m in prompt.messages] if prompt.messages else prompt.text
    asked = {"identity": dict(identity), "prompt": shown, "sampling": how, "sample": request.sample}
    if request.options:
        asked["options"] = list(request.options)
    return json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
