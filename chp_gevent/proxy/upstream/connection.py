"""A connection to a target, and what is read from it.

It is urllib3's, which does TLS; ``connecting`` makes it, and a request is written and its
response read here. Imported in workers only, after monkey patching.
"""

from __future__ import annotations

import select
import ssl
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent import socket as gevent_socket
from gevent.monkey import get_original
from gevent.ssl import SSLSocket
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from chp_gevent.http.errors import IncompleteMessage, WireError
from chp_gevent.http.h1.bodies import BodyDecoder, body_decoder
from chp_gevent.http.h1.heads import (
    HEAD_END,
    Buffer,
    PartialHead,
    ResponseHead,
    parse_response_head,
)
from chp_gevent.http.h1.request_body import receive_piece
from chp_gevent.http.request import ClientRequest
from chp_gevent.http.stream import COPIED, Stream
from chp_gevent.http.tls_stream import wrap
from chp_gevent.names.resolver import NameUnanswered
from chp_gevent.proxy.upstream.connecting import Connector, Sock, connect_to_unix
from chp_gevent.proxy.upstream.failures import FailureKind, Stage, expiry, failure
from chp_gevent.runtime.descriptors import NO_DESCRIPTORS
from chp_gevent.runtime.tls_errors import describe_failure

# What a target's header section may have; Node's limit is 16 KB, tornado's 64 KB.
MAX_RESPONSE_HEAD = 131072
# What every response begins with (RFC 9112, 4).
_VERSION = b"HTTP/1."
# Interim responses (1xx) before the final one; one or two are usual.
MAX_INTERIM = 100


class TargetError(Exception):
    """A target that can't be reached, or that broke off; ``str()`` is the reason.

    ``answered`` says whether any byte of a response had come, ``kind`` what was wrong in a word.
    """

    kind = FailureKind.OTHER

    def __init__(
        self, reason: str, *, answered: bool = False, kind: FailureKind | None = None
    ) -> None:
        super().__init__(reason)
        self.answered = answered
        if kind is not None:
            self.kind = kind


class TargetTimeout(TargetError):
    """A target that was silent for ``--proxy-timeout``."""

    kind = FailureKind.TIMEOUT


class TargetConnections(Protocol):
    """A pool of connections to one target, and those which are clients' own."""

    def acquire(self) -> TargetConnection:
        """Return an idle connection, or a new one that connects on its first use.

        Raises ``TargetError`` if the pool has been closed.
        """

    def acquire_bound(self, request: ClientRequest) -> TargetConnection:
        """As :meth:`acquire`, for a client that has a connection of its own."""

    def release(self, connection: TargetConnection) -> None:
        """Take a connection back whose response has been read to its end."""

    def bind(self, connection: TargetConnection, request: ClientRequest) -> None:
        """Keep a connection for one client alone, until that leaves: it carries its identity."""

    def close_idle(self, before: float) -> int:
        """Close what has been idle since ``before`` (monotonic); return how many remain."""

    def is_abandoned(self) -> bool:
        """Whether no connection has been asked for since the last time that this was asked."""

    def retire(self) -> None:
        """Close what is idle now, and what is in use when it has been used."""

    def close(self) -> None:
        """Close what is idle, for ever."""


