"""Secrets that messages must not contain: keys, and the user and password in an address."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit

from tinyllm.errors import printable

KEYS_PAGE = "teachers.md#keys"
"""The page that an error about a missing key names."""

_SHORTEST = 3  # hiding a shorter secret would remove letters from every text


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return the text with `***` in place of each secret."""
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    return text


def on_one_line(text: str, secrets: Iterable[str]) -> str:
    """Return foreign text on one line, without secrets and control sequences."""
    return " ".join(printable(hide(text, secrets)).split())


def secrets_of(url: str | None) -> tuple[str, ...]:
    """Return the user and password in a URL, in all forms that a message may contain, longest first."""
    try:
        user_info = urlsplit(url or "").netloc.rpartition("@")[0]
    except ValueError:
        return ()
    password = user_info.partition(":")[2]
    encoded = base64.b64encode(unquote(user_info).encode("utf-8", "surrogateescape")).decode() if user_info else ""
    forms = {encoded, user_info, unquote(user_info), password, unquote(password)}
    return tuple(sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True))


def spelled(values: Iterable[str]) -> tuple[str, ...]:
    """Return secrets in all forms that a message may contain, including URL-encoded ones, longest first."""
    forms = {form for value in values for form in (value, quote(value, safe=""), quote(value))}
    return tuple(sorted((form for form in forms if len(form) >= _SHORTEST), key=lambda form: (-len(form), form)))
