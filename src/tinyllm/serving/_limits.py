"""The limits of a server, for one client and for all clients together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server. A request over a limit is refused with a message.

    Attributes:
        queue: number of questions that may wait. Over it: 429 with Retry-After.
        timeout_s: seconds from a request to its answer. Over it: 504.
        body_bytes: size of one request. Over it: 413.
        body_s: seconds in which a client must send its headers, and then its body. Over it: 408 or a closed connection.
        questions: number of questions in one request.
        choices: number of choices of one question.
        rationale_tokens: length of one rationale, in the student's tokens. Longer ones are cut.
        batch: number of questions in one batch.
        connections: number of open connections. Over it: 503.
        stop_s: seconds in which accepted requests are finished after a signal to stop.
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
