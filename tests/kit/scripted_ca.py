"""An ACME server that says what a test wants: what Pebble never says."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.kit.authority import Authority

Answer = tuple[int, dict[str, str], dict[str, Any]]
"""Status, header, and what is sent as JSON."""


class ScriptedCa:
    """Has accounts for everybody; ``answers`` has the rest, by path.

    Attributes:
        answers: by path; one that ends with a slash is for all that begin so.
        asked: the requests, as ``METHOD /path``.
        bodies: what was POSTed, by path.
    """

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder / "scripted-ca")
        key, cert = authority.issue("localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        ca = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

            def _answer(self) -> None:
                ca.asked.append(f"{self.command} {self.path}")
                size = int(self.headers.get("Content-Length", 0))
                if size:
                    ca.bodies[self.path] = json.loads(self.rfile.read(size))
                status, header, content = ca.answer(self.path)
                data = json.dumps(content).encode()
                kind = "json" if status < 400 else "problem+json"
                self.send_response(status)
                for name, value in {
                    "Replay-Nonce": "bm9uY2U",
                    "Content-Type": f"application/{kind}",
                    "Content-Length": str(len(data)),
                    **header,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_POST = do_HEAD = _answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}"
        self.ca = authority.ca
        self.asked: list[str] = []
        self.bodies: dict[str, Any] = {}
        self.directory = {
            "newNonce": f"{self.url}/nonce",
            "newAccount": f"{self.url}/account",
            "newOrder": f"{self.url}/order",
        }
        self.answers: dict[str, Answer] = {
            "/nonce": (204, {}, {}),
            "/account": (201, {"Location": f"{self.url}/account/1"}, {"status": "valid"}),
        }

    def answer(self, path: str) -> Answer:
        """Return what a request is answered with."""
        if path == "/dir":
            return 200, {}, self.directory
        for known, answer in self.answers.items():
            if path == known or (known.endswith("/") and path.startswith(known)):
                return answer
        return 404, {}, {"type": "urn:ietf:params:acme:error:malformed", "detail": path}


@contextmanager
def scripted_ca(folder: Path) -> Iterator[ScriptedCa]:
    """Run one until the block ends."""
    ca = ScriptedCa(folder)
    thread = threading.Thread(target=ca.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield ca
    finally:
        ca.server.shutdown()
        thread.join()
        ca.server.server_close()
