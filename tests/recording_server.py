"""Serve HTTP on loopback and keep every request, for servers that tests play."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer; several `pieces` are sent one after the other, without a length."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Callable[[], Any] | None = None

    @classmethod
    def of(cls, document: Any, status: int = 200) -> "Reply":
        return cls(status, json.dumps(document).encode(), {"Content-Type": "application/json"})


class RecordingServer:
    """A context that serves `answer(request)` on a free port, from many threads."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def answer(self, request: Request) -> Reply:
        raise AssertionError("a subclass implements answer")

    def __enter__(self) -> "RecordingServer":
        self._thread.start()
        return self

    def __exit__(self, *caught: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, urlsplit(self.path).path, dict(self.headers), body)
                server.requests.append(request)
                reply = server.answer(request)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.pieces is None:
                    self.send_header("Content-Length", str(len(reply.body)))
                else:
                    self.send_header("Connection", "close")
                self.end_headers()
                try:
                    for piece in reply.pieces() if reply.pieces else [reply.body]:
                        self.wfile.write(piece)
                except (BrokenPipeError, ConnectionResetError):
                    # The client closed the connection, as some tests require.
                    self.close_connection = True

            do_GET = do_POST = _serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        return Handler
