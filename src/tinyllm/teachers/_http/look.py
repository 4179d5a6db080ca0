"""A look at an endpoint that costs nothing: its list of models (`GET /models`) is requested, and no completion."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tinyllm.errors import TeacherError, did_you_mean
from tinyllm.teachers._http.envelope import Envelope, public_url
from tinyllm.teachers._http.refusals import words_of
from tinyllm.teachers._http.transport import AttemptFailed, BadUrl, Patience, Transport, proxy_for
from tinyllm.teachers._secrets import hide, secrets_of

_PATIENCE = Patience(timeout_s=10.0, connect_s=5.0)
_REFUSED = {
    401: "the key is refused: check the environment variable that `api_key_env` names, and `auth_header`",
    402: "the account has no credit left",
    403: "the key may not list models: check the key, and `headers`",
    407: "the proxy requires a user and a password: http://user:password@host:port in HTTPS_PROXY",
}


async def look_at(owner: str, envelope: Envelope, model: str) -> list[str]:
    """Request the list of models of each replica. Return what each of them answers, in words.

    A service need not have such a list. Any answer that does not refuse the key shows that it can be reached.

    Raises:
        TeacherError: a replica does not answer, or refuses the key.
    """
    found = await asyncio.gather(*(_look(envelope, url, model) for url in envelope.urls), return_exceptions=True)
    problems = [str(words) for words in found if isinstance(words, TeacherError)]
    if problems:
        raise TeacherError(f"Teacher '{owner}': " + "; ".join(problems), page="configuration.md#endpoints-examples")
    for words in found:
        if isinstance(words, BaseException):
            raise words
    return [str(words) for words in found]


async def _look(envelope: Envelope, url: str, model: str) -> str:
    proxy = proxy_for(url)
    secrets = (*envelope.secrets, *secrets_of(proxy))
    shown = hide(public_url(url), secrets)
    address = f"{url}/models" + (envelope.query and f"?{envelope.query}")
    try:
        async with Transport(envelope.headers, secrets, _PATIENCE) as http:
            answer = await http.send("GET", address, proxy=proxy)
    except AttemptFailed as failure:
        raise TeacherError(f"{shown} does not answer ({failure}): start the server, or correct `base_url`") from None
    except BadUrl:
        raise TeacherError(f"{shown} is no URL: correct `base_url`") from None
    if answer.status in _REFUSED:
        words = words_of(answer.body, secrets) or "(it gave no reason)"
        raise TeacherError(f"{shown} answers {answer.status}: {words}; {_REFUSED[answer.status]}")
    if answer.status != 200:
        return f"{shown} answers, without a list of models (HTTP {answer.status})"
    known = _models(answer.body)
    if known is None:
        return f"{shown} answers, without a list of models"
    if model in known:
        return f"{shown} answers and lists {model}"
    raise TeacherError(
        f"{shown} answers, and {model} is not among the {len(known)} models that it lists."
        f"{did_you_mean(model, sorted(known))} Correct `model`, or go on if the service lists only some"
    )


def _models(body: bytes) -> set[str] | None:
    try:
        listed: Any = json.loads(body)["data"]
        return {str(row["id"]) for row in listed}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
