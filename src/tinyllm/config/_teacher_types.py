"""Types of teachers' settings that need a check of their own: addresses, headers, keys and fields of requests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

_SECRET = re.compile(
    r"authori[sz]ation|api[-_]?key|(?:^|[-_])(?:key|token|secret|sig|signature|password|passwd|cookie)(?:$|[-_])",
    re.IGNORECASE,
)
_OWN_FIELDS: Mapping[str, str] = {
    "model": "by the teacher's `model`", "messages": "by the question", "prompt": "by the question",
    "stream": "by the teacher's `stream`", "stream_options": "by the teacher's `stream`",
    "n": "to 1, and `rationales.samples` allows more requests", "temperature": "by `rationales.temperature`",
    "max_tokens": "by `rationales.max_tokens` and the teacher's `thinking_tokens`",
    "max_completion_tokens": "by `rationales.max_tokens` and the teacher's `thinking_tokens`",
    "top_p": "by `rationales.top_p`", "seed": "by `rationales.seed`", "stop": "by the teacher's `stop`",
}  # fmt: skip
_OWN_ARGUMENTS: Mapping[str, str] = {
    "api_key": "by the teacher's `api_key_env`", "base_url": "by the teacher's `base_url`",
    "api_base": "by the teacher's `base_url`", "custom_llm_provider": "by the teacher's `model`",
    "timeout": "by the teacher's `timeout_s`", "drop_params": "by the teacher's `omit`",
    "additional_drop_params": "by the teacher's `omit`", "model_list": "by the teachers of the configuration",
    "caching": "by `rationales.store`", "cache": "by `rationales.store`", "client": "by TinyLLM",
    "shared_session": "by TinyLLM", "no-log": "by TinyLLM", "acompletion": "by TinyLLM", "logger_fn": "by TinyLLM",
    "vertex_credentials": "by the environment variable GOOGLE_APPLICATION_CREDENTIALS",
    **{name: f"by the environment variable {name.upper()}"
       for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")},
}  # fmt: skip
_KEY = re.compile(r"(sk|gsk|hf|xai|pplx|nvapi|ghp|AIza)[-_A-Za-z]*[-_0-9a-z]*[0-9]")  # as keys begin
_LONG_NAME = 24  # characters
_HOST = r"[A-Za-z0-9._-]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?"  # a name or IPv4; IPv6 with a zone


def _texts(value: Any) -> Any:
    """Turn dates and numbers into text. YAML reads `2024-10-21` as a date, but in a URL or a header it is a text."""
    if not isinstance(value, Mapping):
        return value
    return {name: _as_text(v) for name, v in value.items()}


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float | date) else value


def no_secrets(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse API keys in the configuration, at any depth, because it is copied into run folders."""
    for name, text in _named_as_secrets(value):
        if "${" not in text:
            raise ValueError(
                f"'{name}' looks like a key. Keys are read from environment variables only: write "
                f"`{name}: ${{MY_KEY}}`, and set the variable (export MY_KEY=…)"
            )
    return value


def _named_as_secrets(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts whose names sound secret, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str) and inner and _SECRET.search(str(name)):
                yield str(name), inner
            yield from _named_as_secrets(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named_as_secrets(inner)


def own_fields(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse fields of a request that have their own settings."""
    for name in value:
        if name in _OWN_FIELDS:
            raise ValueError(f"'{name}' is set {_OWN_FIELDS[name]}; remove it here")
    return value


def service_first(model: str) -> str:
    """Refuse a model without its service."""
    service, _, rest = model.partition("/")
    if not (service and rest) or any(c.isspace() for c in model):
        raise ValueError(
            f"'{model}' does not name a service; write it as service/model, for example anthropic/claude-sonnet-4-5, "
            "gemini/gemini-2.5-flash or bedrock/anthropic.claude-3-haiku-20240307-v1:0"
        )
    return model


def litellm_arguments(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse arguments of the library that have their own settings, or that would bypass our retries and limits."""
    for name, inner in value.items():
        if name == "extra_body" and isinstance(inner, Mapping):
            litellm_arguments(inner)
        if (place := {**_OWN_FIELDS, **_OWN_ARGUMENTS}.get(name)) is not None:
            raise ValueError(f"'{name}' is set {place}; remove it here")
        if name.startswith(("mock_", "litellm_")) or "callback" in name or "fallback" in name or "retr" in name:
            raise ValueError(f"'{name}' is not allowed, because TinyLLM itself repeats and limits requests; remove it")
    for name, _ in _named_as_secrets(value):
        raise ValueError(f"'{name}' looks like a key. Keys are read from environment variables only: see `api_key_env`")
    return value


def _name_of_variable(text: str) -> str:
    """Refuse what is no name of a variable, or looks like a key. The message does not repeat it."""
    mixed = all(re.search(of, text) for of in ("[a-z]", "[A-Z]", "[0-9]"))
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", text) or _KEY.match(text) or (mixed and len(text) >= _LONG_NAME):
        raise PydanticCustomError(
            "variable",
            "the name of the environment variable that holds the key is needed, as in OPENAI_API_KEY, and not the key",
        )
    return text


def _reachable(url: str) -> str:
    """Refuse an unusable address. The message does not repeat it, because it may contain a pasted key."""
    import yarl  # aiohttp, which sends the requests, parses addresses with it

    if not re.fullmatch(r"https?://[^@?#\s]+", url):
        raise PydanticCustomError(
            "address", "an address begins with http:// or https://, and has no user, password, query or blank in it"
        )

    try:
        parsed = yarl.URL(url)
        host = parsed.raw_host or ""
        host.encode("idna")
    except (ValueError, TypeError):  # also UnicodeError, for an impossible host name
        host, parsed = "", None
    if parsed is None or not re.fullmatch(_HOST, host) or not parsed.port:
        raise PydanticCustomError(
            "address", "the host must be a name or an IP address, and the port a number from 1 to 65535"
        )
    return url


Texts = Annotated[dict[str, str], BeforeValidator(_texts), AfterValidator(no_secrets)]
BaseUrl = Annotated[str, AfterValidator(_reachable)]
Variable = Annotated[str, AfterValidator(_name_of_variable)]
