"""The rows of a batch: uploaded requests and returned results. All functions are pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tinyllm.config import Form
from tinyllm.teachers._http.endpoint import request_body
from tinyllm.teachers._http.refusals import about_one_prompt, no_credit, only_thought, refused_parameter, words_of
from tinyllm.teachers._http.replies import ErrorInReply, NotACompletion, read_completion
from tinyllm.teachers.base import FailureReason, ParameterRefused, Reply, Request
from tinyllm.teachers.manners import Manners


@dataclass(frozen=True, slots=True)
class Missed:
    """A request of a batch that got no reply.

    Attributes:
        kind: what may help. `again`: another batch. `parameter`: another form of the request, see `parameter`.
            `prompt`: nothing, the prompt is not accepted. `refused`: nothing; if all rows say so, the reason is not in
            the prompts.
        reason: see `RequestFailed`.
    """

    words: str
    kind: Literal["again", "parameter", "prompt", "refused"]
    reason: FailureReason = "failed"
    parameter: ParameterRefused | None = None


def endpoint_of(form: Form) -> str:
    """Return the protocol's name of the endpoint. It does not depend on the provider's address."""
    return "/v1/chat/completions" if form == "chat" else "/v1/completions"


def request_rows(
    asked: Iterable[tuple[str, Request]], model: str, form: Form, manners: Manners, most_bytes: int
) -> tuple[list[str], bytes]:
    """Write requests (with their keys) as JSONL, as many as fit into a file.

    Returns:
        The keys in the file, at least one; and the file.
    """
    keys: list[str] = []
    lines: list[bytes] = []
    size = 0
    for key, request in asked:
        body = request_body(request, model, form, manners)
        row = {"custom_id": key, "method": "POST", "url": endpoint_of(form), "body": body}
        line = json.dumps(row, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
        size += len(line)
        if size > most_bytes and keys:
            break
        keys.append(key)
        lines.append(line)
    return keys, b"".join(lines)


def read_rows(
    rows: Sequence[Mapping[str, Any]],
    form: Form,
    latency_s: float,
    body_of: Callable[[str], Mapping[str, Any]] = lambda _: {},
    secrets: Iterable[str] = (),
) -> dict[str, Reply | Missed]:
    """Return the result of each request, by key. If a key has several rows, a reply is preferred over a failure.

    Args:
        body_of: returns the request with a key; empty if it is unknown.
        secrets: removed from the provider's messages.
    """
    results: dict[str, Reply | Missed] = {}
    for row in rows:
        key = str(row.get("custom_id"))
        if not isinstance(results.get(key), Reply):
            results[key] = _read(row, form, latency_s, body_of(key), secrets)
    return results


def _read(
    row: Mapping[str, Any], form: Form, latency_s: float, body: Mapping[str, Any], secrets: Iterable[str]
) -> Reply | Missed:
    response = row.get("response")
    if not isinstance(response, dict):  # it was not executed: the batch expired or was cancelled
        return Missed(words_of(_raw(row.get("error")), secrets), "again")
    status, raw = response.get("status_code"), _raw(response.get("body"))
    if status == 200:
        try:
            return read_completion(raw, form, latency_s)
        except NotACompletion as error:
            return Missed(f"{error}: {words_of(raw, secrets)!r}", "again")
        except ErrorInReply as error:
            status, raw = error.status, error.body
    words = words_of(raw, secrets)
    if type(status) is not int:
        return Missed(words, "again")
    if only_thought(status, raw):
        return Reply("", "length", latency_s=latency_s)
    reason = about_one_prompt(status, words)
    said = f"HTTP {status}: {words}"
    if reason is not None:
        return Missed(said, "prompt", reason)
    if status >= 500 or status in (408, 409, 425) or (status == 429 and not no_credit(words)):
        return Missed(said, "again")
    if refused := refused_parameter(status, raw, body, secrets):
        return Missed(said, "parameter", parameter=refused)
    return Missed(said, "refused", "bad_request")


def _raw(body: Any) -> bytes:
    return json.dumps(body).encode()
