"""The routes of the server. They check a request, pass its questions to `_batching`, and return the answers as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tinyllm.errors import TinyLLMError
from tinyllm.inference import Chosen, LoadedStudent
from tinyllm.questions.types import Question
from tinyllm.serving import _chat
from tinyllm.serving._batching import Answer, Batcher, QueueFullError
from tinyllm.serving._limits import Limits
from tinyllm.serving._metrics import Metrics
from tinyllm.system.files import well_formed

_PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_DISCARDED = 64 << 20  # bytes that are read of a request that is too long, before the connection is closed
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:]*))(?::\d*)?")
_Body = TypeVar("_Body", bound=BaseModel)


class _Refused(Exception):
    """A request that the server refuses, with the HTTP status and the message for the client."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, {k.replace("_", "-"): v for k, v in headers.items()}

    def response(self) -> JSONResponse:
        """Return the response in the format of OpenAI's errors."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": well_formed(str(self)), "type": kind, "param": None, "code": self.code}
        return JSONResponse({"error": error}, self.status, self.headers)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: str = "asked"
    question: str
    choices: list[str]
    context: str | None = None

    def as_question(self) -> Question:
        """Return the question. Lone surrogates are replaced in all its texts, because UTF-8 cannot hold them."""
        context = None if self.context is None else well_formed(self.context)
        choices = tuple(map(well_formed, self.choices))
        return Question(well_formed(self.id), well_formed(self.question), choices, None, context)


class _One(_Asked):
    explain: bool | str = False


class _Several(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    questions: list[_Asked]
    explain: bool | str = False


def application(student: LoadedStudent, key: str | None, limits: Limits, host: str = "127.0.0.1") -> Starlette:
    """Return the ASGI application of the server. `state.unanswered` counts the requests that a stop has cut off.

    Args:
        key: the key that clients must send; None if no key is needed.
        host: the address or name that the server listens on.
    """
    routes = _Routes(student, key, limits, host)
    made = Starlette(
        routes=routes.table(),
        lifespan=routes.lifespan,
        exception_handlers={404: routes.unknown, 405: routes.unknown, Exception: routes.failed},
    )
    made.state.unanswered = 0
    return made


class _Routes:
    def __init__(self, student: LoadedStudent, key: str | None, limits: Limits, host: str) -> None:
        self._student, self._key, self._limits = student, key, limits
        self._names = {*_LOCAL_NAMES, host.lower()}
        self._metrics = Metrics(lambda: self._batcher.waiting)
        folder = resources.files("tinyllm.serving") / "page"
        self._page = {path: (folder / name).read_bytes() for path, (name, _) in _PAGE_FILES.items()}

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Compute answers while the server runs."""
        self._batcher = Batcher(self._student, self._limits, self._metrics)
        work = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            work.cancel()
            self._batcher.close()

    def table(self) -> list[Route]:
        """Return all routes."""
        asked = {"/predict": self._predict, "/v1/chat/completions": self._complete}
        told = {"/v1/models": self._models, "/metrics": self._figures}
        return [
            *(Route(path, self._guarded(path, of), methods=["POST"]) for path, of in asked.items()),
            *(Route(path, self._guarded(path, of), methods=["GET"]) for path, of in told.items()),
            Route("/healthz", self._health, methods=["GET"]),
            *(Route(path, self._show, methods=["GET"]) for path in _PAGE_FILES),
        ]

    def _guarded(
        self, path: str, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return a route that also checks the host and the key, returns errors as JSON, and counts the request."""

        async def guarded(request: Request) -> Response:
            began = time.monotonic()

            def count(status: int) -> None:
                self._metrics.request(path, status, time.monotonic() - began)

            try:
                self._check_host(request)
                self._check_key(request)
                response = await answer(request)
            except _Refused as refused:
                response = refused.response()
            except ClientDisconnect:
                response = Response(status_code=499)  # nobody reads it
            except TinyLLMError as error:
                response = _Refused(500, str(error)).response()
            except asyncio.CancelledError:
                request.app.state.unanswered += 1
                raise
            except Exception:
                count(500)
                raise  # `failed` answers it, and the log gets the traceback
            count(response.status_code)
            return response

        return guarded

    def _check_host(self, request: Request) -> None:
        """Refuse requests to other host names if no key is needed: pages of other sites send them (DNS rebinding)."""
        given = request.headers.get("host", "")
        match = _HOST.fullmatch(given)
        if self._key is None and (match is None or (match["v6"] or match["name"] or "").lower() not in self._names):
            raise _Refused(
                400, f"This server has no key, so it answers to {', '.join(sorted(self._names))} only, got the host "
                f"'{given[:80]}'. Use one of these names, or start the server with --api-key-env NAME.", "wrong_host",
            )  # fmt: skip

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")  # the bytes that were sent
        if self._key is not None and not hmac.compare_digest(given, f"Bearer {self._key}".encode()):
            raise _Refused(
                401, "This server needs its key: send `Authorization: Bearer KEY`.", "invalid_api_key",
                WWW_Authenticate="Bearer",
            )  # fmt: skip

    # --- routes -------------------------------------------------------------------------------------------------------

    async def _predict(self, request: Request) -> Response:
        body = await self._json(request)
        asked: _Several | _One
        asked = _valid(_Several, body) if isinstance(body, dict) and "questions" in body else _valid(_One, body)
        questions = [q.as_question() for q in asked.questions] if isinstance(asked, _Several) else [asked.as_question()]
        answers = await self._answers(request, questions, self._styles(asked.explain))
        told = [_as_json(q, a) for q, a in zip(questions, answers, strict=True)]
        if isinstance(asked, _Several):
            return JSONResponse({"answers": told})
        if isinstance(answers[0].chosen, str):
            raise _Refused(400, answers[0].chosen, "invalid_question")
        return JSONResponse(told[0])

    async def _complete(self, request: Request) -> Response:
        chat = _valid(_chat.Chat, await self._json(request))
        name, _, teacher = chat.model.partition("/")
        if name != _chat.MODEL or (teacher and teacher not in self._student.teachers):
            known = ", ".join(m["id"] for m in _chat.models(self._student.teachers)["data"])
            raise _Refused(404, f"No such model: '{chat.model[:80]}'. Known: {known}.", "model_not_found")
        found = _chat.question_in(chat.messages)
        if isinstance(found, str):
            raise _Refused(400, found, "invalid_question")
        question, labels = found
        longest = chat.max_completion_tokens or chat.max_tokens or self._limits.rationale_tokens
        styles = (teacher,) if teacher else ()
        answer = (await self._answers(request, [question], styles, longest))[0]
        if isinstance(answer.chosen, str):
            raise _Refused(400, answer.chosen, "invalid_question")
        said = labels or question.choices
        text = answer.rationales[teacher] if teacher else said[answer.chosen.choice]
        log = _chat.log_probabilities(answer.chosen, said, chat.top_logprobs or 0)
        logprobs = log if chat.logprobs and not teacher else None
        usage = self._student.usage(question, teacher or None, text)
        if chat.stream:
            events = _chat.events(chat, text, usage, logprobs)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return JSONResponse(_chat.completion(chat, text, usage, logprobs))

    async def _models(self, _: Request) -> Response:
        return JSONResponse(_chat.models(self._student.teachers))

    async def _figures(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _health(self, _: Request) -> Response:
        told = {"needs_key": self._key is not None, "explains": bool(self._student.teachers)}
        return JSONResponse({"status": "ok", "runtime": self._student.runtime} | told)

    async def _show(self, request: Request) -> Response:
        path = request.url.path
        return Response(self._page[path], media_type=_PAGE_FILES[path][1], headers=_PAGE_HEADERS)

    async def unknown(self, request: Request, _: Exception) -> Response:
        """Answer a request to a path that does not exist, or by a method that the path does not have."""
        path, table = request.url.path, self.table()
        methods = sorted({m for r in table if r.path == path for m in r.methods or ()})
        if methods:
            allow = ", ".join(methods)
            return _Refused(
                405, f"{path} takes {allow}, not {request.method}.", "method_not_allowed", Allow=allow
            ).response()  # fmt: skip
        known = ", ".join(f"{'POST' if 'POST' in (r.methods or ()) else 'GET'} {r.path}" for r in table)
        return _Refused(
            404, f"There is no {request.method} {path[:200]} here. Known: {known}.", "not_found"
        ).response()  # fmt: skip

    async def failed(self, _: Request, error: Exception) -> Response:
        """Answer a request that a bug, or a lack of memory, has stopped."""
        return _Refused(
            500, f"The server failed on this request ({type(error).__name__}). Its log has the details. Other requests "
            "are not affected.",
        ).response()  # fmt: skip

    # --- used by several routes ---------------------------------------------------------------------------------------

    async def _json(self, request: Request) -> Any:
        """Return the body of a request, read as JSON.

        The header must name JSON. A form of another site cannot send that header.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise _Refused(415, f"Send JSON with `Content-Type: application/json`, got '{kind[:80]}'.")
        most, size, body = self._limits.body_bytes, 0, bytearray()
        too_long = _Refused(
            413, f"The request is longer than {most:,} bytes. Send fewer or shorter questions.", "too_long",
            Connection="close",
        )  # fmt: skip
        if int(request.headers.get("content-length", "0")) > _DISCARDED:
            raise too_long
        try:
            async with asyncio.timeout(self._limits.body_s):
                # The rest of a long request is read and dropped: a client that still sends would not read the refusal.
                async for chunk in request.stream():
                    size += len(chunk)
                    body += chunk if size <= most else b""
                    if size > _DISCARDED:
                        raise too_long
        except TimeoutError:
            raise _Refused(
                408, f"The request did not arrive within {self._limits.body_s:g} s. Send it again.", Connection="close"
            ) from None
        if size > most:
            raise too_long
        try:
            return json.loads(body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise _Refused(
                400, f"The request is not UTF-8: byte {error.start} is wrong. Send JSON in UTF-8.", "invalid_utf8"
            ) from None
        except (ValueError, RecursionError) as error:
            raise _Refused(400, f"The request is not JSON: {error}.", "invalid_json") from None

    def _styles(self, explain: bool | str) -> tuple[str, ...]:
        if explain is False:
            return ()
        try:
            return self._student.styles(None if explain is True else explain)
        except TinyLLMError as error:
            raise _Refused(400, str(error)) from None

    async def _answers(
        self, request: Request, questions: Sequence[Question], styles: tuple[str, ...], max_tokens: int | None = None
    ) -> list[Answer]:
        """Return the answers. If the client hangs up or the time is over, its questions are not computed any more."""
        limits = self._limits
        if not 1 <= len(questions) <= limits.questions:
            raise _Refused(400, f"A request may have 1 to {limits.questions} questions, got {len(questions)}.")
        if (most := max(len(q.choices) for q in questions)) > limits.choices:
            raise _Refused(
                400, f"A question may have at most {limits.choices} choices, got {most}.", "invalid_question"
            )
        longest = min(max_tokens or limits.rationale_tokens, limits.rationale_tokens)
        answering = asyncio.create_task(self._batcher.ask(questions, styles, longest))
        gone = asyncio.create_task(_hung_up(request))
        try:
            done, _ = await asyncio.wait(
                (answering, gone), timeout=limits.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if answering in done:
                return answering.result()
            if gone in done:
                raise ClientDisconnect
            raise _Refused(
                504, f"There was no answer within {limits.timeout_s:g} s, because the server is busy. Try again later.",
                "timeout",
            )  # fmt: skip
        except QueueFullError as full:
            raise _Refused(
                429, f"The queue of {limits.queue} questions is full. Try again in {full.retry_after_s} s.",
                "queue_full", Retry_After=str(full.retry_after_s),
            ) from None  # fmt: skip
        finally:
            answering.cancel()
            gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _valid(kind: type[_Body], body: Any) -> _Body:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'the body'}: "
            + ("Input should be a JSON object" if e["type"] == "model_type" else e["msg"])
            for e in error.errors(include_url=False)[:5]
        )
        raise _Refused(400, f"The request has wrong fields: {told}. docs/serving.md shows the format.") from None


def _as_json(question: Question, answer: Answer) -> dict[str, Any]:
    if not isinstance(answer.chosen, Chosen):
        return {"id": question.id, "problem": answer.chosen}
    told = asdict(answer.chosen) | {"probability": answer.chosen.probability}
    return {"id": question.id} | told | ({"rationales": answer.rationales} if answer.rationales else {})
