"""What a rationale is, apart from how it is made."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rationale:
    """A checked text: why the answer to a question is right, in one teacher's words.

    Attributes:
        repaired: names of the repairs made to the reply (`cut_off`, `runs_on`), empty if it is as it came.
    """

    question_id: str
    teacher: str
    text: str
    repaired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejection:
    """A reply that failed a check, or a request that got none; `reason` is a check's name or `failed`."""

    question_id: str
    teacher: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class TeacherYield:
    """What one teacher gave: `rationales + missing + sum(rejected)` is the number of questions."""

    rationales: int = 0
    missing: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
