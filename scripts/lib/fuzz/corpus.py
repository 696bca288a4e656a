"""What mutation begins with: ordinary messages, and those that the tests know to be hostile."""

from __future__ import annotations

from tests.kit import hostile_requests, hostile_responses

_CHUNKS = b"5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\n\r\n"

REQUESTS = [
    b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /%s HTTP/1.0\r\n\r\n",
    b"HEAD /%s HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
    b"OPTIONS /%s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
    b"PUT /%s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKS,
    b"POST /%s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nabcde",
    b"POST /%s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    b"5\r\nabcde\r\n0\r\nX: y\r\n\r\n",
    b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 52\r\n\r\n"
    b"GET /inside-%s HTTP/1.1\r\nHost: i\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    b"POST /%s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Length: 5\r\n\r\nabcde",
]
"""Requests; ``%s`` is where the name of the request goes."""

RESPONSES = [
    b"HTTP/1.1 200 OK\r\nX-Id: %s\r\nContent-Length: 18\r\n\r\n%s",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n%s\r\n1;x=y\r\na\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n%s\r\n0\r\nX-Id: %s\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s until the end",
    b"HTTP/1.0 200 OK\r\n\r\n%s until the end",
    b"HTTP/1.1 304 Not Modified\r\nETag: %s\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nX-Id: %s\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: %s\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n%s",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n%s",
    b"HTTP/1.1 302 Found\r\nLocation: http://a/%s\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%s",
]
"""Responses; ``%s`` is where the name of the request goes, 18 bytes."""


def request_corpus() -> list[bytes]:
    """Return ordinary and hostile requests, each with ``%s`` for its name."""
    hostile = [case.raw for case in hostile_requests.CASES if len(case.raw) < 4096]
    return [*REQUESTS, *(raw.replace(b"%", b"%%").replace(b" /", b" /%s", 1) for raw in hostile)]


def response_corpus() -> list[bytes]:
    """Return ordinary and hostile responses; the former have ``%s`` for the request's name."""
    hostile = [case.raw for case in hostile_responses.CASES if len(case.raw) < 4096]
    return [*RESPONSES, *(raw.replace(b"%", b"%%") for raw in hostile)]


# Most of what is hostile is refused, whatever becomes of it: of the rest more is forwarded.
_TIMES = 20


def requests_to_send() -> list[bytes]:
    """Return the requests of the corpus, as often as clients should begin with each."""
    return [*REQUESTS * _TIMES, *request_corpus()]


def responses_to_send() -> list[bytes]:
    """Return the responses of the corpus, as often as the target should begin with each."""
    return [*RESPONSES * _TIMES, *response_corpus()]


def named(template: bytes, name: bytes) -> bytes:
    """Return a message of a corpus with a request's name."""
    return template.replace(b"%s", name).replace(b"%%", b"%")
