"""Which choice a generated text is: the text itself first, then what may be forgiven it, and only where one is left."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinyllm.student.encode import label

CONVENTION = "ended"
"""Names how answers are scored and matched (docs/decisions/0013-scores.md); under another name figures differ."""

_ARTICLE = re.compile(r"(?<!\S)(?:an?|the) (?=\S)")
_LABELLED = re.compile(r"\(?(\w+)\)?[.:,;!]?(?:\s+(.+))?", re.DOTALL)
_QUOTES = " \"'“”‘’"


@dataclass(frozen=True, slots=True)
class Generated:
    """What the student wrote, and the choice it is; `choice` is None where it is none (unparsed)."""

    text: str
    choice: int | None


def match_choice(text: str, choices: Sequence[str], written: Callable[[str], str] = str.strip) -> Generated:
    """Find the choice that a generated answer is.

    It is the one choice that equals the text: exactly, or as the tokenizer writes it; else but for white space; else
    but for quotation marks and a final full stop or the like; else but for case; else but for both; else but for
    articles, too. The first of these that leaves exactly one choice decides. A text that is none so far may be a
    choice's label (`(b)`, `b.`), alone or before that choice's text. An empty text is no choice.

    Args:
        written: what the student's tokenizer makes of a choice (T5 writes `CO2` for `CO₂`).
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
    for fold in (str.strip, _spaced, _bare, _caseless, _normalise, _without_articles):
        said = fold(text)
        hits = [i for i, of in enumerate(known) if said and said in map(fold, of)]
        if len(hits) == 1:
            return hits[0]
    return None


def _normalise(text: str) -> str:
    """Lower the case, fold white space, and strip quotation marks and a final full stop, comma or the like."""
    return _bare(text.casefold())


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _bare(text: str) -> str:
    return _spaced(text).strip(_QUOTES).rstrip(".,;:!").strip(_QUOTES)


def _caseless(text: str) -> str:
    return _spaced(text.casefold())


def _without_articles(text: str) -> str:
    return _ARTICLE.sub("", _normalise(text))
