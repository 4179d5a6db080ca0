"""The one seam for teachers: what is asked, what comes back, and what every kind must offer.

A teacher of any kind is an asynchronous context manager with one method, `ask`. Entering it starts what has to be
started (a server, a model, a connection pool); leaving it stops that again. `ask` may be called concurrently, at
most `concurrency` times at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, runtime_checkable

from tinyllm.config import Form
from tinyllm.prompts import Prompt

FinishReason = Literal["stop", "length", "content_filter", "unknown"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn. `max_tokens` counts the teacher's own tokens."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One question put to one teacher."""

    question_id: str
    prompt: Prompt
    sampling: Sampling
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """A teacher's raw output. Token counts are None where the teacher does not tell."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float = 0.0


class RequestFailed(Exception):
    """This one request got no reply, after all attempts; other requests may. Never leaves the generation loop.

    A teacher that can answer nothing at all (wrong key, no such model) raises `errors.TeacherError` instead.
    """


class Teacher(Protocol):
    """A named source of rationales.

    Attributes:
        name: as in the configuration.
        identity: what, besides the request, could change a reply (model, revision, file checksum). Part of the
            store's key, so it holds nothing that changes from run to run, such as a port or a key.
        concurrency: how many `ask` calls it can use at once.
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
        """How many `ask` calls it can use at once."""
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

    async def ask(self, request: Request) -> Reply | None:
        """Return the reply, or None where the teacher has nothing for this question (kind `given`).

        Raises:
            RequestFailed: this request got no reply.
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
