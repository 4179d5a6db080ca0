"""Reads the answers of OpenAI-compatible endpoints: JSON, or a stream of events. All functions are pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tinyllm.config import Form
from tinyllm.teachers.base import FinishReason, Reply

_FINISHED: Mapping[str, FinishReason] = {
    "stop": "stop", "eos": "stop", "stop_sequence": "stop", "end_turn": "stop", "eos_token": "stop",
    "length": "length", "max_tokens": "length", "max_output_tokens": "length", "model_length": "length",
    "content_filter": "content_filter", "safety": "content_filter", "prohibited_content": "content_filter",
    "content_filtered": "content_filter", "recitation": "content_filter", "blocklist": "content_filter",
    "refusal": "refusal",
}  # fmt: skip
_BROKEN_OFF = ("error", "insufficient_system_resource", "abort")  # of OpenRouter, DeepSeek, vLLM
_TEXT_ALONE = {"role", "content", "refusal", "tool_calls", "function_call", "audio", "annotations", "name"}
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
_THOUGHT = re.compile(
    r"\s*(?:<(?:$|(?:[\w.]+:)?(?:think|thought|reason)|\|(?:channel|begin_of_thought|START_THINKING|think)|unused94)|"
    r"\[THINK|◁think)",
    re.IGNORECASE,
)
_LIMITED = ("rate limit", "rate_limit", "ratelimit", "too many requests", "resource_exhausted")
_STREAMS = (b"data:", b"event:", b":", b"id:", b"retry:")
_MOST_TOKENS = 1 << 24  # larger numbers must be mistakes


class NotACompletion(ValueError):
    """An answer that does not follow the protocol."""


class ThoughtFirst(ValueError):
    """Log-probabilities were asked for, and those that came are of a thought's first token, not of an answer's."""


class ErrorInReply(Exception):
    """An error with status 200.

    Args:
        status: the status that the error names; 502 if it names none.
        body: the error as JSON.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status, self.body = status, body


def read_completion(raw: bytes, form: Form, latency_s: float, *, rated: bool = False) -> Reply:
    """Return the reply in the body of an answer, which is JSON or a stream of events.

    Args:
        rated: log-probabilities were requested. They become the reply's message; None if there are none.

    Raises:
        ErrorInReply: the answer is an error.
        NotACompletion: the answer has no reply.
        ThoughtFirst: `rated`, and the reply begins with a thought.
    """
    is_stream = raw[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_STREAMS)
    answer = _joined(raw) if is_stream else _json(raw)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        raise NotACompletion("its reply is not a completion")
    choices = answer.get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        _raise_error(answer.get("error") or (answer if _is_error(answer) else None))
        raise NotACompletion("its reply is not a completion")
    choice: dict[str, Any] = choices[0]
    _raise_error(answer.get("error") or choice.get("error"))
    if str(choice.get("finish_reason")).casefold() in _BROKEN_OFF:
        _raise_error({"message": "the reply ended with an error", **_mapping(choice.get("message"))})
    message = choice.get("message") if form == "chat" else {"content": choice.get("text")}
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | list | dict | None):
        raise NotACompletion("its reply holds no text")
    if "content" not in message and not message.keys() - {"role"} and _finish(choice) == "unknown":
        raise NotACompletion("its reply is not a completion")
    reply = _reply(answer, choice, message, latency_s)
    if not rated:
        return reply
    top = _top_logprobs(choice)
    first = max(top, key=lambda pair: pair[1], default=("", 0.0))[0]
    if form == "chat" and top and (any(message.get(name) for name in _THOUGHT_FIELDS) or _THOUGHT.match(first)):
        raise ThoughtFirst(f"its reply begins with a thought ({first!r})")
    return replace(reply, message=json.dumps({"top_logprobs": top}) if top else None)


def _reply(answer: Mapping[str, Any], choice: Mapping[str, Any], message: Mapping[str, Any], latency_s: float) -> Reply:
    finish = _finish(choice)
    content, refusal = message.get("content"), message.get("refusal")
    text = content if isinstance(content, str) else ""
    if isinstance(refusal, str) and refusal:
        text, finish = text or refusal, "refusal"
    whole = {name: value for name, value in message.items() if value not in (None, "", [], {})}
    alone = isinstance(content, str | None) and not whole.keys() - _TEXT_ALONE
    usage = _mapping(answer.get("usage"))
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    total = _count(usage, "total_tokens")
    if total is not None and prompt is not None and completion is not None:
        completion = max(completion, total - prompt)  # some count thoughts in the total only
    thinking = _count(_mapping(usage.get("completion_tokens_details")), "reasoning_tokens")
    held = None if alone else json.dumps(whole, ensure_ascii=False)
    return Reply(text, finish, prompt, completion, latency_s, _cached(usage, answer.get("timings")), thinking, held)


