"""Targets for long answers: server-sent events, and bodies larger than memory should hold."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time

from tests.kit.peers import messages
from tests.kit.peers.loopback import LoopbackServer
from tests.kit.peers.messages import ByteSource

PATTERN = bytes(range(256)) * 256
"""64 KiB that large bodies repeat."""


class SseTarget(LoopbackServer):
    """Answers every request with a stream of server-sent events that tests push."""

    GREETING = b": welcome\n\n"
    """A comment that the stream begins with."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: list[socket.socket] = []

    def send_event(self, data: str) -> float:
        """Send one event to all listeners; return the ``time.perf_counter()`` of sending."""
        with self._lock:
            listeners = list(self._listeners)
        sent = time.perf_counter()
        for connection in listeners:
            connection.sendall(f"data: {data}\n\n".encode())
        return sent

    def serve(self, connection: socket.socket, index: int) -> None:
        """Send the head of the stream and keep it open until the other side goes."""
        source = ByteSource(connection, remember=False)
        messages.read_head(source)
        with self._lock:
            # First of all: whoever has read the greeting gets every event.
            self._listeners.append(connection)
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            connection.sendall(self.GREETING)
            source.at_end()
        finally:
            with self._lock:
                self._listeners.remove(connection)


def pattern_sha256(size: int) -> str:
    """Return the digest of the first ``size`` bytes of a large body."""
    digest = hashlib.sha256()
    for start in range(0, size, len(PATTERN)):
        digest.update(PATTERN[: min(len(PATTERN), size - start)])
    return digest.hexdigest()


class LargeBodyTarget(LoopbackServer):
    """Sends ``?size=N`` bytes of a pattern (chunked with ``&chunked``); digests uploads."""

    def serve(self, connection: socket.socket, index: int) -> None:
        """Answer GET with a large body and anything else with what the request's was."""
        source = ByteSource(connection, remember=False)
        while not source.at_end():
            head = messages.read_head(source)
            if head.start.startswith("GET "):
                matched = re.search(r"size=(\d+)(&chunked)?", head.start)
                assert matched is not None, head.start
                _send_pattern(connection, int(matched[1]), chunked=bool(matched[2]))
            else:
                connection.sendall(_digest(source, head))


def _digest(source: ByteSource, head: messages.Head) -> bytes:
    digest, length = hashlib.sha256(), 0
    for piece in messages.iter_body(source, head, messages.request_framing(head), []):
        digest.update(piece)
        length += len(piece)
    body = json.dumps({"length": length, "sha256": digest.hexdigest()}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _send_pattern(connection: socket.socket, size: int, *, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    connection.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
    for start in range(0, size, len(PATTERN)):
        piece = PATTERN[: min(len(PATTERN), size - start)]
        connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        connection.sendall(b"0\r\n\r\n")
