"""A storage that misbehaves as a test chooses: an HTTP server between a desk and a real S3."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

ERROR = b"<Error><Code>%s</Code></Error>"


class MisbehavingStorage:
    """Passes requests on, Host and all, so that signatures hold; `mode` is what becomes of each PUT.

    ok; forbidden (403); broken (500); reset (the connection dies in the middle of the body); stuck (takes the body,
    passes it on, and is silent for `stuck_s`). `attempts` counts PUTs by file name, `stored` those that S3 took,
    `refused` those that it did not take of its own (rclone under load: a file that it cannot rename).
    """

    def __init__(self, target_port: int, stuck_s: float = 1.5, port: int = 0) -> None:
        self.mode = "ok"
        self.attempts: Counter[str] = Counter()
        self.stored: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._target_port = target_port
        self._stuck_s = stuck_s
        self._closing = threading.Event()
        self._counting = threading.Lock()
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                storage._put(self)

            def do_GET(self) -> None:
                storage._pass_on(self, b"")

            def do_HEAD(self) -> None:
                storage._pass_on(self, b"")

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_args: None  # type: ignore[method-assign]  # clients that gave up
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _put(self, request: BaseHTTPRequestHandler) -> None:
        name, mode = unquote(urlsplit(request.path).path).rsplit("/", 1)[1], self.mode
        with self._counting:
            self.attempts[name] += 1
        length = int(request.headers["Content-Length"])
        if mode == "reset":
            request.rfile.read(length // 2)
            # Closing with data unread and no lingering sends RST (RFC 9293, 3.10.4).
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
            request.close_connection = True
            return
        body = request.rfile.read(length)
        if mode == "forbidden":
            self._answer(request, 403, ERROR % b"AccessDenied")
        elif mode == "broken":
            self._answer(request, 500, ERROR % b"InternalError")
        else:
            self._pass_on(request, body, silent=mode == "stuck", put=name)

    def _pass_on(
        self, request: BaseHTTPRequestHandler, body: bytes, silent: bool = False, put: str = ""
    ) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._target_port, timeout=20)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for key, value in request.headers.items():
                connection.putheader(key, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            status, content = answer.status, answer.read()
            if put:
                with self._counting:
                    (self.stored if status == 200 else self.refused)[put] += 1
            if silent:
                self._closing.wait(self._stuck_s)
            self._answer(request, status, content, answer.headers.items())
        finally:
            connection.close()

    @staticmethod
    def _answer(request: BaseHTTPRequestHandler, status: int, content: bytes, headers: Any = ()) -> None:
        request.send_response(status)
        for key, value in headers:
            if key.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                request.send_header(key, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
