"""The format of OpenAI's chat completions, and how a question is read from a chat.

With `model: student` the reply is the student's choice, and the log-probabilities are those of the choices. With
`model: student/TEACHER` the reply is a rationale in the style of that teacher.
"""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from tinyllm.inference import Chosen
from tinyllm.questions.types import Question
from tinyllm.system.files import well_formed

MODEL = "student"
_FIRST = ("A", "a", "1")  # the label of a first choice
_LETTERED = re.compile(r"\s*\(?([A-Za-z]|\d{1,2})[.):]\)?\s+(\S.*)")
_HEAD = re.compile(r"\s*(choices|options|answer choices|possible answers)\s*:?\s*", re.IGNORECASE)
_CHOICES = re.compile(r"\s*(?:answer )?(?:choices|options)\s*:\s*(\S.*\|.*\S)\s*", re.IGNORECASE)
_LABELLED = re.compile(r"\s*(context|question|q)\s*:\s*", re.IGNORECASE)
_REPLY = re.compile(
    r"\s*(?:(?:the |correct )*answer|a|explanation|rationale|reason(?:ing)?|solution)\s*:", re.IGNORECASE
)
_OTHER_CHOICES = re.compile(r"\s*(?:answer )?(?:choices|options|possible answers)\s*:", re.IGNORECASE)
_SEVERAL = (
    "The user's last message holds several questions or lists, and where the last question begins is not certain. Send "
    "examples as earlier messages, or write `Question: …` before the last question and `Choices: ice | fire` after it."
)


class Message(BaseModel):
    """One message of a chat. Its content is a text or a list of parts; parts that are no text are ignored."""

    model_config = ConfigDict(extra="ignore")
    role: str
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        """Return the text of all parts."""
        if isinstance(self.content, list):
            return "\n".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")
        return self.content or ""


class Chat(BaseModel):
    """The body of a request for a chat completion. Sampling parameters are ignored: the student is deterministic."""

    model_config = ConfigDict(extra="ignore")
    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    n: Literal[1] | None = 1
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


class _Choices(NamedTuple):
    """A list of choices, and the lines that it takes."""

    start: int
    end: int
    labels: tuple[str, ...]
    choices: tuple[str, ...]


def question_in(messages: Sequence[Message]) -> tuple[Question, tuple[str, ...]] | str:
    """Return the question in the user's last message, and the label of each choice; or a message if there is none.

    The choices are on one line (`Choices: ice | fire`), or each is on its own line with a letter or number (`A. ice`).
    A line that begins with `Context:` is a text that the question is about. If the message holds several questions, as
    examples, it is the last one, and a message if that is not certain.
    """
    text = next((m.text() for m in reversed(messages) if m.role == "user"), "")
    lines = well_formed(text).splitlines()
    lists = _lists(lines)
    if not lists:
        return (
            "The user's last message holds no choices, and this model answers by choosing. Write the choices after the "
            "question: on one line (`Choices: ice | fire | steam`), or each on its own line (`A. ice`)."
        )
    last = lists[-1]
    if problem := _problem_after(last, lines[last.end :]):
        return problem
    before: Sequence[str] = lines[lists[-2].end if len(lists) > 1 else 0 : last.start]
    if len(lists) > 1 or len(_asking(before)) > 1 or any(map(_REPLY.match, before)):
        own = _last_question(before, alike=len(lists) == 1 or last.labels[:1] == lists[-2].labels[:1])
        if own is None:
            return _SEVERAL
        before = own
    context: list[str] = []
    asked: list[str] = []
    place = asked
    for line in (line for line in before if not _HEAD.fullmatch(line)):
        if label := _LABELLED.match(line):
            place = context if label[1].casefold() == "context" else asked
            line = line[label.end() :]
        place.append(line)
    question = Question("asked", "\n".join(asked).strip(), last.choices, None, "\n".join(context).strip() or None)
    return question, last.labels


def _lists(lines: Sequence[str]) -> list[_Choices]:
    """Return all lists of choices, in their order."""
    found: list[_Choices] = []
    at = 0
    while at < len(lines):
        if match := _CHOICES.fullmatch(lines[at]):
            found.append(_Choices(at, at + 1, (), tuple(part.strip() for part in match[1].split("|"))))
        elif marked := _marked(lines, at):
            found.append(marked)
        at = found[-1].end if found and found[-1].start == at else at + 1
    return found


def _problem_after(last: _Choices, rest: Sequence[str]) -> str | None:
    """Return a message if what follows the last list of choices is a part of it, or of another question."""
    if last.labels:
        following = _label(last.labels[0], len(last.labels))
        if any((other := _LETTERED.fullmatch(line)) and other[1] == following for line in rest):
            return (
                f"Another line stands between choice {last.labels[-1]} and choice {following}. Write each choice on "
                "one line, and all choices one after the other."
            )
    answered = ended = False  # an answer was given, and then an empty line
    for line in rest:
        first = _LETTERED.fullmatch(line)
        if _REPLY.match(line):
            answered = answered or not line.rstrip().endswith(":")
        elif (
            _LABELLED.match(line)
            or _OTHER_CHOICES.match(line)
            or (first and first[1] in _FIRST)
            or (ended and line.rstrip().endswith("?"))
        ):
            return (
                "After the last choices that can be read, the user's last message goes on with another question or "
                "list. Write the choices after the question: on one line (`Choices: ice | fire | steam`), or each on "
                "its own line (`A. ice`)."
            )
        ended = ended or (answered and not line.strip())
    return None


