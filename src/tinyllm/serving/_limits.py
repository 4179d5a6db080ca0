"""What one client, or all of them, may take of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server; beyond each, a request is refused with a message.

    Attributes:
        queue: questions that wait to be computed; beyond, 429 with Retry-After.
        timeout_s: from a request to its answer; beyond, 504.
        body_bytes: of one request; beyond, 413.
        body_s: that a client may take to send its headers, or its body; beyond, 408 or a closed connection.
        questions: of one request.
        choices: of one question.
        rationale_tokens: of one explanation, in the student's tokens.
        batch: questions that are computed together.
        connections: open at once; beyond, 503.
        stop_s: to finish what was accepted when told to stop.
    """

    queue: int = 256
    timeout_s: float = 30.0
    body_bytes: int = 1 << 20
    body_s: float = 10.0
    questions: int = 64
    choices: int = 64
    rationale_tokens: int = 256
    batch: int = 32
    connections: int = 1000
    stop_s: float = 30.0
