"""Readers of replies: each returns probabilities of the choices, in the order in which the teacher saw them. Pure."""

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
"""Reason of a rejection: the reply has no log-probabilities."""

NO_CHOICE = "no_choice"
"""Reason of a rejection: the reply names no choice."""

_LETTER = re.compile(r"^\W*([A-Z])\W*$")  # a first token that is a letter, with spaces or punctuation around it
_LATEX = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf) *\{|\}|\$")  # \boxed{\text{B}}
_ALONE = re.compile(r"^\W*([A-Za-z])\W*$")
_FIRST = re.compile(r"^\W*([A-Za-z])[.):*\]]")
_LISTED = re.compile(r"(?:^|[\s(*])([A-Z])[:)]")
_ANSWER = re.compile(
    r"\b(?:[Aa]nswer|[Cc]orrect (?:option|choice))\b\W*(?:\bis\b\W*)?(?:\b(?:option|choice)\b\W*)?([A-Z])\b(?!['’])"
)
_OPTION = re.compile(r"\b(?:[Oo]ption|[Cc]hoice)\b\W*([A-Z])\b(?!['’])")
_NOT = re.compile(r"\b(?:not|no|never|neither|nor|without)\b|n['’]t\b", re.IGNORECASE)


def by_letter(question: Question, teacher: str, top: Sequence[tuple[str, float]]) -> Verdict:
    """Return the probability of each letter: the sum over the tokens that spell it (`B`, ` B`, `B.`, `(B`).

    An endpoint returns only the most likely tokens. A letter that is not among them gets the highest probability that
    it can have: at most that of the least likely token, and at most an equal share of the remaining probability.
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
    missing = [letter for letter in letters if not found[letter]]
    if missing:
        listed = [math.exp(logprob) for _, logprob in top]
        found |= dict.fromkeys(missing, min(min(listed), max(0.0, 1 - sum(listed)) / len(missing)))
    total = sum(found.values())
    return Scored(tuple(found[letter] / total for letter in letters), min(1.0, mass))


def by_likelihood(question: Question, teacher: str, scores: Sequence[tuple[float, int]]) -> Verdict:
    """Return the softmax of the choices' log-likelihoods per token, so that long choices are not at a disadvantage."""
    if len(scores) != len(question.choices) or not all(math.isfinite(total) for total, _ in scores):
        return Rejection(question.id, teacher, NO_LOGPROBS, "")
    return Scored(softmax([total / tokens for total, tokens in scores]))


def vote(question: Question, teacher: str, reply: Reply) -> Verdict:
    """Return probability 1 for the choice that a reply names, by its letter or by its text."""
    seen = to_rationale(question, teacher, reply, checks=(), repair=False)
    if isinstance(seen, Rejection):
        return seen
    letters = letters_of(question)
    text = _LATEX.sub("", seen.text)
    letter = _named_by_letter(text, question)
    place = letters.find(letter) if letter else _named_by_text(question, text)
    if place < 0:
        return Rejection(question.id, teacher, NO_CHOICE, seen.text)
    return Scored(tuple(float(i == place) for i in range(len(letters))))


def _named_by_letter(text: str, question: Question) -> str:
    """Return the letter that a reply names as its answer; empty if there is none, or if it may be one of several.

    A letter alone is the answer. So is the last one after "answer" or "correct option", since reasoning comes before
    it, unless it begins a choice ("Answer: A wave"). Letters at the beginning of lines or after "option" only count if
    all of them are the same.
    """
    if alone := _ALONE.match(text):
        return alone[1].upper()
    if said := [m for m in _ANSWER.finditer(text) if m[1] in letters_of(question)]:
        last = _words(text[said[-1].start(1) :])
        if not any(last.startswith(_words(choice)) for choice in question.choices if " " in choice.strip()):
            return str(said[-1][1])
    first = _FIRST.match(text)
    for letters in ({*_LISTED.findall(text), *([first[1].upper()] if first else [])}, {*_OPTION.findall(text)}):
        if letters:
            return letters.pop() if len(letters) == 1 else ""
    return ""


def _named_by_text(question: Question, text: str) -> int:
    """Return the index of the choice whose text is in a reply; -1 if there is none, or more than one, or if something
    besides the choice is denied."""
    said = _words(text)
    named = [i for i, choice in enumerate(question.choices) if _words(choice) in said]
    if len(named) != 1:
        return -1
    is_denied = len(_NOT.findall(text)) > len(_NOT.findall(question.choices[named[0]]))
    return -1 if is_denied else named[0]


def _words(text: str) -> str:
    return " ".join(["", *re.findall(r"\w+", text.casefold()), ""])


def softmax(scores: Sequence[float]) -> tuple[float, ...]:
    """Return probabilities in proportion to the exponentials of the scores."""
    top = max(scores)
    weights = [math.exp(s - top) for s in scores]
    return tuple(w / sum(weights) for w in weights)
