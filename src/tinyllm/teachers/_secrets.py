"""What must not be repeated: keys, and the user and the password in an address."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit

_SHORTEST = 3  # a shorter one would take letters out of every text


def secrets_of(url: str | None) -> tuple[str, ...]:
    """Return what an address holds of user and password, in the forms in which a message may repeat it, longest first.

    Args:
        url: of a proxy, say; None and what is no address hold nothing.
    """
    try:
        user_info = urlsplit(url or "").netloc.rpartition("@")[0]
    except ValueError:
        return ()
    password = user_info.partition(":")[2]
    encoded = base64.b64encode(unquote(user_info).encode("utf-8", "surrogateescape")).decode() if user_info else ""
    forms = {encoded, user_info, unquote(user_info), password, unquote(password)}
    return tuple(sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True))


def spelled(values: Iterable[str]) -> tuple[str, ...]:
    """Return secrets in the forms in which a text may repeat them, also encoded in a URL; the longest first."""
    forms = {form for value in values for form in (value, quote(value, safe=""), quote(value))}
    return tuple(sorted((form for form in forms if len(form) >= _SHORTEST), key=lambda form: (-len(form), form)))
