"""A server with the part of OpenAI's API that faults need; the test chooses its answers."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

MODELS = {"object": "list", "data": [{"id": "served", "object": "model", "root": "/weights/nano"}]}
Reply = tuple[int, dict[str, str], Any]  # status, headers, JSON, the body itself or its parts


def said(text: Any, finish_reason: Any = "stop", **more: Any) -> Reply:
    message = {"role": "assistant", "content": text, **more}
    return 200, {}, {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}


def in_pieces(deltas: Iterable[dict[str, Any]]) -> Reply:
    """Stream an answer; each piece is sent as soon as it is there."""

    def events() -> Iterator[bytes]:
        for delta in deltas:
            yield _event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + b"data: [DONE]\n\n"

    return 200, {"Content-Type": "text/event-stream"}, events()


def _event(content: dict) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


def expression(request: dict) -> str:
    """Return the text of the last part of a chat."""
    return request["messages"][-1]["content"][-1]["text"]


def shown(request: dict) -> Image.Image:
    (url,) = (part["image_url"]["url"] for part in request["messages"][-1]["content"] if part["type"] == "image_url")
    head, _, data = url.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{str(image.format).lower()};base64"
    return image


class ChatServer(ThreadingHTTPServer):
    """Server whose `reply` answers each request.

    Attributes:
        requests: all requests so far.
        keys: their Authorization headers.
        open_most: the largest number of requests at once.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, reply: Callable[[dict], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply, self.models = reply, (200, {}, MODELS)
        self.lock = threading.Lock()
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.open = self.open_most = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that give up, because the tests make them give up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_GET(self) -> None:
        self._send(*(self.server.models if self.path == "/v1/models" else (404, {}, {"detail": "Not Found"})))

    def do_POST(self) -> None:
        server, request = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(request)
            server.keys.append(self.headers.get("Authorization"))
            server.open += 1
            server.open_most = max(server.open_most, server.open)
        try:
            reply = server.reply(request)
        finally:
            with server.lock:
                server.open -= 1
        self._send(*reply)

    def _send(self, status: int, headers: dict[str, str], content: Any) -> None:
        if isinstance(content, Iterator):
            self._stream(status, headers, content)
            return
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, status: int, headers: dict[str, str], parts: Iterator[bytes]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(key, value)
        self.end_headers()
        for part in parts:
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args) -> None:
        pass


@contextmanager
def serving(reply: Callable[[dict], Reply]):
    server = ChatServer(reply)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
