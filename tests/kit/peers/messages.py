"""Reading HTTP/1.1 messages from a socket, byte-exact and with no mercy for bad framing."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

PIECE = 65536
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(;.*)?")


class BadMessage(Exception):
    """The bytes are no well-formed HTTP/1.1 message."""


class Incomplete(Exception):
    """The connection ended, or was reset, in the middle of a message.

    ``received`` holds what had come of the message until then.
    """

    def __init__(self, received: bytes, reason: str = "end of stream") -> None:
        super().__init__(f"{reason} after {len(received)} bytes: {received[-200:]!r}")
        self.received = received


class ByteSource:
    """A buffered reader over a socket that can remember every byte taken from it.

    Raises Incomplete when the stream ends too early, and lets TimeoutError through.
    """

    def __init__(self, sock: socket.socket, *, remember: bool = True) -> None:
        self.socket = sock
        self.remember = remember
        self.taken = bytearray()
        self._buffer = bytearray()

    def at_end(self) -> bool:
        """Wait for the next byte: true when the stream ends (or is reset) instead."""
        return not self._buffer and not self._fill()

    def until(self, delimiter: bytes) -> bytes:
        """Take everything up to and including ``delimiter``."""
        start = 0
        while True:
            found = self._buffer.find(delimiter, start)
            if found >= 0:
                return self._take(found + len(delimiter))
            start = max(0, len(self._buffer) - len(delimiter) + 1)
            if not self._fill():
                raise Incomplete(bytes(self._buffer))

    def pieces(self, length: int) -> Iterator[bytes]:
        """Take exactly ``length`` bytes, as they come."""
        while length:
            if not self._buffer and not self._fill():
                raise Incomplete(b"", f"end of stream with {length} bytes missing")
            piece = self._take(min(length, len(self._buffer)))
            length -= len(piece)
            yield piece

    def pieces_to_end(self) -> Iterator[bytes]:
        """Take everything until the stream ends."""
        while self._buffer or self._fill():
            yield self._take(len(self._buffer))

    def pending(self) -> bytes:
        """Return what has been received but not been taken yet."""
        return bytes(self._buffer)

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        if self.remember:
            self.taken += taken
        return taken

    def _fill(self) -> bool:
        try:
            received = self.socket.recv(PIECE)
        except (ConnectionError, ValueError):
            return False
        except TimeoutError:
            raise
        except OSError:
            # The owner closed the socket under us.
            return False
        self._buffer += received
        return bool(received)


@dataclass
class Head:
    """The start line and the header fields of a message, in order and case as received."""

    start: str
    headers: list[tuple[str, str]]
    raw: bytes

    def all(self, name: str) -> list[str]:
        """Return the values of every field called ``name`` (any case)."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """Return the value of the field ``name``, joined with commas; None if absent."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def names(self) -> list[str]:
        """Return the names of all fields in lower case and in order."""
        return [key.lower() for key, _ in self.headers]


@dataclass
class Request(Head):
    """A request as a target received it; ``body`` is decoded, ``raw`` is as on the wire."""

    pieces: list[bytes] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False
    connection: int = 0

    @property
    def body(self) -> bytes:
        """What has been received of it so far."""
        return b"".join(self.pieces)

    @property
    def method(self) -> str:
        """The method, e.g. ``GET``."""
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        """The request target, byte for byte (latin-1)."""
        return self.start.split(" ", 1)[1].rpartition(" ")[0]


@dataclass
class Response(Head):
    """A response as a client received it, with the 1xx responses that came before it."""

    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[Response] = field(default_factory=list)
    framing: str = "none"

    @property
    def version(self) -> str:
        """``HTTP/1.1`` or ``HTTP/1.0``."""
        return self.start.split(" ")[0]

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.start.split(" ")[1])

    @property
    def reason(self) -> str:
        """The reason phrase."""
        return self.start.split(" ", 2)[2] if self.start.count(" ") > 1 else ""


def read_head(source: ByteSource) -> Head:
    """Read a start line and header fields up to the empty line."""
    raw = source.until(b"\r\n\r\n")
    start, *lines = raw[:-4].decode("latin-1").split("\r\n")
    return Head(start, [_field(line) for line in lines], raw)


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or name != name.strip():
        raise BadMessage(f"header line {line!r}")
    return name, value.strip(" \t")


def request_framing(head: Head) -> str:
    """Return how the body of a request is delimited: length, chunked or none."""
    if (head.get("transfer-encoding") or "").lower().endswith("chunked"):
        return "chunked"
    return "length" if head.get("content-length") not in (None, "0") else "none"


def response_framing(head: Head, status: int, method: str) -> str:
    """Return how the body of a response is delimited: length, chunked, close or none."""
    if method == "HEAD" or status < 200 or status in (204, 304):
        return "none"
    if "chunked" in (head.get("transfer-encoding") or "").lower():
        return "chunked"
    return "close" if head.get("content-length") is None else "length"


def iter_body(
    source: ByteSource, head: Head, framing: str, trailers: list[tuple[str, str]]
) -> Iterator[bytes]:
    """Read a body piece by piece, decoded; append its trailer fields to ``trailers``."""
    if framing == "length":
        values = set(head.all("content-length"))
        if len(values) != 1 or not (length := values.pop()).isdigit():
            raise BadMessage(f"Content-Length {head.all('content-length')}")
        yield from source.pieces(int(length))
    elif framing == "chunked":
        yield from _iter_chunks(source, trailers)
    elif framing == "close":
        yield from source.pieces_to_end()


def _iter_chunks(source: ByteSource, trailers: list[tuple[str, str]]) -> Iterator[bytes]:
    while True:
        line = source.until(b"\r\n")
        matched = CHUNK_SIZE.fullmatch(line[:-2])
        if matched is None:
            raise BadMessage(f"chunk size line {line!r}")
        size = int(matched[1], 16)
        if not size:
            break
        yield from source.pieces(size)
        if b"".join(source.pieces(2)) != b"\r\n":
            raise BadMessage("no CRLF after a chunk")
    while (line := source.until(b"\r\n")) != b"\r\n":
        trailers.append(_field(line[:-2].decode("latin-1")))
