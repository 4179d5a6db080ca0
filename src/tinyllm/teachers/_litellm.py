"""Models behind services with a protocol of their own (Anthropic, Gemini, Bedrock, …): litellm translates.

The library translates one request and one reply, nothing else: what it wants to send goes over our own connection
(`_Wire`), once an attempt. So time-outs, lost connections, statuses and `Retry-After` are the service's own and mean
what they mean to every `Endpoint`; attempts, pauses, limits and the account are `Endpoint`'s. A few services take no
connection from outside the library; of those we know what its exceptions tell.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import re
import warnings
from collections.abc import Mapping
from typing import Any, Self
from urllib.request import getproxies

from yarl import URL

from tinyllm import config
from tinyllm.errors import MissingDependencyError, TeacherError, did_you_mean, printable
from tinyllm.teachers._http.endpoint import NO_SERVER, REMEDIES, Endpoint, Patience
from tinyllm.teachers._http.envelope import Envelope, api_key, public_url
from tinyllm.teachers._http.limits import Limits
from tinyllm.teachers._http.refusals import delay_of, hide
from tinyllm.teachers._http.replicas import Replica
from tinyllm.teachers._http.teacher import RemoteTeacher
from tinyllm.teachers._http.transport import Answer, AttemptFailed, BadUrl, Transport, proxy_for
from tinyllm.teachers._secrets import secrets_of, spelled

_REMEDIES: Mapping[int, str] = {
    **REMEDIES,
    NO_SERVER: "check the network and `base_url`",
    401: "check the key in the environment variable that `api_key_env` names, or in the service's own",
    403: "this key may not use this model; check the account and, where there are any, region and project in "
    "`arguments`",
    404: "check `model: {model}`, `base_url` and, where there are any, region and project in `arguments`",
}
_PACKAGES: Mapping[str, str] = {
    "bedrock": "boto3",
    "sagemaker": "boto3",
    "sagemaker_chat": "boto3",
    "vertex_ai": "google.auth",
}
_INSTALLS: Mapping[str, str] = {"google.auth": "google-auth"}
_SECRET_NAME = re.compile(r"(?:KEY|KEY_ID|SECRET|TOKEN|PASSWORD)$", re.IGNORECASE)
_SHORTEST_GUESS = 8  # what is shorter, or all letters, is rather a word than a key
_NOT_SENT_ON = {"host", "content-length", "connection", "accept-encoding", "user-agent", "transfer-encoding"}
_ADVICE = re.compile(
    r"\nTraceback|\.? *To drop |\s*If you want to use these params|\.? *Handle with `litellm|\s*Received Model Group",
)
# Those that the library asks through the OpenAI package, and that take its client, are all others.
_TAKE_HANDLERS = frozenset({
    "anthropic", "azure_ai", "bedrock", "bedrock_mantle", "databricks", "datarobot", "deepseek", "fireworks_ai",
    "gemini", "gigachat", "groq", "heroku", "hosted_vllm", "huggingface", "minimax", "mistral", "oci", "ollama",
    "ollama_chat", "openrouter", "ovhcloud", "sagemaker_chat", "snowflake", "vercel_ai_gateway", "vertex_ai",
    "vertex_ai_beta", "watsonx", "watsonx_text", "xai",
})  # fmt: skip


class LiteLLMTeacher(RemoteTeacher):
    """Asks a model through litellm, which is imported (seconds) when the teacher is checked or entered."""

    def __init__(self, spec: config.LiteLLMTeacher, *, patience: Patience | None = None) -> None:
        super().__init__(spec, patience)
        self._spec = spec

    def __repr__(self) -> str:
        return f"LiteLLMTeacher({self.name!r}, model={self._spec.model!r})"

    def check(self) -> None:
        """Look for the library, what it needs for this service, and the key.

        Raises:
            MissingDependencyError: a package is not installed.
            TeacherError: there is no such service, or no key in the environment.
        """
        spec, service = self._spec, self._spec.model.partition("/")[0]
        _require("litellm", spec, "tinyllm-distill[litellm]")
        if (package := _PACKAGES.get(service)) is not None:
            _require(package, spec, _INSTALLS.get(package, package))
        api_key(spec)
        library = _load()
        known = [str(getattr(name, "value", name)) for name in library.provider_list]
        try:
            library.get_llm_provider(model=spec.model)
        except Exception:  # noqa: BLE001  # of the kinds that its parts raise
            raise TeacherError(
                f"Teacher '{spec.name}': litellm knows no service '{service}'.{did_you_mean(service, known)} Write "
                "`model: service/model`, as in anthropic/claude-sonnet-4-5 or gemini/gemini-2.5-flash; all services: "
                "https://docs.litellm.ai/docs/providers"
            ) from None
        if spec.api_key_env is None and service not in _PACKAGES:  # the clouds find credentials in many places
            missing = library.validate_environment(model=spec.model)["missing_keys"]
            if missing and spec.base_url is None:
                raise TeacherError(
                    f"Teacher '{spec.name}' needs a key, and the environment holds no {' or '.join(missing)}. "
                    f"Set it (export {missing[0]}=…), or name another variable in `api_key_env`."
                )

    @property
    def identity(self) -> Mapping[str, str]:
        """Service and model, the address where it is not the service's own, and further arguments."""
        spec = self._spec
        identity = {"kind": "litellm", "model": spec.model}
        if spec.base_url is not None:
            identity["base_url"] = public_url(spec.base_url)
        if spec.arguments:
            identity["arguments"] = json.dumps(spec.arguments, sort_keys=True)
        return identity

    def _make_endpoint(self) -> Endpoint:
        spec, patience = self._spec, self._patience
        _require("litellm", spec, "tinyllm-distill[litellm]")
        key = api_key(spec)
        secrets = spelled([*([] if key is None else [key]), *_secrets_at_hand()])
        envelope = Envelope(
            (spec.base_url or spec.model.partition("/")[0],), extra_body=spec.arguments, extra_setting="arguments",
            stream=False, secrets=secrets,
        )  # fmt: skip
        return Endpoint(
            spec.name, envelope, spec.model, form=spec.form, concurrency=spec.concurrency,
            limits=Limits.of(spec), patience=patience, manners=self._manners,
            carrier=_Library(spec, key, secrets, patience), remedies=_REMEDIES,
        )  # fmt: skip


