"""What a teacher is shown: the in-context example generator and the teacher's prompt. Pure text, no state.

The paper's generator picks examples P_i for question i from the training split, never the question itself; the
teacher then sees P_i, the question, its choices and (teacher forcing) its answer: R_i^m = T^m(Q_i, O_i, A_i, P_i).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

from tinyllm.config import ExamplesSection, Form
from tinyllm.questions import Question


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a teacher is shown: chat messages, or one plain text to complete; never both."""

    messages: tuple[Message, ...] = ()
    text: str = ""


Strategy = Callable[[Question, Sequence[Question], int, random.Random], tuple[Question, ...]]
"""(question, pool without it, count, seeded generator) → at most `count` examples, in the order they are shown."""

_FORCED = "Explain in two or three sentences why the answer is correct."
_UNFORCED = "Reason step by step, then state the answer."


# --- the in-context example generator ----------------------------------------------------------------------------


def _random(_question: Question, pool: Sequence[Question], count: int, draw: random.Random) -> tuple[Question, ...]:
    return tuple(draw.sample(pool, min(count, len(pool))))


def _none(_question: Question, _pool: Sequence[Question], _count: int, _draw: random.Random) -> tuple[Question, ...]:
    return ()


STRATEGIES: Mapping[str, Strategy] = {"random": _random, "none": _none}


class ExampleGenerator:
    """Picks the examples of any number of questions from one pool, which is prepared once.

    Args:
        pool: the training split; examples come from nowhere else.
        section: strategy, count and seed. The pick depends on the pool, the seed and the question's id alone.

    Attributes:
        worked: key of the rationales that the picked examples are shown with; None: they are shown without.
    """

    def __init__(self, pool: Sequence[Question], section: ExamplesSection) -> None:
        self._section = section
        self._strategy = STRATEGIES[section.strategy]
        carriers = [q for q in pool if section.worked and _worked_text(q, section.worked)]
        enough = len(carriers) > section.count
        self.worked: str | None = section.worked if enough else None
        self._pool: Sequence[Question] = carriers if enough else tuple(pool)
        self._places: Mapping[object, list[int]] = self._index()

    def _index(self) -> Mapping[object, list[int]]:
        """Where in the pool each id and each content stands: leaving a question out must not cost a pass over it."""
        places: defaultdict[object, list[int]] = defaultdict(list)
        for place, question in enumerate(self._pool):
            places[question.id].append(place)
            places[_content(question)].append(place)
        return dict(places)

    def pick(self, question: Question) -> tuple[Question, ...]:
        """Return the examples of a question: never itself, nor one with the same text and choices."""
        same = {*self._places.get(question.id, ()), *self._places.get(_content(question), ())}
        pool = _Without(self._pool, sorted(same)) if same else self._pool
        return self._strategy(question, pool, self._section.count, _seeded(self._section.seed, question.id))


def pick_examples(question: Question, pool: Sequence[Question], section: ExamplesSection) -> tuple[Question, ...]:
    """Return the examples of one question; for many questions make one `ExampleGenerator`."""
    return ExampleGenerator(pool, section).pick(question)


class _Without(Sequence[Question]):
    """A sequence with a few of its places left out, without a copy."""

    def __init__(self, base: Sequence[Question], left_out: Sequence[int]) -> None:
        self._base = base
        self._left_out = left_out

    def __len__(self) -> int:
        return len(self._base) - len(self._left_out)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | Sequence[Question]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]  # IndexError, and negative indices, as every sequence has them
        for gap in self._left_out:
            place += gap <= place
        return self._base[place]


def _content(question: Question) -> tuple[str, tuple[str, ...]]:
    """What makes two questions the same although their ids differ: text and choices, in any order and spacing."""
    return _line(question.question).casefold(), tuple(sorted(_line(c).casefold() for c in question.choices))


def _seeded(seed: int, question_id: str) -> random.Random:
    """A generator that is the same on every machine and in every process (`hash` of a text is not)."""
    digest = hashlib.sha256(json.dumps([seed, question_id]).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


# --- the prompt ---------------------------------------------------------------------------------------------------


def teacher_prompt(
    question: Question, examples: Sequence[Question], *, form: Form, teacher_forcing: bool, worked: str | None
) -> Prompt:
    """Return what a teacher is shown for one question.

    Args:
        examples: from `ExampleGenerator.pick`.
        form: chat messages, or one plain text that ends where the explanation begins.
        teacher_forcing: show the right answer and ask why (the paper); otherwise ask to reason and then answer.
        worked: key of the examples' rationales; an example without one shows question, choices and answer.
    """
    make = _chat if form == "chat" else _completion
    return make(question, examples, teacher_forcing, worked)


def _completion(question: Question, examples: Sequence[Question], forcing: bool, worked: str | None) -> Prompt:
    # The instruction comes first: what many prompts share at their start, servers keep in their prefix caches.
    parts = [_FORCED if forcing else _UNFORCED]
    for example in examples:
        text = _worked_text(example, worked)
        if text is None:
            parts.append(_block(example, answer=True))
        else:
            parts.append(f"{_block(example, answer=forcing)}\nExplanation: {_shown(example, text, forcing)}")
    parts.append(f"{_block(question, answer=forcing)}\nExplanation:")
    return Prompt(text="\n\n".join(parts))


def _chat(question: Question, examples: Sequence[Question], forcing: bool, worked: str | None) -> Prompt:
    messages = [Message("system", _FORCED if forcing else _UNFORCED)]
    unworked: list[str] = []
    for example in examples:
        text = _worked_text(example, worked)
        if text is None:
            unworked.append(_block(example, answer=True))
        else:
            messages.append(Message("user", _block(example, answer=forcing)))
            messages.append(Message("assistant", _shown(example, text, forcing)))
    asked = _block(question, answer=forcing)
    if unworked:
        asked = "\n\n".join(["Other questions, with their answers:", *unworked, "The question to explain:", asked])
    return Prompt(messages=(*messages, Message("user", asked)))


def _block(question: Question, *, answer: bool) -> str:
    """Context, question, choices and, if asked for, the answer: a line each."""
    lines = [f"Context: {_line(question.context)}"] if question.context else []
    lines.append(f"Question: {_line(question.question)}")
    lines.append(f"Choices: {' | '.join(_line(c) for c in question.choices)}")
    if answer:
        lines.append(f"Answer: {_line(question.answer_text)}")
    return "\n".join(lines)


def _shown(example: Question, text: str, forcing: bool) -> str:
    """A worked rationale; where the teacher must find the answer itself, it ends by stating the answer."""
    return text if forcing else f"{text} The answer is {_line(example.answer_text).rstrip('.')}."


def _worked_text(question: Question, worked: str | None) -> str | None:
    return _line(question.rationales.get(worked, "")) or None if worked else None


def _line(text: str) -> str:
    """One line: line breaks are the layout's, and an empty line is where a completion stops."""
    return " ".join(text.split())
