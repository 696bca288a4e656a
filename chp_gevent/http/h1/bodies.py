"""The bodies of HTTP/1.1 messages on the wire (RFC 9112, 6 and 7). Pure, as ``wire`` is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol

from chp_gevent.http.errors import IncompleteMessage, WireError
from chp_gevent.http.h1.fields import TOKEN_PATTERN, Field, parse_trailers
from chp_gevent.http.h1.heads import HEAD_END, Buffer, RequestHead, ResponseHead, serialise_head

# RFC 9112, 7.1 and 7.1.1, without the white space that a recipient may let pass.
_CHUNK_SIZE = re.compile(
    (
        rf"([0-9A-Fa-f]{{1,15}})(?:;{TOKEN_PATTERN}(?:=(?:{TOKEN_PATTERN}|"
        r'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"))?)*'
    ).encode()
)
# What nearly all chunks begin with.
_PLAIN_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_CHUNK_SIZE_BEGINNING = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;|\r?\Z)")

# A chunk-size line; generous, since extensions are dropped anyway.
_MAX_CHUNK_LINE = 1024
# Chunks decoded by one call. A read may hold 43,000 of one byte, which take 50 ms and more.
_CHUNKS_AT_ONCE = 256
# A trailer section; what gRPC and checksums need is 1 KB.
_MAX_TRAILERS = 16384


class BodyDecoder(Protocol):
    """Takes what arrives after a head and gives back the body in it.

    ``done`` is True when the message is complete; ``rest`` then has the bytes behind it,
    ``trailers`` the trailer fields. ``backlog`` says that part of what arrived has not been
    decoded yet, since that would take too long: ``feed(b"")`` goes on with it.
    """

    backlog: bool
    done: bool
    rest: Any
    trailers: list[Field]

    def feed(self, data: Any) -> Any:
        """Return the part of the body in ``data``, maybe empty. Raises ``WireError``.

        Of bytes it is bytes, of a memoryview (not with a chunked body) a memoryview.
        """

    def end(self) -> None:
        """Say that the connection has ended. Raises ``IncompleteMessage`` if too early."""


class LengthDecoder:
    """A body of ``Content-Length`` bytes (RFC 9112, 6.2)."""

    __slots__ = ("_remaining", "backlog", "done", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.backlog = False
        self.done = length == 0
        self.rest: Any = b""
        self.trailers: list[Field] = []

    def feed(self, data: Any) -> Any:
        """See ``BodyDecoder``."""
        remaining = self._remaining
        size = len(data)
        if size < remaining:
            self._remaining = remaining - size
            return data
        self._remaining = 0
        self.done = True
        if size == remaining:
            return data
        self.rest = data[remaining:]
        return data[:remaining]

    def end(self) -> None:
        """See ``BodyDecoder``."""
        if not self.done:
            raise IncompleteMessage(f"connection ended {self._remaining} bytes too early")


class EofDecoder:
    """A response body that lasts until the connection ends (RFC 9112, 6.3, rule 8)."""

    __slots__ = ("backlog", "done", "rest", "trailers")

    def __init__(self) -> None:
        self.backlog = False
        self.done = False
        self.rest: Any = b""
        self.trailers: list[Field] = []

    def feed(self, data: Any) -> Any:
        """See ``BodyDecoder``."""
        return data

    def end(self) -> None:
        """See ``BodyDecoder``."""
        self.done = True


class ChunkedDecoder:
    """A chunked body (RFC 9112, 7.1). Extensions are dropped, trailers kept."""

    __slots__ = (
        "_buffer",
        "_in_chunk",
        "_in_trailers",
        "_position",
        "_remaining",
        "backlog",
        "done",
        "rest",
        "trailers",
    )

    def __init__(self) -> None:
        # What has arrived and is not decoded begins at a position in the buffer.
        self._buffer = b""
        self._position = 0
        self._remaining = 0
        self._in_chunk = False
        self._in_trailers = False
        self.backlog = False
        self.done = False
        self.rest = b""
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> bytes:
        """See ``BodyDecoder``."""
        position = 0
        if self._buffer:
            if data:
                data = self._buffer[self._position :] + data
            else:
                data, position = self._buffer, self._position
            self._buffer = b""
            self._position = 0
        pieces: list[bytes] = []
        self.backlog = False
        while not self.done and position < len(data):
            if self._in_trailers:
                position = self._feed_trailers(data, position)
            elif self._in_chunk:
                position = self._feed_chunk(data, position, pieces)
            elif len(pieces) < _CHUNKS_AT_ONCE:
                position = self._feed_whole_chunks(data, position, pieces)
                if position < len(data):
                    position = self._feed_size(data, position)
            else:
                self.backlog = True
                self._buffer, self._position = data, position
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _feed_whole_chunks(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take chunks that are here from size to end: 1 µs each, the careful way 2.

        None that ends the body; what is malformed, too, is left to the careful way.
        """
        match_size_line = _PLAIN_SIZE_LINE.match
        for _ in range(_CHUNKS_AT_ONCE - len(pieces)):
            match = match_size_line(data, position)
            if match is None:
                break
            start = match.end()
            end = start + int(match[1], 16)
            if end == start or not data.startswith(b"\r\n", end):
                break
            pieces.append(data[start:end])
            position = end + 2
        return position

    def _feed_size(self, data: bytes, position: int) -> int:
        line_end = data.find(b"\r\n", position, position + _MAX_CHUNK_LINE)
        if line_end < 0:
            if (
                len(data) - position >= _MAX_CHUNK_LINE
                or b"\n" in data[position:]
                or not _CHUNK_SIZE_BEGINNING.match(data, position)
            ):
                raise WireError("malformed chunk size")
            self._buffer = data[position:]
            return len(data)
        match = _CHUNK_SIZE.fullmatch(data, position, line_end)
        if match is None:
            raise WireError("malformed chunk size")
        self._remaining = int(match[1], 16)
        self._in_trailers = self._remaining == 0
        self._in_chunk = not self._in_trailers
        return line_end + 2

    def _feed_chunk(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        remaining = self._remaining
        available = len(data) - position
        if remaining:
            taken = min(remaining, available)
            pieces.append(data[position : position + taken])
            self._remaining = remaining - taken
            return position + taken
        if data[position : position + 2] == b"\r\n":
            self._in_chunk = False
            return position + 2
        if data[position : position + 1] == b"\r" and available == 1:
            self._buffer = b"\r"
            return len(data)
        raise WireError("chunk longer than its size")

    def _feed_trailers(self, data: bytes, position: int) -> int:
        if data.startswith(b"\r\n", position):
            block, size = b"", 2
        else:
            end = data.find(HEAD_END, position, position + _MAX_TRAILERS)
            if end < 0:
                if len(data) - position >= _MAX_TRAILERS:
                    raise WireError("trailer section too large", 431)
                self._buffer = data[position:]
                return len(data)
            block, size = data[position:end], end - position + len(HEAD_END)
        if block:
            self.trailers = parse_trailers(block)
        self.done = True
        self.rest = data[position + size :]
        return len(data)

    def end(self) -> None:
        """See ``BodyDecoder``."""
        if not self.done:
            raise IncompleteMessage("connection ended before the last chunk")


def body_decoder(head: RequestHead | ResponseHead) -> BodyDecoder:
    """Return the decoder for the body that follows ``head``."""
    if head.chunked:
        return ChunkedDecoder()
    if head.content_length is not None:
        return LengthDecoder(head.content_length)
    if isinstance(head, ResponseHead):
        return EofDecoder()
    return LengthDecoder(0)


def chunk(data: Buffer) -> tuple[bytes, Buffer, bytes]:
    """Return ``data`` (not empty) as one chunk: the parts it consists of."""
    return b"%x\r\n" % len(data), data, b"\r\n"


def last_chunk(trailers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Return the end of a chunked body, with its trailer section."""
    return serialise_head("0", trailers)
