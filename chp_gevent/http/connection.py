"""A client's connection: reads requests, calls the application, writes its answers.

One greenlet per connection. While the application works, the event loop keeps an eye on
the client: when it leaves, ``ClientGone`` is thrown into the greenlet wherever that waits
(if the server's settings say so).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from enum import Enum
from http.client import responses as REASONS
from typing import TYPE_CHECKING, Any

from gevent import getcurrent

from chp_gevent.http.answer import (
    UNTIL_END,
    AnswerCut,
    AnswerFields,
    BufferedBody,
    Headers,
    answer_framing,
    refusal,
)
from chp_gevent.http.body import ClientGone, RequestBody
from chp_gevent.http.environ import request_environ
from chp_gevent.http.framing import chunk, last_chunk
from chp_gevent.http.peer import Peer
from chp_gevent.http.proxied_client import meet_client
from chp_gevent.http.room import Turn, turn
from chp_gevent.http.section import WireError
from chp_gevent.http.stream import COPIED, Stream
from chp_gevent.http.tls_stream import TLSStream
from chp_gevent.http.wire import (
    Buffer,
    PartialHead,
    RequestHead,
    serialise_head,
    take_request_head,
)

if TYPE_CHECKING:
    from chp_gevent.http.access import AccessEntry
    from chp_gevent.http.server import HTTPServer

NEVER = float("inf")

# How long, and for how many bytes, a client is listened to that is still sending after
# its connection is to be closed: closing at once would reset it and destroy our answer.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 << 20
# The same, and the time for the rest of a request's head, when the server stops: others wait for
# the next one to start.
_LAST_LINGER_SECONDS = 0.5
_HEAD_SECONDS = 1.0

# Bytes of requests that are read at once, and that are read ahead while one is being answered.
# What lies behind a request is copied with each, so that more would cost pipelines more.
_MAX_PIPELINED = 65536

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

StartResponse = Callable[..., Callable[[bytes], None]]


class _State(Enum):
    HANDSHAKE = "agreeing upon TLS"
    FRESH = "waiting for the first request"
    IDLE = "waiting for another request"
    HEAD = "receiving the head of a request"
    BUSY = "answering"
    CLOSING = "listening to what the client still sends"


# Names of their own: looking a member up takes 50 ns.
_HANDSHAKE, _FRESH, _IDLE, _HEAD, _BUSY, _CLOSING = _State


class ClientConnection:
    """One connection of a client, and the client side of the request it is sending.

    The application finds it in the environ as ``chp.client``.

    Attributes:
        head: the request being answered.
        body: its body.
        peer: who the client is.
        prepared: the fields of the answer in the form they are sent, if the application has
            them so; used if they are those that it starts its answer with.
        response_trailers: trailer fields to end a chunked answer with.
        deadline: monotonic time at which the client is given up.
        bound: what the application keeps for this client alone; closed with the connection.
        wait_deadline: monotonic time until which the application is willing to wait.
    """

    __slots__ = (
        "_buffer",
        "_close",
        "_environ",
        "_greenlet",
        "_headers",
        "_position",
        "_position_since",
        "_server",
        "_state",
        "_status",
        "_wait_error",
        "body",
        "bound",
        "deadline",
        "head",
        "peer",
        "prepared",
        "response_trailers",
        "stream",
        "switched",
        "wait_deadline",
    )

    head: RequestHead
    body: RequestBody

    def __init__(
        self, server: HTTPServer, stream: Stream, peer: Peer, environ: dict[str, Any]
    ) -> None:
        self.stream = stream
        self.peer = peer
        self.deadline = NEVER
        self.wait_deadline = NEVER
        self.response_trailers: Headers = []
        self.prepared: AnswerFields | None = None
        self.bound: Any = None
        self.switched: Callable[[], None] | None = None
        self._wait_error: BaseException | None = None
        self._server = server
        self._environ = environ
        self._greenlet: Any = None
        # How far the client had come in what it sends or takes, when that was seen first.
        self._position: Any = None
        self._position_since = NEVER
        self._buffer = b""
        self._state = _FRESH
        self._status = ""
        self._headers: Headers = []
        self._close = False

    # -- the life of a connection

    def serve(self) -> None:
        """Answer requests until the connection ends. Raises nothing, and leaves nothing open."""
        self._greenlet = getcurrent()
        try:
            self._serve_requests()
        except (ClientGone, OSError):
            pass
        except BaseException as error:
            self._server.hooks.on_crash(None, error)
        finally:
            self._finish()

    def _serve_requests(self) -> None:
        server = self._server
        try:
            self.deadline = server.clock() + server.settings.limits.header_timeout
            if server.settings.proxy_protocol and self.peer.trusted:
                self._meet_client()
            if isinstance(self.stream, TLSStream) and not self._secure(self.stream):
                return
            if server.settings.interrupts:
                self.stream.on_unread = self._on_unread
            # The first request is usually here already.
            self._buffer = self.stream.read(_MAX_PIPELINED)
            while self._buffer or self._await_request():
                if not self._serve_request():
                    break
                if self._buffer:
                    self.stream.give_way()  # it has requests to go on with
        except WireError as error:
            self._refuse(error, None)

    def _meet_client(self) -> None:
        """Learn from a proxy who the client is. Raises ``ClientGone`` if it does not say so."""
        trusted = self._server.settings.trusted_proxies
        try:
            self.peer = meet_client(self.stream, self.peer, trusted, self._environ)
        except WireError as error:
            # Without an answer: it may be TLS that should come next.
            self._server.hooks.on_refused(self.peer, None, error)
            raise ClientGone from error

    def _secure(self, stream: TLSStream) -> bool:
        """Do the TLS handshake; say goodbye if it fails."""
        self._state = _HANDSHAKE
        try:
            stream.handshake()
        except OSError as error:
            self._server.hooks.on_handshake_failed(self.peer, error)
            # The client has to read what is wrong.
            self.stream = stream.without_tls()
            self._linger()
            return False
        self._state = _FRESH
        return True

    def _finish(self) -> None:
        """Close the stream or give it to a tunnel, and be forgotten, whatever happens meanwhile."""
        self.deadline = self.wait_deadline = NEVER
        if self.bound is not None:
            self.bound.close()
        try:
            if self.switched is not None:
                self.switched()
            else:
                self.stream.close()
        except (ClientGone, OSError):
            self.stream.close()
        except BaseException as error:
            self.stream.close()
            self._server.hooks.on_crash(None, error)
        finally:
            self._server.forget(self)

    def _await_request(self) -> bool:
        """Wait for the first bytes of the next request; False when there will be none."""
        if self._state is _BUSY:
            # With what was asked last, an idle connection would cost up to 150 KB.
            del self.head, self.body
            self._headers, self._position = [], None
        self._state = _IDLE
        now = self._server.clock()
        self.deadline = now + self._server.settings.idle_timeout
        if self._server.draining:
            self.expire_soon(now)
        self._buffer = self.stream.read_next(_MAX_PIPELINED)
        return bool(self._buffer)

    def _serve_request(self) -> bool:
        """Receive one request and answer it; return whether another may follow."""
        self._status = ""
        if not self._receive_head():
            return False
        self._state = _BUSY
        self.response_trailers = []
        self.prepared = None
        head, server = self.head, self._server
        settings = server.settings
        self._close = not head.keep_alive or (head.http_1_0 and not settings.keeps_http_1_0)
        client_timeout = settings.client_timeout
        if client_timeout is None or not settings.interrupts:
            self.deadline = NEVER
        else:
            self.deadline = server.clock() + client_timeout
        try:
            environ = request_environ(self._environ, head, self.body, self)
            result = server.app(environ, self._start_response)
            try:
                if self.switched is None:
                    self._send_response(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except WireError as error:
            self._refuse(error, head)
            return False
        except Exception as error:
            if not self._answer_crash(error):
                return False
        if self.switched is not None:
            return False
        if self.body.complete:
            self._buffer = self.body.rest + self._buffer
        else:
            self._close = True
        if self._close:
            self._linger()
        return not self._close

    # -- requests

    def _receive_head(self) -> bool:
        limits = self._server.settings.limits
        taken = take_request_head(self._buffer, limits)
        if taken is None:
            self._state = _HEAD
            self.deadline = self._server.clock() + limits.header_timeout
            taken = take_request_head(self._receive_rest_of_head(), limits)
            if taken is None:
                return False
        self._buffer = b""
        self.head, behind = taken
        self.body = RequestBody(self.stream, self.head, behind)
        return True

    def _receive_rest_of_head(self) -> bytes:
        """Return the buffer and what comes until a head is complete; b"" when none will be."""
        head = PartialHead(self._buffer)
        while not head.complete:
            error = head.error(self._server.settings.limits)
            if error is not None:
                raise error
            data = self.stream.read(_MAX_PIPELINED)
            if not data:
                return b""
            head.add(data)
        return bytes(head.received)

    # -- answers

    def _start_response(
        self, status: str, headers: Headers, exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info and self._status == "sent":
            raise exc_info[1].with_traceback(exc_info[2])
        self._status = status
        self._headers = headers
        return self._refuse_write

    @staticmethod
    def _refuse_write(data: bytes) -> None:
        raise NotImplementedError("write() of PEP 3333 is not supported: return an iterable")

    def _send_response(self, result: Iterable[bytes]) -> None:
        """Send what the application answers; its first piece together with the head.

        An empty first piece sends the head alone: the body will take its time.
        """
        write, write_all = self.stream.write, self.stream.write_all
        head: bytes | None = None
        chunked = False
        left = 0.0
        clock, client_timeout = self._server.clock, self._server.settings.client_timeout
        if client_timeout is not None:
            self.deadline = clock() + client_timeout
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
                self.deadline = clock() + client_timeout
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
            self._close = True
        return piece[:length]

    def _response_head(self, result: Iterable[bytes]) -> tuple[bytes, bool, float]:
        """Return the head of the answer, whether it is chunked, and the body's length.

        Raises ``ValueError`` when the application's header fields are none, and
        ``RuntimeError`` when it has started no answer.
        """
        status = self._status
        fields = self.prepared
        # Tuples of the same identity: comparing costs nothing, and middleware may have its say.
        if fields is None or fields.fields != self._headers:
            if not status:
                raise RuntimeError("no call of start_response")
            fields = AnswerFields(self._headers)
        self._status = "sent"
        end, chunked, length = answer_framing(self.head, status, fields, result)
        ends_by_closing = not chunked and length == UNTIL_END
        if ends_by_closing or self._server.draining or not self.body.complete:
            self._close = True
        block = b"".join(
            (
                f"HTTP/1.1 {status}\r\n".encode("latin-1"),
                fields.block,
                b"" if fields.dated else self._server.date_line,
                b"Connection: close\r\n" if self._close else self._server.keep_alive_lines,
                end,
            )
        )
        return block, chunked, length

    def _answer_crash(self, error: Exception) -> bool:
        """Answer instead of an application that failed; return whether the answer is whole."""
        begun = self._status == "sent" or self.switched is not None
        # An OSError after the beginning: the client has left.
        if not isinstance(error, AnswerCut) and not (begun and isinstance(error, OSError)):
            self._server.hooks.on_crash(self.head, error)
        if begun:
            if self.head.http_1_0:
                # To such a client the end of the connection may be the end of the answer.
                self.stream.reset()
            return False
        self.response_trailers = []
        self._start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        self._send_response([b"Internal Server Error"])
        return True

    def inform(self, status: int, reason: str, headers: Headers) -> None:
        """Send an interim response (1xx), unless the client is too old for it.

        Raises ``ClientGone``.
        """
        if not self.head.http_1_0:
            reason = reason or REASONS.get(status, "")
            try:
                self.stream.write(serialise_head(f"HTTP/1.1 {status} {reason}", headers))
            except OSError as error:
                raise ClientGone from error

    def invite(self) -> bool:
        """Tell a client that waits for it to send its body; return whether that was possible.

        Called from the event loop, while nothing is being written. (RFC 9110, 10.1.1)
        """
        if self._status or self.head.http_1_0 or self.stream.write_position() is not None:
            return False
        try:
            sent = self.stream.try_write(_CONTINUE)
        except OSError:
            return False  # it has left, which its greenlet will notice
        if 0 < sent < len(_CONTINUE):
            self.stream.reset()
        return sent > 0

    def switch_protocols(self, start_tunnel: Callable[[], None]) -> None:
        """Have ``start_tunnel`` called, instead of any answer, when the application returns.

        From then on the stream is the tunnel's. It is called in any case, and closes what is
        its own before it lets an exception through; the stream is closed then.
        """
        self.switched = start_tunnel

    def take_access_entry(self) -> AccessEntry | None:
        """Return what an access log is to be told of the tunnel that this becomes, if anything."""
        return None

    def take_early_data(self) -> bytes:
        """Return what the client sent behind an upgrade request."""
        early = self.body.rest + self._buffer
        self._buffer = b""
        return early

    def _refuse(self, error: WireError, head: RequestHead | None) -> None:
        """Answer a request that must not be acted upon, and say goodbye."""
        # No other limit counts any more: nobody would expect its error here.
        self._state = _CLOSING
        self.wait_deadline = NEVER
        self._server.hooks.on_refused(self.peer, head, error)
        answer = refusal(
            error, self._server.date_line, explained=self._server.settings.explains_refusals
        )
        self.deadline = self._server.clock() + _LINGER_SECONDS
        try:
            if self._status != "sent":
                self.stream.write(answer)
                self._linger()
            else:
                self.stream.reset()
        except (ClientGone, OSError):
            pass

    def _linger(self) -> None:
        """Let the client read our answer before the connection is gone (RFC 9112, 9.6)."""
        self._state = _CLOSING
        draining = self._server.draining
        self.deadline = self._server.clock() + (
            _LAST_LINGER_SECONDS if draining else _LINGER_SECONDS
        )
        self.stream.shutdown_write()
        left = _LINGER_BYTES
        while left > 0:
            data = self.stream.read()
            if not data:
                break
            left -= len(data)
            self.stream.give_way()

    # -- what the event loop notices; always called from the hub

    def _on_unread(self) -> None:
        """Something arrived while an answer is being made: more requests, or the end."""
        if self._state is _CLOSING or not self.body.complete:
            return  # back-pressure: the body waits until somebody reads it
        try:
            data = self.stream.try_read(_MAX_PIPELINED)
        except OSError:
            data = b""
        if data == b"":
            self.abort(ClientGone())
            return
        if data:
            self._buffer += data
        if len(self._buffer) < _MAX_PIPELINED:
            self.stream.watch()

    def check(self, now: float) -> None:
        """Interrupt what waits for too long, or for a client that has left."""
        if now >= self.deadline:
            self.deadline = NEVER
            if self._state in (_FRESH, _IDLE) and self.stream.has_unread():
                self.deadline = now + 1.0  # just in time: the event is on its way
            elif self._state is _HEAD:
                self.abort(WireError("no complete request head in time", 408))
            elif self._state is _HANDSHAKE:
                self.abort(TimeoutError(errno.ETIMEDOUT, "timed out"))
            else:
                self.abort(ClientGone())
        elif now >= self.wait_deadline:
            self.wait_deadline = NEVER
            error, self._wait_error = self._wait_error, None
            if error is not None:
                self.abort(error)
        elif self._state is _BUSY:
            self._look_after_client(now)

    def _look_after_client(self, now: float) -> None:
        """Give up a client that has left, or that stands still in the middle of a body."""
        settings = self._server.settings
        if settings.interrupts and self.stream.peer_has_finished():
            # Behind a body that is not being read: no event announces that.
            self.abort(ClientGone())
            return
        timeout = settings.limits.body_timeout
        body, taken, sent = self.body, self.stream.write_position(), None
        if not body.complete and self.stream.is_reading:
            sent = body.arrivals
        if timeout is None or (taken is None and sent is None):
            self._position = None  # nobody waits for the client
        elif self._position != (body, taken, sent):
            self._position, self._position_since = (body, taken, sent), now
        elif now - self._position_since >= timeout:
            if self._status == "sent" or taken is not None:
                self.stream.reset_on_close()
                self.abort(ClientGone())
            else:
                self.abort(WireError("the body of the request stopped coming", 408))

    def limit_wait(self, seconds: float | None, error: BaseException | None = None) -> None:
        """Have ``error`` raised where the application waits, unless called again in time."""
        if seconds is None:
            self.wait_deadline = NEVER
        else:
            self._wait_error = error
            self.wait_deadline = self._server.clock() + seconds

    def abort(self, error: BaseException) -> None:
        """Raise ``error`` in the connection's greenlet, wherever it waits."""
        if self._greenlet is not None and not self._greenlet.dead:
            self._greenlet.throw(error)

    def give_up_head(self, now: float) -> None:
        """Give the rest of a request's head some seconds: the server ends."""
        if self._state is _HEAD:
            self.deadline = min(self.deadline, now + _HEAD_SECONDS)

    def expire_soon(self, now: float) -> None:
        """Close the connection soon if nobody has asked for anything (the server drains)."""
        if self._state in (_FRESH, _IDLE, _HANDSHAKE):
            grace = self._server.settings.drain_grace
            self.deadline = min(self.deadline, now + grace)

    def turn(self, now: float) -> Turn | None:
        """Return when the connection is closed for others; None while it is being answered."""
        state = self._state
        if state is _BUSY:
            return None
        settings = self._server.settings
        if state is _IDLE:
            return turn(self.deadline - settings.idle_timeout, now, proven=True)
        patience = _LINGER_SECONDS if state is _CLOSING else settings.limits.header_timeout
        return turn(self.deadline - patience, now, proven=False)

    def make_room(self) -> bool:
        """Close the connection for the sake of another one, unless a request has just come."""
        if self._state in (_FRESH, _IDLE) and self.stream.has_unread():
            return False
        self.abort(ClientGone())
        return True
