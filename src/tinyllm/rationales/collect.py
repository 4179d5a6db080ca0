"""From the store to rationales: what the replies are worth, by question and then by teacher, as a stream.

Nothing is asked here and nothing is kept in memory. Other checks give other rationales of the same replies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tinyllm.questions import Question
from tinyllm.rationales.requests import Ask, Requests, walk
from tinyllm.rationales.types import UNASKED, Rationale, Rejection, Scored, TeacherYield, Verdict
from tinyllm.replies import Failure, Store
from tinyllm.teachers.base import AtHand, Reply

_CHUNK = 256


@dataclass
class _Tally:
    """Adds up what one teacher gave."""

    kept: int = 0
    missing: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    resampled: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    thinking_tokens: int | None = None

    def reply(self, reply: Reply) -> None:
        self.prompt_tokens += reply.prompt_tokens or 0
        self.completion_tokens += reply.completion_tokens or 0
        if reply.cached_tokens is not None:
            self.cached_tokens = (self.cached_tokens or 0) + reply.cached_tokens
        if reply.thinking_tokens is not None:
            self.thinking_tokens = (self.thinking_tokens or 0) + reply.thinking_tokens

    def outcome(self, outcome: Rationale | Rejection | None) -> None:
        if isinstance(outcome, Rationale):
            self.kept += 1
            self.repaired.update(outcome.repaired)
        elif isinstance(outcome, Rejection):
            self.rejected[outcome.reason] += 1
        else:
            self.missing += 1

    def total(self) -> TeacherYield:
        return TeacherYield(
            rationales=self.kept,
            missing=self.missing,
            rejected=dict(sorted(self.rejected.items())),
            repaired=dict(sorted(self.repaired.items())),
            resampled=dict(sorted(self.resampled.items())),
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
            thinking_tokens=self.thinking_tokens,
        )


class Collection:
    """What the teachers gave; iterate over it once, then read `yields`.

    Args:
        teachers: with the questions they were asked about, which are the same for all; some several times.
        store: may be None where every teacher's rationales are at hand.
    """

    def __init__(self, teachers: Sequence[Requests], store: Store | None) -> None:
        self._teachers = teachers
        self._store = store
        self._tallies = {requests.teacher.name: _Tally() for requests in teachers}

    @property
    def yields(self) -> dict[str, TeacherYield]:
        """What each teacher gave, by name, of the questions iterated over so far."""
        return {name: tally.total() for name, tally in self._tallies.items()}

    def __iter__(self) -> Iterator[Rationale | Rejection]:
        total = len(self._teachers[0].questions) // self._teachers[0].several if self._teachers else 0
        for start in range(0, total, _CHUNK):
            stop = min(start + _CHUNK, total)
            columns = [self._by_question(of, start, stop) for of in self._teachers]
            for several in zip(*columns, strict=True):
                yield from (outcome for outcomes in several for outcome in outcomes if outcome is not None)

    def _by_question(self, requests: Requests, start: int, stop: int) -> list[list[Rationale | Rejection | None]]:
        each = requests.several
        outcomes = self._chunk(requests, start * each, stop * each)
        return [outcomes[at : at + each] for at in range(0, len(outcomes), each)]

    def _chunk(self, requests: Requests, start: int, stop: int) -> list[Rationale | Rejection | None]:
        tally = self._tallies[requests.teacher.name]
        if isinstance(requests.teacher, AtHand):
            outcomes = [_at_hand(requests, requests.teacher, q, tally) for q in requests.questions[start:stop]]
        else:
            asks = requests.between(start, stop)
            settled = self._settled(requests, asks, tally)
            outcomes = [settled[ask.place] for ask in asks]
        for outcome in outcomes:
            tally.outcome(outcome)
        return outcomes

    def _settled(
        self, requests: Requests, asks: Sequence[Ask], tally: _Tally
    ) -> dict[int, Rationale | Rejection | None]:
        """The first sample that passes; else what is wrong with the last one; by the question's place."""
        store = self._store
        assert store is not None, "a teacher that is asked has a store"  # noqa: S101
        settled: dict[int, Rationale | Rejection | None] = {}

        def heard(ask: Ask, reply: Reply, outcome: Verdict) -> None:
            if isinstance(outcome, Scored):
                raise TypeError("a rationale was asked for")
            if isinstance(before := settled.get(ask.place), Rejection):
                tally.resampled[before.reason] += 1
            tally.reply(reply)
            settled[ask.place] = outcome

        unanswered = [ask for ask, found in walk(requests, store, asks, heard) if isinstance(found, Ask)]
        failures = store.failures({ask.key for ask in unanswered})
        for ask in unanswered:
            settled[ask.place] = settled.get(ask.place) or why_unanswered(
                ask, requests.teacher.name, failures.get(ask.key)
            )
        return settled


def _at_hand(requests: Requests, teacher: AtHand, question: Question, tally: _Tally) -> Rationale | Rejection | None:
    reply = teacher.reply(question)
    if reply is None:
        return None
    tally.reply(reply)
    outcome = requests.verdict(question, reply)
    return None if isinstance(outcome, Scored) else outcome


def why_unanswered(ask: Ask, teacher: str, failure: Failure | None) -> Rejection:
    """Return why a request has no reply."""
    if failure is None:
        return Rejection(ask.question.id, teacher, UNASKED, "")
    return Rejection(ask.question.id, teacher, failure.reason, failure.words)
