"""A request on an HTTP/1.1 connection, and the answer to it (RFC 9112)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http.client import responses as REASONS
from typing import Any, Protocol

from chp_gevent.http.access_entry import AccessEntry
from chp_gevent.http.errors import ClientGone, ResponseCut, WireError
from chp_gevent.http.h1.bodies import chunk, last_chunk
from chp_gevent.http.h1.fields import ResponseFields
from chp_gevent.http.h1.heads import Buffer, RequestHead, serialise_head
from chp_gevent.http.h1.request_body import NO_BODY, NoBody, RequestBody
from chp_gevent.http.peer import Peer
from chp_gevent.http.request import NEVER, Bound, Upgrade
from chp_gevent.http.response import UNTIL_END, BufferedBody, Headers, response_framing
from chp_gevent.http.state import ServerState
from chp_gevent.http.stream import COPIED, Stream

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Carrier(Protocol):
    """The connection of a client, as far as a request on it needs to know it."""

    stream: Stream
    peer: Peer
    bound: Bound | None
    deadline: float
    """Monotonic time at which the client is given up."""


class HTTP1Request:
    """A :class:`~chp_gevent.http.request.ClientRequest` of HTTP/1.

    Args:
        carrier: the connection that it came on.
        server: the server's state.
        head: its head.
        behind: what the client has sent behind that.

    Raises ``WireError`` if what is here of the body is malformed.

    Attributes:
        closes: whether the connection ends after the answer; set while that is made.
        is_answered: whether the head of the final answer has been sent.
        switches_to: the protocol that the connection speaks from now on, None if that is HTTP.
    """

    __slots__ = (
        "_carrier",
        "_headers",
        "_position",
        "_position_since",
        "_server",
        "_status",
        "_wait_error",
        "body",
        "closes",
        "head",
        "is_answered",
        "peer",
        "prepared",
        "response_trailers",
        "switches_to",
        "wait_deadline",
    )

    def __init__(
        self, carrier: Carrier, server: ServerState, head: RequestHead, behind: bytes
    ) -> None:
        self._carrier = carrier
        self._server = server
        self.head = head
        # Most requests have none, and need no object for it.
        self.body: RequestBody | NoBody = (
            RequestBody(carrier.stream, head, behind) if head.has_body else NO_BODY
        )
        self.peer = carrier.peer
        self.closes = not head.keep_alive or (head.http_1_0 and not server.settings.keeps_http_1_0)
        self.is_answered = False
        self.prepared: ResponseFields | None = None
        self.response_trailers: Sequence[tuple[str, str]] = ()
        self.switches_to: Upgrade | None = None
        self.wait_deadline = NEVER
        self._position: Any = None
        self._status = ""

    @property
    def bound(self) -> Bound | None:
        """See ``ClientRequest``."""
        return self._carrier.bound

    @bound.setter
    def bound(self, bound: Bound | None) -> None:
        self._carrier.bound = bound

    # -- the answer

    def start_response(
        self, status: str, headers: Headers, exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Take note of what the answer begins with (PEP 3333)."""
        if exc_info and self.is_answered:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status = status
        self._headers = headers
        return _refuse_write

    def send(self, result: Iterable[bytes]) -> None:
        """Send what the application answers; its first piece together with the head.

        An empty first piece sends the head alone: the body will take its time. Nothing is sent
        of an upgrade, whose answer goes out with :meth:`switch_protocols`.
        """
        if self.switches_to is not None:
            return
        carrier = self._carrier
        write, write_all = carrier.stream.write, carrier.stream.write_all
        head: bytes | None = None
        chunked = False
        left = 0.0
        clock, client_timeout = self._server.clock, self._server.settings.client_timeout
        if client_timeout is not None:
            carrier.deadline = clock() + client_timeout
        for piece in result.buffers if isinstance(result, BufferedBody) else result:
            if head is None:
                head, chunked, left = self._response_head(result)
                if len(piece) > left:
                    piece = self._clipped(piece, int(left))
                # ``write_all`` could do all three; the last, for small answers, saves 0.3 µs.
                if chunked and piece:
                    write_all(head, *chunk(piece))
                elif len(piece) > COPIED:
                    write_all(head, piece)
                else:
                    if self.closes and len(piece) == left:
                        carrier.stream.hold_back()
                    write(head + piece)
            elif piece and left:
                if len(piece) > left:
                    piece = self._clipped(piece, int(left))
                if chunked:
                    write_all(*chunk(piece))
                else:
                    write(piece)
            left -= len(piece)
            del piece
            if client_timeout is not None:
                carrier.deadline = clock() + client_timeout
        if head is None:
            head, chunked, left = self._response_head(result)
            write(head)
        if chunked:
            write(last_chunk(self.response_trailers))
        elif left > 0 and left != UNTIL_END:
            raise ConnectionError("answer shorter than its Content-Length")

    def _clipped(self, piece: Buffer, length: int) -> Buffer:
        """Return so much of a piece as there may be; the connection carries no other answer.

        There may be nothing of an answer to HEAD, say. If there may be something, the application
        has said more than its Content-Length: a client would take that for the next answer.
        """
        if length:
            self.closes = True
        return piece[:length]

    def _response_head(self, result: Iterable[bytes]) -> tuple[bytes, bool, float]:
        """Return the head of the answer, whether it is chunked, and the body's length.

        Raises ``ValueError`` when the application's header fields are none, and
        ``RuntimeError`` when it has started no answer.
        """
        status, server = self._status, self._server
        if not status:
            raise RuntimeError("no call of start_response")
        fields = self._fields()
        self.is_answered = True
        end, chunked, length = response_framing(self.head, status, fields, result)
        ends_by_closing = not chunked and length == UNTIL_END
        if ends_by_closing or server.draining or not self.body.complete:
            self.closes = True
        block = b"".join(
            (
                f"HTTP/1.1 {status}\r\n".encode("latin-1"),
                fields.block,
                b"" if fields.dated else server.date_line,
                b"Connection: close\r\n" if self.closes else server.keep_alive_lines,
                end,
            )
        )
        return block, chunked, length

    def _fields(self) -> ResponseFields:
        """Return the fields of the answer. Raises ``ValueError`` when they are none."""
        fields = self.prepared
        # Tuples of the same identity: comparing costs nothing, and middleware may have its say.
        if fields is None or fields.fields != self._headers:
            fields = ResponseFields(self._headers)
        return fields

    def send_crash(self, error: Exception) -> bool:
        """Answer instead of an application that failed; return whether the answer is whole."""
        begun = self.is_answered or self.switches_to is not None
        # An OSError after the beginning: the client has left.
        if not isinstance(error, ResponseCut) and not (begun and isinstance(error, OSError)):
            self._server.events.on_crash(self.head, error)
        if begun:
            if self.head.http_1_0:
                # To such a client the end of the connection may be the end of the answer.
                self._carrier.stream.reset()
            return False
        self.response_trailers = ()
        self.start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        self.send([b"Internal Server Error"])
        return True

    def send_interim(self, status: int, reason: str, headers: Headers) -> None:
        """See ``ClientRequest``."""
        if not self.head.http_1_0:
            reason = reason or REASONS.get(status, "")
            try:
                self._carrier.stream.write(serialise_head(f"HTTP/1.1 {status} {reason}", headers))
            except OSError as error:
                raise ClientGone from error

    def invite_body(self) -> bool:
        """See ``ClientRequest``."""
        stream = self._carrier.stream
        if self._status or self.head.http_1_0 or stream.write_position() is not None:
            return False
        try:
            sent = stream.try_write(_CONTINUE)
        except OSError:
            return False  # it has left, which its greenlet will notice
        if 0 < sent < len(_CONTINUE):
            stream.reset()
        return sent > 0

    # -- another protocol

    def upgrade(self, upgrade: Upgrade) -> None:
        """See ``ClientRequest``."""
        self.switches_to = upgrade

    def switch_protocols(self, behind: bytes) -> None:
        """Send the 101 and begin the other protocol; ``behind`` is what came behind the request.

        Raises ``ClientGone``, ``OSError`` and what the protocol raises; it is abandoned then, and
        the stream is to be closed.
        """
        upgrade, stream = self.switches_to, self._carrier.stream
        assert upgrade is not None
        stream.on_unread = None
        try:
            fields = self._fields()
            stream.write(f"HTTP/1.1 {self._status}\r\n".encode("latin-1") + fields.block + b"\r\n")
            self.is_answered = True
            upgrade.start(stream, self.rest + behind, self.take_access_entry())
        except BaseException:  # such as ClientGone, while the client did not take the answer
            upgrade.abandon()
            raise

    def take_access_entry(self) -> AccessEntry | None:
        """Return what an access log is to be told of the request, if anything."""
        return None

    # -- what the connection asks

    @property
    def rest(self) -> bytes:
        """What came with the body and behind its end: the start of the next request."""
        return self.body.rest

    def overdue(self, now: float) -> BaseException | None:
        """Return what the application's wait, or the client, is to be interrupted with, if at all.

        Called from the hub, now and then.
        """
        if now >= self.wait_deadline:
            self.wait_deadline = NEVER
            return self._wait_error
        if self._server.settings.abort_on_disconnect and self._carrier.stream.peer_has_finished():
            # Behind a body that is not being read: no event announces that.
            return ClientGone()
        return self._standing_still(now)

    def _standing_still(self, now: float) -> BaseException | None:
        """Return what is to be said to a client that stands still in the middle of a body."""
        timeout = self._server.settings.limits.body_timeout
        stream, sent = self._carrier.stream, None
        taken = stream.write_position()
        if not self.body.complete and stream.is_reading:
            sent = self.body.arrivals
        if timeout is None or (taken is None and sent is None):
            self._position = None  # nobody waits for the client
        elif self._position != (taken, sent):
            self._position, self._position_since = (taken, sent), now
        elif now - self._position_since >= timeout:
            if not self.is_answered and taken is None:
                return WireError("the body of the request stopped coming", 408)
            stream.reset_on_close()
            return ClientGone()
        return None

    # -- time

    def limit_wait(self, seconds: float, error: BaseException) -> None:
        """See ``ClientRequest``."""
        self._wait_error = error
        self.wait_deadline = self._server.clock() + seconds

    def end_wait(self) -> None:
        """See ``ClientRequest``."""
        self.wait_deadline = NEVER

    def note_activity(self) -> None:
        """See ``ClientRequest``."""
        timeout = self._server.settings.client_timeout
        if timeout is not None:
            self._carrier.deadline = self._server.clock() + timeout


def _refuse_write(data: bytes) -> None:
    raise NotImplementedError("write() of PEP 3333 is not supported: return an iterable")
