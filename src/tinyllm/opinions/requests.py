"""What one teacher is asked for its opinion: each question in several orders of its choices, and what a reply says.

The scheduler of `rationales` sends these requests, so they are stored, budgeted and resumed as those for rationales.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import overload

from tinyllm.config import ExamplesSection, OpinionsSection, RationalesSection, Way
from tinyllm.errors import TeacherError
from tinyllm.opinions._reading import NO_CHOICE, by_letter, by_likelihood, vote
from tinyllm.prompts import ExampleGenerator, Prompt, letters_of, opinion_prompt
from tinyllm.questions import Question
from tinyllm.rationales.requests import Ask, Requests
from tinyllm.rationales.types import UNFINISHED, Rejection, Scored, Verdict
from tinyllm.teachers import Teacher
from tinyllm.teachers.base import ParameterRefused, Reply, Request
from tinyllm.teachers.manners import Manners

_MOST_BY_LETTER = 20  # as many first tokens as endpoints tell the log-probabilities of
_MOST_BY_VOTE = 26  # letters
_MOST_NAMELESS = 8  # replies in a row that name no letter, before a teacher is taken not to answer by letter
_ROOMIER_SAMPLES = 3  # of a vote whose thought was cut off


class OpinionRequests(Requests):
    """One teacher's requests for its opinions. The requests of a question stand one after the other.

    Attributes:
        asked: the questions; `questions` has each of them several times, with its choices in different orders.
        repeats: requests of each question.
    """

    def __init__(
        self,
        teacher: Teacher,
        asked: Sequence[Question],
        section: OpinionsSection,
        way: Way,
        *,
        omit: Collection[str] = (),
        thinking_tokens: int | None = None,
        manners: Manners = Manners(),
    ) -> None:
        by_vote = way == "votes"
        self.asked = asked
        self.way: Way = way
        self._orders = {"letters": section.orders, "votes": min(section.orders, section.votes)}.get(way, 1)
        self.repeats = section.votes if by_vote else self._orders
        super().__init__(
            teacher,
            _Reordered(asked, self.repeats, self._orders, section.seed, is_shuffled=way in ("letters", "votes")),
            ExampleGenerator((), ExamplesSection(strategy="none", count=0)),
            RationalesSection(
                max_tokens=section.max_tokens if by_vote else 1,
                temperature=section.temperature if by_vote else 0.0,
                top_p=1.0,
                seed=section.seed,
                samples=_ROOMIER_SAMPLES if by_vote else 1,
            ),
            omit=omit,
            thinking_tokens=thinking_tokens if by_vote else 0,
            manners=manners,
        )
        self._nameless: int | None = 0  # replies without a letter; None once there was another one
        self._written = frozenset()  # no sampling parameter is so dear to anybody that it could not be left out

    def between(self, start: int, stop: int) -> list[Ask]:
        """Return the first requests at some places."""
        return [
            self._ask(place, question, self._request(place, question), 0, "")
            for place, question in enumerate(self.questions[start:stop], start)
        ]

    def again(self, ask: Ask, outcome: Rejection) -> Ask | None:
        """Return the request for the same vote with more room for thoughts; None where that is not what it lacked."""
        if outcome.reason != UNFINISHED or self._thinking_tokens == 0 or ask.room + 1 >= _ROOMIER_SAMPLES:
            return None
        wanted = replace(ask.wanted, sample=ask.wanted.sample + self.repeats)
        return self._ask(ask.place, ask.question, wanted, ask.room + 1, ask.root)

    def verdict(self, question: Question, reply: Reply) -> Verdict:
        """Return what a reply says about the choices in the order in which the question has them here."""
        if self.way == "votes":
            return vote(question, self.teacher.name, reply)
        message = json.loads(reply.message) if reply.message else {}
        if self.way == "letters" and "option_logprobs" not in message:
            return by_letter(question, self.teacher.name, message.get("top_logprobs") or [])
        return by_likelihood(question, self.teacher.name, message.get("option_logprobs") or [])

    def saw(self, outcome: Verdict) -> bool:
        """Take in what a reply was worth; see `Requests.saw`.

        Raises:
            TeacherError: none of the first replies names a letter, so that others would fare no better.
        """
        if self.way == "letters" and self._nameless is not None:
            is_nameless = isinstance(outcome, Rejection) and outcome.reason == NO_CHOICE
            self._nameless = self._nameless + 1 if is_nameless else None
            if self._nameless == _MOST_NAMELESS and isinstance(outcome, Rejection):
                raise TeacherError(
                    self._by_votes(
                        f"none of its first {_MOST_NAMELESS} replies begins with the letter of a choice. The likeliest "
                        f"first tokens of the last one: {outcome.text}"
                    ),
                    page="opinions.md#ways-to-ask",
                )
        return super().saw(outcome)

    def own_order(self, question: Question, place: int, scored: Scored) -> tuple[float, ...]:
        """Return what was said at a place, in the order of choices that the question itself has."""
        assert isinstance(self.questions, _Reordered)  # noqa: S101 - made so above
        shown = self.questions.order(question, place % self.repeats)
        found = dict(zip(shown, scored.probabilities, strict=True))
        return tuple(found[choice] for choice in range(len(shown)))

    def _request(self, place: int, question: Question) -> Request:
        by_letter = self.way in ("letters", "votes")
        form = self._form or "completion"
        prompt: Prompt = opinion_prompt(question, form=form, letters=by_letter)
        space = " " if form == "completion" else ""
        options = letters_of(question) if by_letter else question.choices
        return Request(
            question.id,
            prompt,
            self._sampling,
            sample=place % self.repeats // self._orders if self.way == "votes" else 0,
            options=() if self.way == "votes" else tuple(f"{space}{option}" for option in options),
        )

    def _not_taken(self, refused: ParameterRefused, written: Collection[str]) -> str:
        if "logprobs" in refused.names:
            return self._by_votes(f"the endpoint gives no log-probabilities: {refused}")
        if "thoughts" in refused.names:
            return self._by_votes(f"the model thinks before it answers, and that cannot be switched off: {refused}")
        return super()._not_taken(refused, written)

    def _by_votes(self, why: str) -> str:
        name = self.teacher.name
        return (
            f"Teacher '{name}': {why}\n"
            f"  To do: count its replies instead: `opinions: {{teachers: {{{name}: votes}}}}`. Replies that came "
            "before are kept."
        )


def most_choices(way: Way) -> int | None:
    """Return the most choices that a question may have to be asked in a way; None: any number."""
    return {"letters": _MOST_BY_LETTER, "votes": _MOST_BY_VOTE}.get(way)


class _Reordered(Sequence[Question]):
    """Each question several times, with its choices in several orders; made when they are looked at.

    The first order is drawn by the seed and the question, since files often have the answer at some place; each further
    one moves all choices on, so that with as many orders as choices each choice has stood at each place.
    """

    def __init__(self, asked: Sequence[Question], repeats: int, orders: int, seed: int, *, is_shuffled: bool) -> None:
        self._asked, self._repeats, self._orders, self._seed = asked, repeats, orders, seed
        self._is_shuffled = is_shuffled

    def __len__(self) -> int:
        return len(self._asked) * self._repeats

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | Sequence[Question]:
        if isinstance(index, slice):
            return list(self._between(*index.indices(len(self))[:2]))
        place = range(len(self))[index]
        return self._shown(self._asked[place // self._repeats], place % self._repeats)

    def _between(self, start: int, stop: int) -> Iterator[Question]:
        first = start // self._repeats
        for place, question in enumerate(self._asked[first : -(-stop // self._repeats)], first):
            for repeat in range(self._repeats):
                if start <= place * self._repeats + repeat < stop:
                    yield self._shown(question, repeat)

    def order(self, question: Question, repeat: int) -> list[int]:
        """Return which choice of the question stands first, second, …"""
        order = list(range(len(question.choices)))
        if not self._is_shuffled:
            return order
        turn, step = divmod(repeat % self._orders, len(order))
        random.Random(f"{self._seed}:{turn}:{question.id}:{question.question}").shuffle(order)
        return order[step:] + order[:step]

    def _shown(self, question: Question, repeat: int) -> Question:
        order = self.order(question, repeat)
        answer = None if question.answer is None else order.index(question.answer)
        return replace(question, choices=tuple(question.choices[i] for i in order), answer=answer)
