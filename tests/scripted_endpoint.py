"""An OpenAI-compatible server on loopback that does what a test says: answers, refuses, breaks off, keeps silent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Status:
    """A status that is no success, and its headers."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "no"
    type: str | None = None


@dataclass(frozen=True)
class Raw:
    """A body that is what it is, cut short to `sent` bytes where that is given."""

    body: bytes
    sent: int | None = None


class Silence:
    """No answer until the server is closed."""


Act = str | Status | Raw | Silence
Script = Callable[[str, int], Act]
"""What to do at a request, by the text of its last message and how often that text was asked before."""


class ScriptedEndpoint:
    """The server: `url` is for the client, `bodies` what was asked, in the order in which it came."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def texts(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> Act:
        text = body["messages"][-1]["content"]
        with self._lock:
            before = self.texts.count(text)
            self.bodies.append(body)
            self.headers.append(headers)
        return self.script(text, before)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                act = endpoint.take(body, dict(self.headers))
                if isinstance(act, Silence):
                    endpoint.closing.wait()
                    self.close_connection = True
                elif isinstance(act, Status):
                    error = {"error": {"message": act.message, "code": act.type}}
                    self._send(act.code, json.dumps(error).encode(), act.headers)
                elif isinstance(act, Raw):
                    self._send(200, act.body, {}, act.sent)
                else:
                    self._send(200, completion(act), {})

            def _send(self, code: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
                self.send_response(code)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:sent])
                self.close_connection = self.close_connection or sent is not None

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler


def completion(text: str) -> bytes:
    """The body of a reply."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


@contextmanager
def scripted_endpoint(script: Script) -> Iterator[ScriptedEndpoint]:
    endpoint = ScriptedEndpoint(script)
    thread = threading.Thread(target=endpoint.serve, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.close()
        thread.join()


Serve = Callable[[Script], ScriptedEndpoint]
