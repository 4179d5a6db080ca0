"""Makes a rationale of a reply, by repairs and checks. All functions are pure.

The stored reply never changes, so other checks can be applied later without asking a teacher. `rejected.jsonl` and the
report show the name of the check that failed. The patterns were developed on the 33,000 published rationales of FLAN-T5
and LLaMA-2, and their matches were reviewed one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from tinyllm.config import CheckName
from tinyllm.questions import Question
from tinyllm.rationales._refusal import is_refusal
from tinyllm.rationales._visible import visible
from tinyllm.rationales.types import Rationale, Rejection
from tinyllm.system.files import well_formed
from tinyllm.teachers.base import Reply

# What begins something else at the start of a line: a new question, its choices, a comment in a forum, a heading in a
# textbook. Headings that belong to an explanation do not match.
_NEW_QUESTION = re.compile(
    r"\n[^\S\n]*(?:Questions?|Q|Choices|Options|Answer\ Choices|Context|Passage|Comment|Exercise|Problem)"
    r"\s*\.?\s*\d*\s*:"
    r"|\n[^\S\n]*Q\s*\.?\s*\d+\s*[.:)\n]"
    r"|\n[^\S\n]*Q(?:\.\s|A?->)"
    r"|\n[^\S\n]*(?:Chapter|Exercise|Problem|Question)\s+\d+\s*[.:\n]"
    r"|\n[^\S\n]*\#{1,6}(?=\s|$)(?!\s*(?:Step|Explanation|Reason|Why|Conclusion|Summary|Answer)\b)"
    r"|<\|im_start\|>|\[INST\]",
    re.IGNORECASE | re.VERBOSE,
)
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)|[。！？][”’」』）]*")
_NO_SENTENCE_END = re.compile(
    r"(?:^|\n)[^\w\n]*\w{1,3}$"  # the number of an item in a list
    r"|\b(?:e\.g|i\.e|cf|vs|approx|[Ff]ig|Dr|Mrs?|Ms|St|Prof|spp?|ca)$"
)
_COMPLETE_END = re.compile(r"[.!?)\]\"'”’*。！？）」』]\s*$")
_LIST_MARK_END = re.compile(r"(?:^|\n)[^\w\n]*\w{1,3}[.)]\s*$")

_OPENING = re.compile(r"let['’]?s think(?: about (?:this|it))? step[ -]by[ -]step[\s.:,]*", re.IGNORECASE)
_ANSWER_IS = re.compile(
    r"\b(?:correct\s+|right\s+|best\s+)?answer\s*(?:is\b|:)\s*:?\s*(?:most\s+likely\s+)?(?:(?:option|choice|answer)\b)?"
    r"[\s\"'“‘(*]*",
    re.IGNORECASE,
)
_IS_ANSWER = re.compile(
    r"(?:(?<!\w)\((?P<mark>[a-z])\)|\b(?:option|choice|answer)\s+\(?(?P<letter>[a-z])\)?)"
    r"\s+is\s+the\s+(?:only\s+)?(?:correct|right|best)\s+(?:answer|option|choice)\b",
    re.IGNORECASE,
)
_BARE_ANSWER = re.compile(
    r"(?:\b(?:so|thus|hence|therefore)\b[\s,]*)?(?:\bthe\s+)?" + _ANSWER_IS.pattern + r"[a-z]\b[\"'”’)*]*",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"(?:the|an|a)\s+")
_GARBLED = re.compile(r"\ufffd|Ã[\x80-\xbf©¨¢¤¶¼]|â€|Â[\xa0-\xbf]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FOREIGN = re.compile(r"[^\x00-\x7f]{2,}")
_TAIL = 60  # characters at the end of a text that show how it ends
_MIN_WORDS = 3
_UNSPACED = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"  # Chinese and Japanese have no spaces between words
_SOME_WORDS = re.compile(r"\w+" + r"\W+\w+" * (_MIN_WORDS - 1) + "|" + _UNSPACED * _MIN_WORDS)
_REPEATED_SHARE = 0.5


def to_rationale(
    question: Question, teacher: str, reply: Reply, *, checks: Collection[CheckName], repair: bool
) -> Rationale | Rejection:
    """Take the visible text of a reply, repair it if asked, and run the checks in a fixed order.

    The first check that fails rejects the text. A reply without visible text is always rejected. Applied to its own
    result, the function changes nothing.
    """
    seen = visible(reply)
    if seen.withheld is not None:
        return Rejection(question.id, teacher, seen.withheld, well_formed(seen.text or reply.text))
    whole = well_formed(seen.text)
    text, repaired = _repaired(whole.strip(), reply) if repair else (whole.strip(), ())
    for name, fails in _CHECKS.items():
        if name in checks and fails(text, reply, question):
            cut_away = name == "empty" and not text and "runs_on" in repaired  # it begins with a new question
            return Rejection(question.id, teacher, "runs_on" if cut_away else name, whole)
    return Rationale(question.id, teacher, text, repaired)


# --- repairs: keep what comes before the damage -----------------------------------------------------------------


def _repaired(text: str, reply: Reply) -> tuple[str, tuple[str, ...]]:
    """Repair until nothing changes, since one cut can expose another. Return the text and the names of the repairs."""
    done: dict[str, None] = {}
    before = None
    while text != before:
        before = text
        for name, repair in _REPAIRS.items():
            repaired = repair(text, reply)
            if repaired != text:
                text = repaired
                done[name] = None
    return text, tuple(done)


def _cut_new_question(text: str, _reply: Reply) -> str:
    match = _NEW_QUESTION.search("\n" + text)
    return text if match is None else text[: max(0, match.start() - 1)].rstrip()


def _cut_half_sentence(text: str, reply: Reply) -> str:
    if not _stops_short(text, reply):
        return text
    opening = _OPENING.match(text)
    start = opening.end() if opening else 0  # the common opening alone is not worth keeping
    marks = [(m.start(), m.end()) for m in _SENTENCE_END.finditer(text, start)]
    # Without the full stops of abbreviations and of the numbers in lists.
    ends = [end for stop, end in marks if _NO_SENTENCE_END.search(text[max(0, stop - _TAIL) : stop]) is None]
    while ends and _stops_short(text[: ends[-1]], reply):
        ends.pop()
    return text[: ends[-1]] if ends else text


_REPAIRS: Mapping[str, Callable[[str, Reply], str]] = {"runs_on": _cut_new_question, "cut_off": _cut_half_sentence}


# --- checks: True means that the text fails ---------------------------------------------------------------------


def _is_refused(text: str, _reply: Reply, _question: Question) -> bool:
    """The teacher refuses to answer."""
    opening = _OPENING.match(text)
    return is_refusal(text[opening.end() if opening else 0 :])


def _is_empty(text: str, _reply: Reply, _question: Question) -> bool:
    """The text has fewer than three words besides the common opening and "the answer is (a)": it explains nothing."""
    lowered = text.lower()
    said = _OPENING.sub(" ", text) if "think" in lowered else text
    said = _BARE_ANSWER.sub(" ", said) if "answer" in lowered else said
    return _SOME_WORDS.search(said) is None


def _is_garbled(text: str, _reply: Reply, _question: Question) -> bool:
    return _GARBLED.search(text) is not None or any(_was_utf8(run[0]) for run in _FOREIGN.finditer(text))


_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")
_SOME_UNSPACED = re.compile(_UNSPACED * _MIN_WORDS)
_WORD = re.compile(r"\w+")


def _repeats(text: str, _reply: Reply, _question: Question) -> bool:
    """At least half of the sentences, or more than half of the sequences of four words, are repetitions."""
    lowered = text.lower()
    parts = _BETWEEN_SENTENCES.split(lowered)
    if len(parts) >= 3 and len(set(parts)) < len(parts):
        sentences = [s for s in parts if len(s.split()) >= _MIN_WORDS or _SOME_UNSPACED.search(s)]
        if len(sentences) >= 3 and 1 - len(set(sentences)) / len(sentences) >= _REPEATED_SHARE:
            return True
    words = _WORD.findall(lowered)
    if len(set(words)) - 3 >= (len(words) - 3) * _REPEATED_SHARE:
        return False  # fast: every new word after the third ends a new sequence
    grams = list(zip(*(words[i:] for i in range(4)), strict=False))
    return len(grams) >= 12 and 1 - len(set(grams)) / len(grams) > _REPEATED_SHARE


def _names_another_answer(text: str, _reply: Reply, question: Question) -> bool:
    """The last choice that the text states as the answer ("the answer is …", "(b) is the right choice") is wrong."""
    lowered = text.lower()  # most texts have none of these words, and this is much faster than the patterns
    if "answer" not in lowered and not any(word in lowered for word in ("correct", "right", "best")):
        return False
    stated = stated_choice(text, question)
    return stated is not None and stated != question.answer


_CHECKS: Mapping[CheckName, Callable[[str, Reply, Question], bool]] = {
    "refused": _is_refused,
    "empty": _is_empty,
    "encoding": _is_garbled,
    "runs_on": lambda text, _reply, _question: _NEW_QUESTION.search("\n" + text) is not None,
    "cut_off": lambda text, reply, _question: _stops_short(text, reply),
    "repeats": _repeats,
    "wrong_answer": _names_another_answer,
}


def stated_choice(text: str, question: Question) -> int | None:
    """Return the choice that a text states as the answer, the last one if there are several; None if there is none."""
    stated: list[tuple[int, int]] = []  # where, and which choice
    for match in _ANSWER_IS.finditer(text):
        choice = _choice_at(text[match.end() :], question)
        if choice is not None:
            stated.append((match.start(), choice))
    for match in _IS_ANSWER.finditer(text):
        choice = ord((match["mark"] or match["letter"]).lower()) - ord("a")
        if choice < len(question.choices):
            stated.append((match.start(), choice))
    return max(stated, default=(0, None))[1]


# --- helpers ----------------------------------------------------------------------------------------------------


def _stops_short(text: str, reply: Reply) -> bool:
    """Whether a text was cut by the token limit. If the finish reason is unknown, the last sentence decides."""
    if reply.finish_reason == "stop":
        return False
    tail = text[-_TAIL:]
    return _COMPLETE_END.search(tail) is None or _LIST_MARK_END.search(tail) is not None


def _was_utf8(run: str) -> bool:
    """Whether the characters are UTF-8 that was decoded as Windows-1252."""
    try:
        run.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return False
    return run not in ("Å²", "Å³")  # these mean square and cubic ångström


def _choice_at(rest: str, question: Question) -> int | None:
    """Return the choice that a text begins with, by letter or by its words; None if there is none."""
    written = rest[:400]
    said = written.casefold()
    letter = re.match(r"([a-z])(?:[\"'”’*]*\)|(?=[\"'”’*]*\s*(?:[.:,;\n]|$)))", said)
    as_text = [i for i, c in enumerate(question.choices) if letter and c.strip() == written[:1]]
    if letter and len(as_text) == 1 and not letter[0].endswith(")"):
        return as_text[0]  # "B" is the text of a choice: a blood group, a grade
    if letter and ord(letter[1]) - ord("a") < len(question.choices):
        following = re.search(rf"\n[^\S\n]*\(?{chr(ord(letter[1]) + 1)}\)", said)
        return None if following else ord(letter[1]) - ord("a")  # "a) … b) …" lists all choices
    named = [i for i, choice in enumerate(question.choices) if _begins_with(said, choice.casefold())]
    longest = max((len(question.choices[i]) for i in named), default=0)
    alike = [i for i in named if len(question.choices[i]) == longest]
    if len(alike) > 1:  # only the case differs: polish, Polish
        alike = [i for i in alike if _begins_with(written, question.choices[i])]
    return alike[0] if len(alike) == 1 else None


def _begins_with(said: str, choice: str) -> bool:
    words = _ARTICLE.sub("", choice.strip().rstrip("."), count=1) if choice else ""
    said = _ARTICLE.sub("", said, count=1) if _ARTICLE.match(said) else said
    return bool(words) and said.startswith(words) and not said[len(words) : len(words) + 1].isalnum()
