"""The rows of a batch: requests as they are uploaded, results as they come back. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tinyllm.config import Form
from tinyllm.teachers.base import FailureReason, Reply, Request
from tinyllm.teachers.http.endpoint import request_body
from tinyllm.teachers.http.replies import NotACompletion, about_one_prompt, no_credit, read_completion, words_of

LengthField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True)
class Missed:
    """A request of a batch that got no reply.

    Attributes:
        kind: what may help. `again`: another batch. `length`: naming the other field for the reply's length.
            `prompt`: nothing, this prompt is not taken. `refused`: nothing here either; if all rows say so, it is
            not about the prompts.
        reason: as in `RequestFailed`.
    """

    words: str
    kind: Literal["again", "length", "prompt", "refused"]
    reason: FailureReason = "failed"


def endpoint_of(form: Form) -> str:
    """Return what the protocol calls the endpoint; it is the same whatever the provider's own address."""
    return "/v1/chat/completions" if form == "chat" else "/v1/completions"


def request_rows(
    asked: Iterable[tuple[str, Request]], model: str, form: Form, length_field: LengthField, most_bytes: int
) -> tuple[list[str], bytes]:
    """Write requests as JSONL, as many as fit into a file.

    Args:
        asked: keys and requests.

    Returns:
        The keys of those that are in the file, of which there is at least one; and the file.
    """
    keys: list[str] = []
    lines: list[bytes] = []
    size = 0
    for key, request in asked:
        body = request_body(request, model, form, length_field)
        row = {"custom_id": key, "method": "POST", "url": endpoint_of(form), "body": body}
        line = json.dumps(row, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
        size += len(line)
        if size > most_bytes and keys:
            break
        keys.append(key)
        lines.append(line)
    return keys, b"".join(lines)


def read_rows(
    rows: Sequence[Mapping[str, Any]], form: Form, latency_s: float, secret: str | None = None
) -> dict[str, Reply | Missed]:
    """Return what came of each request, by its key. A reply wins over a failure in another row.

    Args:
        secret: what the provider's words are told without.
    """
    results: dict[str, Reply | Missed] = {}
    for row in rows:
        key = str(row.get("custom_id"))
        if not isinstance(results.get(key), Reply):
            results[key] = _read(row, form, latency_s, secret)
    return results


def _read(row: Mapping[str, Any], form: Form, latency_s: float, secret: str | None) -> Reply | Missed:
    response = row.get("response")
    if not isinstance(response, dict):  # it was never asked: the batch expired or was cancelled before
        return Missed(words_of(_raw(row.get("error")), secret), "again")
    status, raw = response.get("status_code"), _raw(response.get("body"))
    words = words_of(raw, secret)
    if status == 200:
        try:
            return read_completion(raw, form, latency_s)
        except NotACompletion as error:
            return Missed(f"{error}: {words!r}", "again")
    if type(status) is not int:
        return Missed(words, "again")
    reason = about_one_prompt(status, words)
    said = f"HTTP {status}: {words}"
    if reason is not None:
        return Missed(said, "prompt", reason)
    if status >= 500 or status in (408, 409, 425) or (status == 429 and not no_credit(words)):
        return Missed(said, "again")
    return Missed(said, "length" if "max_completion_tokens" in words else "refused")


def _raw(body: Any) -> bytes:
    return json.dumps(body).encode()
