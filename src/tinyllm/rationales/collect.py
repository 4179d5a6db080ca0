"""Makes rationales of the stored replies, question by question, as a stream.

Nothing is asked here, and nothing is kept in memory. Other checks make other rationales of the same replies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tinyllm.questions import Question
from tinyllm.rationales.requests import Ask, Requests, walk
from tinyllm.rationales.types import Rationale, Rejection, Scored, TeacherYield, Verdict
from tinyllm.replies import Failure, Store
from tinyllm.teachers.base import AtHand, Reply

_CHUNK = 256

_Outcome = Rationale | Rejection | None  # None: the questions bring no rationale of this teacher


class Collection:
    """The rationales and rejections of several teachers. Iterate over it once, then read `yields`.

    Args:
        teachers: each with its requests; all have the same questions, some of them several times.
        store: None is allowed if all rationales come with the questions.
    """

    def __init__(self, teachers: Sequence[Requests], store: Store | None) -> None:
        self._teachers = teachers
        self._store = store
        self._yields = {requests.teacher.name: TeacherYield() for requests in teachers}

    @property
    def yields(self) -> dict[str, TeacherYield]:
        """What each teacher gave so far, by name."""
        return {
            name: replace(
                found,
                rejected=dict(sorted(found.rejected.items())),
                repaired=dict(sorted(found.repaired.items())),
                resampled=dict(sorted(found.resampled.items())),
            )
            for name, found in self._yields.items()
        }

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

    def _chunk(self, requests: Requests, start: int, stop: int) -> list[_Outcome]:
        found = self._yields[requests.teacher.name]
        if isinstance(requests.teacher, AtHand):
            outcomes = [_at_hand(requests, requests.teacher, q, found) for q in requests.questions[start:stop]]
        else:
            asks = requests.between(start, stop)
            settled = self._settled(requests, asks, found)
            outcomes = [settled[ask.place] for ask in asks]
        for outcome in outcomes:
            if isinstance(outcome, Rationale):
                found.rationales += 1
                for repair in outcome.repaired:
                    _count(found.repaired, repair)
            elif isinstance(outcome, Rejection):
                _count(found.rejected, outcome.reason)
            else:
                found.missing += 1
        return outcomes

    def _settled(self, requests: Requests, asks: Sequence[Ask], found: TeacherYield) -> dict[int, _Outcome]:
        """Return, by the question's place, the first sample that passes, or else the rejection of the last one."""
        store = self._store
        assert store is not None, "a teacher that is asked has a store"  # noqa: S101
        settled: dict[int, _Outcome] = {}

        def heard(ask: Ask, reply: Reply, outcome: Verdict) -> None:
            if isinstance(before := settled.get(ask.place), Rejection):
                _count(found.resampled, before.reason)
            _count_tokens(found, reply)
            settled[ask.place] = _rationale(outcome)

        unanswered = [ask for ask, last in walk(requests, store, asks, heard) if isinstance(last, Ask)]
        failures = requests.failures(store, unanswered)
        for ask in unanswered:
            settled[ask.place] = settled.get(ask.place) or why_unanswered(
                ask, requests.teacher.name, failures.get(ask.place)
            )
        return settled


def why_unanswered(ask: Ask, teacher: str, failure: Failure | None) -> Rejection:
    """Return why a request has no reply."""
    if failure is None:
        return Rejection(ask.question.id, teacher, "unasked", "")
    return Rejection(ask.question.id, teacher, failure.reason, failure.words)


def _at_hand(requests: Requests, teacher: AtHand, question: Question, found: TeacherYield) -> _Outcome:
    reply = teacher.reply(question)
    if reply is None:
        return None
    _count_tokens(found, reply)
    return _rationale(requests.verdict(question, reply))


def _rationale(outcome: Verdict) -> Rationale | Rejection:
    if isinstance(outcome, Scored):
        raise TypeError("a rationale was asked for")
    return outcome


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _count_tokens(found: TeacherYield, reply: Reply) -> None:
    found.prompt_tokens += reply.prompt_tokens or 0
    found.completion_tokens += reply.completion_tokens or 0
    if reply.cached_tokens is not None:
        found.cached_tokens = (found.cached_tokens or 0) + reply.cached_tokens
    if reply.thinking_tokens is not None:
        found.thinking_tokens = (found.thinking_tokens or 0) + reply.thinking_tokens
