"""A target that records the exact bytes of every request and replies with scripted bytes."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable

from tests.kit.peers import messages
from tests.kit.peers.loopback import LoopbackServer, hung_up, reset_on_close
from tests.kit.peers.messages import BadMessage, ByteSource, Incomplete, Request
from tests.kit.peers.waiting import wait_until

Reply = bytes | Callable[["Exchange"], None]

STALL_POLL = 0.02


def response(
    body: bytes = b"ok", status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    """Return the bytes of a response with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


OK = response()


class Exchange:
    """One request on one connection, as a callable reply sees it.

    ``request`` has its head; its body is there after ``read_body``.
    """

    def __init__(self, connection: socket.socket, source: ByteSource, request: Request) -> None:
        self.connection = connection
        self.source = source
        self.request = request
        self.closed = False

    def read_body(self) -> bytes:
        """Read the request to its end, unless that was done before; return its body."""
        request = self.request
        if not request.complete:
            framing = messages.request_framing(request)
            start = len(self.source.taken)
            try:
                for piece in messages.iter_body(self.source, request, framing, request.trailers):
                    request.pieces.append(piece)
                request.complete = True
            finally:
                request.raw += bytes(self.source.taken[start:])
        return request.body

    def receive(self, length: int) -> bytes:
        """Take exactly ``length`` bytes from the connection, past the request."""
        return b"".join(self.source.pieces(length))

    def send(self, data: bytes) -> None:
        """Send bytes to the proxy."""
        self.connection.sendall(data)

    def half_close(self) -> None:
        """Send the end of the stream and go on receiving."""
        self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection once the reply has returned."""
        self.closed = True

    def reset(self) -> None:
        """Break the connection off with a reset once the reply has returned."""
        reset_on_close(self.connection)
        self.closed = True

    def stall(self, until: threading.Event, timeout: float = 20.0) -> bool:
        """Do nothing until the event is set (true) or the proxy goes away (false)."""
        deadline = time.monotonic() + timeout
        while not until.is_set():
            if hung_up(self.connection, STALL_POLL):
                self.closed = True
                return False
            if time.monotonic() > deadline:
                raise AssertionError(f"stalled for more than {timeout:g} s")
        return True


class RawTarget(LoopbackServer):
    """Records requests; replies with ``replies`` in the order in which requests arrive.

    Bytes are sent when the request has been read to its end, and close the connection if
    they say ``Connection: close``. A callable is called when the head has been read. The
    last reply serves all further requests.
    """

    def __init__(
        self,
        *replies: Reply,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(host=host, port=port, unix_path=unix_path, tls=tls)
        self.requests: list[Request] = []
        self.received: list[bytearray] = []
        self.errors: list[Exception] = []
        self._replies: list[Reply] = list(replies) or [OK]

    def script(self, *replies: Reply) -> None:
        """Forget what was recorded and reply like this from now on."""
        with self._lock:
            self.requests, self.received, self.errors = [], [], []
            self._replies = list(replies) or [OK]

    def wait_for_requests(
        self, count: int, timeout: float = 5.0, *, complete: bool = True
    ) -> list[Request]:
        """Wait until ``count`` requests have been recorded, with their bodies if ``complete``."""

        def enough() -> bool:
            return sum(r.complete or not complete for r in self.requests) >= count

        wait_until(enough, timeout, lambda: f"{count} requests at the target: {self.requests}")
        return self.requests

    @property
    def request(self) -> Request:
        """The only request received so far; raises AssertionError if there isn't one."""
        assert len(self.requests) == 1, self.requests
        return self.requests[0]

    def serve(self, connection: socket.socket, index: int) -> None:
        """Read requests and reply to them until either side has had enough."""
        source = ByteSource(connection)
        with self._lock:
            self.received.append(source.taken)
        try:
            while not source.at_end() and self._exchange(connection, source, index):
                pass
        except (BadMessage, Incomplete) as error:
            self.errors.append(error)
        source.taken += source.pending()

    def _exchange(self, connection: socket.socket, source: ByteSource, index: int) -> bool:
        head = messages.read_head(source)
        request = Request(head.start, head.headers, head.raw, connection=index)
        with self._lock:
            self.requests.append(request)
            reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        exchange = Exchange(connection, source, request)
        if callable(reply):
            request.complete = messages.request_framing(request) == "none"
            reply(exchange)
        else:
            exchange.read_body()
            exchange.send(reply)
            if b"connection: close" in reply.partition(b"\r\n\r\n")[0].lower():
                exchange.close()
        if not exchange.closed:
            exchange.read_body()
        return not exchange.closed


def then_close(data: bytes, *, read_body: bool = True) -> Reply:
    """Reply with ``data`` and close the connection."""

    def reply(exchange: Exchange) -> None:
        if read_body:
            exchange.read_body()
        exchange.send(data)
        exchange.close()

    return reply


def then_reset(data: bytes = b"") -> Reply:
    """Reply with ``data`` and break the connection off with a reset."""

    def reply(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(data)
        exchange.reset()

    return reply


def stalled(until: threading.Event, *, first: bytes = b"", then: bytes = b"") -> Reply:
    """Send ``first``, wait for an event, send ``then``; give up when the proxy goes away."""

    def reply(exchange: Exchange) -> None:
        exchange.send(first)
        if exchange.stall(until):
            exchange.read_body()
            exchange.send(then)

    return reply
