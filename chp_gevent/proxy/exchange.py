"""One request sent to a target, and its response streamed back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
from gevent import getcurrent

from chp_gevent.http.answer import BufferedBody
from chp_gevent.http.body import ClientGone
from chp_gevent.http.connection import ClientConnection
from chp_gevent.http.framing import BodyDecoder, chunk, last_chunk
from chp_gevent.http.wire import Buffer, ResponseHead
from chp_gevent.proxy.headers import response_headers, trailer_headers
from chp_gevent.proxy.target_connection import (
    TargetConnection,
    TargetError,
    TargetTimeout,
    read_body,
    response_body,
)

# RFC 9110, 9.2.2
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))

# Seconds that a target has to say 100 Continue to a client which waits for that; then it gets
# one from us. Many servers never do (PHP's, WEBrick), and some clients wait for ever.
_CONTINUE_AFTER = 1.0


class Exchange:
    """A request and its response on one connection to a target.

    ``on_upload`` and ``on_download`` are called with the size of each piece of a body; the
    former may be None for a request without one.
    ``timeout`` is how many seconds the target may be silent, None for ever.

    Attributes:
        over: whether the connection has been given back or closed.
    """

    __slots__ = (
        "_body",
        "_client",
        "_connection",
        "_greenlet",
        "_invitation",
        "_invited",
        "_on_download",
        "_on_upload",
        "_pool",
        "_timeout",
        "_upload",
        "over",
    )

    def __init__(
        self,
        client: ClientConnection,
        pool: Any,
        timeout: float | None,
        on_upload: Callable[[int], None] | None,
        on_download: Callable[[int], None],
    ) -> None:
        self._client = client
        self._pool = pool
        bound = client.bound
        self._connection: TargetConnection = (
            pool.acquire() if bound is None else pool.acquire_bound(client)
        )
        self._timeout = timeout
        self._on_upload = on_upload
        self._on_download = on_download
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
        head = self._client.head
        if not stale or isinstance(error, TargetTimeout) or head.method not in _IDEMPOTENT:
            return False
        if head.has_body:
            if self._body is None:
                return False
            self._client.body.put_back(self._body)
        return True

    # -- there

    def request(self, head: bytes, *, upgrade: bool) -> ResponseHead:
        """Send the request and return the head of the response.

        ``upgrade`` says whether the target may answer 101.
        A body that has not arrived completely is sent while the response is awaited.
        Raises ``TargetError``, ``WireError`` (the client's body is malformed) and
        ``ClientGone``; the exchange is over then.
        """
        client = self._client
        try:
            if self._timeout is not None:
                self._expect_target()
            self._send(head)
            response = self._connection.read_response(client.head.method, self._on_interim)
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
            self._client.inform(response.status, response.reason, headers)
        self._expect_target()

    def _send(self, head: bytes) -> None:
        if not self._client.head.has_body:
            self._connection.send_head(head)
            return
        self._body = body = self._client.body.take_if_complete()
        if body is None:
            self._connection.send_head(head)
            if "expect" in self._client.head.noted:
                self._invite_in_time()
            self._upload = gevent.spawn(self._send_body)
        elif self._client.head.chunked:
            payload = chunk(body) if body else ()
            self._connection.send_head(head, *payload, last_chunk())
        else:
            self._connection.send_head(head, body)
        if body and self._on_upload is not None:
            self._on_upload(len(body))

    def _send_body(self) -> None:
        """Runs in a greenlet of its own: the response may begin before the body ends."""
        chunked = self._client.head.chunked
        try:
            for piece in self._client.body.pieces():
                if self._invitation is not None:
                    self._invite_no_more()
                self._connection.write(*(chunk(piece) if chunked else (piece,)))
                if self._on_upload is not None:
                    self._on_upload(len(piece))
                if self._client.wait_deadline != float("inf"):
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
            self._invited = self._client.invite()

    def _invite_no_more(self) -> None:
        if self._invitation is not None:
            self._invitation.stop()
            self._invitation.close()
            self._invitation = None

    # -- and back

    def response(self, head: ResponseHead) -> Iterable[Buffer]:
        """Return the body of the response, to be sent as it comes.

        If the exchange is over then, the body is here already, and an iterable for WSGI.
        Iterating raises ``TargetError`` when the body is cut short or malformed.
        """
        received = self._connection.take_received()
        if head.content_length == len(received) and not head.chunked:
            # All here already, as small answers are: no decoder is needed (saves 0.8 µs).
            self._on_download(len(received))
            self._finish(head)
            return _whole(head, received)
        try:
            decoder, received = response_body(head, received)
        except TargetError:
            self.abandon()
            raise
        if decoder.done:
            self._on_download(len(received))
            self._finish(head, decoder)
            return _whole(head, received)
        return self._stream_response(head, decoder, received)

    def _stream_response(
        self, head: ResponseHead, decoder: BodyDecoder, received: Buffer
    ) -> Iterator[Buffer]:
        try:
            self._on_download(len(received))
            yield received  # even if empty: the head goes out now
            self._expect_target()
            for piece in read_body(self._connection, decoder):
                self._stop_expecting()
                self._on_download(len(piece))
                yield piece
                del piece
                self._expect_target()
            self._stop_expecting()
            self._finish(head, decoder)
        finally:
            self.abandon()

    def _finish(self, head: ResponseHead, decoder: BodyDecoder | None = None) -> None:
        """Give the connection back if it can carry another request."""
        client = self._client
        clean = True
        if decoder is not None:
            clean = not decoder.rest
            if decoder.trailers:
                client.response_trailers = trailer_headers(decoder.trailers)
        upload = self._upload
        sent = upload is None or upload.ready()
        if sent and clean and head.keep_alive and client.body.complete:
            self.over = True
            if self._connection.bound or client.head.section.authenticates_connection:
                self._pool.bind(self._connection, client)
            else:
                self._pool.release(self._connection)
        else:
            self.abandon()

    def take_streams(self) -> tuple[Any, bytes]:
        """Give up the connection after a 101: return its stream and what came behind."""
        self.over = True
        stream = self._connection.stream
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
            self._client.limit_wait(self._timeout, error)

    def _stop_expecting(self) -> None:
        if self._timeout is not None:
            self._client.limit_wait(None)


def _whole(head: ResponseHead, body: Buffer) -> Iterable[Buffer]:
    """Return a body that has arrived, as the server is to treat it.

    It would give a list a length; there is to be none where the target's chunks or its
    answer to HEAD had none.
    """
    if isinstance(body, memoryview):
        return BufferedBody(piece for piece in (body,))
    return [body] if head.section.content_length is not None else iter((body,))
