"""Cases about what targets reply, upgrades included."""

from __future__ import annotations

from scripts.lib.compare.case import Case, request
from tests.kit.peers.raw_client import chunked
from tests.kit.peers.raw_target import Exchange, Reply, response, then_close, then_reset

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"

STATUSES = [
    "200 OK", "200 Fine", "201 Created", "202 Accepted", "206 Partial Content", "299 Own",
    "300 Multiple Choices", "301 Moved Permanently", "302 Found", "307 Temporary Redirect",
    "400 Bad Request", "401 Unauthorized", "404 Not Found", "418 I'm a teapot", "429 Slow Down",
    "500 Internal Server Error", "503 Service Unavailable", "599 Own", "999 Far Out",
]  # fmt: skip

HEADERS: list[list[tuple[str, str]]] = [
    [("Content-Type", "text/html; charset=utf-8")],
    [("content-TYPE", "text/html")],
    [("Content-Type", "a/b"), ("Content-Type", "c/d")],
    [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")],
    [("Location", "http://proxy.test/x")],
    [("Date", "Sun, 06 Nov 1994 08:49:37 GMT")],
    [("Server", "own/1.0")],
    [("Connection", "close")],
    [("Connection", "keep-alive")],
    [("Connection", "X-Named"), ("X-Named", "1")],
    [("Keep-Alive", "timeout=99")],
    [("Proxy-Authenticate", "Basic")],
    [("WWW-Authenticate", "Basic"), ("WWW-Authenticate", "Bearer")],
    [("Upgrade", "h2c")],
    [("Trailer", "X-After")],
    [("Via", "1.1 x")],
    [("Vary", "a"), ("Vary", "b")],
    [("X-Twice", "1"), ("x-twice", "2")],
    [("X-Empty", "")],
    [("X-Latin", "caf\xe9")],
    [("ETag", '"x"'), ("Cache-Control", "max-age=3"), ("X-zeta", "1"), ("Age", "1")],
    [("Content-Encoding", "gzip")],
    [("X-Long", "x" * 7000)],
    [("Strict-Transport-Security", "max-age=1")],
]


def raw(text: str, *, close: bool = True) -> Reply:
    """Return a reply of these lines, after which the target closes."""
    data = text.replace("\n", "\r\n").encode("latin-1")
    return then_close(data) if close else data


REPLIES: dict[str, Reply] = {
    "empty": response(b""),
    "200 KB": response(bytes(200_000)),
    "chunked": CHUNKED + b"\r\n" + chunked(b"abc", b"de"),
    "chunked, empty": CHUNKED + b"\r\n" + chunked(),
    "chunked, 200 KB": CHUNKED + b"\r\n" + chunked(*[bytes(50_000)] * 4),
    "chunk extension": CHUNKED + b"\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"Trailer: X-After\r\n\r\n" + chunked(b"a", trailers="X-After: 1\r\n"),
    "no length": raw("HTTP/1.1 200 OK\n\nbody"),
    "no length, empty": raw("HTTP/1.1 200 OK\n\n"),
    "HTTP/1.0": raw("HTTP/1.0 200 OK\n\nbody"),
    "HTTP/1.0 with a length": raw("HTTP/1.0 200 OK\nContent-Length: 4\n\nbody"),
    "204": raw("HTTP/1.1 204 No Content\n\n", close=False),
    "204 with a length": raw("HTTP/1.1 204 No Content\nContent-Length: 0\n\n", close=False),
    "304": raw('HTTP/1.1 304 Not Modified\nETag: "x"\n\n', close=False),
    "304 with a length": raw("HTTP/1.1 304 Not Modified\nContent-Length: 9\n\n", close=False),
    "205": raw("HTTP/1.1 205 Reset Content\nContent-Length: 0\n\n", close=False),
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + response(),
    "102 first": b"HTTP/1.1 102 Processing\r\n\r\n" + response(),
    "103 first": HINTS + response(),
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "empty reason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
    "line feeds only": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "closed at once": then_close(b""),
    "reset at once": then_reset(),
    "half a head": then_close(b"HTTP/1.1 200 OK\r\nX-"),
    "no HTTP": then_close(b"220 smtp.test ESMTP\r\n"),
    "bad status": then_close(b"HTTP/1.1 abc OK\r\n\r\n"),
    "bad length": then_close(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc"),
    "two lengths": then_close(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    ),
    "length and chunked": then_close(CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n"),
    "space before the colon": then_close(b"HTTP/1.1 200 OK\r\nX-A : 1\r\n\r\n"),
    "cut in a body with a length": then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
    "cut in a chunk": then_close(CHUNKED + b"\r\n9\r\nabc"),
    "cut between chunks": then_close(CHUNKED + b"\r\n3\r\nabc\r\n"),
    "more than its length": then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokMORE"),
    "bad chunk": then_close(CHUNKED + b"\r\n3\r\nabc\r\nxyz\r\n"),
    "1500 header fields": raw("HTTP/1.1 204 No Content\n" + "a: 1\n" * 1500 + "\n", close=False),
    "unasked 101": then_close(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
}

HEAD_REPLIES = {
    "with a length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
    "chunked": CHUNKED + b"\r\n",
    "without a length": b"HTTP/1.1 200 OK\r\n\r\n",
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n",
}

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: a, b",
)


def switches(exchange: Exchange) -> None:
    """Accept the upgrade, say something, and close."""
    exchange.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: a\r\n\r\n"
        b"\x81\x02hi"
    )
    exchange.close()


def _upgrades() -> list[Case]:
    forwarded = request("/t", *UPGRADE, "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https")
    return [
        Case("upgrade: accepted", request("/t/ws?x=%20", *UPGRADE), switches),
        Case("upgrade: behind another proxy", forwarded, switches),
        Case("upgrade: refused", request("/t", *UPGRADE), response(b"no", "403 Forbidden")),
        Case("upgrade: refused, chunked", request("/t", *UPGRADE),
             CHUNKED.replace(b"200 OK", b"403 Forbidden") + b"\r\n" + chunked(b"no")),
        Case("upgrade: without a route", request("/nowhere", *UPGRADE)),
        Case("upgrade: to the dead", request("/dead", *UPGRADE)),
        Case("upgrade: target closes", request("/t", *UPGRADE), then_close(b"")),
        Case("upgrade: with POST", request("/t", *UPGRADE, method="POST"), switches),
        Case("upgrade: to something else", request("/t", "Connection: Upgrade", "Upgrade: own"),
             switches),
    ]  # fmt: skip


CASES = [
    *(Case(f"answer: {status}", request(), response(status=status)) for status in STATUSES),
    *(
        Case(f"answer header: {' | '.join(map(': '.join, pairs))[:60]}", request(),
             response(headers=pairs))
        for pairs in HEADERS
    ),
    *(Case(f"answer: {name}", request(), reply) for name, reply in REPLIES.items()),
    *(
        Case(f"answer to HEAD: {name}", request(method="HEAD"), reply)
        for name, reply in HEAD_REPLIES.items()
    ),
    *_upgrades(),
]  # fmt: skip
