"""The requests for one teacher's opinions. Each question is asked in several orders of its choices.

The scheduler of `rationales` sends these requests. So they are stored, budgeted and resumed like those for rationales.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

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

_MOST_BY_LETTER = 20  # choices: endpoints return the log-probabilities of at most 20 tokens
_MOST_BY_VOTE = 26  # choices: the letters of the alphabet
_MOST_NAMELESS = 8  # first replies without a letter, after which the teacher is not asked by letter any more
_ROOMIER_SAMPLES = 3  # requests for one vote, each with more tokens for thoughts


class OpinionRequests(Requests):
    """The requests for one teacher's opinions. The requests for one question have consecutive places.

    Attributes:
        asked: the questions. `questions` has each of them several times, with its choices in different orders.
        way: how the teacher is asked.
        repeats: number of requests for each question.
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
        self._seed = section.seed
        self._orders = {"letters": section.orders, "votes": min(section.orders, section.votes)}.get(way, 1)
        self.repeats = section.votes if by_vote else self._orders
        super().__init__(
            teacher,
            self._repeated(asked, self.repeats, self._shown),
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
        self._nameless: int | None = 0  # replies without a letter so far; None after the first reply with a letter
        self._written = frozenset()  # the user has set no sampling parameter here, so each may be left out

    def _first_requests(self, start: int, questions: Sequence[Question]) -> Iterator[Request]:
        return (self._request(place, question) for place, question in enumerate(questions, start))

    def again(self, ask: Ask, outcome: Rejection) -> Ask | None:
        """Return the request for the same vote with more tokens for thoughts; None if the thought was not cut off."""
        if outcome.reason != UNFINISHED or self._thinking_tokens == 0 or ask.room + 1 >= _ROOMIER_SAMPLES:
            return None
        wanted = replace(ask.wanted, sample=ask.wanted.sample + self.repeats)
        return self._ask(ask.place, ask.question, wanted, ask.room + 1, ask.root)

    def verdict(self, question: Question, reply: Reply) -> Verdict:
        """Return the probabilities that a reply gives the choices, in the order in which this request lists them."""
        if self.way == "votes":
            return vote(question, self.teacher.name, reply)
        message = json.loads(reply.message) if reply.message else {}
        if self.way == "letters" and "option_logprobs" not in message:
            return by_letter(question, self.teacher.name, message.get("top_logprobs") or [])
        return by_likelihood(question, self.teacher.name, message.get("option_logprobs") or [])

    def saw(self, outcome: Verdict) -> bool:
        """Learn from a verdict; see `Requests.saw`.

        Raises:
            TeacherError: none of the first replies begins with a letter. Further replies would not either.
        """
        if self.way == "letters" and self._nameless is not None:
            is_nameless = isinstance(outcome, Rejection) and outcome.reason == NO_CHOICE
            self._nameless = self._nameless + 1 if is_nameless else None
            if self._nameless == _MOST_NAMELESS and isinstance(outcome, Rejection):
                raise TeacherError(
                    self._by_votes(
                        f"none of its first {_MOST_NAMELESS} replies begins with the letter of a choice. The most "
                        f"likely first tokens of the last reply: {outcome.text}"
                    ),
                    page="opinions.md#ways-to-ask",
                )
        return super().saw(outcome)

    def own_order(self, question: Question, place: int, scored: Scored) -> tuple[float, ...]:
        """Return the probabilities from the reply at a place, in the order of choices of the question itself."""
        order = self._order(question, place % self.repeats)
        found = dict(zip(order, scored.probabilities, strict=True))
        return tuple(found[choice] for choice in range(len(order)))

    def _shown(self, question: Question, repeat: int) -> Question:
        """Return a question with its choices in one of the orders."""
        order = self._order(question, repeat)
        answer = None if question.answer is None else order.index(question.answer)
        return replace(question, choices=tuple(question.choices[i] for i in order), answer=answer)

    def _order(self, question: Question, repeat: int) -> list[int]:
        """Return the indices of the choices in the order in which they are shown.

        Files often have the answer at the same position, so the seed and the question draw the first order. Each
        further order moves all choices on by one. With as many orders as choices, each choice is at each position once.
        """
        order = list(range(len(question.choices)))
        if self.way == "texts":
            return order
        turn, step = divmod(repeat % self._orders, len(order))
        random.Random(f"{self._seed}:{turn}:{question.id}:{question.question}").shuffle(order)
        return order[step:] + order[:step]

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
            return self._by_votes(f"the model thinks before it answers, and thinking cannot be switched off: {refused}")
        return super()._not_taken(refused, written)

    def _by_votes(self, why: str) -> str:
        name = self.teacher.name
        return (
            f"Teacher '{name}': {why}\n"
            f"  To do: count written replies instead: `opinions: {{teachers: {{{name}: votes}}}}`. Earlier replies are "
            "kept."
        )


def most_choices(way: Way) -> int | None:
    """Return the largest number of choices that a question may have for a way of asking; None if there is no limit."""
    return {"letters": _MOST_BY_LETTER, "votes": _MOST_BY_VOTE}.get(way)
