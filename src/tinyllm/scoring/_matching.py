"""Matching: which choice a written answer is. The text itself is compared first, then folded forms of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinyllm.student.encode import label

_ARTICLE = re.compile(r"(?<!\S)(?:an?|the) (?=\S)")
_LABELLED = re.compile(r"\(?(\w+)\)?[.:,;!]?(?:\s+(.+))?", re.DOTALL)
_QUOTES = " \"'“”‘’"


@dataclass(frozen=True, slots=True)
class Generated:
    """The text that the student wrote, and the choice that it matches; None if it matches none (unparsed)."""

    text: str
    choice: int | None


def match_choice(text: str, choices: Sequence[str], written: Callable[[str], str] = str.strip) -> Generated:
    """Find the choice that a written answer matches.

    Texts are compared in this order: as they are, or as the tokenizer writes the choice; without differences in white
    space; without quotation marks and final punctuation; without case; without both; without articles, too. The first
    comparison that exactly one choice passes decides. If none decides, the text may be the label of a choice (`(b)`,
    `b.`), alone or before the text of that choice. An empty text matches no choice.

    Args:
        written: returns how the student's tokenizer writes a choice (T5 writes `CO2` for `CO₂`).
    """
    known = [(c.strip(), written(c)) for c in choices]
    found = _matched(text, known)
    label_and_text = _LABELLED.fullmatch(text.strip().strip(_QUOTES))
    if found is None and label_and_text is not None:
        labels = [label(i) for i in range(len(choices))]
        said, rest = label_and_text[1].casefold(), label_and_text[2]
        place = labels.index(said) if said in labels else None
        found = place if rest is None or _matched(rest, known) == place else None
    return Generated(text, found)


def _matched(text: str, known: Sequence[tuple[str, str]]) -> int | None:
    for fold in (str.strip, _spaced, _bare, lambda t: _spaced(t.casefold()), _normalise, _without_articles):
        said = fold(text)
        hits = [i for i, of in enumerate(known) if said and said in map(fold, of)]
        if len(hits) == 1:
            return hits[0]
    return None


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _bare(text: str) -> str:
    return _spaced(text).strip(_QUOTES).rstrip(".,;:!。，；：！").strip(_QUOTES)


def _normalise(text: str) -> str:
    return _bare(text.casefold())


def _without_articles(text: str) -> str:
    return _ARTICLE.sub("", _normalise(text))
