"""A fake Hugging Face hub on localhost. It can be slow, and it truncates, corrupts, delays or denies its large file."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WEIGHTS = bytes(range(256)) * 4096
PATH = "/timm/vit_base_patch32_clip_224.openai/resolve/main/open_clip_model.safetensors"
MODEL = "ViT-B-32-quickgelu/openai"
COMMIT = "a" * 40
CHUNK_BYTES = 1 << 16


class Hub(ThreadingHTTPServer):
    """A server with one large file, which answers as the hub does. `others` are small files, by path.

    Every request, except those for small files, uses up one fault: cut, wrong, no-range, gzip, or a status code and
    its details. `head_faults` are for HEAD requests, `faults` for GET requests. A HEAD request can also be silent: it
    has no answer until `go_on`.

    Attributes:
        stop_at: bytes of the file after which it sends nothing until `go_on` is called.
    """

    daemon_threads = True

    def __init__(self, weights: bytes = WEIGHTS, path: str = PATH, others: Mapping[str, bytes] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.weights, self.path, self.others = weights, path, dict(others or {})
        self.etag = hashlib.sha256(weights).hexdigest()
        self.faults: list[str] = []
        self.head_faults: list[str] = []
        self.ranges: list[str] = []
        self.tokens: list[str | None] = []
        self.redirect = ""
        self.has_file = True
        self.stop_at = len(weights)
        self.resumed = threading.Condition()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, folder: object) -> dict[str, str]:
        """Return the variables that let a program use this hub, with its cache in `folder`."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(folder),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def go_on(self, stop_at: int | None = None) -> None:
        """Send the file up to `stop_at`, or to its end."""
        with self.resumed:
            self.stop_at = len(self.weights) if stop_at is None else stop_at
            self.resumed.notify_all()

    def wait_until_allowed(self, position: int) -> int:
        """Wait until the file's bytes from `position` on may be sent. Return up to where."""
        with self.resumed:
            self.resumed.wait_for(lambda: self.stop_at > position, timeout=60)
            return self.stop_at


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def _send_head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length), "Connection": "close"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.close_connection = True

    def _file_headers(self) -> dict[str, str]:
        return {"X_Repo_Commit": COMMIT, "ETag": f'"{self.server.etag}"', "Accept_Ranges": "bytes"}

    def _answer_fault(self, faults: list[str]) -> bool:
        """Answer with the status of the next fault, if it is one. Its details are a Retry-After or an error code."""
        status, _, details = (faults[0] if faults else "").partition(" ")
        if not status.isdecimal():
            return False
        faults.pop(0)
        code = {"401": "RepoNotFound", "403": "GatedRepo"}.get(status, "")
        headers = {"Retry_After": details} if details and not code else {"X_Error_Code": code} if details else {}
        self._send_head(int(status), 0, **headers)
        return True

    def _answer_other(self, with_body: bool) -> bool:
        """Answer a request for a small file. Return whether there is such a file."""
        body = self.server.others.get(self.path)
        if body is None:
            return False
        etag = hashlib.sha256(body).hexdigest()
        self._send_head(200, len(body), X_Repo_Commit=COMMIT, ETag=f'"{etag}"')
        if with_body:
            self.wfile.write(body)
        return True

    def do_HEAD(self) -> None:
        if self._answer_other(with_body=False):
            return
        if self._answer_fault(self.server.head_faults):
            return
        if self.server.head_faults[:1] == ["silent"]:
            self.server.head_faults.pop(0)
            self.server.wait_until_allowed(0)
        if self.path == self.server.path and self.server.has_file:
            location, size = f"{self.server.redirect}{self.path}", len(self.server.weights)
            headers = {"Location": location, "X_Linked_Size": str(size)}
            redirect = headers if self.server.redirect else {}
            self._send_head(302 if redirect else 200, len(self.server.weights), **self._file_headers(), **redirect)
        else:
            self._send_head(404, 0, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

    def do_GET(self) -> None:
        if self._answer_other(with_body=True):
            return
        if self.path != self.server.path:
            self._send_head(404, 0, X_Error_Code="EntryNotFound")
            return
        byte_range = self.headers.get("Range", "")
        self.server.ranges.append(byte_range)
        if self._answer_fault(self.server.faults):
            return
        fault = self.server.faults.pop(0) if self.server.faults else ""
        self.server.tokens.append(self.headers.get("Authorization"))
        start = int(byte_range.removeprefix("bytes=").rstrip("-")) if byte_range and fault != "no-range" else 0
        body = self.server.weights[start:] if fault != "wrong" else bytes(len(self.server.weights) - start)
        if fault == "gzip":
            body = gzip.compress(body)
        self._send_head(
            206 if start else 200,
            len(body),
            **self._file_headers(),
            **{"Content_Encoding": "gzip"} if fault == "gzip" else {},
        )
        self._send_body(memoryview(body)[: len(body) // 2] if fault == "cut" else memoryview(body), start)

    def _send_body(self, body: memoryview, start: int) -> None:
        sent = 0
        try:
            while sent < len(body):
                allowed = self.server.wait_until_allowed(start + sent) - start
                end = min(sent + CHUNK_BYTES, len(body), max(allowed, sent + 1))
                self.wfile.write(body[sent:end])
                sent = end
        except OSError:  # the client has gone
            pass


@contextmanager
def serve_hub(weights: bytes = WEIGHTS, path: str = PATH, others: Mapping[str, bytes] | None = None) -> Iterator[Hub]:
    server = Hub(weights, path, others)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go_on()
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def serve_folder(folder: Path, repository: str) -> Iterator[Hub]:
    """Serve the folder of a language model. Its weights are the large file; without any, there is none."""
    root = f"/{repository}/resolve/main/"
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    weights = files.pop("model.safetensors", b"")
    with serve_hub(weights, f"{root}model.safetensors", {root + name: body for name, body in files.items()}) as hub:
        hub.has_file = bool(weights)
        yield hub
