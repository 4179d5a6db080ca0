"""What an OpenAI-compatible endpoint says: completions, errors, and how long to wait. Pure readers."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from typing import Any

from tinyllm.config import Form
from tinyllm.teachers.base import FailureReason, FinishReason, Reply

_FINISHED: Mapping[str, FinishReason] = {
    "stop": "stop", "eos": "stop", "stop_sequence": "stop", "end_turn": "stop",
    "length": "length", "max_tokens": "length",
    "content_filter": "content_filter", "safety": "content_filter", "prohibited_content": "content_filter",
    "refusal": "refusal",
}  # fmt: skip
_TOO_LONG = (
    "context_length", "exceed_context", "context length", "context size", "context window", "too long",
    "too many tokens", "maximum number of tokens", "request too large", "prompt is too large", "input is too large",
)  # fmt: skip
_FILTERED = (
    "content_filter", "content filter", "content policy", "content_policy", "content management", "usage policy",
    "usage policies", "input was flagged", "prompt was flagged", "request was flagged",
)  # fmt: skip
_NO_CREDIT = ("insufficient_quota", "billing", "credit balance")
_WORDS = 400


class NotACompletion(ValueError):
    """A reply that is not what the protocol says."""


def read_completion(raw: bytes, form: Form, latency_s: float) -> Reply:
    """Return the reply in the body of an answer.

    Raises:
        NotACompletion: there is none in it.
    """
    try:
        answer = json.loads(raw)
        choice = answer["choices"][0]
        message = choice["message"] if form == "chat" else choice
        said = message["content" if form == "chat" else "text"]
        refusal = message.get("refusal")
        finish = _FINISHED.get(str(choice.get("finish_reason")).lower(), "unknown")
        usage = answer.get("usage") or {}
        prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        cached = _cached(usage, answer.get("timings"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise NotACompletion("its reply is not a completion") from None
    if said is not None and not isinstance(said, str):
        raise NotACompletion("its reply holds no text")
    if isinstance(refusal, str) and refusal:
        said, finish = refusal, "refusal"
    return Reply(said or "", finish, prompt, completion, latency_s, cached)


def _cached(usage: Mapping[str, Any], timings: Any) -> int | None:
    """Prompt tokens found in a cache, as OpenAI and vLLM, DeepSeek, or older llama.cpp tell them."""
    details = usage.get("prompt_tokens_details")
    for holder, name in ((details, "cached_tokens"), (usage, "prompt_cache_hit_tokens"), (timings, "cache_n")):
        if isinstance(holder, dict) and (count := _count(holder, name)) is not None:
            return count
    return None


def _count(holder: Mapping[str, Any], name: str) -> int | None:
    number = holder.get(name)
    return number if type(number) is int and number >= 0 else None


# --- errors -------------------------------------------------------------------------------------------------------


def about_one_prompt(status: int, words: str) -> FailureReason | None:
    """Tell whether an error is about the prompt alone, so that other requests may fare better, and in what way."""
    said = words.casefold()
    if status in (400, 403, 422) and any(sign in said for sign in _FILTERED):
        return "content_filter"
    if status == 413 or (status in (400, 422) and any(sign in said for sign in _TOO_LONG)):
        return "too_long"
    if status == 429 and "request too large" in said:  # more than a minute's tokens in one prompt
        return "too_long"
    return None


def no_credit(words: str) -> bool:
    """Tell whether a 429 means that the account is empty: waiting does not mend that."""
    said = words.casefold()
    return any(sign in said for sign in _NO_CREDIT)


def words_of(raw: bytes, secret: str | None = None) -> str:
    """Return the server's own words: the message of an error in JSON, else the text's beginning, on one line.

    Args:
        secret: what is not repeated. Taken out here, since half of it could be left where the words are cut.
    """
    text = raw.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, dict):
        named = [str(error[k]) for k in ("code", "type", "message", "detail") if error.get(k)]
        text = ": ".join(dict.fromkeys(named)) or text
    elif isinstance(error, str):
        text = error
    line = " ".join(hide(text, secret).split())
    return line if len(line) <= _WORDS else line[:_WORDS] + " …"


def hide(text: str, secret: str | None) -> str:
    """Return the text without the secret."""
    return text.replace(secret, "***") if secret else text


def seconds_of(retry_after: str | None) -> float | None:
    """Read `Retry-After`, which is a number of seconds or a date; None if it is neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None
