"""One request sent to a target, and its response streamed back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, NoReturn

import gevent
from gevent import getcurrent

from chp_gevent.http.errors import ClientGone
from chp_gevent.http.h1.bodies import BodyDecoder, chunk, last_chunk
from chp_gevent.http.h1.heads import Buffer, ResponseHead
from chp_gevent.http.request import NEVER, ClientRequest
from chp_gevent.http.response import BufferedBody
from chp_gevent.http.stream import Stream
from chp_gevent.proxy.headers import response_headers, trailer_headers
from chp_gevent.proxy.upstream.connection import (
    TargetConnection,
    TargetConnections,
    TargetError,
    TargetTimeout,
    response_body,
)

# RFC 9110, 9.2.2
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))

# Seconds that a target has to say 100 Continue to a client which waits for that; then it gets
# one from us. Many servers never do (PHP's, WEBrick), and some clients wait for ever.
_CONTINUE_AFTER = 1.0


class Exchange:
    """A request and its response on one connection to a target.

    Args:
        request: the client's.
        pool: the connections to the target.
        timeout: how many seconds the target may be silent, None for ever.
        on_upload: called with the size of each piece of the request's body; may be None where
            there is none.

    Attributes:
        over: whether the connection has been given back or closed.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_decoder",
        "_greenlet",
        "_invitation",
        "_invited",
        "_on_upload",
        "_pool",
        "_received",
        "_request",
        "_timeout",
        "_upload",
        "over",
    )

    def __init__(
        self,
        request: ClientRequest,
        pool: TargetConnections,
        timeout: float | None,
        on_upload: Callable[[int], None] | None,
    ) -> None:
        self._request = request
        self._pool = pool
        self._connection: TargetConnection = (
            pool.acquire() if request.bound is None else pool.acquire_bound(request)
        )
        self._timeout = timeout
        self._on_upload = on_upload
        self._upload: Any = None
        # The body, if it was here as a whole.
        self._body: bytes | None = None
        # What will tell a client to send its body.
        self._invitation: Any = None
        self._invited = False
        self._greenlet = getcurrent()
        self.over = False

    def prepare_repetition(self, error: TargetError) -> bool:
        """Put the request back, to be sent again; return False if it must not be (RFC 9110, 9.2.2).

        It may be if it is idempotent, all of it is here, and a connection that had been idle
        broke before anything was answered on it. A target that was silent was no stale connection.
        """
        stale = self._connection.reused and not error.answered
        head = self._request.head
        if not stale or isinstance(error, TargetTimeout) or head.method not in _IDEMPOTENT:
            return False
        if head.has_body:
            if self._body is None:
                return False
            self._request.body.put_back(self._body)
        return True

    # -- the request

    def send(self, head: bytes, *, upgrade: bool) -> ResponseHead:
        """Send the request and return the head of the response.

        ``upgrade`` says whether the target may answer 101.
        A body that has not arrived completely is sent while the response is awaited.
        Raises ``TargetError``, ``WireError`` (the client's body is malformed) and
        ``ClientGone``; the exchange is over then.
        """
        request = self._request
        try:
            if self._timeout is not None:
                self._expect_target()
            if request.head.has_body:
                self._send_with_body(head)
            else:
                self._connection.send_head(head)
            response = self._connection.read_response(request.head.method, self._on_interim)
            if response.status == 101 and not upgrade:
                raise TargetError("malformed response: 101 without an upgrade", answered=True)
        except BaseException:
            self.abandon()
            raise
        if self._invitation is not None:
            self._invite_no_more()
        if self._timeout is not None:
            self._stop_expecting()
        return response

    def _on_interim(self, response: ResponseHead) -> None:
        # However long the client takes to read it.
        self._stop_expecting()
        if response.status == 100:
            self._invite_no_more()
        if response.status != 100 or not self._invited:
            headers = response_headers(response.fields, response.connection_options)
            self._request.send_interim(response.status, response.reason, headers)
        self._expect_target()

    def _send_with_body(self, head: bytes) -> None:
        request = self._request
        self._body = body = request.body.take_if_complete()
        if body is None:
            self._connection.send_head(head)
            if "expect" in request.head.known_values:
                self._invite_in_time()
            self._upload = gevent.spawn(self._send_body)
        elif request.head.chunked:
            payload = chunk(body) if body else ()
            self._connection.send_head(head, *payload, last_chunk())
        else:
            self._connection.send_head(head, body)
        if body and self._on_upload is not None:
            self._on_upload(len(body))

    def _send_body(self) -> None:
        """Runs in a greenlet of its own: the response may begin before the body ends."""
        request = self._request
        chunked = request.head.chunked
        try:
            for piece in request.body.pieces():
                if self._invitation is not None:
                    self._invite_no_more()
                self._connection.write(*(chunk(piece) if chunked else (piece,)))
                if self._on_upload is not None:
                    self._on_upload(len(piece))
                if request.wait_deadline != NEVER:
                    self._expect_target()
            if chunked:
                # Without the trailers: some servers take them for the next request, and a
                # sender must know that they are wanted (RFC 9110, 6.5.1; RFC 9112, 7.1.2).
                self._connection.write(last_chunk())
        except TargetError:
            # The other greenlet learns it by reading, after a response that came early.
            pass
        except (ClientGone, Exception) as error:
            # Mostly a WireError. Whatever it is, the other greenlet would wait in vain.
            gevent.get_hub().loop.run_callback(self._interrupt, error)

    def _interrupt(self, error: BaseException) -> None:
        if not self.over:
            self._connection.interruption = error
            self._greenlet.throw(error)

    def _invite_in_time(self) -> None:
        self._invitation = gevent.get_hub().loop.timer(_CONTINUE_AFTER)
        self._invitation.start(self._invite)

    def _invite(self) -> None:
        self._invite_no_more()
        if not self.over:
            self._invited = self._request.invite_body()

    def _invite_no_more(self) -> None:
        if self._invitation is not None:
            self._invitation.stop()
            self._invitation.close()
            self._invitation = None

    # -- the response

    def received_body(self, head: ResponseHead) -> Buffer | None:
        """Return the body of the response if all of it is here: the exchange is over then.

        None if more is to come: see :meth:`stream_body`. Raises ``TargetError`` when what is here
        is malformed.
        """
        received = self._connection.take_received()
        if head.content_length == len(received) and not head.chunked:
            # All here already, as small answers are: no decoder is needed (saves 0.8 µs).
            self._finish(head)
            return received
        try:
            decoder, received = response_body(head, received)
        except TargetError:
            self.abandon()
            raise
        if decoder.done:
            self._finish(head, decoder)
            return received
        self._decoder: BodyDecoder = decoder
        self._received = received
        return None

    def stream_body(
        self,
        head: ResponseHead,
        on_piece: Callable[[int], None],
        on_failure: Callable[[TargetError], NoReturn],
    ) -> Generator[Buffer, None, None]:
        """Yield the body of the response as it comes, after :meth:`received_body` gave None.

        The first piece may be empty: it says that the head is not to wait.

        Args:
            head: of the response.
            on_piece: called with the size of each piece before it is yielded, and with 0 at the
                end of the body.
            on_failure: called when the body is cut short or malformed; raises what the server
                is to be told.
        """
        connection, decoder = self._connection, self._decoder
        limited = self._timeout is not None
        piece, self._received = self._received, b""
        try:
            on_piece(len(piece))
            yield piece
            while not decoder.done:
                if limited:
                    self._expect_target()
                piece = b""  # or two pieces would be held while the next one is read
                piece = connection.receive_body(decoder)
                if limited:
                    self._stop_expecting()
                if piece:
                    on_piece(len(piece))
                    yield piece
            self._finish(head, decoder)
            on_piece(0)
        except TargetError as error:
            on_failure(error)
        finally:
            self.abandon()

    def _finish(self, head: ResponseHead, decoder: BodyDecoder | None = None) -> None:
        """Give the connection back if it can carry another request."""
        request = self._request
        clean = True
        if decoder is not None:
            clean = not decoder.rest
            if decoder.trailers:
                request.response_trailers = trailer_headers(decoder.trailers)
        upload = self._upload
        sent = upload is None or upload.ready()
        if sent and clean and head.keep_alive and request.body.complete:
            self.over = True
            if self._connection.bound is not None or request.head.section.authenticates_connection:
                self._pool.bind(self._connection, request)
            else:
                self._pool.release(self._connection)
        else:
            self.abandon()

    def take_stream(self) -> tuple[Stream, bytes]:
        """Give up the connection after a 101: return its stream and what came behind."""
        self.over = True
        stream = self._connection.stream
        assert stream is not None
        early = self._connection.take_received()
        self._connection.stream = None
        return stream, bytes(early)

    def abandon(self) -> None:
        """End the exchange, closing the connection; nothing happens if it is over."""
        if self.over:
            return
        self.over = True
        self._stop_expecting()
        if self._invitation is not None:
            self._invite_no_more()
        if self._upload is not None and not self._upload.ready():
            self._upload.kill(block=False)
            # Half a body must not pass for a whole one, nor wait in buffers to be read.
            self._connection.reset()
        else:
            self._connection.close()

    # -- silence of the target

    def _expect_target(self) -> None:
        if self._timeout is not None:
            error = TargetTimeout(f"target was silent for {self._timeout:g} s")
            self._request.limit_wait(self._timeout, error)

    def _stop_expecting(self) -> None:
        if self._timeout is not None:
            self._request.end_wait()


def whole_body(head: ResponseHead, body: Buffer) -> Iterable[bytes]:
    """Return a body that has arrived, as the server is to treat it.

    It would give a list a length; there is to be none where the target's chunks or its
    answer to HEAD had none.
    """
    if isinstance(body, memoryview):
        return BufferedBody(piece for piece in (body,))
    return [body] if head.section.content_length is not None else iter((body,))
