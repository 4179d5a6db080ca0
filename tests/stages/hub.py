"""A local stand-in of the Hugging Face hub. The hub's own client library writes to it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_stand_in"


@dataclass
class Hub:
    """The content of a stand-in: files by repository, which repositories are private, and how each file was sent."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    by_lfs: set[str] = field(default_factory=set)


@contextlib.contextmanager
def hub() -> Iterator[Hub]:
    """Run a stand-in until the block ends."""
    made = Hub()

    class Handler(_Handler):
        hub = made

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def do_PUT(self) -> None:
        content = self._body()
        self.hub.objects[hashlib.sha256(content).hexdigest()] = content
        self._answer({})

    def do_POST(self) -> None:
        body, hub = self._body(), self.hub
        if self.path.startswith("/api/validate-yaml"):
            return self._answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        if self.path.startswith("/api/repos/create"):
            told = json.loads(body)
            name = "/".join(filter(None, (told.get("organization"), told["name"])))
            hub.files.setdefault(name, {})
            hub.private.setdefault(name, told.get("private") or told.get("visibility") == "private")
            return self._answer({"url": f"{hub.url}/{name}", "id": name})
        if found := re.match(r"/api/models/([^/]+/[^/]+)/preupload/", self.path):
            asked = json.loads(body)["files"]
            big = {f["path"]: "lfs" if f["path"].endswith(".safetensors") else "regular" for f in asked}
            files = [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in big.items()]
            return self._answer({"files": files})
        if self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [o | {"actions": {"upload": {"href": f"{hub.url}/objects"}}} for o in json.loads(body)["objects"]]
            return self._answer({"transfer": "basic", "objects": objects})
        if found := re.match(r"/api/models/([^/]+/[^/]+)/commit/", self.path):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[found[1]][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[found[1]][value["path"]] = hub.objects[value["oid"]]
                    hub.by_lfs.add(value["path"])
            return self._answer({"commitUrl": f"{hub.url}/{found[1]}/commit/0", "commitOid": "0" * 40, "success": True})
        return self._answer({"error": f"unknown: {self.path}"}, 404)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _answer(self, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
