"""What answers are made of: their header fields, and whole ones to what is refused."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from http.client import responses as REASONS

from chp_gevent.http.errors import WireError
from chp_gevent.http.h1.fields import ResponseFields, serialise_fields
from chp_gevent.http.h1.heads import Buffer, RequestHead

Headers = list[tuple[str, str]]

UNTIL_END = float("inf")
"""The length of a body that nobody has told: it ends with its last chunk, or the connection."""


class BufferedBody:
    """The body of an answer in ``buffers``, some of which may be views of larger ones.

    This package's server sends them as they are, which saves copies; whoever else iterates,
    as middleware may, gets bytes (PEP 3333).
    """

    __slots__ = ("buffers",)

    def __init__(self, buffers: Generator[Buffer, None, None]) -> None:
        self.buffers = buffers

    def __iter__(self) -> Iterator[bytes]:
        return map(bytes, self.buffers)

    def close(self) -> None:
        """Say that no more is wanted."""
        self.buffers.close()


def response_framing(
    request: RequestHead, status: str, fields: ResponseFields, result: Iterable[bytes]
) -> tuple[bytes, bool, float]:
    """Decide how an answer's body is framed (RFC 9112, 6.3).

    ``result`` is what the application returned: a list has a length, if the fields give it no
    other. Returns the end of the head, whether the body is sent in chunks, and how many bytes
    of a body there are to be: ``UNTIL_END`` for as many as come.
    """
    has_no_length = status.startswith(("204", "304"))
    has_body = not has_no_length and request.method != "HEAD"
    length = fields.content_length
    if length is not None:
        return b"\r\n", False, length if has_body else 0
    if isinstance(result, list) and not has_no_length:
        length = sum(map(len, result))
        return b"Content-Length: %d\r\n\r\n" % length, False, length if has_body else 0
    if not has_body:
        return b"\r\n", False, 0
    if request.http_1_0:
        return b"\r\n", False, UNTIL_END
    return b"Transfer-Encoding: chunked\r\n\r\n", True, UNTIL_END


def error_response(error: WireError, date_line: bytes, *, explained: bool) -> bytes:
    """Return the last answer of a connection, to a request that must not be acted upon."""
    reason = REASONS.get(error.status, "Bad Request")
    fields, body = [("Connection", "close")], b""
    if explained:
        fields.append(("Content-Type", "text/plain"))
        body = f"{reason}: {error}\n".encode("latin-1", "replace")
    fields.append(("Content-Length", str(len(body))))
    start = f"HTTP/1.1 {error.status} {reason}\r\n".encode("latin-1")
    return start + date_line + serialise_fields(fields) + b"\r\n" + body
