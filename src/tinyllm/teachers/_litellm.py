"""Models behind services with other protocols (Anthropic, Gemini, Bedrock, …), translated by litellm.

The library only translates a request and its reply. It sends through our own connection (`_Wire`), once per attempt. So
timeouts, lost connections, statuses and `Retry-After` come from the service itself, and `Endpoint` handles retries,
pauses, limits and costs as for every other endpoint. A few services accept no connection from outside the library; for
these, we use what its exceptions say.
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
from tinyllm.teachers._http.endpoint import NO_SERVER, REMEDIES, Endpoint
from tinyllm.teachers._http.envelope import Envelope, api_key, public_url
from tinyllm.teachers._http.limits import Pace
from tinyllm.teachers._http.replicas import Replica
from tinyllm.teachers._http.teacher import RemoteTeacher
from tinyllm.teachers._http.transport import Answer, AttemptFailed, BadUrl, Patience, Transport, proxy_for
from tinyllm.teachers._secrets import KEYS_PAGE, hide, secrets_of, spelled

_REMEDIES: Mapping[int, str] = {
    **REMEDIES,
    NO_SERVER: "check the network and `base_url`",
    401: "check the key in the environment variable that `api_key_env` names, or in the service's own variable",
    403: "this key may not use this model; check the account, and any region and project in `arguments`",
    404: "check `model: {model}`, `base_url`, and any region and project in `arguments`",
}
_PACKAGES: Mapping[str, str] = {
    "bedrock": "boto3",
    "sagemaker": "boto3",
    "sagemaker_chat": "boto3",
    "vertex_ai": "google.auth",
}
_SECRET_NAME = re.compile(r"(?:KEY|KEY_ID|SECRET|TOKEN|PASSWORD)$", re.IGNORECASE)
_SHORTEST_GUESS = 8  # a shorter value, or letters only, is probably not a key
_NOT_SENT_ON = {"host", "content-length", "connection", "accept-encoding", "user-agent", "transfer-encoding"}
_ADVICE = re.compile(
    r"\nTraceback|\.? *To drop |\s*If you want to use these params|\.? *Handle with `litellm|\s*Received Model Group",
)
# These take an HTTP handler of the library. All other services take a client of the OpenAI package.
_TAKE_HANDLERS = frozenset({
    "anthropic", "azure_ai", "bedrock", "bedrock_mantle", "databricks", "datarobot", "deepseek", "fireworks_ai",
    "gemini", "gigachat", "groq", "heroku", "hosted_vllm", "huggingface", "minimax", "mistral", "oci", "ollama",
    "ollama_chat", "openrouter", "ovhcloud", "sagemaker_chat", "snowflake", "vercel_ai_gateway", "vertex_ai",
    "vertex_ai_beta", "watsonx", "watsonx_text", "xai",
})  # fmt: skip


class LiteLLMTeacher(RemoteTeacher):
    """Asks a model through litellm. The import takes seconds, so it happens when the teacher is checked or entered."""

    def __init__(self, spec: config.LiteLLMTeacher, *, patience: Patience | None = None) -> None:
        super().__init__(spec, patience)
        self._spec = spec

    def check(self) -> None:
        """Check the library, the packages for this service, and the API key.

        Raises:
            MissingDependencyError: a package is not installed.
            TeacherError: litellm does not know the service, or the environment has no key.
        """
        spec, service = self._spec, self._spec.model.partition("/")[0]
        _require("litellm", spec, "tinyllm-distill[litellm]")
        if (package := _PACKAGES.get(service)) is not None:
            _require(package, spec, package.replace(".", "-"))
        api_key(spec)
        library = _load()
        known = [str(getattr(name, "value", name)) for name in library.provider_list]
        try:
            library.get_llm_provider(model=spec.model)
        except Exception:  # noqa: BLE001  # the library raises many kinds
            raise TeacherError(
                f"Teacher '{spec.name}': litellm knows no service '{service}'.{did_you_mean(service, known)} Write "
                "`model: service/model`, as in anthropic/claude-sonnet-4-5 or gemini/gemini-2.5-flash; all services: "
                "https://docs.litellm.ai/docs/providers"
            ) from None
        if spec.api_key_env is None and service not in _PACKAGES:  # cloud services look for credentials in many places
            missing = library.validate_environment(model=spec.model)["missing_keys"]
            if missing and spec.base_url is None:
                raise TeacherError(
                    f"Teacher '{spec.name}' needs a key, and the environment has no {' or '.join(missing)}. "
                    f"Set it (export {missing[0]}=…), or name another variable in `api_key_env`.",
                    page=KEYS_PAGE,
                )

    @property
    def identity(self) -> Mapping[str, str]:
        """Service and model, a configured address, and further arguments."""
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
        # The library reads keys from many variables. Hide every value that looks like one.
        held = [value.strip() for name, value in os.environ.items() if _SECRET_NAME.search(name)]
        keys = [value for value in held if len(value) >= _SHORTEST_GUESS and not value.isalpha()]
        passwords = [secret for proxy in getproxies().values() for secret in secrets_of(proxy)]
        secrets = spelled([*([] if key is None else [key]), *keys, *passwords])
        envelope = Envelope(
            (spec.base_url or spec.model.partition("/")[0],), extra_body=spec.arguments, extra_setting="arguments",
            stream=False, secrets=secrets,
        )  # fmt: skip
        return Endpoint(
            spec.name, envelope, spec.model, form=spec.form, concurrency=spec.concurrency,
            pace=Pace.of(spec), patience=patience, manners=lambda: self.manners,
            carrier=_Library(spec, key, secrets, patience), remedies=_REMEDIES,
        )  # fmt: skip


def _require(package: str, spec: config.LiteLLMTeacher, install: str) -> None:
    try:
        found = importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent package is missing
        found = False
    if not found:
        raise _missing(package, spec, install)


def _missing(package: str, spec: config.LiteLLMTeacher, install: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"Teacher '{spec.name}' ({spec.model}) needs the package {package}, which is not installed. "
        f"Install it with: pip install '{install}'"
    )


def _load() -> Any:
    """Import the library and switch off what it does by itself: downloads, retries, messages."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # otherwise the import downloads a list of prices
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # otherwise it reads a file `.env`
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.drop_params = litellm.modify_params = False  # never change a request silently
    litellm.num_retries = None
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # TinyLLM reports failures
    # This warning is about its own types under pydantic 2.14. The user can do nothing about it.
    warnings.filterwarnings("ignore", r"Items? .* on TypedDict class .* `ReadOnly`", UserWarning)
    return litellm


