"""The wording of a teacher's prompt.

The parts that many prompts share come first (the instruction, then the examples), so that servers can cache the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal

from tinyllm.config import Form
from tinyllm.questions import Question

_FORCED = "Explain in two or three sentences why the answer is correct."
_BY_LETTER = "Answer the question with the letter of the right choice and nothing else."
_IN_WORDS = "Answer the question in a few words."
_UNFORCED = "Reason step by step, then state the answer."


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of a teacher: chat messages, or one plain text to complete; never both."""

    messages: tuple[Message, ...] = ()
    text: str = ""


def teacher_prompt(
    question: Question, examples: Sequence[Question], *, form: Form, teacher_forcing: bool, worked: str | None
) -> Prompt:
    """Return the prompt that asks a teacher for a rationale.

    Args:
        examples: from `ExampleGenerator.pick`.
        form: chat messages, or one plain text that ends where the explanation begins.
        teacher_forcing: show the right answer and ask why (the paper). Otherwise ask to reason and then answer.
        worked: key of the examples' rationales. An example without one shows question, choices and answer.
    """
    make = _chat if form == "chat" else _completion
    return make(question, examples, teacher_forcing, worked)


def opinion_prompt(question: Question, *, form: Form, letters: bool) -> Prompt:
    """Return the prompt that asks for a teacher's own opinion: no answer, no examples.

    Args:
        letters: list the choices by letter and ask for a letter. Otherwise the choices are not shown, and the opinion
            is the likelihood of each choice as the continuation.
    """
    lines = _asked(question)
    if letters:
        lines += [f"{letter}. {one_line(c)}" for letter, c in zip(letters_of(question), question.choices, strict=True)]
    ask = _BY_LETTER if letters else _IN_WORDS
    if form == "chat":
        return Prompt(messages=(Message("system", ask), Message("user", "\n".join(lines))))
    return Prompt(text="\n".join([ask, "", *lines, "Answer:"]))


def letters_of(question: Question) -> str:
    """Return the letters of a question's choices.

    Raises:
        ValueError: there are more choices than letters.
    """
    if len(question.choices) > len(ascii_uppercase):
        raise ValueError(f"question '{question.id}' has more choices than there are letters")
    return ascii_uppercase[: len(question.choices)]


def _completion(question: Question, examples: Sequence[Question], forcing: bool, worked: str | None) -> Prompt:
    parts = [_FORCED if forcing else _UNFORCED]
    for example in examples:
        text = worked_text(example, worked)
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
        text = worked_text(example, worked)
        if text is None:
            unworked.append(_block(example, answer=True))
        else:
            messages.append(Message("user", _block(example, answer=forcing)))
            messages.append(Message("assistant", _shown(example, text, forcing)))
    asked = _block(question, answer=forcing)
    if unworked:
        asked = "\n\n".join(["Other questions, with their answers:", *unworked, "The question to explain:", asked])
    return Prompt(messages=(*messages, Message("user", asked)))


def _asked(question: Question) -> list[str]:
    context = [f"Context: {one_line(question.context)}"] if question.context else []
    return [*context, f"Question: {one_line(question.question)}"]


def _block(question: Question, *, answer: bool) -> str:
    """Return context, question, choices and perhaps the answer, one per line."""
    lines = _asked(question)
    lines.append(f"Choices: {' | '.join(one_line(c) for c in question.choices)}")
    if answer:
        lines.append(f"Answer: {one_line(question.answer_text)}")
    return "\n".join(lines)


def _shown(example: Question, text: str, forcing: bool) -> str:
    """Return a worked rationale. Without teacher forcing, it ends with the answer."""
    return text if forcing else f"{text} The answer is {one_line(example.answer_text).rstrip('.')}."


def worked_text(question: Question, worked: str | None) -> str | None:
    """Return the rationale of a question under a key, in one line; None if there is none."""
    return one_line(question.rationales.get(worked, "")) or None if worked else None


def one_line(text: str) -> str:
    """Return a text in one line. Prompts use line breaks for their layout, and an empty line ends a completion."""
    return " ".join(text.split())
