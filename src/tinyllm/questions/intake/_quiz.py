"""Quizzes written as text: lettered choices (Aiken, LogiQA, typed lists) and Moodle's GIFT."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tinyllm.questions.intake._delimited import text_lines
from tinyllm.questions.intake._files import Bytes, as_text
from tinyllm.questions.intake._names import place_of_mark
from tinyllm.questions.intake._types import Bad, Line, Shape, Table, Wishes

_CHOICE = re.compile(r"^\s*(\*)?\s*[(\[（]?\s*([^\W\d_]|[①-⑧])\s*[)\].:、．）]\s*(\S.*?)\s*$")
_NUMBERED = re.compile(r"^\s*(\*)?\s*[(\[（]?(\d{1,2})[)\].:、．）]\s*(\S.*?)\s*$")
_ANSWER = re.compile(
    r"^\s*(?:the\s+)?(?:correct\s+)?(?:answer|ans|key|antwort|lösung|richtige antwort|réponse|bonne réponse|respuesta|"
    r"respuesta correcta|risposta|risposta corretta|odpowiedź|poprawna odpowiedź|antwoord|resposta|gabarito|odpověď|"
    r"svar|cevap|ответ|правильный ответ|答案|正确答案|正解|答え|정답)(?:\s+is)?\s*[:：=.\-]\s*(\S.*?)\s*$",
    re.IGNORECASE,
)
_REMARK = re.compile(
    r"^\s*(?:explanation|rationale|feedback|reason|hint|reference|topic|difficulty|erklärung|begründung|explication|"
    r"explicación|spiegazione|wyjaśnienie|объяснение|解析|解说|解説)\s*[:：]",
    re.IGNORECASE,
)
_LETTER_ALONE = re.compile(r"^\s*([a-hA-H])\s*$")
_IN_KEY = re.compile(r"^\s*(\d{1,4})\s*[.):\-]?\s*\(?([A-Ta-t])\)?\.?\s*$")
_KEY_TITLE = re.compile(
    r"^\s*(?:answers?|answer key|key|solutions?|lösungen|réponses|respuestas|ответы|答案)\s*[:：]?\s*$", re.IGNORECASE
)
_WORD = re.compile(r"^\s*(?:question|q|frage|pregunta|domanda|вопрос|问题|题目|問題)\s*[:：]\s*(?=\S)", re.IGNORECASE)
_NUMBER = re.compile(r"^\s*(?:(?:question|q|frage|pregunta|问题)\s*)?(\d{1,4})\s*[).:、．\-]\s*(?=\S)", re.IGNORECASE)


def quizzes(file: Bytes, wishes: Wishes) -> Iterator[Shape]:
    """Yield the ways to read a text as a quiz, if it looks like one."""
    text = as_text(file, wishes.encoding)
    lines = list(text_lines(text))
    for name, read in (("GIFT", gift), ("lettered choices", lettered)):
        rows = read(lines)
        questions = sum(isinstance(row, Line) for row in rows)
        if rows and (questions >= 0.5 * len(rows) or name == "GIFT"):
            how = (*((text.how,) if text.how else ()), f"a quiz in text ({name})")
            yield Shape((Table(str(file.path), partial(iter, rows), "line"),), how)


# --- lettered choices ----------------------------------------------------------------------------------------------


@dataclass
class _Block:
    """One question while it is read line by line."""

    place: int
    stem: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    answer: str | None = None
    before: str | None = None  # the letter of the answer, on a separate line above (LogiQA)
    gap: bool = False  # a blank line since the last choice
    done: bool = False

    def row(self) -> Line | Bad:
        if len(self.choices) < 2 or not self.stem:
            return Bad(self.place, "no question with lettered choices" if self.stem else "choices without a question")
        cells: dict[str, Any] = {"choices": self.choices, "labels": self.marks}
        if self.before is not None and len(self.stem) > 1:
            cells |= {"context": "\n".join(self.stem[:-1]), "question": self.stem[-1]}
        else:
            cells["question"] = "\n".join(self.stem)
        return Line(self.place, {**cells, "answer": self.answer if self.answer is not None else self.before})


def lettered(lines: Sequence[str]) -> list[Line | Bad]:
    """Return the questions of a text with one choice per line after A., B., …; empty: there are none."""
    numbered = not any((m := _CHOICE.match(line)) and m[2] in "Bb" for line in lines)
    blocks: list[_Block] = []
    key: dict[int, str] = {}
    block = _Block(1)
    for place, line in enumerate(lines, 1):
        line = line.lstrip("\ufeff")
        if not line.strip():
            block.gap = True
            continue
        if (
            (found := _IN_KEY.match(line))
            and (block.done or block.gap or key)
            and not (block.stem and not block.choices)
        ):
            key[int(found[1])] = found[2]
            continue
        if _KEY_TITLE.match(line) and blocks:
            continue
        if (found := _ANSWER.match(line)) and block.choices:
            block.answer, block.done = found[1], True
            continue
        if _REMARK.match(line) and block.choices:
            block.done = True
            continue
        choice = (_NUMBERED if numbered else _CHOICE).match(line)
        at = _at(choice, numbered)
        if choice and at == len(block.choices) and not block.done and block.stem:
            block.choices.append(choice[3])
            block.marks.append(choice[2])
            block.gap = False
            if choice[1]:
                block.answer = choice[2]
            continue
        alone = _LETTER_ALONE.match(line)
        if block.choices and not alone and not block.done and not block.gap and not _begins(line):
            block.choices[-1] += " " + line.strip()
            continue
        if block.choices or alone:
            blocks += [block] if block.stem or block.choices else []
            block = _Block(place)
        if alone:
            block.before = alone[1]
        else:
            block.stem.append(line.strip())
            block.gap = False
    blocks += [block] if block.stem or block.choices else []
    blocks = _without_numbers(blocks)
    asked = [b for b in blocks if len(b.choices) > 1]
    if not asked:
        return []
    if key:
        if sorted(key) != list(range(1, len(asked) + 1)):
            return []  # the list of answers does not match the questions
        for number, b in enumerate(asked, 1):
            b.answer = key[number]
    return [b.row() for b in blocks]


def _at(choice: re.Match[str] | None, numbered: bool) -> int:
    if choice is None:
        return -1
    if numbered:
        return int(choice[2]) - 1
    place = place_of_mark(choice[2])
    return -1 if place is None else place[1]


def _begins(line: str) -> bool:
    return bool(_NUMBER.match(line)) or line.rstrip().endswith(("?", "？"))


def _without_numbers(blocks: list[_Block]) -> list[_Block]:
    """Remove the numbers of questions, or the word `Question:`, if all questions have them."""
    asked = [b for b in blocks if b.stem and b.choices]
    if asked and all(_WORD.match(b.stem[0]) for b in asked):
        for b in asked:
            b.stem[0] = _WORD.sub("", b.stem[0], count=1)
    numbers = [m[1] if (m := _NUMBER.match(b.stem[0])) else None for b in asked]
    if asked and None not in numbers and len(set(numbers)) == len(asked):
        for b in asked:
            b.stem[0] = _NUMBER.sub("", b.stem[0], count=1)
    return blocks


# --- GIFT --------------------------------------------------------------------------------------------------------

_ESCAPED = re.compile(r"\\([~=#{}:\\])")
_HIDDEN = {c: chr(0xE000 + k) for k, c in enumerate("~=#{}:\\")}
_SHOWN = {hidden: c for c, hidden in _HIDDEN.items()}


def gift(lines: Iterable[str]) -> list[Line | Bad]:
    """Return the multiple-choice and true-or-false questions of a GIFT text, and `Bad` for others. Empty: not GIFT."""
    rows: list[Line | Bad] = []
    item: list[str] = []
    start = 1
    for place, line in enumerate([*lines, ""], 1):
        text = line.lstrip("\ufeff")
        hidden = _ESCAPED.sub(lambda m: _HIDDEN[m[1]], text)
        if text.lstrip().startswith("//") or re.match(r"\s*\$(CATEGORY|[A-Z]+):", text):
            continue
        # A blank line ends a question, unless it is inside the braces.
        if not text.strip() and "\n".join(item).count("{") <= "\n".join(item).count("}"):
            if item:
                rows += _gift_item("\n".join(item), start)
            item = []
            continue
        if not item:
            start = place
        item.append(hidden)
    if item:
        rows.append(Bad(start, "a brace { that is not closed"))
    known = sum(isinstance(row, Line) or row.reason.startswith("GIFT") for row in rows)
    return rows if known >= 0.5 * len(rows) else []


def _gift_item(text: str, place: int) -> list[Line | Bad]:
    title = re.match(r"\s*::(.*?)::", text, re.DOTALL)
    body = text[title.end() :] if title else text
    format_ = re.match(r"\s*\[(html|moodle|plain|markdown)\]", body)
    body = body[format_.end() :] if format_ else body
    braces = re.search(r"\{(.*?)\}", body, re.DOTALL)
    if braces is None:
        return [Bad(place, "no answers in braces")]

    def clean(part: str) -> str:
        part = "".join(_SHOWN.get(c, c) for c in part).replace("\\n", "\n")
        if (format_ and format_[1] == "html") or re.search(r"</?(p|b|i|br|span|em|strong|sub|sup|div)\b[^>]*>", part):
            part = html.unescape(re.sub(r"<[^>]+>", " ", part))
        return part.strip()

    if "{" in body[braces.end() :]:
        return [Bad(place, "GIFT: several questions without a blank line between them")]
    before, after = body[: braces.start()], body[braces.end() :]
    question = clean(before) + (f" ___ {clean(after)}" if after.strip() else "")
    inside = re.split(r"####", braces[1])[0].strip()
    word = inside.split("#")[0].strip().upper()
    if word in ("T", "TRUE", "F", "FALSE"):
        return [Line(place, {"question": question, "choices": _marked(["True", "False"], 0 if word[0] == "T" else 1)})]
    parts = re.findall(r"([=~])((?:[^=~])*)", inside)
    if not inside or inside.startswith("#") or not parts or "->" in inside:
        kind = "a question with numbers" if inside.startswith("#") else "a matching question" if inside else "an essay"
        return [Bad(place, f"GIFT: {kind}, not a choice")]
    texts, right = [], []
    for mark, part in parts:
        answer = part.split("#")[0]
        weight = re.match(r"\s*%(-?[\d.]+)%", answer)
        texts.append(clean(answer[weight.end() :] if weight else answer))
        right.append(mark == "=" if weight is None else float(weight[1]) >= 100)
    if all(mark == "=" for mark, _ in parts):
        return [Bad(place, "GIFT: a question with a short answer, not a choice")]
    if sum(right) != 1:
        return [Bad(place, f"GIFT: {sum(right)} of its choices are right; TinyLLM's questions have one")]
    return [Line(place, {"question": question, "choices": _marked(texts, right.index(True))})]


def _marked(texts: Sequence[str], right: int) -> list[dict[str, Any]]:
    return [{"text": text, "correct": k == right} for k, text in enumerate(texts)]