class _Library:
    """Sends attempts through the library; see `Carrier`."""

    def __init__(
        self, spec: config.LiteLLMTeacher, key: str | None, secrets: tuple[str, ...], patience: Patience
    ) -> None:
        self._spec = spec
        self._key = key
        self._secrets = secrets
        self._timeout_s = patience.timeout_s
        self._http = Transport({"Content-Type": "application/json"}, secrets, patience)
        self._litellm: Any = None
        self._service = ""
        self._url: str | None = None

    async def __aenter__(self) -> Self:
        self._litellm = await asyncio.to_thread(_load)
        spec, key = self._spec, self._key
        if key is None and spec.base_url is not None and self._litellm.validate_environment(spec.model)["missing_keys"]:
            key = "none"  # a private server may need no key, but the library requires one
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
        """Translate a request, send it once, and translate the reply; see `Carrier`."""
        wire = _Wire(self._http, replica.shown)
        try:
            async with asyncio.timeout(self._timeout_s + 1.0):  # for services that take no connection of ours
                response = await self._litellm.acompletion(
                    **{"no-log": True, **json.loads(body)},
                    base_url=self._spec.base_url, api_key=self._key, client=self._client(wire),
                    timeout=self._timeout_s, max_retries=0, num_retries=0, caching=False,
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001  # the library raises many kinds
            failed = error
        else:
            said = response.model_dump()
            for choice in said.get("choices", ()):
                choice.get("message", {}).pop("provider_specific_fields", None)  # repeats the other fields
            return Answer(200, None, json.dumps(said, default=str).encode())
        # Outside of `except`: our own exception may be inside theirs, and would become its own context.
        return self._without_reply(failed, wire)

    def _client(self, wire: _Wire) -> Any:
        """Return a client of the kind that the library takes for this service. Making one takes 0.1 ms."""
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
        """Return the service's answer to an attempt that brought no reply."""
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
        # The service's answer is in the innermost exception; the outer ones are the library's.
        answers = [a for e in causes if (a := getattr(e, "response", None)) is not None and getattr(a, "content", None)]
        if answers and answers[-1].status_code >= 400:
            return Answer(answers[-1].status_code, answers[-1].headers.get("retry-after"), answers[-1].content)
        status = getattr(error, "status_code", None)
        if isinstance(error, self._litellm.APIConnectionError) or type(status) is not int or status < 400:
            # It is unknown whether anything was sent, so the attempt counts as billed.
            raise AttemptFailed("connection", words, overload=True)
        about = {"message": words}
        if isinstance(error, self._litellm.UnsupportedParamsError) and (name := re.search(r"\['(\w+)'", words)):
            about["param"] = name[1]
        return Answer(status, None, json.dumps({"error": about}).encode())


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:  # a chain of exceptions may be a circle
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


class _Wire:
    """A transport for httpx that sends one request over our own connection.

    Attributes:
        answer: the service's answer, with any status.
        failure: why there is no answer.
    """

    def __init__(self, http: Transport, shown: str) -> None:
        self._http = http
        self._shown = shown
        self._used = False
        self.answer: Answer | None = None
        self.failure: AttemptFailed | BadUrl | None = None

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, unless one was sent before."""
        import httpx

        if self._used or request.method != "POST":
            raise httpx.UnsupportedProtocol("one attempt is one request", request=request)
        self._used = True
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_SENT_ON}
        url = str(request.url)
        try:
            # The URL must not change, because it may be signed.
            target = Replica(URL(url, encoded=True), self._shown, proxy_for(url))
            answer = await self._http.post(target, await request.aread(), headers)
        except (AttemptFailed, BadUrl) as failure:
            self.failure = failure
            raise
        self.answer = answer
        return httpx.Response(
            answer.status, headers={"content-type": "application/json"}, content=answer.body, request=request
        )

    async def aclose(self) -> None:
        """Close nothing: all attempts share the connections."""