def _finish(choice: Mapping[str, Any]) -> FinishReason:
    """Return why a reply ended. Some services add details: `content_filter: PROHIBITED_CONTENT`."""
    return _FINISHED.get(str(choice.get("finish_reason")).casefold().partition(":")[0], "unknown")


def _top_logprobs(choice: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the most likely first tokens with their log-probabilities; empty if the endpoint returns none.

    They are in `content[0].top_logprobs`, or, in older completions, in `top_logprobs[0]`, by token.
    """
    held = _mapping(choice.get("logprobs"))
    content, top = held.get("content"), held.get("top_logprobs")
    found: list[tuple[Any, Any]] = []
    if isinstance(content, list) and content:
        rows = _mapping(content[0]).get("top_logprobs")
        found = [(r.get("token"), r.get("logprob")) for r in rows or () if isinstance(r, dict)]
    elif isinstance(top, list) and top:
        found = list(_mapping(top[0]).items())
    return [(t, float(v)) for t, v in found if isinstance(t, str) and isinstance(v, int | float) and v <= 1e-6]


def _cached(usage: Mapping[str, Any], timings: Any) -> int | None:
    """Return the cached prompt tokens, from the fields of OpenAI and vLLM, DeepSeek, or older llama.cpp."""
    details = usage.get("prompt_tokens_details")
    for holder, name in ((details, "cached_tokens"), (usage, "prompt_cache_hit_tokens"), (timings, "cache_n")):
        if isinstance(holder, dict) and (count := _count(holder, name)) is not None:
            return count
    return None


def _count(holder: Mapping[str, Any], name: str) -> int | None:
    number = holder.get(name)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return number if type(number) is int and 0 <= number <= _MOST_TOKENS else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise NotACompletion("its reply is not a completion") from None


# --- errors with status 200 ---------------------------------------------------------------------------------------


def _is_error(answer: Mapping[str, Any]) -> bool:
    """Whether an object without a field `error` is an error: it has a message and says that it is an error."""
    says_so = answer.get("object") == "error" or answer.get("type") == "error" or _status(answer) is not None
    return says_so and any(isinstance(answer.get(k), str) for k in ("message", "detail", "msg"))


def _raise_error(error: Any) -> None:
    if error:
        body = json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")
        said = str(error).casefold()
        raise ErrorInReply(_status(_mapping(error)) or (429 if any(sign in said for sign in _LIMITED) else 502), body)


def _status(error: Mapping[str, Any]) -> int | None:
    for name in ("code", "status", "status_code", "statusCode", "http_status"):
        value = error.get(name)
        if isinstance(value, str) and value.isdecimal() and len(value) == 3:
            value = int(value)
        if type(value) is int and 400 <= value <= 599:
            return value
    return None


# --- streams ------------------------------------------------------------------------------------------------------


def _joined(raw: bytes) -> dict[str, Any]:
    """Join the chunks of a stream to a completion."""
    whole: dict[str, Any] = {}
    message: dict[str, Any] = {}
    choice: dict[str, Any] = {"finish_reason": None}
    seen = False
    for event in _events(raw):
        if event == "[DONE]":
            seen = True
            break
        chunk = _json(event.encode())
        if not isinstance(chunk, dict):
            raise NotACompletion("a part of its stream is no object")
        whole |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
        if not (chunk.get("choices") or chunk.get("usage")) and _is_error(chunk):
            whole["error"] = chunk
        for part in chunk.get("choices") or ():
            if isinstance(part, dict) and part.get("index", 0) == 0:
                _add(choice, message, part)
    if "error" not in whole and not seen and choice["finish_reason"] is None:
        raise NotACompletion("its stream broke off")
    return whole | {"choices": [choice | {"message": message, "text": message.get("content")}]}


def _add(choice: dict[str, Any], message: dict[str, Any], part: Mapping[str, Any]) -> None:
    delta = part.get("delta") or part.get("message") or ({"content": part["text"]} if "text" in part else {})
    for name, value in _mapping(delta).items():
        before = message.get(name)
        if isinstance(value, str) and isinstance(before, str) and name != "role":
            message[name] = before + value
        elif isinstance(value, str | list) and isinstance(before, str | list) and name != "role":
            message[name] = [*_parts(before), *_parts(value)]
        elif value is not None or name not in message:
            message[name] = value
    for name in ("finish_reason", "error"):
        if part.get(name) is not None:
            choice[name] = part[name]
    # Those of the first token. Before it, some services send empty ones with the role.
    if any(_mapping(part.get("logprobs")).values()) and not choice.get("logprobs"):
        choice["logprobs"] = part["logprobs"]


def _parts(content: str | list[Any]) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _events(raw: bytes) -> Iterator[str]:
    """Yield the data of each event (the standard of server-sent events), without comments."""
    text = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    data: list[str] = []
    for line in [*text.split("\n"), ""]:
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