class TargetConnection(HTTPConnection):
    """A connection to a target, which sends raw heads and reads with ``wire``."""

    stream: Stream | None = None
    reused = False
    idle_since = 0.0
    # The pool's ``epoch`` when the connection was made.
    epoch = 0
    # What the client's side has broken off the exchange with.
    interruption: BaseException | None = None
    # The pool, if the connection is one client's alone.
    bound: object = None
    connector: Connector
    # Closes idle connections, whatever their target.
    make_room: Callable[[], None]
    _stage = Stage.CONNECT
    _received: Buffer = b""
    _poller: Any = None

    def connect(self) -> None:
        """Connect, and with TLS shake hands, within ``--connect-timeout``. Raises ``TargetError``.

        When descriptors have run out, those of idle connections are given up for this one.
        """
        started = time.monotonic()
        limit = gevent.Timeout.start_new(self.connector.timeout)
        try:
            try:
                self._connect()
            except OSError as error:
                if error.errno not in NO_DESCRIPTORS:
                    raise
                self.make_room()
                self._connect()
        except gevent.Timeout as expired:
            if expired is not limit:
                raise
            raise self._unreached(*expiry(self._stage, self.connector.timeout)) from expired
        except NameUnanswered as error:
            raise self._unreached(FailureKind.NAME, str(error)) from error
        except (HTTPError, OSError, ValueError) as error:
            seconds = time.monotonic() - started
            raise self._unreached(*failure(error, self._stage, seconds)) from error
        finally:
            limit.close()
        self.stream = wrap(self.sock, gevent.get_hub())
        self._poller = get_original("select", "poll")()
        self._poller.register(self.sock.fileno(), select.POLLIN)

    def _connect(self) -> None:
        self._stage = Stage.CONNECT
        super().connect()

    def _unreached(self, kind: FailureKind, reason: str) -> TargetError:
        return TargetError(f"{self._address}: {reason}", kind=kind)

    @property
    def _address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _new_conn(self) -> Any:
        return self.connector.connect(self._dns_host, self.port, self._enter)

    def _enter(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def is_connected(self) -> bool:
        """Whether the connection can carry a request: open, and nothing has arrived on it.

        Asked before a connection is reused. The kernel tells for 0.2 µs; a ``recv`` that fails
        takes 0.7 µs, urllib3's way, which makes a poll object each time, 20% of a request.
        """
        stream = self.stream
        if stream is None or stream.closed:
            return False
        if not self._poller.poll(0) and not stream.has_pending():
            return True
        try:
            # With TLS it may be something for OpenSSL alone, such as a session ticket.
            return stream.try_read(1) is None
        except OSError:
            return False

    def send_head(self, head: bytes, *body: Buffer) -> None:
        """Send the head of a request, and what there is of its body, connecting first if needed.

        Raises ``TargetError``.
        """
        if self.stream is None:
            self.reused = False
            self.connect()
        self.write(head, *body)

    def write(self, *parts: Buffer) -> None:
        """Send bytes of a request. Raises ``TargetError``."""
        stream: Any = self.stream
        try:
            if len(parts) == 1:
                stream.write(parts[0])
            else:
                stream.write_all(*parts)
        except OSError as error:
            raise _break_off(error) from error

    def read_response(
        self, method: str, on_interim: Callable[[ResponseHead], None]
    ) -> ResponseHead:
        """Wait for the head of the response and return it.

        ``on_interim`` is given each interim response (1xx other than 101). Raises
        ``TargetError``.
        """
        received = b""
        interim = 0
        while True:
            end = received.find(HEAD_END)
            if end < 0:
                received = (
                    self._rest_of_head(received)
                    if received
                    else self._receive_head(answered=interim > 0)
                )
                continue
            if end > MAX_RESPONSE_HEAD:
                raise _head_too_large()
            try:
                head = parse_response_head(received[:end], method)
            except WireError as error:
                raise TargetError(f"malformed response: {error}", answered=True) from error
            end += len(HEAD_END)
            if head.status >= 200 or head.status == 101:
                large = len(received) - end > COPIED
                self._received = memoryview(received)[end:] if large else received[end:]
                return head
            received = received[end:]
            interim += 1
            if interim > MAX_INTERIM:
                raise TargetError("malformed response: no end of interim ones", answered=True)
            on_interim(head)
            self.stream.give_way()  # type: ignore[union-attr]

    def _rest_of_head(self, received: bytes) -> bytes:
        """Return what is received until a head is complete, and with it what was before."""
        head = PartialHead(received)
        while not head.complete:
            if not head.received.startswith(_VERSION[: len(head.received)]):
                # What speaks another protocol may wait for us now, and for ever.
                raise TargetError("malformed response: no HTTP/1 server", answered=True)
            if head.bare_line_feed:
                raise TargetError("malformed response: bare line feed", answered=True)
            if len(head.received) > MAX_RESPONSE_HEAD:
                raise _head_too_large()
            head.add(self._receive_head(answered=True))
        return bytes(head.received)

    def _receive_head(self, *, answered: bool = False) -> bytes:
        """Wait for the beginning of a head, or for more of one that is ``answered`` in part."""
        try:
            data = self.stream.read_next()  # type: ignore[union-attr]
        except OSError as error:
            raise _break_off(error, answered=answered) from error
        if not data:
            raise TargetError("target closed the connection", answered=answered)
        return data

    def receive_body(self, decoder: BodyDecoder) -> Buffer:
        """Wait for, and return, the next piece of a response's body; maybe an empty one.

        Raises ``TargetError`` when the body is cut short or malformed.
        """
        stream = self.stream
        assert stream is not None
        try:
            piece: Buffer | None = receive_piece(stream, decoder)
            if piece is None:
                decoder.end()
                if stream.was_cut:
                    # RFC 9112, 9.8: only the peer's close_notify says that this was the end.
                    raise IncompleteMessage("TLS ended without close_notify")
        except (OSError, IncompleteMessage) as error:
            raise TargetError(f"response cut short: {error}", answered=True) from error
        except WireError as error:
            if error is self.interruption:
                raise  # of the request's body, not of this one
            raise TargetError(f"malformed response: {error}", answered=True) from error
        return b"" if piece is None else piece

    def take_received(self) -> Buffer:
        """Return, and forget, what came behind the head of the response; a view if it is much."""
        received, self._received = self._received, b""
        return received

    def rest(self) -> None:
        """Be idle: what arrives now, be it the end, closes the connection."""
        stream = self.stream
        if stream is not None:
            stream.on_unread = self.close
            stream.watch()
            self.idle_since = time.monotonic()

    def reset(self) -> None:
        """Close the connection so that the target sees an error."""
        if self.stream is not None:
            self.stream.reset()
        self.close()

    def close(self) -> None:
        """Close the connection; safe to call again."""
        self._received = b""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        super().close()


class TLSTargetConnection(TargetConnection, HTTPSConnection):
    """A connection to an ``https`` target."""

    def _new_conn(self) -> Any:
        sock: Sock = super()._new_conn()
        self._stage = Stage.HANDSHAKE
        # What urllib3 wraps, and what waits in the handshake.
        return gevent_socket.socket(sock.family, sock.type, sock.proto, sock.detach())


class UnixTargetConnection(TargetConnection):
    """A connection to an ``http+unix`` target; the host is the path of the socket."""

    @property
    def _address(self) -> str:
        return self._dns_host

    def _new_conn(self) -> Any:
        return connect_to_unix(self._dns_host)


class _ClosingSocket(SSLSocket):
    """Closes when its handshake is broken off: gevent's does so after an ``OSError`` only."""

    def do_handshake(self) -> None:  # type: ignore[override]
        """As that of ``SSLSocket``."""
        try:
            super().do_handshake()
        except BaseException:
            self.close()
            raise


def closing_when_broken_off(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have the sockets of a context close when a timeout, or a client that left, interrupts them.

    Nobody else could: while it shakes hands, urllib3 has not been given the socket yet.
    """
    context.sslsocket_class = _ClosingSocket
    return context


def response_body(head: ResponseHead, received: Buffer) -> tuple[BodyDecoder, Buffer]:
    """Return the decoder of a response's body and the part of it that is in ``received``.

    Raises ``TargetError``.
    """
    decoder = body_decoder(head)
    if head.chunked:
        received = bytes(received)
    try:
        return decoder, decoder.feed(received) if received else b""
    except WireError as error:
        raise TargetError(f"malformed response: {error}", answered=True) from error


def _head_too_large() -> TargetError:
    return TargetError("malformed response: header section too large", answered=True)


def _break_off(error: OSError, *, answered: bool = False) -> TargetError:
    if isinstance(error, ssl.SSLError):
        # With TLS 1.3, a target says only now that it wants another certificate, or one at all.
        reason, kind = describe_failure(error), FailureKind.TLS
    else:
        reason, kind = str(error.strerror or error), FailureKind.OTHER
    return TargetError(f"target broke off: {reason}", answered=answered, kind=kind)
