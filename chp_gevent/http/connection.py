"""A client's connection: reads requests, calls the application, writes its answers.

One greenlet per connection. While the application works, the event loop keeps an eye on
the client: when it leaves, ``ClientGone`` is thrown into the greenlet wherever that waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from enum import Enum
from http.client import responses as REASONS
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from gevent import getcurrent

from chp_gevent.http.body import ClientGone, RequestBody
from chp_gevent.proxy.headers import AnswerFields, Headers, Peer, response_headers
from chp_gevent.http.stream import Stream
from chp_gevent.http.wire import (
    HEAD_END,
    RequestHead,
    ResponseHead,
    WireError,
    chunk,
    head_too_large,
    last_chunk,
    parse_request_head,
    serialise_fields,
    serialise_head,
)

if TYPE_CHECKING:
    from chp_gevent.http.server import HTTPServer

NEVER = float("inf")

# How long, and for how many bytes, a client is listened to that is still sending after
# its connection is to be closed: closing at once would reset it and destroy our answer.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 1 << 20

# Bytes of further requests that are read ahead while one is being answered.
_MAX_PIPELINED = 65536

StartResponse = Callable[..., Callable[[bytes], None]]


class _State(Enum):
    IDLE = "waiting for a request"
    HEAD = "receiving the head of a request"
    BUSY = "answering"
    CLOSING = "listening to what the client still sends"


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
        target_deadline: monotonic time at which the target is given up.
    """

    __slots__ = (
        "_buffer",
        "_close",
        "_environ",
        "_greenlet",
        "_headers",
        "_server",
        "_state",
        "_status",
        "_target_error",
        "body",
        "deadline",
        "head",
        "peer",
        "prepared",
        "response_trailers",
        "stream",
        "switched",
        "target_deadline",
    )

    head: RequestHead
    body: RequestBody

    def __init__(
        self, server: HTTPServer, stream: Stream, peer: Peer, environ: dict[str, Any]
    ) -> None:
        self.stream = stream
        self.peer = peer
        self.deadline = NEVER
        self.target_deadline = NEVER
        self.response_trailers: Headers = []
        self.prepared: AnswerFields | None = None
        self.switched: Callable[[], None] | None = None
        self._target_error: BaseException | None = None
        self._server = server
        self._environ = environ
        self._greenlet: Any = None
        self._buffer = b""
        self._state = _State.IDLE
        self._status = ""
        self._headers: Headers = []
        self._close = False

    # -- the life of a connection

    def serve(self) -> None:
        """Answer requests until the connection ends. Raises nothing."""
        self._greenlet = getcurrent()
        self.stream.on_unread = self._on_unread
        try:
            self.deadline = time.monotonic() + self._server.limits.header_timeout
            # The first request is usually here already.
            self._buffer = self.stream.read()
            while self._buffer or self._await_request():
                if not self._serve_request():
                    break
        except WireError as error:
            self._refuse(error)
        except (ClientGone, OSError):
            pass
        except BaseException as error:
            self._server.on_crash(error)
        finally:
            self._finish()

    def _finish(self) -> None:
        self.deadline = self.target_deadline = NEVER
        if self.switched is not None:
            self.switched()
        else:
            self.stream.close()
        self._server.forget(self)

    def _await_request(self) -> bool:
        """Wait for the first bytes of the next request; False when there will be none."""
        self._state = _State.IDLE
        self.deadline = time.monotonic() + self._server.idle_timeout
        if self._server.draining:
            self.expire_soon(time.monotonic())
        self._buffer = self.stream.read_next()
        return bool(self._buffer)

    def _serve_request(self) -> bool:
        """Receive one request and answer it; return whether another may follow."""
        self._status = ""
        if not self._receive_head():
            return False
        self._state = _State.BUSY
        self.response_trailers = []
        self.prepared = None
        self._close = not self.head.keep_alive
        client_timeout = self._server.client_timeout
        self.deadline = NEVER if client_timeout is None else time.monotonic() + client_timeout
        result = self._server.app(self._request_environ(), self._start_response)
        try:
            if self.switched is None:
                self._send_response(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
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
        limits = self._server.limits
        buffer = self._buffer
        end = buffer.find(HEAD_END)
        if end < 0:
            self._state = _State.HEAD
            self.deadline = time.monotonic() + limits.header_timeout
            buffer = self._receive_rest_of_head(buffer)
            if not buffer:
                return False
            end = buffer.find(HEAD_END)
        self._buffer = b""
        if end > limits.max_header_size:
            raise head_too_large(buffer[: end + 2], limits) or WireError("too large", 431)
        start = 0
        while buffer.startswith(b"\r\n", start) and start < end:
            start += 2  # RFC 9112, 2.2: empty lines before a request are ignored
        self.head = parse_request_head(buffer[start:end], limits)
        self.body = RequestBody(self.stream, self.head, buffer[end + len(HEAD_END) :])
        return True

    def _receive_rest_of_head(self, buffer: bytes) -> bytes:
        received = bytearray(buffer)
        while received.find(HEAD_END, max(0, len(received) - 65540)) < 0:
            error = head_too_large(received, self._server.limits)
            if error is not None:
                raise error
            data = self.stream.read()
            if not data:
                return b""
            received += data
        return bytes(received)

    def _request_environ(self) -> dict[str, Any]:
        head = self.head
        environ = self._environ.copy()
        path, _, query = head.target.partition("?")
        environ["REQUEST_METHOD"] = head.method
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        environ["QUERY_STRING"] = query
        environ["SERVER_PROTOCOL"] = "HTTP/1.0" if head.http_1_0 else "HTTP/1.1"
        environ["RAW_URI"] = head.target
        environ["wsgi.input"] = self.body
        environ["chp.client"] = self
        for _, value, _, cgi in head.fields:
            if cgi in environ:
                value = f"{environ[cgi]},{value}"
            environ[cgi] = value
        return environ

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
        write = self.stream.write
        head: bytes | None = None
        chunked = False
        left = 0.0
        client_timeout = self._server.client_timeout
        for piece in result:
            if head is None:
                head, chunked, left = self._response_head()
                if not left:
                    piece = b""  # of an answer to HEAD, say
                write(head + chunk(piece) if chunked and piece else head + piece)
            elif piece and left:
                write(chunk(piece) if chunked else piece)
            left -= len(piece)
            if client_timeout is not None:
                self.deadline = time.monotonic() + client_timeout
        if head is None:
            head, chunked, left = self._response_head()
            write(head)
        if chunked:
            write(last_chunk(self.response_trailers))
        elif left > 0 and left != NEVER:
            raise ConnectionError("answer shorter than its Content-Length")

    def _response_head(self) -> tuple[bytes, bool, float]:
        """Return the head of the answer, whether it is chunked, and the body's length."""
        head = self.head
        status = self._status
        self._status = "sent"
        fields = self.prepared
        # Tuples of the same identity: comparing costs nothing, and middleware may have its say.
        if fields is None or fields.fields != self._headers:
            fields = AnswerFields(self._headers)
        length: float | None = fields.content_length
        bodiless = head.method == "HEAD" or status[:3] in ("204", "304")
        chunked = length is None and not bodiless and not head.http_1_0
        if length is None and not bodiless and head.http_1_0:
            self._close = True
        if self._server.draining or not self.body.complete:
            self._close = True
        if bodiless:
            length = 0
        block = b"".join(
            (
                f"HTTP/1.1 {status}\r\n".encode("latin-1"),
                fields.block,
                b"" if fields.dated else self._server.date_line,
                b"Connection: close\r\n" if self._close else b"Connection: keep-alive\r\n",
                b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n",
            )
        )
        return block, chunked, NEVER if length is None else length

    def inform(self, interim: ResponseHead) -> None:
        """Pass an interim response (1xx) on, unless the client is too old for it."""
        if not self.head.http_1_0:
            headers = response_headers(interim.fields, interim.connection_options)
            reason = interim.reason or REASONS.get(interim.status, "")
            self.stream.write(serialise_head(f"HTTP/1.1 {interim.status} {reason}", headers))

    def switch_protocols(self, start_tunnel: Callable[[], None]) -> None:
        """Have ``start_tunnel`` called, instead of any answer, when the application returns.

        From then on the stream is the tunnel's.
        """
        self.switched = start_tunnel

    def take_early_data(self) -> bytes:
        """Return what the client sent behind an upgrade request."""
        early = self.body.rest + self._buffer
        self._buffer = b""
        return early

    def _refuse(self, error: WireError) -> None:
        """Answer a request that must not be acted upon, and say goodbye."""
        self._server.on_refused(self.peer, error)
        reason = REASONS.get(error.status, "Bad Request")
        body = f"{reason}: {error}\n".encode("latin-1", "replace")
        headers = [
            ("Content-Type", "text/plain"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        head = f"HTTP/1.1 {error.status} {reason}\r\n".encode("latin-1")
        head += self._server.date_line + serialise_fields(headers) + b"\r\n"
        try:
            if self._status != "sent":
                self.stream.write(head + body)
                self._linger()
            else:
                self.stream.reset()
        except (ClientGone, OSError):
            pass

    def _linger(self) -> None:
        """Let the client read our answer before the connection is gone (RFC 9112, 9.6)."""
        self._state = _State.CLOSING
        self.deadline = time.monotonic() + _LINGER_SECONDS
        self.stream.shutdown_write()
        left = _LINGER_BYTES
        while left > 0:
            data = self.stream.read()
            if not data:
                break
            left -= len(data)

    # -- what the event loop notices; always called from the hub

    def _on_unread(self) -> None:
        """Something arrived while an answer is being made: more requests, or the end."""
        if not self.body.complete:
            return  # back-pressure: the body waits until somebody reads it
        try:
            data = self.stream.try_read()
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
        """Give the client or the target up if its time is over, or the client has left."""
        if now > self.deadline:
            self.deadline = NEVER
            if self._state is _State.IDLE and self.stream.has_unread():
                return  # just in time: the event is on its way
            if self._state is _State.HEAD:
                self.abort(WireError("no complete request head in time", 408))
            else:
                self.abort(ClientGone())
        elif now > self.target_deadline:
            self.target_deadline = NEVER
            error, self._target_error = self._target_error, None
            if error is not None:
                self.abort(error)
        elif self._state is _State.BUSY and self.stream.peer_has_finished():
            # Behind a body that is not being read: no event announces that.
            self.abort(ClientGone())

    def await_target(self, seconds: float | None, error: BaseException | None = None) -> None:
        """Have ``error`` raised where the application waits, unless called again in time."""
        if seconds is None:
            self.target_deadline = NEVER
        else:
            self._target_error = error
            self.target_deadline = time.monotonic() + seconds

    def abort(self, error: BaseException) -> None:
        """Raise ``error`` in the connection's greenlet, wherever it waits."""
        if self._greenlet is not None and not self._greenlet.dead:
            self._greenlet.throw(error)

    def expire_soon(self, now: float) -> None:
        """Close the connection within a second if it is idle (the worker is stopping)."""
        if self._state is _State.IDLE:
            self.deadline = min(self.deadline, now + 1.0)