def _require(package: str, spec: config.LiteLLMTeacher, install: str) -> None:
    try:
        found = importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that it is in
        found = False
    if not found:
        raise _missing(package, spec, install)


def _missing(package: str, spec: config.LiteLLMTeacher, install: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"Teacher '{spec.name}' ({spec.model}) needs the package {package}, which is not installed. Install it with: "
        f"pip install '{install}'"
    )


def _secrets_at_hand() -> list[str]:
    """Return what the environment holds that the library might send as a key, whichever variable it reads."""
    held = [value.strip() for name, value in os.environ.items() if _SECRET_NAME.search(name)]
    passwords = [secret for proxy in getproxies().values() for secret in secrets_of(proxy)]
    return [value for value in held if len(value) >= _SHORTEST_GUESS and not value.isalpha()] + passwords


def _load() -> Any:
    """Import the library so that it does nothing by itself: no files from the network, no retries, no words."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches a list of prices at import
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it takes over what stands in a file `.env`
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.drop_params = litellm.modify_params = False  # nothing of a request is left out or changed in silence
    litellm.num_retries = None
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # what fails is told once, by us
    # Of its own types under pydantic 2.14; nothing that a person could mend.
    warnings.filterwarnings("ignore", r"Items? .* on TypedDict class .* `ReadOnly`", UserWarning)
    return litellm


class _Library:
    """The library as a carrier of attempts; see `Carrier`."""

    def __init__(
        self, spec: config.LiteLLMTeacher, key: str | None, secrets: tuple[str, ...], patience: Patience
    ) -> None:
        self._spec = spec
        self._key = key
        self._secrets = secrets
        self._timeout_s = patience.timeout_s
        self._http = Transport(
            {}, secrets, connect_s=patience.connect_s, first_byte_s=patience.first_byte_s, stall_s=patience.stall_s,
            timeout_s=patience.timeout_s,
        )  # fmt: skip
        self._litellm: Any = None
        self._service = ""
        self._url: str | None = None

    async def __aenter__(self) -> Self:
        self._litellm = await asyncio.to_thread(_load)
        spec, key = self._spec, self._key
        if key is None and spec.base_url is not None and self._litellm.validate_environment(spec.model)["missing_keys"]:
            key = "none"  # a server of one's own may ask for no key, but the library asks for one
        _, self._service, found, url = self._litellm.get_llm_provider(
            model=spec.model, api_base=spec.base_url, api_key=key
        )
        self._key = key or found
        self._url = spec.base_url or url
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.__aexit__()

    async def post(self, replica: Replica, body: bytes) -> Answer:
        """Have one request translated, sent once, and its reply translated back; see `Carrier`."""
        wire = _Wire(self._http, replica.shown)
        try:
            async with asyncio.timeout(self._timeout_s + 1.0):  # for those that are not sent by us
                response = await self._litellm.acompletion(
                    **{"no-log": True, **json.loads(body)},
                    base_url=self._spec.base_url, api_key=self._key, client=self._client(wire),
                    timeout=self._timeout_s, max_retries=0, num_retries=0, caching=False,
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001  # of the kinds that its parts raise
            failed = error
        else:
            return _in_our_words(response)
        # Outside of the handler: an exception of ours that came back inside one of theirs would become its own context.
        return self._without_reply(failed, wire)

    def _client(self, wire: _Wire) -> Any:
        """Return a client of the kind that the service's part of the library takes. Made anew: 0.1 ms an attempt."""
        import httpx

        client = httpx.AsyncClient(transport=wire, trust_env=False, verify=False)  # noqa: S501
        if self._service in _TAKE_HANDLERS:
            from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

            handler = AsyncHTTPHandler(timeout=self._timeout_s)
            handler.client = client
            return handler
        from openai import AsyncOpenAI

        key = self._key or os.environ.get("OPENAI_API_KEY") or "none"
        return AsyncOpenAI(api_key=key, base_url=self._url, http_client=client, max_retries=0)

    def _without_reply(self, error: Exception, wire: _Wire) -> Answer:
        """Return the service's answer that is no reply.

        Raises:
            AttemptFailed: there is none.
            MissingDependencyError: the library needs another package for this service.
        """
        if wire.failure is not None:
            raise wire.failure
        if wire.answer is not None:
            return wire.answer
        causes = _causes(error)
        if (lacks := next((e for e in causes if isinstance(e, ImportError)), None)) is not None:
            package = (lacks.name or str(lacks)).partition(".")[0]
            raise _missing(package, self._spec, package)
        words = printable(hide(_ADVICE.split(str(error))[0], self._secrets)).strip()
        words = re.sub(r"^(?:(?:litellm\.)?\w+Error: )+", "", words)
        if any(isinstance(e, TimeoutError | self._litellm.Timeout) for e in causes):
            raise AttemptFailed("timeout", f"no whole reply in {self._timeout_s:g} s", overload=True)
        # The library's own errors are at the top of the chain; what the service answered is at its bottom.
        answers = [a for e in causes if (a := getattr(e, "response", None)) is not None and getattr(a, "content", None)]
        if answers and answers[-1].status_code >= 400:
            return Answer(answers[-1].status_code, answers[-1].headers.get("retry-after"), answers[-1].content)
        status = getattr(error, "status_code", None)
        if isinstance(error, self._litellm.APIConnectionError) or type(status) is not int or status < 400:
            # Whether anything was sent is not known, so it counts as lost.
            raise AttemptFailed("connection", words, overload=True)
        about = {"message": words}
        if isinstance(error, self._litellm.UnsupportedParamsError) and (name := re.search(r"\['(\w+)'", words)):
            about["param"] = name[1]
        return Answer(status, None, json.dumps({"error": about}).encode())


