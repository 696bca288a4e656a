"""A client's connection: reads requests, calls the application, writes its answers.

One greenlet per connection. While the application works, the event loop keeps an eye on
the client: when it leaves, ``ClientGone`` is thrown into the greenlet wherever that waits
(if the server's settings say so).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import Enum
from typing import Any

from gevent import getcurrent

from chp_gevent.http.environ import request_environ
from chp_gevent.http.errors import ClientGone, WireError
from chp_gevent.http.h1.heads import PartialHead, RequestHead, take_request_head
from chp_gevent.http.h1.request import HTTP1Request
from chp_gevent.http.peer import Peer
from chp_gevent.http.proxied_client import meet_client
from chp_gevent.http.request import NEVER, Bound
from chp_gevent.http.response import error_response
from chp_gevent.http.room import Turn, turn
from chp_gevent.http.state import ServerState
from chp_gevent.http.stream import Stream
from chp_gevent.http.tls_stream import TLSStream

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


class _State(Enum):
    HANDSHAKE = "agreeing upon TLS"
    FRESH = "waiting for the first request"
    IDLE = "waiting for another request"
    HEAD = "receiving the head of a request"
    BUSY = "answering"
    CLOSING = "listening to what the client still sends"
    SWITCHING = "beginning another protocol"


# Names of their own: looking a member up takes 50 ns.
_HANDSHAKE, _FRESH, _IDLE, _HEAD, _BUSY, _CLOSING, _SWITCHING = _State


class ClientConnection:
    """One connection of a client, from its first byte to its last, or to another protocol.

    Args:
        server: the server's state.
        stream: to the client.
        peer: who the client is.
        environ: what requests on the connection have in common.
        on_end: called when the connection has ended, or speaks another protocol.

    Attributes:
        request: the request that is being received or answered; None in between.
        deadline: monotonic time at which the client is given up.
        bound: what the application keeps for this client alone; closed with the connection.
    """

    __slots__ = (
        "_buffer",
        "_environ",
        "_greenlet",
        "_on_end",
        "_server",
        "_state",
        "bound",
        "deadline",
        "peer",
        "request",
        "stream",
    )

    request_class: type[HTTP1Request] = HTTP1Request

    def __init__(
        self,
        server: ServerState,
        stream: Stream,
        peer: Peer,
        environ: dict[str, Any],
        on_end: Callable[[ClientConnection], None],
    ) -> None:
        self.stream = stream
        self.peer = peer
        self.deadline = NEVER
        self.bound: Bound | None = None
        self.request: HTTP1Request | None = None
        self._server = server
        self._environ = environ
        self._on_end = on_end
        self._greenlet: Any = None
        self._buffer = b""
        self._state = _FRESH

    # -- the life of a connection

    def serve(self) -> None:
        """Answer requests until the connection ends. Raises nothing, and leaves nothing open."""
        self._greenlet = getcurrent()
        try:
            self._serve_requests()
        except (ClientGone, OSError):
            pass
        except BaseException as error:
            self._server.events.on_crash(None, error)
        finally:
            self._finish()

    def _serve_requests(self) -> None:
        server = self._server
        try:
            self.deadline = server.clock() + server.settings.limits.header_timeout
            before_handshake = server.settings.before_handshake
            if before_handshake is not None and not self._may_begin(before_handshake):
                return
            if server.settings.proxy_protocol and self.peer.trusted:
                self._meet_client()
            if isinstance(self.stream, TLSStream) and not self._secure(self.stream):
                return
            if server.settings.abort_on_disconnect:
                self.stream.on_unread = self._on_unread
            # The first request is usually here already.
            self._buffer = self.stream.read(_MAX_PIPELINED)
            while self._buffer or self._await_request():
                if not self._serve_request():
                    break
                if self._buffer:
                    self.stream.give_way()  # it has requests to go on with
        except WireError as error:
            self._refuse(error)

    def _meet_client(self) -> None:
        """Learn from a proxy who the client is. Raises ``ClientGone`` if it does not say so."""
        trusted = self._server.settings.trusted_proxies
        try:
            self.peer = meet_client(self.stream, self.peer, trusted, self._environ)
        except WireError as error:
            # Without an answer: it may be TLS that should come next.
            self._server.events.on_refused(self.peer, None, error)
            raise ClientGone from error

    def _may_begin(self, before_handshake: Callable[[TLSStream], None]) -> bool:
        """Wait until there may be a TLS handshake; False if there can't."""
        if not isinstance(self.stream, TLSStream):
            return True
        self._state = _HANDSHAKE
        try:
            before_handshake(self.stream)
        except OSError as error:
            self._server.events.on_handshake_failed(self.peer, error)
            return False
        return True

    def _secure(self, stream: TLSStream) -> bool:
        """Do the TLS handshake; say goodbye if it fails."""
        self._state = _HANDSHAKE
        try:
            stream.handshake()
        except OSError as error:
            self._server.events.on_handshake_failed(self.peer, error)
            # The client has to read what is wrong.
            self.stream = stream.without_tls()
            self._lingering_close()
            return False
        self._server.events.on_handshake(stream.is_resumed)
        self._state = _FRESH
        return True

    def _finish(self) -> None:
        """Close the stream or give it to another protocol, and be forgotten, whatever happens."""
        self.deadline = NEVER
        request = self.request
        try:
            if self._state is _SWITCHING and request is not None:
                request.switch_protocols(self._buffer)
            else:
                if request is not None and request.switches_to is not None:
                    request.switches_to.abandon()
                self.stream.close()
        except (ClientGone, OSError):
            self.stream.close()
        except BaseException as error:
            self.stream.close()
            self._server.events.on_crash(None, error)
        finally:
            self._end()
            self.request = None

    def _end(self) -> None:
        try:
            if self.bound is not None:
                self.bound.close()
        finally:
            self._on_end(self)

    def _await_request(self) -> bool:
        """Wait for the first bytes of the next request; False when there will be none."""
        # With what was asked last, an idle connection would cost up to 150 KB.
        self.request = None
        self._state = _IDLE
        now = self._server.clock()
        self.deadline = now + self._server.settings.idle_timeout
        if self._server.draining:
            self.expire_soon(now)
        self._buffer = self.stream.read_next(_MAX_PIPELINED)
        return bool(self._buffer)

    def _serve_request(self) -> bool:
        """Receive one request and answer it; return whether another may follow."""
        self.request = None
        received = self._receive_head()
        if received is None:
            return False
        head, behind = received
        server = self._server
        self._state = _BUSY
        self._buffer = b"" if head.has_body else behind
        self.request = request = self.request_class(self, server, head, behind)
        client_timeout = server.settings.client_timeout
        if client_timeout is None or not server.settings.abort_on_disconnect:
            self.deadline = NEVER
        else:
            self.deadline = server.clock() + client_timeout
        try:
            environ = request_environ(self._environ, head, request)
            result = server.app(environ, request.start_response)
            try:
                request.send(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except WireError as error:
            self._refuse(error)
            return False
        except Exception as error:
            if not request.send_crash(error):
                return False
        if request.switches_to is not None:
            self._state = _SWITCHING
            return False
        if not request.body.complete:
            request.closes = True
        elif head.has_body:
            self._buffer = request.rest + self._buffer
        if request.closes:
            self._lingering_close()
        return not request.closes

    # -- requests

    def _receive_head(self) -> tuple[RequestHead, bytes] | None:
        """Return the head of the next request, and what is here of what follows.

        None if there will be no whole head. Raises ``WireError``.
        """
        limits = self._server.settings.limits
        taken = take_request_head(self._buffer, limits)
        if taken is None:
            self._state = _HEAD
            self.deadline = self._server.clock() + limits.header_timeout
            taken = take_request_head(self._receive_rest_of_head(), limits)
        return taken

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

    # -- the end

    def _refuse(self, error: WireError) -> None:
        """Answer a request that must not be acted upon, and say goodbye."""
        # No other limit counts any more: nobody would expect its error here.
        self._state = _CLOSING
        request, server = self.request, self._server
        head = request.head if request is not None else None
        server.events.on_refused(self.peer, head, error)
        response = error_response(
            error, server.date_line, explained=server.settings.explains_refusals
        )
        self.deadline = server.clock() + _LINGER_SECONDS
        try:
            if request is None or not request.is_answered:
                self.stream.write(response)
                self._lingering_close()
            else:
                self.stream.reset()
        except (ClientGone, OSError):
            pass

    def _lingering_close(self) -> None:
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
        request = self.request
        if self._state is _CLOSING or (request is not None and not request.body.complete):
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
        elif self.request is not None and self._state in (_BUSY, _SWITCHING):
            error = self.request.overdue(now)
            if error is not None:
                self.abort(error)

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
        if state is _BUSY or state is _SWITCHING:
            return None
        settings = self._server.settings
        if state is _IDLE:
            since = self.deadline - settings.idle_timeout
            return turn(since, now, proven=True, regulars_stay=settings.regulars_stay)
        patience = _LINGER_SECONDS if state is _CLOSING else settings.limits.header_timeout
        return turn(self.deadline - patience, now, proven=False)

    def make_room(self) -> bool:
        """Close the connection for the sake of another one, unless a request has just come."""
        if self._state in (_FRESH, _IDLE) and self.stream.has_unread():
            return False
        self.abort(ClientGone())
        return True
