"""What a reply says about the choices that it was shown: pure readers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tinyllm.prompts import letters_of
from tinyllm.questions import Question
from tinyllm.rationales.checks import to_rationale
from tinyllm.rationales.types import Rejection, Scored, Verdict
from tinyllm.teachers.base import Reply

NO_LOGPROBS = "no_logprobs"
"""Reason of a rejection: the endpoint gave no log-probabilities."""

NO_CHOICE = "no_choice"
"""Reason of a rejection: the reply names none of the choices."""

_LETTER = re.compile(r"^\W*([A-Z])\W*$")  # a first token that is a letter, with what may stand around it
_VOTE = re.compile(r"^\W*([A-Z])(?:\W*$|[.):*\]])")
_SAID = re.compile(r"\b(?:answer|option|choice)\b\W*(?:\bis\b\W*)?([A-Z])\b(?!['’])")


def by_letter(question: Question, teacher: str, top: Sequence[tuple[str, float]]) -> Verdict:
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


def by_likelihood(question: Question, teacher: str, scores: Sequence[tuple[float, int]]) -> Verdict:
    """Take the softmax of the options' log-likelihoods by token, so that a long choice is not the worse for it."""
    if len(scores) != len(question.choices) or not all(math.isfinite(total) for total, _ in scores):
        return Rejection(question.id, teacher, NO_LOGPROBS, "")
    return Scored(softmax([total / tokens for total, tokens in scores]))


def vote(question: Question, teacher: str, reply: Reply) -> Verdict:
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
