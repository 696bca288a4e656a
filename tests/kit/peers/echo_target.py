"""A fast keep-alive target that answers each request with a JSON description of it."""

from __future__ import annotations

import hashlib
import json
import socket

from tests.kit.peers import messages
from tests.kit.peers.loopback import LoopbackServer
from tests.kit.peers.messages import ByteSource, Incomplete


class EchoTarget(LoopbackServer):
    """Answers ``{name, method, target, headers, body_length, body_sha256}``.

    ``headers`` is a list of pairs in the order and case received.
    """

    def __init__(self, name: str = "echo", *, host: str = "127.0.0.1") -> None:
        super().__init__(host=host)
        self.name = name

    def serve(self, connection: socket.socket, index: int) -> None:
        """Answer requests until the other side closes."""
        source = ByteSource(connection, remember=False)
        try:
            while not source.at_end():
                self._answer(connection, source)
        except Incomplete:
            return

    def _answer(self, connection: socket.socket, source: ByteSource) -> None:
        head = messages.read_head(source)
        method, _, rest = head.start.partition(" ")
        digest, length = hashlib.sha256(), 0
        framing = messages.request_framing(head)
        for piece in messages.iter_body(source, head, framing, []):
            digest.update(piece)
            length += len(piece)
        body = json.dumps(
            {
                "name": self.name,
                "method": method,
                "target": rest.rpartition(" ")[0],
                "headers": head.headers,
                "body_length": length,
                "body_sha256": digest.hexdigest(),
            }
        ).encode()
        answer = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode("latin-1")
        connection.sendall(answer if method == "HEAD" else answer + body)
