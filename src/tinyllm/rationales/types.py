"""Rationales, rejections, and what each teacher gave. How they are made is described elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field

UNFINISHED = "unfinished_thought"
"""Reason of a rejection: the reply ended inside a thought, before any text."""

_UNANSWERED = ("failed", "too_long", "content_filter", "bad_request", "unasked")
"""Reasons that are not checks: there is no reply, or a filter removed it."""


@dataclass(frozen=True, slots=True)
class Rationale:
    """A checked text in which a teacher explains why the answer to a question is right.

    Attributes:
        repaired: names of the repairs made to the reply (`cut_off`, `runs_on`).
        pooled: the answer that it explains is not known: it is the choice of the teachers' pooled opinion.
    """

    question_id: str
    teacher: str
    text: str
    repaired: tuple[str, ...] = ()
    pooled: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """A question without a rationale, or a request for an opinion that gave none.

    Attributes:
        reason: a check's name; `unfinished_thought`; or one of `_UNANSWERED`.
        text: the text that failed the check, or the error of the server.
        kind: `rationale` or `opinion`.
    """

    question_id: str
    teacher: str
    reason: str
    text: str
    kind: str = "rationale"


@dataclass(frozen=True, slots=True)
class Scored:
    """A teacher's probabilities for the choices, in the order in which it saw them. They add up to 1.

    Attributes:
        mass: the part of all probability that fell on the choices; None: unknown.
    """

    probabilities: tuple[float, ...]
    mass: float | None = None


Verdict = Rationale | Scored | Rejection
"""What was made of a reply."""


@dataclass(slots=True)
class TeacherYield:
    """What one teacher gave. `rationales + missing + sum(rejected)` is the number of questions, times `several`.

    Attributes:
        resampled: replies that failed a check and were sampled again, by check; they stay in the store.
        prompt_tokens, completion_tokens: of all replies to the questions, including earlier runs.
        cached_tokens: prompt tokens from the server's cache; None: not reported.
        thinking_tokens: completion tokens that were thoughts; None: not reported.
    """

    rationales: int = 0
    missing: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    resampled: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    thinking_tokens: int | None = None

    @property
    def unanswered(self) -> dict[str, int]:
        """The number of questions without any reply, by reason."""
        return {reason: n for reason, n in self.rejected.items() if reason in _UNANSWERED}
