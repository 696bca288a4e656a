"""The body of a request, read as it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from chp_gevent.http.errors import ClientGone
from chp_gevent.http.h1.bodies import BodyDecoder, body_decoder
from chp_gevent.http.h1.heads import RequestHead
from chp_gevent.http.stream import Stream


def receive_piece(stream: Stream, decoder: BodyDecoder) -> Any:
    """Return the next part of a body, maybe empty; None when the stream has ended.

    Waits for it, and in any case lets others be served in between. Raises ``OSError`` and
    ``WireError``.
    """
    stream.give_way()
    if decoder.backlog:
        return decoder.feed(b"")
    data = stream.read()
    return decoder.feed(data) if data else None


class NoBody:
    """``wsgi.input`` of a request without a body; see :class:`RequestBody`."""

    __slots__ = ()

    complete: Final = True
    rest: Final = b""
    arrivals: Final = 0

    def take_if_complete(self) -> bytes:
        """Return nothing: all of it is here."""
        return b""

    def put_back(self, body: bytes) -> None:
        """Take the same back."""

    def pieces(self) -> Iterator[bytes]:
        """Yield nothing."""
        return iter(())

    def read(self, size: int = -1) -> bytes:
        """Return the end of the body."""
        return b""

    def readline(self, size: int = -1) -> bytes:
        """Return the end of the body."""
        return b""

    def readlines(self, hint: int = -1) -> list[bytes]:
        """Return no lines."""
        return []

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


NO_BODY: Final = NoBody()
"""The body of all requests without one."""


class RequestBody:
    """``wsgi.input`` (PEP 3333), and more: pieces as they arrive.

    ``head`` is that of a request with a body, ``received`` what came behind it. Once the body is
    ``complete``, that is, has arrived to its last byte, ``rest`` is what came behind it: the start
    of the next request. ``arrivals`` counts the pieces that came after the head.
    """

    __slots__ = (
        "_decoder",
        "_head",
        "_pending",
        "_start",
        "_stream",
        "arrivals",
        "complete",
        "rest",
    )

    def __init__(self, stream: Stream, head: RequestHead, received: bytes) -> None:
        self._stream = stream
        self._head: RequestHead | None = head
        self._decoder: BodyDecoder = body_decoder(head)
        # What is decoded and not read begins at ``_start``: it is not copied for each line.
        self._pending = self._decoder.feed(received) if received else b""
        self._start = 0
        self.complete, self.rest = self._decoder.done, self._decoder.rest
        self.arrivals = 0

    def put_back(self, body: bytes) -> None:
        """Take back what :meth:`take_if_complete` has given."""
        self._pending, self._start = body, 0

    def take_if_complete(self) -> bytes | None:
        """Return the unread body if all of it is here already, else None."""
        return self._take() if self.complete else None

    def _take(self, size: int = -1) -> bytes:
        """Return so many of the bytes that are decoded and not read, all if negative."""
        pending, start = self._pending, self._start
        if 0 <= size < len(pending) - start:
            self._start = start + size
            return pending[start : self._start]
        self._pending, self._start = b"", 0
        return pending[start:]

    def pieces(self) -> Iterator[bytes]:
        """Yield the body piece by piece as it arrives.

        A client that expects ``100 Continue`` gets it from whoever calls this.
        Raises ``WireError`` when it is malformed, ``ClientGone`` when the client leaves.
        """
        pending = self._take()
        if pending:
            yield pending
        while not self.complete:
            piece = self._receive()
            if piece:
                yield piece

    def _receive(self) -> bytes:
        decoder = self._decoder
        try:
            piece: bytes | None = receive_piece(self._stream, decoder)
        except OSError as error:
            raise ClientGone from error
        if piece is None:
            raise ClientGone
        self.arrivals += 1
        self.complete, self.rest = decoder.done, decoder.rest
        return piece

    def _invite(self) -> None:
        """Tell a client that waits for it to send the body (PEP 3333; RFC 9110, 10.1.1)."""
        head, self._head = self._head, None
        if head is None or head.http_1_0 or self.complete:
            return
        if "100-continue" in (value.lower() for value in head.known_values.get("expect", ())):
            try:
                self._stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError as error:
                raise ClientGone from error

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes of the body, less only at its end; all of it if negative.

        Raises as :meth:`pieces` does.
        """
        self._invite()
        pieces = [self._take(size)]
        missing = size - len(pieces[0])
        while not self.complete and (size < 0 or missing > 0):
            self._pending = self._receive()
            pieces.append(self._take(missing if size >= 0 else -1))
            missing -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: int = -1) -> bytes:
        """Return the next line with its end, at most ``size`` bytes of it."""
        self._invite()
        pieces: list[bytes] = []
        missing = size
        while True:
            pending, start = self._pending, self._start
            most = len(pending) if size < 0 else start + missing
            end = pending.find(b"\n", start, most) + 1 or most
            piece = self._take(end - start)
            pieces.append(piece)
            missing -= len(piece)
            if missing == 0 or self.complete or piece.endswith(b"\n"):
                break
            self._pending = self._receive()
        return b"".join(pieces)

    def readlines(self, hint: int = -1) -> list[bytes]:
        """Return the remaining lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")
