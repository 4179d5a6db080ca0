"""A real HTTP server for Files and Batches. It stores what it receives and can be told to fail."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Row = dict[str, Any]
Fault = Callable[["FakeBatches"], web.Response | None] | str
"""A response instead of the work; or the work is done and the answer lost ("drop") or held back ("hang"); or the work is
not done either ("refuse", "stall"). "hold": answered when `release` is called."""


class FakeBatches:
    """State is here, in the server; clients come and go.

    Attributes:
        sent: how often each custom_id was in a batch that was started.
        faults: by step (upload, create, list, look, content): what happens to the next calls, one after the other.
        reached: set when a step has been reached.
        answer: from a row of a batch to its result.
        end: status that the batches end with, one after the other; the last stands for all that follow.
        looks: looks at a batch until it is over; None: it never is.
        page: batches in one page of the list, newest first.
        hidden: what the list does not tell of a batch.
        crowd: batches of others that are made right after each one.
    """

    def __init__(self, **how: Any) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Row] = {}
        self.sent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.faults: dict[str, list[Fault | None]] = defaultdict(list)
        self.reached: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.answer: Callable[[Row], Row] = good
        self.end: list[str] = ["completed"]
        self.looks: int | None = 1
        self.page = 2
        self.hidden = ""
        self.crowd = 0
        vars(self).update(how)
        self._release = asyncio.Event()
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._look)
        self._server = TestServer(app)

    async def __aenter__(self) -> FakeBatches:
        await self._server.start_server()
        self.url = str(self._server.make_url("/v1"))
        return self

    def release(self) -> None:
        """Let go of what is held."""
        self._release.set()

    async def __aexit__(self, *_: object) -> None:
        self.release()
        await self._server.close()

    def rows(self, batch: Row) -> list[Row]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    @property
    def sizes(self) -> list[int]:
        return [len(self.rows(batch)) for batch in self.batches.values()]

    # --- the protocol -------------------------------------------------------------------------------------------

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        assert form["purpose"] == "batch"
        with form["file"].file as file:
            content = file.read()

        def work() -> Row:
            return {"id": self._file(content), "object": "file", "bytes": len(content)}

        return await self._step("upload", request, work)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert body["completion_window"] == "24h"

        def work() -> Row:
            number = len(self.batches)
            batch = {
                "id": f"batch-{number}", "object": "batch", "status": "validating", "created_at": 100,
                "request_counts": {"total": 0, "completed": 0, "failed": 0}, "output_file_id": None,
                "error_file_id": None, "looks": self.looks,
                "end": self.end.pop(0) if len(self.end) > 1 else self.end[0], **body,
            }  # fmt: skip
            self.batches[batch["id"]] = batch
            for row in self.rows(batch):
                assert (row["method"], row["url"]) == ("POST", body["endpoint"])
                self.sent[row["custom_id"]] += batch["end"] != "failed"
            return batch

        return await self._step("create", request, work)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        others = [{"id": f"other-{i}", "input_file_id": f"other-{i}", "metadata": None} for i in range(self.crowd)]
        newest_first = others + [self.batches[i] for i in reversed(self.batches)]
        after = request.query.get("after")
        start = [batch["id"] for batch in newest_first].index(after) + 1 if after else 0
        shown = newest_first[start : start + self.page]
        page = [{name: value for name, value in batch.items() if name != self.hidden} for batch in shown]
        more = start + self.page < len(newest_first)
        return await self._step("list", request, lambda: {"object": "list", "data": page, "has_more": more})

    async def _look(self, request: web.Request) -> web.StreamResponse:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "No such batch"}}, status=404)

        def work() -> Row:
            if batch["looks"] is None:
                batch["status"] = "in_progress"
                batch["request_counts"]["completed"] = 1
            elif batch["looks"] > 0:
                batch["looks"] -= 1
                batch["status"] = "in_progress"
            elif batch["status"] == "in_progress" or batch["status"] == "validating":
                self._finish(batch)
            return batch

        return await self._step("look", request, work)

    def _finish(self, batch: Row) -> None:
        batch |= {"status": batch["end"], "completed_at": 107}
        if batch["end"] == "failed":
            batch["errors"] = {"object": "list", "data": [self.answer(row) for row in self.rows(batch)[:1]]}
            return
        results = [result for row in self.rows(batch) if (result := self.answer(row)) is not None]
        fine = [r for r in results if r["response"] and r["response"]["status_code"] == 200]
        failed = [r for r in results if r not in fine]
        batch["request_counts"] = {"total": len(results), "completed": len(fine), "failed": len(failed)}
        for name, some in (("output_file_id", fine), ("error_file_id", failed)):
            if some:
                batch[name] = self._file("".join(json.dumps(row) + "\n" for row in some).encode())

    async def _content(self, request: web.Request) -> web.StreamResponse:
        content = self.files.get(request.match_info["id"])
        if content is None:
            return web.json_response({"error": {"message": "No such File object"}}, status=404)
        return await self._step("content", request, lambda: content)

    def _file(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    async def _step(self, name: str, request: web.Request, work: Callable[[], Any]) -> web.StreamResponse:
        self.calls[name] += 1
        self.keys.add(request.headers.get("Authorization"))
        fault = self.faults[name].pop(0) if self.faults[name] else None
        if callable(fault):
            self.reached[name].set()
            return fault(self)
        done = work() if fault not in ("refuse", "stall") else {}
        self.reached[name].set()
        if fault in ("hang", "stall", "hold"):
            await self._release.wait()
        if fault is not None and fault != "hold":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=done) if isinstance(done, bytes) else web.json_response(done)


def good(row: Row) -> Row:
    shown = row["body"]["messages"][-1]["content"] if "messages" in row["body"] else row["body"]["prompt"]
    said = f"Re: {shown}"
    choice = {"message": {"content": said}} if "messages" in row["body"] else {"text": said}
    usage = {"prompt_tokens": 7, "completion_tokens": 5}
    return result(row, 200, {"choices": [{**choice, "finish_reason": "stop"}], "usage": usage})


def result(row: Row, status: int, body: Row) -> Row:
    return {"custom_id": row["custom_id"], "response": {"status_code": status, "body": body}, "error": None}


def bad(row: Row, status: int, message: str) -> Row:
    return result(row, status, {"error": {"message": message}})


def unasked(row: Row, code: str = "batch_expired") -> Row:
    return {"custom_id": row["custom_id"], "response": None, "error": {"code": code, "message": "too late"}}


def status(code: int, message: str = "no", retry_after: str | None = None) -> Fault:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return lambda _: web.json_response({"error": {"message": message}}, status=code, headers=headers)
