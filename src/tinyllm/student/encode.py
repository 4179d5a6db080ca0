"""From text to tokens: the prompts of a student. Only the context is cut to the longest input.

An encoder-decoder gets one row per task, with the prefix first (the paper):

    encoder: p_m [context] question choices </s>          decoder target: R^m </s>

A causal student gets one row per question, with the prefix *after* the question, so that all tasks share the prompt:

    [context] question choices | p_A A </s> | p_1 R^1 </s> | …
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from tinyllm.config import Layout, compares_by_token
from tinyllm.questions.types import Question
from tinyllm.student._plain import PlainText
from tinyllm.student._rows import Branch as Branch
from tinyllm.student._rows import Choice, shortened
from tinyllm.student._rows import Row as Row
from tinyllm.student.mixture import Target

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MARGIN = 8  # tokens; some tokenizers put a space in front
_SHORT = 80  # characters; WordPiece takes a word of a hundred for one unknown token
_SHOWN = 40  # characters of a choice in a message


def question_text(question: Question, layout: Layout) -> tuple[str, str]:
    """Return (context, question) as a student reads them. The context is empty if there is none."""
    choices = "\n".join(f"({label(i)}) {c}" for i, c in enumerate(question.choices))
    context = question.context or ""
    if layout == "cloze":
        return (f"Context: {context}\n" if context else ""), f"Question: {question.question}\n"
    if layout == "release":
        return (f"{context} \n " if context else ""), f"{question.question}\nAnswer Choices:\n{choices}"
    return (f"Context: {context}\n" if context else ""), f"Question: {question.question}\nChoices:\n{choices}\n"


def label(index: int) -> str:
    """Return the label of a choice: a letter, and after z the number of the choice, counted from 1."""
    return _LETTERS[index] if index < len(_LETTERS) else str(index + 1)


@dataclass(frozen=True, slots=True)
class _Fit:
    """The tokens of each question that is too long even without its context; and whose context is cut. By id."""

    too_long: dict[str, int]
    cut: set[str]


def _most_tokens(text: str) -> int:
    """Return an upper limit of the tokens of a text, without a tokenizer: each token covers at least one byte.

    The tokenizer may normalise the text first, which can make it longer: NFKC turns ﷺ into eighteen characters. ASCII
    stays as it is. For other texts the limit is the bytes of the text plus those of its full decomposition.
    """
    if text.isascii():
        return len(text)
    both = text + unicodedata.normalize("NFKD", text)
    return len(both.encode("utf-8", "surrogatepass"))


def _shown(text: str) -> str:
    """Return a text for a message: quoted, shortened in the middle, and with invisible characters as codes."""
    short = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"
    return "'" + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in short) + "'"


def _with_texts(targets: Sequence[Target]) -> list[tuple[Target, Target | None]]:
    """Return each target. If its choices are compared, add the text of the same task that is learnt, too."""
    texts = {(t.task, t.prefix, t.mean): t for t in targets if not t.shares}
    found = [(t, texts.get((t.task, t.prefix, t.mean)) if t.shares else None) for t in targets]
    beside = [text for _, text in found if text is not None]
    return [(t, text) for t, text in found if t not in beside]


class Encoder:
    """Turns questions and targets into rows for one kind of student.

    Args:
        is_encoder_decoder: which of the two shapes above.
        max_input_tokens: longest prompt, prefix included.
        max_target_tokens: longest target, end-of-text token included; the rest is cut.
        share_prompt: False: causal students get one row per task, too (for models that do not accept the mask).
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
        self._plain = PlainText(tokenizer)
        before, after = self._plain.frame()
        self._start = before
        self._ends = (after or (self.end,)) if is_encoder_decoder else ()

    def rows(self, question: Question, targets: Sequence[Target]) -> list[Row]:
        """Return the rows of one question: one per target for an encoder-decoder, one in all for a causal student.

        Targets with different readings have different prompts. Readings with the same tokens count as one. If a text is
        also one of the compared choices, it is computed once, as that choice.
        """
        of_reading: dict[tuple[str, bool], list[Target]] = {}
        for target in targets:
            of_reading.setdefault((target.reading, target.fades), []).append(target)
        several = dict.fromkeys(tuple(self._rows(question, *key, of)) for key, of in of_reading.items())
        return [row for rows in several for row in rows]

    def _rows(self, question: Question, reading: str, fades: bool, targets: Sequence[Target]) -> list[Row]:
        pairs = _with_texts(targets)
        if self.is_encoder_decoder:
            rows: list[Row] = []
            for target, text in pairs:
                prompt, place = self._with_reading(question, target.prefix, reading)
                whole = tuple(self._branches(question, target, (), text))
                rows += Row(question.id, prompt, whole, place if fades else (0, 0)).apart()
            return rows
        prefixes = {t.prefix: self._prefix(t.prefix) for t in targets}
        longest = max(prefixes, key=lambda p: len(prefixes[p]), default="")
        prompt, place = self._with_reading(question, longest, reading)
        if len(prefixes) == 1 and any(t.shares for t in targets):
            prompt, prefixes = prompt + prefixes[longest], {longest: ()}  # once, and not once a choice
        branches = [b for t, text in pairs for b in self._branches(question, t, prefixes[t.prefix], text)]
        row = Row(question.id, prompt, tuple(branches), place if fades else (0, 0))
        return [row] if self.share_prompt else row.apart()

    def _branches(
        self, question: Question, target: Target, prefix: tuple[int, ...], text: Target | None
    ) -> list[Branch]:
        """Return the branches of a target: its text, or all choices and perhaps the text that is learnt with them."""
        if not target.shares:
            return [Branch(target.task, prefix, self.target(target.text), target.weight, target.mean)]
        by_token = compares_by_token(self.layout)
        tokens = [self._option(choice) for choice in question.choices]
        choices = [
            Choice(target.task, prefix, of, target.weight, target.mean, share, 1 / len(of) if by_token else 1.0)
            for of, share in zip(tokens, target.shares, strict=True)
        ]
        if text is None:
            return [*choices]
        (apart,) = self._branches(question, text, prefix, None)
        if apart.target not in tokens:  # it is cut, as no choice is
            return [apart, *choices]
        place = tokens.index(apart.target)
        choices[place] = replace(choices[place], text=text.weight)
        return [*choices]

    def options(self, question: Question, prefix: str, reading: str = "") -> list[Row]:
        """Return rows whose targets are the choices, each with the end-of-text token and never cut.

        All choices have one prefix, so it stands in the prompt that they share. A branch's task is the number of its
        choice, or the numbers of all choices that have these tokens.

        Args:
            reading: a rationale that stands in the prompt.
        """
        same: dict[tuple[int, ...], list[str]] = {}
        for number, choice in enumerate(question.choices):
            same.setdefault(self._option(choice), []).append(str(number))
        branches = tuple(Branch(" ".join(numbers), (), tokens) for tokens, numbers in same.items())
        row = Row(question.id, self.generation_prompt(question, prefix, reading), branches)
        return [row] if self.share_prompt and not self.is_encoder_decoder else row.apart()

    def generation_prompt(self, question: Question, prefix: str, reading: str = "") -> tuple[int, ...]:
        """Return the tokens that the student continues (causal) or encodes (encoder-decoder) for a task."""
        prompt, _ = self._with_reading(question, prefix, reading)
        return prompt if self.is_encoder_decoder else prompt + self._prefix(prefix)

    def prompt(self, question: Question, prefix: str) -> tuple[int, ...]:
        """Return the prompt's tokens, at most `max_input_tokens` with the prefix; only the context is ever cut."""
        return self._prompt(question, prefix)[0]

    def _with_reading(self, question: Question, prefix: str, reading: str) -> tuple[tuple[int, ...], tuple[int, int]]:
        """Return the prompt with a rationale after the question, cut to fit, and the place of the rationale."""
        prompt = self.prompt(question, prefix)
        if not reading:
            return prompt, (0, 0)
        room, at = self.max_input_tokens - self._after(prefix) - len(prompt), len(prompt) - len(self._ends)
        line = shortened(self._plain(reading + "\n", after="\n"), room)
        return (*prompt[:at], *line, *prompt[at:]), (at, at + len(line))

    def target(self, text: str) -> tuple[int, ...]:
        """Return a target's tokens with the end-of-text token, cut to `max_target_tokens`."""
        return (*self._answer(text)[: self.max_target_tokens - 1], self.end)

    def _option(self, choice: str) -> tuple[int, ...]:
        """Return the tokens of a choice for comparison: all of them, with the end-of-text token."""
        return (*self._answer(choice), self.end)

    def text(self, text: str) -> tuple[int, ...]:
        """Return any text as a prompt, without changing or cutting it; see `cut_text`."""
        return (*self._start, *self._plain(text), *self._ends)

    def cut_text(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the result of `text`, with its beginning cut to fit the longest input."""
        start, over = len(self._start), len(tokens) - self.max_input_tokens
        return tokens if over <= 0 else (*self._start, *tokens[start + over :])

    def continuation(self, text: str) -> tuple[int, ...]:
        """Return all tokens of the continuation of a text, without an end-of-text token."""
        return self._plain(text, after=":")

    def written(self, text: str) -> str:
        """Return a text as it is after encoding and decoding."""
        return self.read(self._answer(text))

    def read(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens that a student wrote, without special tokens.

        Unknown tokens and spaces are kept. Otherwise `x < 3` would become `x 3`, and `n !` would become `n!`.
        """
        kept = self._plain.without_special(tokens)
        return str(self.tokenizer.decode(kept, clean_up_tokenization_spaces=False)).strip()

    def answer_length(self, text: str) -> int:
        """Return the number of tokens of an answer, with its end-of-text token."""
        return len(self._answer(text)) + 1

    def fit(self, questions: Iterable[Question], prefixes: Iterable[str]) -> _Fit:
        """Return which questions do not fit even without their context, and which have their context cut to fit."""
        prefix = max(prefixes, key=lambda p: len(self._plain(p)))
        spare = self.max_input_tokens - len(self._whole(prefix, "")) - self._after(prefix) - _MARGIN
        fit = _Fit({}, set())
        for question in questions:
            if _most_tokens("".join(question_text(question, self.layout))) <= spare:
                continue  # nearly always, and many times faster than a tokenizer
            prompt, is_cut = self._prompt(question, prefix)
            tokens = len(prompt) + self._after(prefix)
            if tokens > self.max_input_tokens:
                fit.too_long[question.id] = tokens
            elif is_cut:
                fit.cut.add(question.id)
        return fit

    def longest_prompt(self, questions: Iterable[Question], prefix: str, allowed: int) -> int:
        """Return the tokens of the longest prompt with a prefix; 0 if no prompt is longer than allowed."""
        spare = allowed - len(self._whole(prefix, "")) - self._after(prefix) - _MARGIN
        long = (q for q in questions if _most_tokens("".join(question_text(q, self.layout))) > spare)
        return max((len(self.prompt(q, prefix)) + self._after(prefix) for q in long), default=0)

    def indistinct(self, choices: Sequence[str], *, learnt: bool = False) -> str | None:
        """Return which choices the student cannot tell apart, because they are empty or the same in its tokens.

        Choices with the same text are not reported here, but when the questions are read.

        Args:
            learnt: the right choice will be a target, which is cut. Choices that are ranked are never cut.
        """
        if all(self._is_kept(c) for c in choices):
            return None  # nearly always, and many times faster than a tokenizer
        same: dict[tuple[int, ...], dict[str, int]] = {}
        for number, choice in enumerate(choices):
            if not self.tokenizer.decode(list(self._answer(choice))).strip():
                return f"nothing is left of choice {number} ({_shown(choice)}) in the student's tokens"
            tokens = self.target(choice) if learnt else self._answer(choice)
            same.setdefault(tokens, {}).setdefault(choice, number)
        alike = next((of for of in same.values() if len(of) > 1), None)
        if alike is None:
            return None
        named = " and ".join(f"{number} ({_shown(choice)})" for choice, number in alike.items())
        if len({self._answer(choice) for choice in alike}) > 1:
            return f"choices {named} begin with the same {self.max_target_tokens - 1} tokens, and the rest is cut"
        return f"choices {named} are the same in the student's tokens"

    def is_cut(self, text: str) -> bool:
        """Return whether a target is longer than `max_target_tokens`."""
        return (
            _most_tokens(" " + text) >= self.max_target_tokens - 1 and self.answer_length(text) > self.max_target_tokens
        )

    def _is_kept(self, text: str) -> bool:
        """Return whether a text certainly keeps each letter in its tokens: it is short, with usual characters only."""
        return (
            len(text) < min(_SHORT, self.max_target_tokens)
            and self._told_apart.issuperset(text)
            and text == " ".join(text.split())
        )

    @cached_property
    def _told_apart(self) -> frozenset[str]:
        """The ASCII characters that have tokens of their own, doubled and beside a space, too; and the space.

        BERT's tokenizer makes the same of `3 %` and `3%`, XLNet's of two apostrophes and a quotation mark.
        """
        seen = {
            c: [self._plain(text) for text in (f"x{c}x", f"x {c}x", f"x{c} x", f"x {c} x", f"x{c}{c}x")]
            for c in map(chr, range(33, 127))
        }
        times = Counter(chain.from_iterable(seen.values()))
        kept = (c for c, of in seen.items() if all(times[t] == 1 and self._plain.unknown not in t for t in of))
        return frozenset({" ", *kept})

    def _prompt(self, question: Question, prefix: str) -> tuple[tuple[int, ...], bool]:
        """Return the prompt, and whether the context was cut."""
        context, body = question_text(question, self.layout)
        room = self.max_input_tokens - self._after(prefix)
        whole = self._whole(prefix, context + body)
        if not context or len(whole) <= room:
            return whole, False
        # What parts the context from the question belongs to the question, so that it stays.
        parting = " \n " if self.layout == "release" else "\n"
        said = context.removesuffix(parting)
        head, tail = self._plain(prefix.rstrip()), self._plain(parting + self._closed(body), after="x")
        if self.is_encoder_decoder:
            space = prefix[len(prefix.rstrip()) :]
            cut = self._plain(space + said, after=prefix.rstrip())
        else:
            head, cut = (), self._plain(said)
        room -= len(self._start) + len(head) + len(tail) + len(self._ends)
        if room <= 0:
            return self._whole(prefix, body), True
        return (*self._start, *head, *cut[:room], *tail, *self._ends), True

    def _whole(self, prefix: str, text: str) -> tuple[int, ...]:
        """Return the prompt of a text without cutting it."""
        said = prefix + text if self.is_encoder_decoder else self._closed(text)
        return (*self._start, *self._plain(said), *self._ends)

    def _closed(self, text: str) -> str:
        """Return a text with the right end: for a causal student, the prefix begins a new line."""
        return text if self.is_encoder_decoder else text.rstrip("\n") + "\n"

    def _after(self, prefix: str) -> int:
        """Return the number of tokens that the prefix takes at the end of the input; 0 for an encoder-decoder."""
        return 0 if self.is_encoder_decoder else len(self._prefix(prefix))

    def _prefix(self, prefix: str) -> tuple[int, ...]:
        # A causal tokenizer joins a space to the word that follows it, so the space goes to the target.
        return self._plain(prefix.rstrip(), after="\n")

    def _answer(self, text: str) -> tuple[int, ...]:
        return self._plain(text) if self.is_encoder_decoder else self._plain(" " + text, after=":")