def _last_question(before: Sequence[str], *, alike: bool) -> Sequence[str] | None:
    """Return the lines of the last question, without its choices; None if where it begins is not certain.

    Args:
        before: the lines between the last list of choices and the list before it.
        alike: whether both lists are marked in the same way. Otherwise the first may be a part of the question, such as
            numbered statements.
    """
    if places := _asking(before):
        start = places[-1]
        since = places[-2] + 1 if len(places) > 1 else 0
        own = [n for n in range(since, start) if _LABELLED.match(before[n])]  # its context
        start = own[-1] if own else start
        return None if any(map(_REPLY.match, before[start:])) else before[start:]
    blocks: list[list[str]] = [[]]
    was_answered = False
    for line in (line for line in before if not _HEAD.fullmatch(line)):
        if not line.strip():
            blocks.append([])
            was_answered = False
        elif _REPLY.match(line) and not blocks[-1]:
            was_answered = True
        elif was_answered and blocks[-1]:
            return None  # the answer may take several lines
        else:
            blocks[-1].append(line)
    texts = [block for block in blocks if block and not (len(block) == 1 and block[0].rstrip().endswith(":"))]
    return texts[0] if alike and len(texts) == 1 and not any(map(_REPLY.match, texts[0])) else None


def _asking(lines: Sequence[str]) -> list[int]:
    """Return the lines that begin with `Question:`."""
    return [n for n, line in enumerate(lines) if (found := _LABELLED.match(line)) and found[1].casefold() != "context"]


def _marked(lines: Sequence[str], start: int) -> _Choices | None:
    """Return the choices that begin at a line; None if there are fewer than two.

    The labels are A, B, C, … or 1, 2, 3, … Empty lines between them are skipped.
    """
    found: list[tuple[str, str]] = []
    end = start
    for at in range(start, len(lines)):  # without a copy, and not over empty lines: a message may be a million of them
        line = lines[at]
        if found and not line.strip():
            continue
        match = _LETTERED.fullmatch(line)
        first = found[0][0] if found else match[1] if match else ""
        if match is None or first not in _FIRST or match[1] != _label(first, len(found)):
            break
        found.append((match[1], match[2].strip()))
        end = at + 1
    if len(found) < 2:
        return None
    labels, choices = zip(*found, strict=True)
    return _Choices(start, end, labels, choices)


def _label(first: str, place: int) -> str:
    """Return the label of the choice at a place (0-based), if the first label is `first`."""
    return str(place + 1) if first.isdecimal() else chr(ord(first) + place)


def completion(chat: Chat, text: str, usage: dict[str, int], logprobs: dict[str, Any] | None) -> dict[str, Any]:
    """Return the reply to a chat."""
    choice = {
        "index": 0, "message": {"role": "assistant", "content": text, "refusal": None},
        "finish_reason": "stop", "logprobs": logprobs,
    }  # fmt: skip
    return _head(chat, "chat.completion") | {"choices": [choice], "usage": usage}


def events(chat: Chat, text: str, usage: dict[str, int], logprobs: dict[str, Any] | None) -> Iterator[str]:
    """Yield the reply as server-sent events. The whole text is one event, because it is computed in one batch."""
    head = _head(chat, "chat.completion.chunk")
    wants_usage = bool((chat.stream_options or {}).get("include_usage"))
    more: dict[str, Any] = {"usage": None} if wants_usage else {}
    for delta, reason in (({"role": "assistant", "content": ""}, None), ({"content": text}, None), ({}, "stop")):
        piece = {
            "index": 0, "delta": delta, "finish_reason": reason,
            "logprobs": logprobs if delta.get("content") else None,
        }  # fmt: skip
        yield _event(head | {"choices": [piece]} | more)
    if wants_usage:
        yield _event(head | {"choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def log_probabilities(chosen: Chosen, said: Sequence[str], top: int) -> dict[str, Any]:
    """Return the log-probabilities of an answer. Each choice counts as one token, however many the student needs."""

    def token(place: int) -> dict[str, Any]:
        logprob = math.log(max(chosen.probabilities[place], 1e-30))
        return {"token": said[place], "logprob": logprob, "bytes": list(said[place].encode())}

    order = sorted(range(len(said)), key=lambda n: -chosen.probabilities[n])
    return {"content": [token(chosen.choice) | {"top_logprobs": [token(n) for n in order[:top]]}], "refusal": None}


def models(teachers: Sequence[str]) -> dict[str, Any]:
    """Return the list of models: `student`, and `student/TEACHER` for each teacher."""
    ids = (MODEL, *(f"{MODEL}/{teacher}" for teacher in teachers))
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "tinyllm"} for name in ids],
    }


def _head(chat: Chat, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": chat.model,
    }  # fmt: skip


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
