"""Places that messages go to: a real web server and a real mail server on this machine."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


@dataclass
class WebSink:
    """Keeps what was posted; answers as it is told to."""

    port: int
    got: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    # Titles that are never accepted.
    never: tuple[str, ...] = ()
    drip_seconds: float = 0.0

    @property
    def titles(self) -> list[str]:
        return [one["title"] for one in self.got]

    def url(self, path: str = "", secret: str = "") -> str:
        login = f"someone:{secret}@" if secret else ""
        return f"json://{login}127.0.0.1:{self.port}/{path}"


@contextmanager
def web_sink(port: int = 0) -> Iterator[WebSink]:
    sink = WebSink(port)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            accepted = sink.status == 200 and content["title"] not in sink.never
            (sink.got if accepted and not sink.drip_seconds else sink.refused).append(content)
            self.send_response(200 if accepted else 500 if sink.never else sink.status)
            self.end_headers()
            until = time.monotonic() + sink.drip_seconds
            while time.monotonic() < until:
                self.wfile.write(b".")
                self.wfile.flush()
                time.sleep(0.1)

        def log_message(self, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a client that was killed, or gave up
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", port), Handler)
    sink.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class MailSink:
    """Keeps the mails that were sent: subject and text."""

    port: int = 0
    got: list[tuple[str, str]] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=default)
        body = mail.get_body(("plain", "html"))
        self.got.append((str(mail["subject"]), body.get_content() if body else ""))
        return "250 taken"

    @property
    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.port}/?from=poleng@example.org&to=team@example.org&mode=insecure"


@contextmanager
def mail_sink() -> Iterator[MailSink]:
    sink = MailSink()
    with socket.create_server(("127.0.0.1", 0)) as free:
        sink.port = free.getsockname()[1]
    controller = Controller(sink, hostname="127.0.0.1", port=sink.port)
    controller.start()
    try:
        yield sink
    finally:
        controller.stop()
