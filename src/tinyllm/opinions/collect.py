"""Collecting: stored replies become opinions. The replies to all orders of a question are combined into one opinion.

No request is sent here. The opinions are a stream and are not kept in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from tinyllm.opinions._reading import softmax
from tinyllm.opinions.requests import OpinionRequests
from tinyllm.opinions.types import Opinion
from tinyllm.questions import Question
from tinyllm.rationales.collect import why_unanswered
from tinyllm.rationales.requests import Ask, walk
from tinyllm.rationales.types import Rejection, Scored, Verdict
from tinyllm.replies import Store
from tinyllm.teachers.base import Reply

_CHUNK = 128  # questions
_LEAST = 1e-6  # probabilities are at least this, so that a 0 in one order does not exclude a choice


@dataclass(slots=True)
class _Usage:
    """The counts of one teacher's opinions.

    Attributes:
        questions: number of questions that it was asked about.
        opinions: number of questions on which it has an opinion.
        rejected: number of replies without an opinion and of requests without a reply, by reason.
    """

    way: str
    questions: int = 0
    opinions: int = 0
    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def reply(self, reply: Reply) -> None:
        """Count a reply."""
        self.replies += 1
        self.prompt_tokens += reply.prompt_tokens or 0
        self.completion_tokens += reply.completion_tokens or 0
        self.cached_tokens += min(reply.cached_tokens or 0, reply.prompt_tokens or 0)

    def reject(self, reason: str) -> None:
        """Count a request that gave no opinion."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1


class OpinionCollection:
    """The opinions of all teachers. Iterate over `over` once, then read `usage`.

    Args:
        teachers: the requests of each teacher. All teachers were asked the same questions.
        given: teachers whose opinions come with the questions. Maps the teacher's name to the key in the questions.
        store: the stored replies; None if no teacher was asked.
    """

    def __init__(self, teachers: Sequence[OpinionRequests], given: dict[str, str], store: Store | None) -> None:
        self._teachers = teachers
        self._given = given
        self._store = store
        self.usage = {r.teacher.name: _Usage(r.way) for r in teachers} | {name: _Usage("given") for name in given}

    def over(
        self, questions: Sequence[Question], reject: Callable[[Rejection], None]
    ) -> Iterator[tuple[Question, dict[str, Opinion]]]:
        """Yield each question with its opinions by teacher. Teachers without an opinion on it are left out.

        Args:
            reject: is called for each reply without an opinion, and for each request without a reply.
        """
        for start in range(0, len(questions), _CHUNK):
            some = questions[start : start + _CHUNK]
            columns = {r.teacher.name: self._chunk(r, start, some, reject) for r in self._teachers}
            columns |= {name: [_given(q, name, source) for q in some] for name, source in self._given.items()}
            for place, question in enumerate(some):
                found = {name: o for name, column in columns.items() if (o := column[place]) is not None}
                for name, usage in self.usage.items():
                    usage.questions += 1
                    usage.opinions += name in found
                yield question, found

    def _chunk(
        self, requests: OpinionRequests, start: int, some: Sequence[Question], reject: Callable[[Rejection], None]
    ) -> list[Opinion | None]:
        each = requests.repeats
        scored = self._scored(requests, requests.between(each * start, each * (start + len(some))), reject)
        for place, found in scored.items():
            own = requests.own_order(some[place // each - start], place, found)
            scored[place] = Scored(own, found.mass)
        return [
            _together(question, requests, [s for place in range(each * p, each * (p + 1)) if (s := scored.get(place))])
            for p, question in enumerate(some, start)
        ]

    def _scored(
        self, requests: OpinionRequests, asks: Sequence[Ask], reject: Callable[[Rejection], None]
    ) -> dict[int, Scored]:
        """Return the probabilities in the stored replies, by place of the request."""
        assert self._store is not None, "a teacher that is asked has a store"  # noqa: S101
        usage = self.usage[requests.teacher.name]
        found: dict[int, Scored] = {}
        missing: list[Ask] = []

        def rejected(rejection: Rejection) -> None:
            usage.reject(rejection.reason)
            reject(rejection)

        def heard(_ask: Ask, reply: Reply, _outcome: Verdict) -> None:
            usage.reply(reply)

        for ask, outcome in walk(requests, self._store, asks, heard):
            if isinstance(outcome, Scored):
                found[ask.place] = outcome
            elif isinstance(outcome, Rejection):
                rejected(outcome)
            else:
                missing.append(ask)
        failures = requests.failures(self._store, missing)
        for ask in missing:
            rejected(why_unanswered(ask, requests.teacher.name, failures.get(ask.place)))
        return found


def _given(question: Question, name: str, source: str) -> Opinion | None:
    """Return the opinion that comes with a question."""
    scores = question.opinions.get(source)
    if scores is None:
        return None
    shares = softmax(scores) if min(scores) < 0 else tuple(s / sum(scores) for s in scores)
    return Opinion(question.id, name, shares, "given", 1)


def _together(question: Question, requests: OpinionRequests, scored: Sequence[Scored]) -> Opinion | None:
    """Combine a teacher's replies to several orders of the choices into one opinion.

    Votes are counted, and one extra vote is split equally among the choices. Other probabilities are combined by the
    mean of their logarithms. A teacher may add a bias to the logit of a position. If each choice was at each position
    once, the bias cancels in this mean.
    """
    if not scored:
        return None
    columns = list(zip(*(s.probabilities for s in scored), strict=True))
    if requests.way == "votes":
        shares = tuple((sum(c) + 1 / len(columns)) / (len(scored) + 1) for c in columns)
    else:
        shares = softmax([fmean(math.log(max(p, _LEAST)) for p in c) for c in columns])
    masses = [s.mass for s in scored if s.mass is not None]
    mass = fmean(masses) if masses else None
    return Opinion(question.id, requests.teacher.name, shares, requests.way, len(scored), mass)
