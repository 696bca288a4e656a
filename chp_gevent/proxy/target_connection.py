"""A connection to a target, and what is read from it.

It is urllib3's, which resolves names, connects and does TLS; a request is written and its
response read here. Imported in workers only, after monkey patching.
"""

from __future__ import annotations

import _socket
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.monkey import get_original
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from chp_gevent.http.body import receive_piece
from chp_gevent.http.framing import BodyDecoder, body_decoder
from chp_gevent.http.section import IncompleteMessage, WireError
from chp_gevent.http.stream import COPIED, NO_DESCRIPTORS, Stream
from chp_gevent.http.tls_stream import wrap
from chp_gevent.http.wire import (
    HEAD_END,
    Buffer,
    PartialHead,
    ResponseHead,
    parse_response_head,
)

# Seconds; Traefik's 30. Node CHP has no limit of its own and waits for the kernel's (127).
CONNECT_TIMEOUT = 30.0
# What a target's header section may have; Node's limit is 16 KB, tornado's 64 KB.
MAX_RESPONSE_HEAD = 131072
# Interim responses (1xx) before the final one; one or two are usual.
MAX_INTERIM = 100


class TargetError(Exception):
    """A target that can't be reached, or that broke off; ``str()`` is the reason.

    ``answered`` says whether any byte of a response had come.
    """

    def __init__(self, reason: str, *, answered: bool = False) -> None:
        super().__init__(reason)
        self.answered = answered


class TargetTimeout(TargetError):
    """A target that was silent for ``--proxy-timeout``."""


class TargetConnection(HTTPConnection):
    """A connection to a target, which sends raw heads and reads with ``wire``."""

    stream: Stream | None = None
    reused = False
    idle_since = 0.0
    # Closes idle connections, whatever their target.
    make_room: Callable[[], None]
    _received: Buffer = b""
    _poller: Any = None

    def connect(self) -> None:
        """Connect, and with TLS shake hands. Raises ``TargetError``.

        When descriptors have run out, those of idle connections are given up for this one.
        """
        try:
            try:
                super().connect()
            except (HTTPError, OSError) as error:
                if not _out_of_descriptors(error):
                    raise
                self.make_room()
                super().connect()
        except ConnectTimeoutError as error:
            raise TargetError(f"{self._address}: connecting timed out") from error
        except (HTTPError, OSError, ValueError) as error:
            raise TargetError(f"{self._address}: {_connect_failure(error)}") from error
        if getattr(self.sock, "_sslobj", None) is None:
            # The descriptor in its plainest wrapper: gevent's socket is not needed any more.
            self.sock = _socket.socket(fileno=self.sock.detach())
            self.sock.setblocking(False)
        self.stream = wrap(self.sock, gevent.get_hub())
        self._poller = get_original("select", "poll")()
        self._poller.register(self.sock.fileno(), select.POLLIN)

    @property
    def _address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _new_conn(self) -> Any:
        if not _is_literal(self._dns_host):
            return super()._new_conn()
        # A literal address needs no resolver (which is a thread pool: 100 µs).
        family = socket.AF_INET6 if ":" in self._dns_host else socket.AF_INET
        sock = gevent_socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_TIMEOUT)
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.connect((self._dns_host, self.port))
        except TimeoutError as error:
            sock.close()
            raise ConnectTimeoutError(self, str(error)) from error
        except BaseException:
            sock.close()
            raise
        return sock

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
            raise TargetError(_break_off(error)) from error

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
                received = self._rest_of_head(received) if received else self._receive_head()
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
            raise TargetError(_break_off(error), answered=answered) from error
        if not data:
            raise TargetError("target closed the connection", answered=answered)
        return data

    def take_received(self) -> Buffer:
        """Return, and forget, what came behind the head of the response; a view if it is much."""
        received, self._received = self._received, b""
        return received

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


class UnixTargetConnection(TargetConnection):
    """A connection to an ``http+unix`` target; the host is the path of the socket."""

    @property
    def _address(self) -> str:
        return self._dns_host

    def _new_conn(self) -> Any:
        sock = gevent_socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_TIMEOUT)
        try:
            sock.connect(self._dns_host)
        except BaseException:
            sock.close()
            raise
        return sock


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


def read_body(connection: TargetConnection, decoder: BodyDecoder) -> Iterator[Buffer]:
    """Yield the rest of a response's body, piece by piece as it arrives.

    Raises ``TargetError`` when it is cut short or malformed.
    """
    stream = connection.stream
    assert stream is not None
    try:
        while not decoder.done:
            piece = receive_piece(stream, decoder)
            if piece:
                yield piece
            elif piece is None:
                decoder.end()
            del piece
    except (OSError, IncompleteMessage) as error:
        raise TargetError(f"response cut short: {error}", answered=True) from error
    except WireError as error:
        raise TargetError(f"malformed response: {error}", answered=True) from error


def _head_too_large() -> TargetError:
    return TargetError("malformed response: header section too large", answered=True)


def _is_literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _out_of_descriptors(error: BaseException) -> bool:
    return getattr(error.__cause__ or error, "errno", None) in NO_DESCRIPTORS


def _connect_failure(error: BaseException) -> str:
    if isinstance(error, NewConnectionError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _break_off(error: OSError) -> str:
    return f"target broke off: {error.strerror or error}"
