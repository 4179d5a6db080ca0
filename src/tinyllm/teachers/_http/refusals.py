"""Reads the errors of an endpoint: the message, what it is about, and how long to wait. All functions are pure."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tinyllm.teachers._secrets import on_one_line
from tinyllm.teachers.base import FailureReason, ParameterRefused
from tinyllm.teachers.manners import LENGTHS, WITHOUT_THOUGHTS

_TOO_LONG = (
    "context_length", "exceed_context", "context length", "context size", "context window", "too long",
    "too many tokens", "maximum number of tokens", "request too large", "prompt is too large", "input is too large",
)  # fmt: skip
_FILTERED = (
    "content_filter", "content filter", "content policy", "content_policy", "content management", "usage policy",
    "usage policies", "input was flagged", "prompt was flagged", "request was flagged", "safety system", "moderation",
)  # fmt: skip
# A limit per minute may also mention the plan and the billing page, so these words alone mean nothing.
_NO_CREDIT = (
    "insufficient_quota", "credit balance", "insufficient balance", "insufficient credit", "exceeded_current_quota",
    "billing_hard_limit", "billing hard limit", "billing_not_active", "account is not active",
)  # fmt: skip
_NO_KEY = (
    "api key not valid", "api_key_invalid", "invalid api key", "invalid_api_key", "invalid x-api-key",
    "api key expired", "incorrect api key", "security token included in the request is", "unrecognizedclient",
    "expiredtoken",
)  # fmt: skip
_WORDS = 400
_LONGEST_WAIT_S = 7 * 86400.0


def about_one_prompt(status: int, words: str) -> FailureReason | None:
    """Return the reason if an error concerns only this prompt; None if other requests would fail, too."""
    said = words.casefold()
    if status in (400, 403, 422, 451) and any(sign in said for sign in _FILTERED):
        return "content_filter"
    if status == 413 or (status in (400, 422) and any(sign in said for sign in _TOO_LONG)):
        return "too_long"
    if status == 429 and "request too large" in said:  # the prompt exceeds the tokens of a minute
        return "too_long"
    return None


def only_thought(status: int, raw: bytes) -> bool:
    """Return whether an error says that all tokens went into a thought. OpenAI answers so instead of an empty reply."""
    return status == 400 and b"could not finish the message" in raw.lower()


def meant(status: int, words: str) -> int:
    """Return the status that an error should have. Some services answer 400 or 403 if the account is refused."""
    said = words.casefold()
    if status in (400, 403) and any(sign in said for sign in _NO_KEY):
        return 401
    if status in (400, 403) and no_credit(words):
        return 402
    return status


def no_credit(words: str) -> bool:
    """Return whether a 429 means that the account has no credit, so that waiting does not help."""
    said = words.casefold()
    return any(sign in said for sign in _NO_CREDIT)


def words_of(raw: bytes, secrets: Iterable[str] = ()) -> str:
    """Return the server's own words on one line: the message of an error in JSON, or the beginning of the text.

    Args:
        secrets: removed before the text is cut, because a part of one could remain otherwise.
    """
    text = raw.decode("utf-8", "replace")
    error = _error_of(raw)
    if isinstance(error, dict):
        named = [str(error[k]) for k in ("code", "type", "message", "msg", "detail") if error.get(k)]
        text = ": ".join(dict.fromkeys(named)) or text
    elif isinstance(error, str):
        text = error
    line = on_one_line(text, secrets)
    return line if len(line) <= _WORDS else line[:_WORDS] + " …"


def seconds_of(retry_after: str | None) -> float | None:
    """Read `Retry-After`, which is a number of seconds or a date. Return at least 0.

    Return None if it is neither, or more than a week, which must be a mistake.
    """
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError, TypeError):
            return None
    return max(0.0, seconds) if seconds <= _LONGEST_WAIT_S else None


def pause_of(retry_after: str | None, raw: bytes) -> float | None:
    """Return the seconds to wait: from `Retry-After`, or from the error (`RetryInfo` of Google's services)."""
    if retry_after:
        return seconds_of(retry_after)
    error = _error_of(raw)
    details = error.get("details") if isinstance(error, dict) else None
    for row in details if isinstance(details, list) else ():
        if isinstance(row, dict) and isinstance(delay := row.get("retryDelay"), str):
            return seconds_of(delay.removesuffix("s"))
    return None


def _error_of(raw: bytes) -> Any:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    return body.get("error", body) if isinstance(body, dict) else None


# --- refused parameters -------------------------------------------------------------------------------------------

_SPELLED: Mapping[str, str] = {
    "temperature": "temperature", "top_p": "top_p", "topp": "top_p", "top-p": "top_p", "nucleus": "top_p",
    "seed": "seed", "random_seed": "seed", "randomseed": "seed", "random-seed": "seed",
    "stop": "stop", "stop_sequences": "stop", "stopsequences": "stop", "stop sequences": "stop",
    "stop-sequences": "stop",
    "max_tokens": "max_tokens", "maxtokens": "max_tokens", "max_completion_tokens": "max_completion_tokens",
    "max_output_tokens": "max_tokens", "maxoutputtokens": "max_tokens", "max_new_tokens": "max_tokens",
    "stream": "stream", "streaming": "stream", "stream_options": "stream_options", "streamoptions": "stream_options",
    "include_usage": "stream_options", "logprobs": "logprobs", "top_logprobs": "logprobs", "n_probs": "logprobs",
    "chat_template_kwargs": "thoughts", "enable_thinking": "thoughts", "reasoning_effort": "thoughts",
}  # fmt: skip
_NAMES = re.compile(
    "|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in sorted(_SPELLED, key=len, reverse=True)),
    re.IGNORECASE,
)
_PROSE = {"stop", "seed", "stream", "streaming", "nucleus"}  # these are also common words
_ASKS = re.compile(r"only|must|require|set|use", re.IGNORECASE)
_QUOTES = "'\"`‘’“”«»<"
_REFUSES = re.compile(
    r"un(?:supported|recogni[sz]ed|known|expected|available)|(?:not|n't|never|cannot|can't|no longer) (?:be )?\w*\s*"
    r"(?:support|accept|allow|permit|recogni|valid|use|implement|specif|set|combin|available)|not permitted|"
    r"\binvalid|\bextra\b|forbidden|deprecated|only the default|(?:may|can) only|both|instead|remove|"
    r"must (?:be|equal|have)|should be|only supports?|mutually exclusive|at most|less than|greater than|exceed|"
    r"too (?:large|high|big)|maximum|do(?:es)? ?n[o']t support|rejected|disallowed|required|\bonly\b.*\bsupported",
    re.IGNORECASE,
)
_NO_SYSTEM = re.compile(
    r"(?:system|developer)['\"`]?[ _-](?:role|message|prompt|instruction)s?\b.*(?:not|n't|un)|"
    r"(?:not|n't|un)\w*\b.*['\"`]?system['\"`]?(?: role| message| prompt| instruction)|"
    r"role.*(?:not|n't|un)\w* .*['\"`]system|conversation roles must alternate|"
    r"only (?:user and assistant|'user' and 'assistant') roles",
    re.IGNORECASE | re.DOTALL,
)
_FEWEST_TOKENS, _FEWEST_LOGPROBS = 16, 2  # a smaller number in the message is not a limit
_MOST_FEWEST = 1024  # and a larger one not the smallest length
_AT_LEAST = re.compile(
    r"(?:>=|at least|minimum(?: value)?(?: is| of|:)?|greater than or equal to|no less than|between) *['\"`]?(\d+)",
    re.IGNORECASE,
)


def refused_parameter(
    status: int, raw: bytes, body: Mapping[str, Any], secrets: Iterable[str] = ()
) -> ParameterRefused | None:
    """Return which part of a request an endpoint refuses; None if its error is about something else.

    Args:
        raw: the body of the answer.
        body: the request.
        secrets: removed from the message.
    """
    if status not in (400, 403, 404, 405, 415, 422, 501):
        return None
    error, words = _error_of(raw), words_of(raw, secrets)
    whole = raw.decode("utf-8", "replace")
    names = [*_structured(error)]
    names += _mentioned(words) if _REFUSES.search(words) else []
    if {"temperature", "top_p"} <= {*names} and re.search(r"both|only one|combin|together|exclusive|either", whole):
        names = ["top_p", "temperature"]
    if "max_tokens" in body and "max_completion_tokens" in names:
        names.insert(0, "max_tokens")
    length = next((name for name in LENGTHS if name in body), "")
    names = [length if name in LENGTHS else name for name in names]  # a gateway may call it otherwise
    if "stream" in names and body.get("stream") is True and "stream_options" in body and "stream_options" in names:
        names.remove("stream")
    if "thoughts" in names and not any(way and way.items() <= body.items() for way in WITHOUT_THOUGHTS):
        names = [name for name in names if name != "thoughts"]  # a person has set it
    sent = [
        name
        for name in dict.fromkeys(names)
        if name in body or name == "thoughts" or (name == "stream" and not body.get("stream"))
    ]
    has_system = any(m.get("role") == "system" for m in body.get("messages", ()))
    if has_system and _NO_SYSTEM.search(words):
        sent.append("system")
    if not sent:
        return None
    if sent[0] == "logprobs":
        most = _limit(words, body.get("top_logprobs", body["logprobs"]), _FEWEST_LOGPROBS)
        return ParameterRefused(sent if most is None else ("top_logprobs",), words, most)
    if sent[0] not in LENGTHS or "context" in words.casefold():
        return ParameterRefused(sent, words)
    asked = body[sent[0]]
    fewest = max((int(n) for n in _AT_LEAST.findall(words) if asked < int(n) <= _MOST_FEWEST), default=None)
    if fewest is not None:
        return ParameterRefused(("fewest_tokens",), words, fewest)
    return ParameterRefused(sent, words, _limit(words, asked, _FEWEST_TOKENS))


def _structured(error: Any) -> Iterator[str]:
    """Yield the names in structured fields of an error: `param`, or the path of a validator."""
    if not isinstance(error, dict):
        return
    details = error.get("detail")
    rows = details if isinstance(details, list) else []
    paths = [row.get("loc") for row in rows if isinstance(row, dict)]
    places = [error.get("param"), *(path[-1] if isinstance(path, list) and path else path for path in paths)]
    for place in places:
        if isinstance(place, str) and (name := _SPELLED.get(place.rpartition(".")[2].casefold())):
            yield name


def _mentioned(words: str) -> Iterator[str]:
    """Yield the names in a message, in order. Names that are common words count only if they are marked as names."""
    for found in _NAMES.finditer(words):
        before, after = words[: found.start()], words[found.end() :]
        quoted = before[-1:] in _QUOTES and before[-1:] != "" and after[:1] != ""
        called = re.search(r"(?:(?:parameter|argument|field|option|key|property)s?|:) *$", before, re.IGNORECASE)
        called = called or re.match(r" *(?:parameter|argument|field|option|is not|are not)\b", after)
        is_stream = found[0].casefold().startswith("stream") and _ASKS.search(words)
        if found[0].casefold() not in _PROSE or quoted or called or is_stream:
            yield _SPELLED[found[0].casefold()]


def _limit(words: str, sent: int, least: int) -> int | None:
    """Return the largest number that a message allows, if it names one from `least` to below what was sent."""
    if not re.search(
        r"at most|maxim|max allowed|less than|up to|<=|limit|exceed|too (?:large|high|big)|between",
        words,
        re.IGNORECASE,
    ):
        return None
    numbers = [int(n.replace(",", "")) for n in re.findall(r"(?<![\w.-])\d[\d,]*", words) if len(n) < 12]
    return max((n for n in numbers if least <= n < sent), default=None)
