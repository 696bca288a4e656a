"""Requests, and their connections, of which an access log is told.

A server without an access log has those of ``http.h1.connection``: it pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from chp_gevent.http.access_entry import CLIENT_LEFT, AccessEntry, RequestFacts
from chp_gevent.http.errors import WireError
from chp_gevent.http.h1.connection import ClientConnection
from chp_gevent.http.h1.heads import RequestHead
from chp_gevent.http.h1.request import Carrier, HTTP1Request
from chp_gevent.http.response import BufferedBody, Headers
from chp_gevent.http.state import ServerState


class LoggedRequest(HTTP1Request):
    """A request of which account is kept.

    Attributes:
        entry: what is known of it; None when that has been told.
    """

    __slots__ = ("entry",)

    def __init__(
        self, carrier: Carrier, server: ServerState, head: RequestHead, behind: bytes
    ) -> None:
        super().__init__(carrier, server, head, behind)
        self.entry: AccessEntry | None = AccessEntry(carrier.peer, server.clock())

    def start_response(
        self, status: str, headers: Headers, exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """See ``HTTP1Request``."""
        write = super().start_response(status, headers, exc_info)
        if self.entry is not None:
            self.entry.status = int(status[:3])
        return write

    def send(self, result: Iterable[bytes]) -> None:
        """See ``HTTP1Request``; the request is over when its answer has been sent."""
        if self.switches_to is not None:
            return
        entry, size = self.entry, 0
        if entry is None or self.head.method == "HEAD":
            pass
        elif isinstance(result, list):
            size = sum(map(len, result))
        elif isinstance(result, BufferedBody):
            result = BufferedBody(_counted(result.buffers, entry))
        else:
            result = _counted(result, entry)
        super().send(result)
        if entry is not None:
            entry.sent = (entry.sent or 0) + size
            self.tell()

    def take_access_entry(self) -> AccessEntry | None:
        """See ``HTTP1Request``."""
        entry, self.entry = self.entry, None
        if entry is not None:
            # Not the head itself, which would take five times the memory of an idle tunnel.
            entry.request = _facts(self.head)
        return entry

    def tell(self) -> None:
        """Tell the log of the request, unless that has been done."""
        entry = self.take_access_entry()
        if entry is not None:
            _tell(self._server, entry)

    def tell_of_refusal(self, status: int) -> None:
        """Tell the log that the request was refused, if it was before its answer had begun."""
        if self.entry is not None and not self.is_answered:
            self.entry.status, self.entry.sent = status, None
        self.tell()

    def tell_of_the_end(self) -> None:
        """Tell the log of a request whose end nothing else has told."""
        if self.entry is not None and not self.is_answered:
            self.entry.status = CLIENT_LEFT
        self.tell()


class LoggedConnection(ClientConnection):
    """A connection that tells its server's ``access`` of each request when it is over."""

    __slots__ = ()

    request_class = LoggedRequest

    def _serve_request(self) -> bool:
        try:
            return super()._serve_request()
        finally:
            request = self.request
            if isinstance(request, LoggedRequest) and request.switches_to is None:
                request.tell_of_the_end()

    def _end(self) -> None:
        request = self.request
        if isinstance(request, LoggedRequest):  # of a protocol that could not be begun
            request.tell()
        super()._end()

    def _refuse(self, error: WireError) -> None:
        if isinstance(self.request, LoggedRequest):
            self.request.tell_of_refusal(error.status)
        else:
            entry = AccessEntry(self.peer, self._server.clock())
            entry.status, entry.sent = error.status, None
            _tell(self._server, entry)
        super()._refuse(error)


def _tell(server: ServerState, entry: AccessEntry) -> None:
    entry.ended = server.clock()
    assert server.access is not None
    server.access(entry)


def _facts(head: RequestHead) -> RequestFacts:
    # In what the environ has of the fields there is nothing to search for.
    variables = head.section.variables or {}
    facts = (
        head.method,
        head.target,
        "HTTP/1.0" if head.http_1_0 else "HTTP/1.1",
        variables.get("HTTP_REFERER", ""),
        variables.get("HTTP_USER_AGENT", ""),
    )
    # Five times as fast as by the name of the class.
    return tuple.__new__(RequestFacts, facts)


def _counted(pieces: Iterable[Any], entry: AccessEntry) -> Generator[Any, None, None]:
    """Yield the pieces of a body; each is counted when the next one is asked for: it is sent."""
    for piece in pieces:
        size = len(piece)
        yield piece
        del piece
        entry.sent = (entry.sent or 0) + size
