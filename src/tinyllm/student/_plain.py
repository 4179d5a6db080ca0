"""From text to tokens. Special tokens in a text are encoded as ordinary text, and no space is added."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANCHORS = ("x", "0", ".")


class PlainText:
    """Turns pieces of a text into tokens, as they are in the middle of the whole text.

    Tokenizers do two things that are wrong for a piece of a question. They read `</s>` or `<|im_end|>` in a text as the
    token of that name. And many (SentencePiece, those with a `Prepend` normaliser) put a space before whatever they
    are given, so that a target is not the text that follows its prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(_special_ids(tokenizer))
        # With a space before each piece, a piece in the middle of a text is not the piece alone.
        self._begins = self("\nx")[-len(self("x")) :] != self("x")

    def __call__(self, text: str, after: str = "") -> tuple[int, ...]:
        """Return the tokens of a text.

        Args:
            after: how the text before it ends; empty: it is the beginning.
        """
        if not text:
            return ()
        if not after or not self._begins:
            return self._tokens(text)
        for anchor in (after, *_ANCHORS):
            known, both = self._tokens(anchor), self._tokens(anchor + text)
            if both[: len(known)] == known:
                return both[len(known) :]
        return self._tokens(text)

    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the special tokens that the tokenizer puts before a text, and after it."""
        plain = self._tokens("x")
        framed = tuple(self._tokenizer("x").input_ids)
        for at in range(len(framed) - len(plain) + 1):
            if framed[at : at + len(plain)] == plain:
                return framed[:at], framed[at + len(plain) :]
        return (), ()

    def without_special(self, tokens: Iterable[int]) -> list[int]:
        """Return tokens without the special ones, but with those that stand for what the tokenizer does not know."""
        return [token for token in tokens if token == self.unknown or token not in self._special]

    @cached_property
    def unknown(self) -> int | None:
        """The token of what the tokenizer does not know; None where it knows all (GPT-2's is its end of text, too)."""
        found = getattr(self._tokenizer, "unk_token_id", None)
        others = ("eos", "bos", "pad", "sep", "cls", "mask")
        is_other = any(getattr(self._tokenizer, f"{name}_token_id", None) == found for name in others)
        return None if found is None or is_other else int(found)

    def _tokens(self, text: str) -> tuple[int, ...]:
        found = tuple(self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
        if self._special.isdisjoint(found):
            return found
        if self._speller is not None:
            return tuple(self._speller.encode(text, add_special_tokens=False).ids)
        return tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    @cached_property
    def _speller(self) -> Any:
        """A copy of a fast tokenizer in which no text is a special token; None for a slow one.

        `split_special_tokens` is not enough: a Unigram vocabulary holds `</s>` with the best of scores.
        """
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        from tokenizers import Tokenizer

        made = json.loads(backend.to_str())
        hidden = {backend.id_to_token(i) for i in _special_ids(self._tokenizer)}
        made |= {"post_processor": None, "truncation": None, "padding": None}
        made["added_tokens"] = [t for t in made["added_tokens"] if t["content"] not in hidden]
        _hide(made["model"], {t for t in hidden if t and len(t) > 1})
        return Tokenizer.from_str(json.dumps(made))


def _special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of all special tokens, extra ones (`<extra_id_0>`) included."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*getattr(tokenizer, "all_special_ids", ()), *(i for i, token in added.items() if token.special)}


def _hide(model: dict[str, Any], tokens: set[str]) -> None:
    """Rename tokens of a tokenizer's model so that no text is one of them; ids and scores stay."""
    spare = (chr(number) * 8 for number in range(0xF0000, 0xFFFFE))
    names = {token: next(spare) for token in sorted(tokens - {model.get("unk_token")})}
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): i for token, i in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if "merges" in model:
        pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & names.keys()]
