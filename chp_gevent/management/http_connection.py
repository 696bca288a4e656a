"""One connection to the management process: reads a request, has it answered, and so on."""

from __future__ import annotations

import _socket
import contextlib
import socket
from collections.abc import Callable, Iterable
from http.client import responses as REASONS
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from chp_gevent.options import LimitOptions
from chp_gevent.http.stream import Stream
from chp_gevent.http.wire import (
    HEAD_END,
    IncompleteMessage,
    RequestHead,
    WireError,
    body_decoder,
    head_too_large,
    parse_request_head,
)

if TYPE_CHECKING:
    from chp_gevent.management.http_server import HttpServer

MAX_BODY = 1024 * 1024
"""Bytes of a request's body; 413."""

HEAD_LIMITS = LimitOptions(max_request_line=16 * 1024, max_header_size=32 * 1024)
"""Node, too, answers 431 to heads of more than 16 KiB."""

# Up to this size an answer is sent with its head in one piece.
_SMALL_BODY = 64 * 1024

# How long, and for how many bytes, a client is listened to that has been refused: closing at
# once would reset the connection, and destroy the answer on its way.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 * MAX_BODY

_NEVER = float("inf")

Fields = list[tuple[str, str]]


class Connection:
    """A connection of a client.

    Args:
        server: the server it belongs to.
        fd: descriptor of its socket.
        environ: what all its requests have in their environ.

    Attributes:
        deadline: monotonic time at which the client has taken too long.
    """

    def __init__(self, server: HttpServer, fd: int, environ: dict[str, Any]) -> None:
        self.deadline = server.now + server.timeouts.request
        self._server = server
        self._fd = fd
        self._environ = environ
        self._stream: Stream | None = None
        self._buffer = b""
        self._idle = True
        self._expired = False
        self._method = self._target = ""
        self._status = ""
        self._fields: Fields = []

    def serve(self, stream: Stream) -> None:
        """Answer requests until the connection ends. Raises OSError when it breaks."""
        self._stream = stream
        try:
            # The first request is usually here already.
            self._buffer = stream.read()
            self._idle = False
            while self._buffer:
                if not self._serve_request(stream):
                    break
                if not self._buffer:
                    self._await_request(stream)
        except IncompleteMessage:
            if self._expired:
                self._refuse(stream, WireError("request not complete in time", 408))
        except WireError as error:
            self._refuse(stream, error)

    def close(self) -> None:
        """Close the connection; safe to call again."""
        if self._stream is not None:
            self._stream.close()

    # -- called from other greenlets

    def expire(self) -> None:
        """End the connection because the client took too long."""
        self.deadline = _NEVER
        # Whoever reads finds the end of the stream; what has arrived before is still read.
        self._expired = True
        self._hang_up(socket.SHUT_RD if self._status == "" else socket.SHUT_RDWR)

    def close_if_idle(self) -> None:
        """End the connection unless it is in the middle of a request."""
        if self._idle:
            self._hang_up(socket.SHUT_RD)

    def _hang_up(self, how: int) -> None:
        # shutdown() of SSL sockets would take the TLS state away from under the reader.
        sock = _socket.socket(fileno=self._fd)
        with contextlib.suppress(OSError):
            sock.shutdown(how)
        sock.detach()

    # -- requests

    def _await_request(self, stream: Stream) -> None:
        server = self._server
        # One second more than announced: a client that comes just in time is not let down.
        self.deadline = server.now + server.timeouts.idle + 1.0
        self._idle = True
        self._buffer = stream.read_next()
        self._idle = False

    def _serve_request(self, stream: Stream) -> bool:
        """Receive a request and answer it; return whether another one may follow."""
        self._method = self._target = self._status = ""
        server = self._server
        self.deadline = server.now + server.timeouts.request
        head = self._receive_head(stream)
        self._method, self._target = head.method, head.target
        body = self._receive_body(stream, head) if head.has_body else b""
        self.deadline = _NEVER
        content = self._run_application(head, body)
        self.deadline = server.now + server.timeouts.request
        # CHP closes connections of HTTP/1.0 clients even if they would like to keep them.
        keep_alive = head.keep_alive and not head.http_1_0 and not server.draining
        self._send(stream, content, keep_alive)
        return keep_alive

    def _receive_head(self, stream: Stream) -> RequestHead:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):
            buffer = buffer[2:]  # RFC 9112, 2.2: empty lines before a request are ignored
        end = buffer.find(HEAD_END)
        while end < 0:
            error = head_too_large(buffer, HEAD_LIMITS)
            if error is not None:
                raise error
            buffer = (buffer + self._read(stream)).lstrip(b"\r\n")
            end = buffer.find(HEAD_END)
        if end > HEAD_LIMITS.max_header_size:
            raise WireError("header section too large", 431)
        self._buffer = buffer[end + len(HEAD_END) :]
        return parse_request_head(buffer[:end], HEAD_LIMITS)

    def _receive_body(self, stream: Stream, head: RequestHead) -> bytes:
        if (head.content_length or 0) > MAX_BODY:
            raise WireError("body too large", 413)
        decoder = body_decoder(head)
        body = decoder.feed(self._buffer)
        if not decoder.done and "expect" in head.noted and not head.http_1_0:
            stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces = [body]
        size = len(body)
        while not decoder.done:
            piece = decoder.feed(self._read(stream))
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY:
                raise WireError("body too large", 413)
        self._buffer = decoder.rest
        return b"".join(pieces)

    def _read(self, stream: Stream) -> bytes:
        data = stream.read()
        if not data:
            raise IncompleteMessage("connection ended inside a request")
        return data

    # -- the application

    def _run_application(self, head: RequestHead, body: bytes) -> bytes:
        """Return the body of the answer; status and fields are in the attributes."""
        result: Iterable[bytes] = ()
        try:
            result = self._server.application(self._request_environ(head, body), self._start)
            return b"".join(result)
        except Exception as error:
            return self._application_failed(error)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _request_environ(self, head: RequestHead, body: bytes) -> dict[str, Any]:
        environ = self._environ.copy()
        target = head.target
        path, _, query = target.partition("?")
        environ["REQUEST_METHOD"] = head.method
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        environ["QUERY_STRING"] = query
        environ["SERVER_PROTOCOL"] = "HTTP/1.0" if head.http_1_0 else "HTTP/1.1"
        environ["RAW_URI"] = target
        environ["wsgi.input"] = BytesIO(body)
        for field in head.fields:
            name = field.cgi
            environ[name] = f"{environ[name]},{field.value}" if name in environ else field.value
        return environ

    def _start(self, status: str, headers: Fields, exc_info: Any = None) -> Callable[[bytes], None]:
        for name, value in headers:
            if "\r" in value or "\n" in value:
                raise ValueError(f"line break in the {name} of an answer")
        self._status = status
        self._fields = headers
        return _no_write

    def _application_failed(self, error: Exception) -> bytes:
        log = self._server.log
        url = self._target.partition("?")[0]
        reason = f"{type(error).__name__}: {error}"
        log.error("Error in handler for %s %s: %s", self._method, url, reason)
        log.debug("Traceback of that error", exc_info=error)
        self._status, self._fields = "500 Internal Server Error", []
        return b"Internal Server Error"

    # -- answers

    def _send(self, stream: Stream, content: bytes, keep_alive: bool) -> None:
        lines = [f"HTTP/1.1 {self._status}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in self._fields]
        head = "".join(lines).encode("latin-1")
        head += self._server.answer_fields if keep_alive else self._server.last_answer_fields
        if self._status[:3] not in ("204", "304"):
            head += b"Content-Length: %d\r\n" % len(content)
        head += b"\r\n"
        if self._method == "HEAD":
            content = b""
        if len(content) <= _SMALL_BODY:
            stream.write(head + content)
        else:
            stream.write(head)
            stream.write(content)

    def _refuse(self, stream: Stream, error: WireError) -> None:
        """Answer a request that the application never sees, and say goodbye."""
        status = error.status
        log = self._server.log
        if self._method:
            url = self._target.partition("?")[0]
            log.warning("%s %s %s %s", status, self._method, url, error)
        else:
            peer = self._environ["REMOTE_ADDR"] or "a UNIX socket"
            log.warning("%s refused a request from %s: %s", status, peer, error)
        if self._server.on_refused is not None:
            self._server.on_refused(status)
        self._status, self._fields = f"{status} {REASONS.get(status, 'Bad Request')}", []
        self.deadline = self._server.now + _LINGER_SECONDS + 1.0
        self._send(stream, b"", keep_alive=False)
        if not stream.is_tls:
            self._hang_up(socket.SHUT_WR)
        left = _LINGER_BYTES
        while left > 0:
            data = stream.read()
            if not data:
                break
            left -= len(data)


def _no_write(data: bytes) -> None:
    raise NotImplementedError("write() of PEP 3333 is not supported: return an iterable")
