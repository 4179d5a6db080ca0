"""From text to tokens: the prompts a student sees, with the context cut to fit and nothing else.

An encoder-decoder gets one row a task, with the prefix first (the paper):

    encoder: p_m [context] question choices </s>          decoder target: R^m </s>

A causal student gets one row a question, with the prefix *after* the question, so that all tasks share the prompt:

    [context] question choices | p_A A </s> | p_1 R^1 </s> | …
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyllm.config import Layout
from tinyllm.questions.types import Question
from tinyllm.student.mixture import Target

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MARGIN = 8  # tokens; some tokenizers put a space in front


@dataclass(frozen=True, slots=True)
class Branch:
    """One task of a row, in tokens: `prefix` is given, `target` is learnt.

    Attributes:
        weight: α of the task.
        mean: as of a `Target`.
    """

    task: str
    prefix: tuple[int, ...]
    target: tuple[int, ...]
    weight: float = 1.0
    mean: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and the branches that continue it; an encoder-decoder's row has exactly one, with an empty prefix."""

    question_id: str
    prompt: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def target_length(self) -> int:
        """Tokens of all branches that a decoder is fed."""
        return sum(len(b.prefix) + len(b.target) for b in self.branches)

    @property
    def length(self) -> int:
        """Tokens of prompt and branches."""
        return len(self.prompt) + self.target_length

    def apart(self) -> list[Row]:
        """Return one row a branch, for models that cannot take the mask of a shared prompt."""
        return [Row(self.question_id, self.prompt, (branch,)) for branch in self.branches]


@dataclass(frozen=True, slots=True)
class TooLong:
    """A question whose text and choices alone exceed the longest input."""

    question_id: str
    tokens: int
    allowed: int


def question_text(question: Question, layout: Layout) -> tuple[str, str]:
    """Return (context, question) as a student reads them; the context is empty where there is none."""
    choices = "\n".join(f"({_letter(i)}) {c}" for i, c in enumerate(question.choices))
    context = question.context or ""
    if layout == "cloze":
        return (f"Context: {context}\n" if context else ""), f"Question: {question.question}\n"
    if layout == "release":
        return (f"{context} \n " if context else ""), f"{question.question}\nAnswer Choices:\n{choices}"
    return (f"Context: {context}\n" if context else ""), f"Question: {question.question}\nChoices:\n{choices}\n"


def _letter(index: int) -> str:
    return _LETTERS[index] if index < len(_LETTERS) else str(index + 1)


def _most_tokens(text: str) -> int:
    """Return a number of tokens that a text cannot exceed, without a tokenizer: each covers a byte or more.

    Of the text as the tokenizer normalises it, that is: NFKC makes eighteen characters of the one ﷺ. It leaves ASCII as
    it is; beyond that the bytes of the text and of its full decomposition together are more than any mixture of both.
    """
    if text.isascii():
        return len(text)
    both = text + unicodedata.normalize("NFKD", text)
    return len(both.encode("utf-8", "surrogatepass"))