def _in_our_words(response: Any) -> Answer:
    said = response.model_dump()
    for choice in said.get("choices", ()):
        choice.get("message", {}).pop("provider_specific_fields", None)  # says once more what stands beside it
    return Answer(200, None, json.dumps(said, default=str).encode())


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:  # chains of exceptions may be circles
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


class _Wire:
    """One attempt's connection, as httpx wants a transport to be: it sends one request, and remembers what came.

    Attributes:
        answer: of the service, whatever the status.
        failure: why there is none.
    """

    def __init__(self, http: Transport, shown: str) -> None:
        self._http = http
        self._shown = shown
        self._used = False
        self.answer: Answer | None = None
        self.failure: AttemptFailed | BadUrl | None = None

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request over our own connection, unless one was sent before."""
        import httpx

        if self._used or request.method != "POST":
            raise httpx.UnsupportedProtocol("one attempt is one request", request=request)
        self._used = True
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_SENT_ON}
        url = str(request.url)
        try:
            # As it is written: a signature may be over its very letters.
            target = Replica(URL(url, encoded=True), self._shown, proxy_for(url))
            answer = await self._http.post(target, await request.aread(), headers)
        except (AttemptFailed, BadUrl) as failure:
            self.failure = failure
            raise
        self.answer = answer if answer.retry_after else Answer(answer.status, delay_of(answer.body), answer.body)
        return httpx.Response(
            answer.status, headers={"content-type": "application/json"}, content=answer.body, request=request
        )

    async def aclose(self) -> None:
        """Close nothing: the connections are others' too."""
