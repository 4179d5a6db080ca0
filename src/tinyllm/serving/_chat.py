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
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tinyllm.inference import Chosen
from tinyllm.questions.types import Question
from tinyllm.system.files import well_formed

MODEL = "student"
_LETTERED = re.compile(r"\s*\(?([A-Za-z]|\d{1,2})[.):]\)?\s+(\S.*)")
_HEAD = re.compile(r"\s*(choices|options|answer choices|possible answers)\s*:?\s*", re.IGNORECASE)
_CHOICES = re.compile(r"\s*(?:answer )?(?:choices|options)\s*:\s*(\S.*\|.*\S)\s*", re.IGNORECASE)
_LABELLED = re.compile(r"\s*(context|question)\s*:\s*", re.IGNORECASE)


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


def question_in(messages: Sequence[Message]) -> tuple[Question, tuple[str, ...]] | str:
    """Return the question in the user's last message, and the label of each choice; or a message if there is none.

    The choices are on one line (`Choices: ice | fire`), or each is on its own line with a letter or number (`A. ice`).
    A line that begins with `Context:` is a text that the question is about.
    """
    text = next((m.text() for m in reversed(messages) if m.role == "user"), "")
    lines = well_formed(text).splitlines()
    labels: tuple[str, ...] = ()
    for at, line in enumerate(lines):
        if found := _CHOICES.fullmatch(line):
            choices = tuple(part.strip() for part in found[1].split("|"))
            break
        if marked := _marked(lines[at:]):
            labels, choices = zip(*marked, strict=True)
            following = _label(labels[0], len(labels))
            if any((other := _LETTERED.fullmatch(rest)) and other[1] == following for rest in lines[at:]):
                return (
                    f"Another line stands between choice {labels[-1]} and choice {following}. Write each choice on one "
                    "line, and all choices one after the other."
                )
            break
    else:
        return (
            "The user's last message holds no choices, and this model answers by choosing. Write the choices after the "
            "question: on one line (`Choices: ice | fire | steam`), or each on its own line (`A. ice`)."
        )
    context: list[str] = []
    asked: list[str] = []
    place = asked
    for line in (line for line in lines[:at] if not _HEAD.fullmatch(line)):
        if label := _LABELLED.match(line):
            place = context if label[1].casefold() == "context" else asked
            line = line[label.end() :]
        place.append(line)
    question = Question("asked", "\n".join(asked).strip(), choices, None, "\n".join(context).strip() or None)
    return question, labels


def _marked(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return the labels and texts of the choices at the start of some lines; nothing if there are fewer than two.

    The labels are A, B, C, … or 1, 2, 3, … Empty lines are skipped.
    """
    found: list[tuple[str, str]] = []
    for line in filter(str.strip, lines):
        match = _LETTERED.fullmatch(line)
        first = found[0][0] if found else match[1] if match else ""
        if match is None or first not in ("A", "a", "1") or match[1] != _label(first, len(found)):
            break
        found.append((match[1], match[2].strip()))
    return found if len(found) > 1 else []


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
