"""What an access log is told of a request, and connections that keep account of it.

A server without an access log has other connections (``http.connection``): it pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from chp_gevent.http.answer import BufferedBody, Headers
from chp_gevent.http.connection import ClientConnection
from chp_gevent.http.peer import Peer
from chp_gevent.http.section import WireError
from chp_gevent.http.stream import Stream
from chp_gevent.http.wire import RequestHead

if TYPE_CHECKING:
    from chp_gevent.http.server import HTTPServer

CLIENT_LEFT = 499
"""What stands for the status where the client left before there was an answer, as with nginx."""


class RequestFacts(NamedTuple):
    """What is told of a request; texts are empty where there is nothing, as of a malformed one."""

    method: str = ""
    target: str = ""
    protocol: str = ""
    referer: str = ""
    user_agent: str = ""


_UNKNOWN = RequestFacts()


class AccessEntry:
    """One request and what became of it; times are monotonic.

    Attributes:
        peer: who sent it.
        request: what it was.
        began: when its head was there.
        ended: when the last of its answer, or of its tunnel, was.
        status: of the answer.
        sent: bytes of the answer's body, or of the tunnel to the client; None for a refusal.
        route: path of the route that it took; empty if it took none.
        answered: when the head of the target's answer was there, or that there would be none; None
            if no target was asked.
    """

    __slots__ = ("answered", "began", "ended", "peer", "request", "route", "sent", "status")

    def __init__(self, peer: Peer, now: float) -> None:
        self.peer = peer
        self.request = _UNKNOWN
        self.began = self.ended = now
        self.status = 0
        self.sent: int | None = 0
        self.route = ""
        self.answered: float | None = None


Access = Callable[[AccessEntry], None]
"""Takes note of a request that is over."""


class LoggedConnection(ClientConnection):
    """A connection that tells its server's ``access`` of each request when it is over.

    Attributes:
        entry: of the request that is being answered; None when it has been told.
    """

    __slots__ = ("_access", "entry")

    def __init__(
        self, server: HTTPServer, stream: Stream, peer: Peer, environ: dict[str, Any]
    ) -> None:
        super().__init__(server, stream, peer, environ)
        assert server.access is not None
        self._access: Access = server.access
        self.entry: AccessEntry | None = None

    def _receive_head(self) -> bool:
        received = super()._receive_head()
        if received:
            self.entry = AccessEntry(self.peer, self._server.clock())
        return received

    def _serve_request(self) -> bool:
        try:
            return super()._serve_request()
        finally:
            if self.entry is not None and self.switched is None:
                if self._status != "sent":
                    self.entry.status = CLIENT_LEFT
                self._tell(self.entry)

    def _finish(self) -> None:
        super()._finish()
        if self.entry is not None:  # a tunnel that could not be started
            self._tell(self.entry)

    def take_access_entry(self) -> AccessEntry | None:
        """See ``ClientConnection``."""
        entry, self.entry = self.entry, None
        if entry is not None:
            # Not the head itself, which would take five times the memory of an idle tunnel.
            entry.request = _facts(self.head)
        return entry

    def _start_response(
        self, status: str, headers: Headers, exc_info: Any = None
    ) -> Callable[[bytes], None]:
        write = super()._start_response(status, headers, exc_info)
        if self.entry is not None:
            self.entry.status = int(status[:3])
        return write

    def _send_response(self, result: Iterable[bytes]) -> None:
        entry, size = self.entry, 0
        if entry is None or self.head.method == "HEAD":
            pass
        elif isinstance(result, list):
            size = sum(map(len, result))
        elif isinstance(result, BufferedBody):
            result = BufferedBody(_counted(result.buffers, entry))
        else:
            result = _counted(result, entry)
        super()._send_response(result)
        if entry is not None:
            entry.sent = (entry.sent or 0) + size
            self._tell(entry)

    def _refuse(self, error: WireError, head: RequestHead | None) -> None:
        entry, now = self.entry, self._server.clock()
        if head is None:
            entry, self.entry = AccessEntry(self.peer, now), None
        if entry is not None:
            if self._status != "sent":
                entry.status, entry.sent = error.status, None
            self._tell(entry)
        super()._refuse(error, head)

    def _tell(self, entry: AccessEntry) -> None:
        self.take_access_entry()
        entry.ended = self._server.clock()
        self._access(entry)


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
