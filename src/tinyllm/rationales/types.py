"""What a rationale is, apart from how it is made."""

from __future__ import annotations

from dataclasses import dataclass, field

UNASKED = "unasked"
"""Reason of a rejection: the run was stopped, by its budget, before this was asked."""

_UNANSWERED = ("failed", "too_long", "content_filter", "bad_request", UNASKED)
"""Reasons of a rejection that are no checks: there is no reply, or a filter took it away."""

UNFINISHED = "unfinished_thought"
"""Reason of a rejection: the reply ended inside a thought, before any text."""


@dataclass(frozen=True, slots=True)
class Rationale:
    """A checked text: why the answer to a question is right, in one teacher's words.

    Attributes:
        repaired: names of the repairs made to the reply (`cut_off`, `runs_on`), empty if it is as it came.
        pooled: the answer that it explains is not known: it is the choice of the teachers' pooled opinion.
    """

    question_id: str
    teacher: str
    text: str
    repaired: tuple[str, ...] = ()
    pooled: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """A question without a rationale, and the text that was not good enough or the server's words.

    Attributes:
        reason: a check's name; `unfinished_thought`; or, where there is no reply, one of `_UNANSWERED`.
    """

    question_id: str
    teacher: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Scored:
    """What one reply says about the choices that it was shown, in their order there.

    Attributes:
        probabilities: of each choice; their sum is 1.
        mass: the share of all probability that fell on the choices; None where that is not known.
    """

    probabilities: tuple[float, ...]
    mass: float | None = None


Verdict = Rationale | Scored | Rejection
"""What a reply is worth, whatever was asked."""


@dataclass(frozen=True, slots=True)
class TeacherYield:
    """What one teacher gave: `rationales + missing + sum(rejected)` is the number of questions.

    Attributes:
        resampled: replies that failed a check and were asked for anew, by the check; they are kept in the store.
        prompt_tokens, completion_tokens: of all replies that the questions took, whenever they were asked.
        cached_tokens: prompt tokens that the server had in its cache; None where it does not tell.
        thinking_tokens: completion tokens that were thoughts; None where the server does not count them apart.
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
        """How many questions got no reply at all, by reason."""
        return {reason: n for reason, n in self.rejected.items() if reason in _UNANSWERED}
