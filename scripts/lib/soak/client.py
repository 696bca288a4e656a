"""What the client programs share: an order on the command line, an outcome on stdout.

``tests.kit.peers`` has clients that remember and explain everything; these only have to be quick.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from typing import Any

from scripts.lib.bench.routes_api import REST_SECONDS
from tests.kit.peers.loopback import reset_on_close

TIMEOUT = 20.0
KEPT = 20


class Wrong(Exception):
    """An answer that is not what it has to be."""


@dataclass
class Outcome:
    """What a program got done; ``wrong`` has the first few things that went wrong."""

    done: int = 0
    failed: int = 0
    wrong: list[str] = field(default_factory=list)

    def attempt(self, name: str, function: Callable[..., None], *arguments: Any) -> None:
        """Call ``function`` and take note of what goes wrong, with ``name`` before it."""
        try:
            function(*arguments)
        except (Wrong, OSError, HTTPException) as error:
            self.failed += 1
            if len(self.wrong) < KEPT:
                self.wrong.append(f"{name}: {error!r}")


def run(work: Callable[[dict[str, Any]], Outcome]) -> None:
    """The ``main`` of a client program: do what the only argument, an order in JSON, says."""
    print(json.dumps(asdict(work(json.loads(sys.argv[1])))))


class Connection:
    """A connection to the proxy, with what has been received and not yet taken."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._last_sent = time.monotonic()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._last_sent = time.monotonic()
        self.socket.sendall(data)

    @property
    def has_rested(self) -> bool:
        """Whether it is so long unused that the server may be closing it: after 5 s it does."""
        return time.monotonic() - self._last_sent > REST_SECONDS

    def take_until(self, end: bytes) -> bytes:
        """Take what comes up to ``end``, and that. Raises ``Wrong`` when it does not come."""
        while (position := self._received.find(end)) < 0:
            self._receive()
        return self._take(position + len(end))

    def take(self, size: int) -> bytes:
        """Take so many bytes. Raises ``Wrong`` when they don't come."""
        while len(self._received) < size:
            self._receive()
        return self._take(size)

    def at_end(self) -> bool:
        """Whether the other side ends, or breaks off, without another byte."""
        try:
            return not self._received and not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def _receive(self) -> None:
        data = self.socket.recv(262_144)
        if not data:
            raise Wrong(f"ended behind {bytes(self._received[:60])!r}")
        self._received += data

    def _take(self, size: int) -> bytes:
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def answer(self) -> tuple[int, bytes]:
        """Take an answer with ``Content-Length``, or chunked; return its status and body."""
        head = self.take_until(b"\r\n\r\n")
        status = int(head[9:12])
        lowered = head.lower()
        if b"\r\ntransfer-encoding: chunked\r\n" in lowered:
            return status, self._chunks()
        position = lowered.find(b"\r\ncontent-length:")
        length = int(lowered[position + 17 :].split(b"\r\n", 1)[0]) if position >= 0 else 0
        return status, self.take(length)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.take_until(b"\r\n"), 16):
            body += self.take(size + 2)[:-2]
        self.take(2)
        return body

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def reset(self) -> None:
        """Break the connection off."""
        with suppress(OSError):
            reset_on_close(self.socket)
        self.socket.close()


class KeptConnection:
    """A connection that is opened when it is needed, and anew when it has rested too long."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: Connection | None = None

    def get(self) -> Connection:
        """The connection."""
        if self._connection is not None and self._connection.has_rested:
            self.close()
        if self._connection is None:
            self._connection = Connection(self._port)
        return self._connection

    def close(self) -> None:
        """Close it, if it is open; the next one is another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