class Encoder:
    """Turns questions and targets into rows for one kind of student.

    Args:
        tokenizer: the student's own.
        is_encoder_decoder: which of the two shapes above.
        layout: how question and choices are written out.
        max_input_tokens: longest prompt, prefix included.
        max_target_tokens: longest target, end-of-text token included; the rest is cut.
        share_prompt: False: one row a task for causal students too (for models that cannot take the mask).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        is_encoder_decoder: bool,
        layout: Layout = "labelled",
        max_input_tokens: int = 1024,
        max_target_tokens: int = 256,
        share_prompt: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        self.is_encoder_decoder = is_encoder_decoder
        self.layout = layout
        self.max_input_tokens = max_input_tokens
        self.max_target_tokens = max_target_tokens
        self.share_prompt = share_prompt
        self.end = int(tokenizer.eos_token_id)
        bos = tokenizer.bos_token_id
        starts = tokenizer("x").input_ids[:1]
        self._start: tuple[int, ...] = (int(bos),) if bos is not None and starts == [bos] else ()

    def rows(self, question: Question, targets: Sequence[Target]) -> list[Row]:
        """Return the rows of one question: one a target for an encoder-decoder, one in all for a causal student."""
        if self.is_encoder_decoder:
            return [Row(question.id, self.prompt(question, t.prefix), (self._branch(t, ()),)) for t in targets]
        branches = [self._branch(t, self._prefix(t.prefix)) for t in targets]
        prompt = self.prompt(question, max((t.prefix for t in targets), key=len, default=""))
        row = Row(question.id, prompt, tuple(branches))
        return [row] if self.share_prompt else row.apart()

    def _branch(self, target: Target, prefix: tuple[int, ...]) -> Branch:
        return Branch(target.task, prefix, self.target(target.text), target.weight, target.mean)

    def options(self, question: Question, prefix: str) -> list[Row]:
        """Return rows whose targets are the choices, without an end-of-text token: what likelihood ranking scores.

        All choices have one prefix, so it stands in the prompt that they share.
        """
        choices = [Target(question.id, str(i), prefix, c, 1.0) for i, c in enumerate(question.choices)]
        rows = self.rows(question, choices)
        return [
            Row(
                r.question_id,
                r.prompt + r.branches[0].prefix,
                tuple(Branch(b.task, (), b.target[:-1]) for b in r.branches),
            )
            for r in rows
        ]

    def generation_prompt(self, question: Question, prefix: str) -> tuple[int, ...]:
        """Return what the student continues (causal) or encodes (encoder-decoder) to do one task."""
        prompt = self.prompt(question, prefix)
        return prompt if self.is_encoder_decoder else prompt + self._prefix(prefix)

    def prompt(self, question: Question, prefix: str) -> tuple[int, ...]:
        """Return the prompt's tokens, at most `max_input_tokens` with the prefix; only the context is ever cut."""
        context, body = question_text(question, self.layout)
        head, tail = self._frame(prefix, body)
        room = self._room(prefix, head, tail)
        return (*head, *self._tokens(context)[: max(0, room)], *tail)

    def target(self, text: str) -> tuple[int, ...]:
        """Return a target's tokens with the end-of-text token, cut to `max_target_tokens`."""
        text = text if self.is_encoder_decoder else " " + text
        return (*self._tokens(text)[: self.max_target_tokens - 1], self.end)

    def text(self, text: str) -> tuple[int, ...]:
        """Return any text as a prompt, as it is; its beginning is cut if it is longer than the longest input."""
        ends = (self.end,) if self.is_encoder_decoder else ()
        room = self.max_input_tokens - len(self._start) - len(ends)
        return (*self._start, *self._tokens(text)[-room:], *ends)

    def continuation(self, text: str) -> tuple[int, ...]:
        """Return the tokens of what goes on from a text, without an end-of-text token."""
        return self._tokens(text)[: self.max_target_tokens]

    def too_long(self, questions: Iterable[Question], prefixes: Iterable[str]) -> list[TooLong]:
        """Return the questions that do not fit even without their context."""
        prefix = max(prefixes, key=len)
        spare = self._room(prefix, *self._frame(prefix, "")) - _MARGIN
        found = []
        for question in questions:
            body = question_text(question, self.layout)[1]
            if _most_tokens(body) <= spare:
                continue  # nearly always, and many times faster than a tokenizer
            head, tail = self._frame(prefix, body)
            room = self._room(prefix, head, tail)
            if room < 0:
                found.append(TooLong(question.id, self.max_input_tokens - room, self.max_input_tokens))
        return found

    def _frame(self, prefix: str, body: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what stands before and after the context."""
        if self.is_encoder_decoder:
            return self._tokens(prefix), (*self._tokens(body), self.end)
        return self._start, self._tokens(body.rstrip("\n") + "\n")  # the prefix begins a line of its own

    def _room(self, prefix: str, head: Sequence[int], tail: Sequence[int]) -> int:
        after = 0 if self.is_encoder_decoder else len(self._prefix(prefix))
        return self.max_input_tokens - len(head) - len(tail) - after

    def _prefix(self, prefix: str) -> tuple[int, ...]:
        # A causal tokenizer joins a space to the word that follows it, so the space goes to the target.
        return self._tokens(prefix.rstrip())

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids) if text else ()
