"""What one teacher is asked for its opinion: each question in several orders of its choices, and what a reply says.

The scheduler of `rationales` sends these requests, so they are stored, budgeted and resumed as those for rationales.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import overload

from tinyllm.config import ExamplesSection, OpinionsSection, RationalesSection, Way
from tinyllm.errors import TeacherError
from tinyllm.prompts import ExampleGenerator, Prompt, letters_of, opinion_prompt
from tinyllm.questions import Question
from tinyllm.rationales.checks import to_rationale
from tinyllm.rationales.requests import Ask, Requests
from tinyllm.rationales.types import UNFINISHED, Rejection, Scored, Verdict
from tinyllm.teachers import Teacher
from tinyllm.teachers.base import ParameterRefused, Reply, Request
from tinyllm.teachers.manners import Manners

NO_LOGPROBS = "no_logprobs"
"""Reason of a rejection: the endpoint gave no log-probabilities."""

NO_CHOICE = "no_choice"
"""Reason of a rejection: the reply names none of the choices."""

_MOST_BY_LETTER = 20  # as many first tokens as endpoints tell the log-probabilities of
_MOST_BY_VOTE = 26  # letters
_ROOMIER_SAMPLES = 3  # of a vote whose thought was cut off
_LETTER = re.compile(r"^\W*([A-Z])\W*$")  # a first token that is a letter, with what may stand around it
_VOTE = re.compile(r"^\W*([A-Z])(?:\W*$|[.):*\]])")
_SAID = re.compile(r"\b(?:answer|option|choice)\b\W*(?:\bis\b\W*)?([A-Z])\b(?!['’])")


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
            return _vote(question, self.teacher.name, reply)
        message = json.loads(reply.message) if reply.message else {}
        if self.way == "letters" and "option_logprobs" not in message:
            return _by_letter(question, self.teacher.name, message.get("top_logprobs") or [])
        return _by_likelihood(question, self.teacher.name, message.get("option_logprobs") or [])

    def saw(self, outcome: Verdict) -> bool:
        """Take in what a reply was worth.

        Raises:
            TeacherError: the endpoint leaves the log-probabilities out, so that asking on is of no use.
        """
        if isinstance(outcome, Rejection) and outcome.reason == NO_LOGPROBS:
            raise TeacherError(
                f"Teacher '{self.teacher.name}': the endpoint answers without log-probabilities. {self._by_votes()}"
            )
        return super().saw(outcome)

    def own_order(self, place: int, scored: Scored) -> tuple[float, ...]:
        """Return the probabilities at a place in the order that the question itself has."""
        question = self.asked[place // self.repeats]
        found = dict(zip(self._order(place, question), scored.probabilities, strict=True))
        return tuple(found[i] for i in range(len(question.choices)))

    def _order(self, place: int, question: Question) -> Sequence[int]:
        assert isinstance(self.questions, _Reordered)  # noqa: S101
        return self.questions.order(question, place % self.repeats)

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
            who = f"Teacher '{self.teacher.name}'"
            return f"{who}: the endpoint gives no log-probabilities: {refused}\n  {self._by_votes()}"
        return super()._not_taken(refused, written)

    def _by_votes(self) -> str:
        return f"To do: count its replies instead: `opinions: {{teachers: {{{self.teacher.name}: votes}}}}`."


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


# --- what a reply says --------------------------------------------------------------------------------------------


def _by_letter(question: Question, teacher: str, top: Sequence[tuple[str, float]]) -> Verdict:
    """Add up the probabilities of the tokens that are a choice's letter: `B`, ` B`, `B.`, `(B`.

    A letter that is not among the tokens told gets what it can have had at most: no more than the least likely of them,
    and no more than its share of what they leave.
    """
    if not top:
        return Rejection(question.id, teacher, NO_LOGPROBS, "")
    letters = letters_of(question)
    found = dict.fromkeys(letters, 0.0)
    for token, logprob in top:
        if (match := _LETTER.match(token)) and match[1] in found:
            found[match[1]] += math.exp(logprob)
    mass = sum(found.values())
    if mass <= 0:
        return Rejection(question.id, teacher, NO_CHOICE, " ".join(token for token, _ in top))
    unseen = [letter for letter in letters if not found[letter]]
    if unseen:
        told = [math.exp(logprob) for _, logprob in top]
        found |= dict.fromkeys(unseen, min(min(told), max(0.0, 1 - sum(told)) / len(unseen)))
    total = sum(found.values())
    return Scored(tuple(found[letter] / total for letter in letters), min(1.0, mass))


def _by_likelihood(question: Question, teacher: str, scores: Sequence[tuple[float, int]]) -> Verdict:
    """Take the softmax of the options' log-likelihoods by token, so that a long choice is not the worse for it."""
    if len(scores) != len(question.choices) or not all(math.isfinite(total) for total, _ in scores):
        return Rejection(question.id, teacher, NO_LOGPROBS, "")
    return Scored(softmax([total / tokens for total, tokens in scores]))


def _vote(question: Question, teacher: str, reply: Reply) -> Verdict:
    """Find the one choice that a reply names, by its letter or by its text."""
    seen = to_rationale(question, teacher, reply, checks=(), repair=False)
    if isinstance(seen, Rejection):
        return seen
    letters = letters_of(question)
    named = _VOTE.match(seen.text) or next(iter([*_SAID.finditer(seen.text)][-1:]), None)
    place = letters.find(named[1]) if named else _the_one_named(question, seen.text)
    if place < 0:
        return Rejection(question.id, teacher, NO_CHOICE, seen.text)
    return Scored(tuple(float(i == place) for i in range(len(letters))))


def _the_one_named(question: Question, text: str) -> int:
    """Return the only choice whose text stands in a reply; -1 if there is none, or more than one."""
    said = _words(text)
    named = [i for i, choice in enumerate(question.choices) if _words(choice) in said]
    return named[0] if len(named) == 1 else -1


def _words(text: str) -> str:
    return " ".join(["", *re.findall(r"\w+", text.casefold()), ""])


def softmax(scores: Sequence[float]) -> tuple[float, ...]:
    """Return the probabilities that are proportional to the exponentials of some scores."""
    top = max(scores)
    weights = [math.exp(s - top) for s in scores]
    return tuple(w / sum(weights) for w in weights)
