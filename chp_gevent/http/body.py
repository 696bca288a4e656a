"""The body of a request, read as it arrives."""

from __future__ import annotations

from collections.abc import Iterator

from chp_gevent.http.framing import BodyDecoder, body_decoder
from chp_gevent.http.section import Field
from chp_gevent.http.stream import Stream
from chp_gevent.http.wire import RequestHead


class ClientGone(BaseException):
    """The client has left: there is nobody to answer.

    Not an ``Exception``, so that no handler on the way takes it for a failure of the
    application.
    """


class RequestBody:
    """``wsgi.input`` (PEP 3333), and more: pieces as they arrive.

    ``received`` is what came behind the head. Once the body is ``complete``, that is, has
    arrived to its last byte, ``rest`` is what came behind it: the start of the next request.
    Until then ``arrivals`` counts the pieces that came.
    """

    __slots__ = ("_decoder", "_head", "_pending", "_stream", "arrivals", "complete", "rest")

    def __init__(self, stream: Stream, head: RequestHead, received: bytes) -> None:
        self._stream = stream
        self._head: RequestHead | None = head
        self._decoder: BodyDecoder | None = None
        self._pending = b""
        # Most requests have none, and need no decoder (saves 1 µs).
        self.complete = not head.has_body
        self.rest = received
        if head.has_body:
            self.rest = b""
            self.arrivals = 0
            self._decoder = body_decoder(head)
            if received:
                self._pending = self._decode(received)

    def _decode(self, data: bytes) -> bytes:
        decoder = self._decoder
        assert decoder is not None
        piece = decoder.feed(data)
        self.complete = decoder.done
        self.rest = decoder.rest
        return piece

    @property
    def consumed(self) -> bool:
        """Whether the body has arrived and has been read to its last byte."""
        return self.complete and not self._pending

    @property
    def trailers(self) -> list[Field]:
        """The trailer fields; known when the body is complete."""
        return self._decoder.trailers if self._decoder is not None else []

    def take_if_complete(self) -> bytes | None:
        """Return the unread body if all of it is here already, else None."""
        if not self.complete:
            return None
        pending, self._pending = self._pending, b""
        return pending

    def pieces(self) -> Iterator[bytes]:
        """Yield the body piece by piece as it arrives.

        A client that expects ``100 Continue`` gets it from whoever calls this.
        Raises ``WireError`` when it is malformed, ``ClientGone`` when the client leaves.
        """
        pending, self._pending = self._pending, b""
        if pending:
            yield pending
        while not self.complete:
            piece = self._receive()
            if piece:
                yield piece

    def _receive(self) -> bytes:
        try:
            data = self._stream.read()
        except OSError as error:
            raise ClientGone from error
        if not data:
            raise ClientGone
        self.arrivals += 1
        return self._decode(data)

    def _invite(self) -> None:
        """Tell a client that waits for it to send the body (PEP 3333; RFC 9110, 10.1.1)."""
        head, self._head = self._head, None
        if head is None or head.http_1_0 or self.complete:
            return
        if "100-continue" in (value.lower() for value in head.noted.get("expect", ())):
            try:
                self._stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError as error:
                raise ClientGone from error

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes of the body, less only at its end; all of it if negative.

        Raises as :meth:`pieces` does.
        """
        self._invite()
        pieces = [self._pending]
        available = len(self._pending)
        while not self.complete and (size < 0 or available < size):
            piece = self._receive()
            pieces.append(piece)
            available += len(piece)
        data = b"".join(pieces)
        if size < 0:
            size = len(data)
        self._pending = data[size:]
        return data[:size]

    def readline(self, size: int = -1) -> bytes:
        """Return the next line with its end, at most ``size`` bytes of it."""
        self._invite()
        pieces: list[bytes] = []
        length = 0
        while True:
            pending = self._pending
            end = pending.find(b"\n") + 1 or len(pending)
            if 0 <= size < length + end:
                end = size - length
            pieces.append(pending[:end])
            length += end
            self._pending = pending[end:]
            if length == size or pending[:end].endswith(b"\n"):
                break
            if self.complete:
                break
            self._pending = self._receive()
        return b"".join(pieces)

    def readlines(self, hint: int = -1) -> list[bytes]:
        """Return the remaining lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")
