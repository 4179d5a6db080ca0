"""What is sent around a request: addresses, headers, and the user's own fields, with secrets filled in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from tinyllm import config
from tinyllm.errors import TeacherError
from tinyllm.teachers._secrets import KEYS_PAGE, spelled

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is sent around every request.

    Attributes:
        urls: of the replicas, up to and including /v1.
        query: of every URL, encoded, without the question mark.
        headers: including the API key.
        extra_body: fields that replace those of the body.
        extra_setting: the setting that contains these fields.
        stream: None: as the endpoint requires.
        secrets: must not appear in any message; longest first.
    """

    urls: tuple[str, ...]
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    extra_setting: str = "extra_body"
    stream: bool | None = None
    secrets: tuple[str, ...] = ()


def envelope_of(spec: config.OpenAITeacher | config.OpenAIBatchTeacher) -> Envelope:
    """Return what is sent around the requests to a hosted endpoint. This reads the environment.

    Raises:
        TeacherError: an environment variable is missing, or its value cannot be a key.
    """
    missing: dict[str, None] = {}
    found: dict[str, None] = {}

    def filled(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            held = os.environ.get(match[1], "").strip()
            (found if held else missing)[held or match[1]] = None
            return held

        return _VARIABLE.sub(value, text)

    listed = [spec.base_url] if isinstance(spec.base_url, str) else spec.base_url
    urls = tuple(filled(url).rstrip("/") for url in listed)
    query = urlencode({name: filled(value) for name, value in spec.query.items()})
    headers = {name: filled(value) for name, value in spec.headers.items()}
    if missing:
        raise TeacherError(
            f"Teacher '{spec.name}' names {', '.join(f'${{{m}}}' for m in missing)}, which the environment does not "
            f"hold. Set it (export {next(iter(missing))}=…), or remove it from the teacher's section.",
            page=KEYS_PAGE,
        )
    key = api_key(spec)
    if key is not None:
        plain = spec.auth_header.casefold() != "authorization"
        headers[spec.auth_header] = key if plain else f"Bearer {key}"
        found[key] = None
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise TeacherError(f"Teacher '{spec.name}': the header {name} holds characters other than printable ASCII.")
    extra = spec.extra_body if isinstance(spec, config.OpenAITeacher) else {}
    stream = None if not isinstance(spec, config.OpenAITeacher) or spec.stream == "auto" else spec.stream
    return Envelope(urls, query, headers, extra, stream=stream, secrets=spelled(found))


def api_key(spec: config.OpenAITeacher | config.OpenAIBatchTeacher | config.LiteLLMTeacher) -> str | None:
    """Return the API key from the environment; None if the configuration names no variable.

    Raises:
        TeacherError: the variable is empty, or its value cannot be a key.
    """
    if spec.api_key_env is None:
        return None
    key = os.environ.get(spec.api_key_env, "").strip()
    if not key:
        without = "if the endpoint asks for no key"
        if isinstance(spec, config.LiteLLMTeacher):
            without = "for the service's own variables"
        raise TeacherError(
            f"Teacher '{spec.name}' needs a key, and the environment variable {spec.api_key_env} holds none. "
            f"Set it (export {spec.api_key_env}=…), or write `api_key_env: null` {without}.",
            page=KEYS_PAGE,
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise TeacherError(
            f"Teacher '{spec.name}': the value of the environment variable {spec.api_key_env} is no key: it contains "
            "spaces, or characters other than printable ASCII. Set it to the key alone.",
            page=KEYS_PAGE,
        )
    return key


def public_url(url: str) -> str:
    """Return a URL without user, password, query and fragment, so that it may be stored and shown."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def identity_of(spec: config.OpenAITeacher | config.OpenAIBatchTeacher) -> dict[str, str]:
    """Return everything besides the request that can change a reply, with the names of variables instead of values.

    The address counts, because different servers may use one name for different models. Of several replicas only the
    first counts: they serve the same model, and their number may change. Headers do not count.
    """
    url = spec.base_url if isinstance(spec.base_url, str) else spec.base_url[0]
    identity = {"kind": "openai", "base_url": public_url(url), "model": spec.model}
    if spec.query:
        identity["query"] = urlencode(sorted(spec.query.items()), safe="${}")
    if isinstance(spec, config.OpenAITeacher) and spec.extra_body:
        identity["extra_body"] = json.dumps(spec.extra_body, sort_keys=True)
    return identity
