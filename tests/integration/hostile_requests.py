"""Requests of attackers, and what may become of each.

Each case is sent on a connection of its own to a server whose only route leads to one
target. It is refused, and nothing of it reaches the target; or it is legal, and the target
receives exactly the bytes that are listed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Bytes of a client, the statuses that answer them, and the bytes that the target gets."""

    name: str
    raw: bytes
    statuses: tuple[int, ...]
    seen: bytes = b""
    closed: bool = False


def message(*lines: str, body: str = "") -> bytes:
    """Return the bytes of a request with these lines."""
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def forwarded(
    *lines: str, host: str | None = "a", port: str = "80", coding: bool = False, body: str = ""
) -> bytes:
    """Return a request as it is forwarded: with its Host and X-Forwarded-* added."""
    first, *others = lines
    added = [f"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Port: {port}\r\nX-Forwarded-Proto: http"]
    added.append(f"X-Forwarded-Host: {host}")
    if coding:
        added.append("Transfer-Encoding: chunked")
    return message(first, f"Host: {host}", *others, *added, body=body)


def refused(name: str, raw: bytes, status: int = 400) -> Case:
    """A request that is answered with ``status``; the connection is closed."""
    return Case(name, raw, (status,), closed=True)


def passed(name: str, raw: bytes, seen: bytes) -> Case:
    """A request that the target answers with 200; the connection stays open."""
    return Case(name, raw, (200,), seen)


GET = forwarded("GET / HTTP/1.1")
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
WELL_CODED = "5\r\nabcde\r\n0\r\n\r\n"


def framing() -> Iterable[Case]:
    """Bodies of doubtful length: in each there is a request for whoever counts otherwise."""
    length, chunks = "Content-Length: 5", "Transfer-Encoding: chunked"
    doubtful = [
        [length, chunks],
        [chunks, length],
        ["Content-Length: 0", chunks],
        [chunks, "Content-Length: 0"],
        [chunks, "content-length: 44"],
        [length, "Transfer-Encoding: identity"],
        [length, "Transfer-Encoding:"],
        [length, "Transfer-Encoding: xchunked"],
        [length, length],
        [length, "Content-Length: 6"],
        ["Content-Length: 0", length],
        [length, "content-length: 5"],
        ["Content-Length: 5, 5"],
        ["Content-Length: 5,6"],
        ["Content-Length: 0,5"],
        ["Content-Length: 5 5"],
        ["Content-Length: +5"],
        ["Content-Length: -5"],
        ["Content-Length: -1"],
        ["Content-Length: 0x5"],
        ["Content-Length: 5a"],
        ["Content-Length: 5.0"],
        ["Content-Length: 1e1"],
        ["Content-Length: 1_0"],
        ["Content-Length: \xb2"],
        ["Content-Length: five"],
        ["Content-Length:"],
        ['Content-Length: "5"'],
        ["Content-Length: 5;"],
        ["Content-Length: 9999999999999999999"],
        ["Content-Length: 18446744073709551621"],
        ["Content-Length: 4294967301" + "0" * 200],
        ["Content-Length : 5"],
        ["Content-Length\t: 5"],
        ["Content-Length: 5\x00"],
        ["Content-Length:\x0b5"],
        ["Content-Length: \n5"],
        ["Content-Length: 5\r\n "],
        ["X: y", " Content-Length: 5"],
        ["Transfer-Encoding: gzip"],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked, gzip"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: identity, chunked"],
        ["Transfer-Encoding: chunked, chunked"],
        ["Transfer-Encoding: ,chunked"],
        ["Transfer-Encoding: chunked,"],
        ["Transfer-Encoding: chunked;a=b"],
        ["Transfer-Encoding: chunked a"],
        ["Transfer-Encoding: 'chunked'"],
        ['Transfer-Encoding: "chunked"'],
        ["Transfer-Encoding: chunkedx"],
        ["Transfer-Encoding: \xa0chunked"],
        ["Transfer-Encoding: chunk\u017fed".encode().decode("latin-1")],
        ["Transfer-Encoding:"],
        [chunks, chunks],
        [chunks, "Transfer-Encoding: identity"],
        ["Transfer-Encoding: identity", chunks],
        ["Transfer-Encoding: x", "Transfer-encoding: chunked"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding\t: chunked"],
        ["Transfer-Encoding\x00: chunked"],
        ["Transfer-Encoding\x0b: chunked"],
        ["Transfer\x7fEncoding: chunked"],
        ["Transfer-Encoding:\x0bchunked"],
        ["Transfer-Encoding: \x00chunked"],
        ["Transfer-Encoding: chunked\x0c"],
        ["Transfer-Encoding: \n chunked"],
        ["Transfer-Encoding:\r\n chunked"],
        ["X: y", " Transfer-Encoding: chunked"],
        ["X: y\nTransfer-Encoding: chunked"],
        ["X: y\rTransfer-Encoding: chunked"],
        ["X: y\n\rTransfer-Encoding: chunked"],
        ["X: y\r\r\nTransfer-Encoding: chunked"],
        [length, "X: y\nTransfer-Encoding: chunked"],
    ]
    for lines in doubtful:
        raw = message("POST / HTTP/1.1", "Host: a", *lines, body="0\r\n\r\n" + SMUGGLED)
        yield refused(f"framing: {' + '.join(lines)[:80]}", raw)
    old = message("POST / HTTP/1.0", "Host: a", chunks, body=WELL_CODED)
    yield refused("framing: chunks in HTTP/1.0", old)
    old = message("POST / HTTP/1.0", "Connection: keep-alive", chunks, length, body=WELL_CODED)
    yield refused("framing: chunks and a length in HTTP/1.0", old)


def chunks() -> Iterable[Case]:
    """Malformed chunks: of the sizes, extensions, ends and trailers."""
    for coded in [
        "5 \r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "+5\r\nabcde\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "5h\r\nabcde\r\n0\r\n\r\n",
        "5,5\r\nabcde\r\n0\r\n\r\n",
        "\xb5\r\nabcde\r\n0\r\n\r\n",
        "5\x00\r\nabcde\r\n0\r\n\r\n",
        "5\nabcde\n0\n\n",
        "5\rabcde\r0\r\r",
        "5\r\r\nabcde\r\n0\r\n\r\n",
        "\r\n5\r\nabcde\r\n0\r\n\r\n",
        "10000000000000005\r\nabcde\r\n0\r\n\r\n",
        "fffffffffffffffffb\r\nabcde\r\n0\r\n\r\n",
        "00000000000000000005\r\nabcde\r\n0\r\n\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\r\nabcde\r0\r\n\r\n",
        "5\r\nabcde\r\n\r\n0\r\n\r\n",
        "5;\r\nabcde\r\n0\r\n\r\n",
        "5; a=b\r\nabcde\r\n0\r\n\r\n",
        "5;a=b c\r\nabcde\r\n0\r\n\r\n",
        '5;a="b\r\nabcde\r\n0\r\n\r\n',
        "5;a\nbc\r\nabcde\r\n0\r\n\r\n",
        "5;a\x00\r\nabcde\r\n0\r\n\r\n",
        "5;" + "a" * 2000 + "\r\nabcde\r\n0\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nX: y\x00\r\n\r\n",
        "0\r\nX: y\nZ: y\r\n\r\n",
        "0\r\n" + SMUGGLED,
    ]:
        raw = message("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", body=coded)
        yield refused(f"chunks: {coded[:40]!r}", raw)
    trailers = "0\r\n" + "X: y\r\n" * 4000 + "\r\n"
    raw = message("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", body=trailers)
    yield refused("chunks: a trailer section too large", raw, 431)


def header_lines() -> Iterable[Case]:
    """Header lines that some parser reads as two, as none, or under another name."""
    for line in [
        "X : y",
        "X\t: y",
        " X: y",
        "\tX: y",
        "X: y\r\n z",
        "X: y\r\n\tz",
        "X",
        ": y",
        "X y",
        "X\x00: y",
        "X\x01: y",
        "X\x7f: y",
        "X\x80: y",
        "X\xe9: y",
        "X\xa0: y",
        "X\r: y",
        "X\n: y",
        "X;: y",
        "X(y): z",
        'X"y": z',
        "X/y: z",
        "X@y: z",
        "X,Y: z",
        "X: y\x00",
        "X: \x00y",
        "X: y\x01z",
        "X: y\x08z",
        "X: y\x0bz",
        "X: y\x0cz",
        "X: y\x1b[2Jz",
        "X: y\x7fz",
        "X: y\rz",
        "X: y\nz",
        "X: y\nHost: b",
        "X: y\rHost: b",
        "X: y\n\nGET /smuggled HTTP/1.1",
        "X: y\r\r\nZ: y",
        "Cookie: a=b\r\n ; c=d",
    ]:
        yield refused(f"header: {line!r}", message("GET / HTTP/1.1", "Host: a", line))


def hosts() -> Iterable[Case]:
    """Host headers and absolute targets that name more than one host, or none."""
    for lines in [
        [],
        ["Host: a", "Host: a"],
        ["Host: a", "Host: b"],
        ["Host: a", "host: "],
        ["Host: a, b"],
        ["Host: a,b"],
        ["Host: a b"],
        ["Host: a/b"],
        ["Host: a@b"],
        ["Host: a?b"],
        ["Host: a#b"],
        ["Host: a\\b"],
        ["Host: a:b"],
        ["Host: a:80:80"],
        ["Host: [::1"],
        ["Host: ::1"],
        ["Host: http://a"],
        ["Host: a\xe9"],
        ["Host: a\x00b"],
        ["Host : a"],
        [" Host: a"],
        ["Host: a\r\n b"],
    ]:
        yield refused(f"host: {lines}", message("GET / HTTP/1.1", *lines))
    yield refused("host: two in HTTP/1.0", message("GET / HTTP/1.0", "Host: a", "Host: b"))
    for target in [
        "http://b/",
        "http://a:81/",
        "https://a:80/",
        "http://a.b/",
        "http://b@a/",
        "http://a@b/",
        "http:///",
        "http://?a",
        "http://a\\@b/",
        "http:/a",
        "ftp://a/",
        "ws://a/",
        "file:///etc/passwd",
    ]:
        raw = message(f"GET {target} HTTP/1.1", "Host: a")
        yield refused(f"host: target {target}", raw)
    for target, asked in [
        ("http://a/b?c", "/b?c"),
        ("HTTP://A:80", "/"),
        ("http://a?b", "/?b"),
        ("http://a//b/../c", "//b/../c"),
    ]:
        raw = message(f"GET {target} HTTP/1.1", "Host: a")
        yield passed(f"host: target {target}", raw, forwarded(f"GET {asked} HTTP/1.1"))


def request_lines() -> Iterable[Case]:
    """Request lines with too many words or too few, and other protocols."""
    for line in [
        "GET",
        "GET /",
        "GET  HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET  / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/\tHTTP/1.1",
        "GET / a HTTP/1.1",
        "GET /\ta HTTP/1.1",
        "GET /\x00 HTTP/1.1",
        "GET /\x1b HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /\n HTTP/1.1",
        "GET /\rX: HTTP/1.1",
        "GET /%0a\nX HTTP/1.1",
        "G:T / HTTP/1.1",
        "G\x00T / HTTP/1.1",
        "G\xc9T / HTTP/1.1",
        '"GET" / HTTP/1.1',
        "GET a HTTP/1.1",
        "GET ../etc HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET \\ HTTP/1.1",
        "GET %2f HTTP/1.1",
        "GET * HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET / HTTP/0.9",
        "GET / HTTP/1",
        "GET / HTTP/1.01",
        "GET / HTTP/01.1",
        "GET / HTTP/1.1\x0b",
        "GET / HTTP/2.0",
        "GET / HTTP/3",
        "GET / http/1.1",
        "GET / HTTPS/1.1",
        "OPTIONS / RTSP/1.0",
        "INVITE sip:a@b SIP/2.0",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2",
        "EHLO a",
        "SSH-2.0-OpenSSH_9.6",
    ]:
        yield refused(f"request line: {line!r}", message(line, "Host: a"))
    yield refused("request line: minor version", message("GET / HTTP/1.2", "Host: a"), 505)
    for target in ["a:443", "a", "/", "http://a/", "*"]:
        raw = message(f"CONNECT {target} HTTP/1.1", "Host: a")
        yield refused(f"request line: CONNECT {target}", raw, 405)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    yield refused("request line: HTTP/2 preface", preface)
    hello = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(100)) + b"\r\n\r\n"
    yield refused("request line: TLS handshake", hello)
    yield refused("request line: none", b"\r\n\r\n")
    yield refused("request line: a header in its place", message("Host: a"))
    yield refused("request line: ends with LF only", b"GET / HTTP/1.1\nHost: a\r\n\r\n")
    yield refused("request line: ends with CR only", b"GET / HTTP/1.1\rHost: a\r\n\r\n")
    yield refused("request line: byte order mark", b"\xef\xbb\xbf" + message("GET / HTTP/1.1"))
    yield passed(
        "request line: an empty one before it", b"\r\n" + message("GET / HTTP/1.1", "Host: a"), GET
    )
    yield passed(
        "request line: OPTIONS *",
        message("OPTIONS * HTTP/1.1", "Host: a"),
        forwarded("OPTIONS * HTTP/1.1"),
    )


def limits() -> Iterable[Case]:
    """Heads past a limit, complete and not."""
    line, host = "GET / HTTP/1.1", "Host: a"
    yield refused("limit: target", message(f"GET /{'a' * 17_000} HTTP/1.1", host), 414)
    yield refused("limit: target without an end", b"GET /" + b"a" * 20_000, 414)
    yield refused("limit: method without an end", b"G" * 20_000, 414)
    yield refused("limit: one header", message(line, host, f"X: {'y' * 70_000}"), 431)
    yield refused("limit: header name", message(line, host, f"{'X' * 70_000}: y"), 431)
    yield refused("limit: a header without an end", message(line, host)[:-2] + b"X" * 70_000, 431)
    yield refused("limit: number of headers", message(line, host, *["X: y"] * 128), 431)
    yield refused("limit: headers and headers", message(line, host, *["X: yyyyy"] * 9_000), 431)


def upgrades() -> Iterable[Case]:
    """Upgrades that hide a body, or another protocol."""
    ask = ["Connection: Upgrade", "Upgrade: websocket"]
    body = {"Content-Length: 5": "abcde", "Transfer-Encoding: chunked": WELL_CODED}
    for line, content in body.items():
        raw = message("GET / HTTP/1.1", "Host: a", *ask, line, body=content)
        yield refused(f"upgrade: with a body, {line}", raw)
        raw = message("POST / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: h2c", line)
        yield refused(f"upgrade: to h2c with a body, {line}", raw + content.encode())
    h2c = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"]
    for name, line, asked in [
        ("to h2c", "GET / HTTP/1.1", h2c),
        ("to TLS", "OPTIONS / HTTP/1.1", ["Connection: upgrade", "Upgrade: TLS/1.0"]),
        ("without Connection", "GET / HTTP/1.1", ["Upgrade: websocket"]),
        ("without Upgrade", "GET / HTTP/1.1", ["Connection: Upgrade"]),
        ("by POST", "POST / HTTP/1.1", ask),
        ("to two protocols", "GET / HTTP/1.1", ["Connection: upgrade", "Upgrade: websocket, h2c"]),
    ]:
        yield passed(f"upgrade: {name}", message(line, "Host: a", *asked), forwarded(line))
    declined = forwarded("GET /ws HTTP/1.1").replace(b"-Proto: http\r\n", b"-Proto: ws\r\n")
    declined = declined.replace(
        b"X-Forwarded-Host: a\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    )
    yield Case(
        "upgrade: declined, and a request where frames would be",
        message("GET /ws HTTP/1.1", "Host: a", *ask) + message("GET / HTTP/1.1", "Host: a"),
        (200, 200),
        declined + GET,
    )


def legal_bodies() -> Iterable[Case]:
    """Bodies that must stay bodies, whatever is in them and whoever sends them."""
    content = SMUGGLED
    size = f"Content-Length: {len(content)}"
    coded = f"{len(content):x}\r\n{content}\r\n0\r\n\r\n"
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "TRACE", "PROPFIND", "BREW"]:
        line = f"{method} / HTTP/1.1"
        raw = message(line, "Host: a", size, body=content)
        yield passed(f"body: {method} with a length", raw, forwarded(line, size, body=content))
        raw = message(line, "Host: a", "Transfer-Encoding: chunked", body=coded)
        seen = forwarded(line, coding=True, body=coded)
        yield passed(f"body: {method} with chunks", raw, seen)
    line = "POST / HTTP/1.1"
    coding = "Transfer-Encoding: chunked"
    for name, sent in [
        ("extensions", '5;a;b=c;d="\\";"\r\nabcde\r\n0;x\r\n\r\n'),
        ("leading zeros", "0005\r\nabcde\r\n000\r\n\r\n"),
        ("an upper-case size", "1\r\na\r\n4\r\nbcde\r\n0\r\n\r\n"),
        ("a framing field behind it", "5\r\nabcde\r\n0\r\nContent-Length: 9\r\nHost: b\r\n\r\n"),
        ("a forged trailer", "5\r\nabcde\r\n0\r\nX-Forwarded-For: 1\r\nCookie: a\r\n\r\n"),
    ]:
        raw = message(line, "Host: a", coding, body=sent)
        yield passed(
            f"body: chunks with {name}", raw, forwarded(line, coding=True, body=WELL_CODED)
        )
    raw = message(line, "Host: a", "transfer-encoding:\tCHUNKED\t", body=WELL_CODED)
    yield passed("body: another CHUNKED", raw, forwarded(line, coding=True, body=WELL_CODED))
    raw = message(line, "Host: a", "content-length:00005  ", body="abcde")
    yield passed(
        "body: a length with zeros", raw, forwarded(line, "content-length: 5", body="abcde")
    )
    for name in ["Transfer_Encoding: chunked", "Content_Length: 9", "transfer_encoding: chunked"]:
        raw = message(line, "Host: a", name, "Content-Length: 5", body="abcde")
        seen = forwarded(line, "Content-Length: 5", body="abcde")
        yield passed(f"body: {name}", raw, seen)
    raw = message("POST / HTTP/1.0", "Content-Length: 5", "Host: a", body="abcde" + SMUGGLED)
    seen = forwarded("POST / HTTP/1.1", "Content-Length: 5", body="abcde").replace(
        b"Host: a\r\nContent-Length: 5", b"Content-Length: 5\r\nHost: a", 1
    )
    yield Case("body: HTTP/1.0 and a request behind it", raw, (200,), seen, closed=True)


def hop_by_hop() -> Iterable[Case]:
    """Connection headers that would take away what the target, or we, rely on."""
    post = "POST / HTTP/1.1"
    for named in [
        "Content-Length",
        "Host",
        "keep-alive, content-length, host",
        "X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto",
        "Connection",
        "Transfer-Encoding",
    ]:
        raw = message(post, "Host: a", "Content-Length: 5", f"Connection: {named}", body="abcde")
        seen = forwarded(post, "Content-Length: 5", body="abcde")
        yield passed(f"hop by hop: {named}", raw, seen)
    raw = message(
        post,
        "Host: a",
        "Transfer-Encoding: chunked",
        "Connection: Transfer-Encoding",
        body=WELL_CODED,
    )
    seen = forwarded(post, coding=True, body=WELL_CODED)
    yield passed("hop by hop: the coding that is used", raw, seen)
    own = ["Keep-Alive: 1", "Proxy-Connection: close", "Proxy-Authorization: x", "TE: gzip", "X: y"]
    raw = message("GET / HTTP/1.1", "Host: a", *own)
    yield passed("hop by hop: all of them", raw, forwarded("GET / HTTP/1.1", "X: y"))
    raw = message("GET / HTTP/1.1", "Host: a", "Connection: x,,X-A ;,\x80", "X-A: 1", "x: 2")
    yield passed("hop by hop: nonsense", raw, forwarded("GET / HTTP/1.1", "X-A: 1"))
    raw = message("GET / HTTP/1.1", "Host: a", "X_Forwarded_For: 1", "X-Forwarded_Host: b")
    yield passed("hop by hop: forged for CGI targets", raw, GET)


def paths() -> Iterable[Case]:
    """Paths that are forwarded as sent, and those that have no meaning."""
    for path in [
        "//b/c",
        "/\\..\\",
        "/../../etc/passwd",
        "/a/../../b",
        "/%2e%2e/%2E./b",
        "/..;/b",
        "/a%2f..%2fb",
        "/%00",
        "/a%0d%0aX:%20y",
        "/%5c..%5cb",
        "/a;b=c",
        "/?a=http://b/?c#d",
        "/a#b",
        '/<script>"{}|^`',
        "/" + "a/" * 2000,
        "/caf\xc3\xa9",
        "/a%25%32%65",
        "/@b",
        "/:80",
        "/http://b/",
        "/a?%",
    ]:
        line = f"GET {path} HTTP/1.1"
        yield passed(f"path: {path[:40]}", message(line, "Host: a"), forwarded(line))
    for path in ["//", "//a:b/", "/%", "/%zz", "/a%f", "/%ff", "/%c0%ae", "/%ed%a0%80"]:
        yield Case(f"path: {path}", message(f"GET {path} HTTP/1.1", "Host: a"), (500,))


def pipelines() -> Iterable[Case]:
    """Garbage behind a good request: the one is answered, the other refused."""
    good = message("GET / HTTP/1.1", "Host: a")
    post = message("POST / HTTP/1.1", "Host: a", "Content-Length: 5", body="abcde")
    posted = forwarded("POST / HTTP/1.1", "Content-Length: 5", body="abcde")
    coded = message("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", body=WELL_CODED)
    recoded = forwarded("POST / HTTP/1.1", coding=True, body=WELL_CODED)
    garbage = {
        "nonsense": b"nonsense\r\n\r\n",
        "NULs": bytes(8) + b"\r\n\r\n",
        "LF": b"\n" + good,
        "a space": b" " + good,
        "the rest of a chunk": b"0\r\n\r\n" + good,
        "more than the length": b"fgh" + good[3:].replace(b" ", b"_"),
        "a bad header": message("GET /x HTTP/1.1", "Host : a"),
        "a second body": message("POST /x HTTP/1.1", "Host: a", "Content-Length: 1, 1", body="a"),
    }
    for name, behind in garbage.items():
        yield Case(f"pipeline: {name} behind GET", good + behind, (200, 400), GET, closed=True)
        yield Case(f"pipeline: {name} behind POST", post + behind, (200, 400), posted, closed=True)
        yield Case(
            f"pipeline: {name} behind chunks", coded + behind, (200, 400), recoded, closed=True
        )
    yield Case("pipeline: CRLF between", good + b"\r\n" + good, (200, 200), GET + GET)
    yield Case(
        "pipeline: CONNECT",
        good + message("CONNECT a:1 HTTP/1.1", "Host: a"),
        (200, 405),
        GET,
        closed=True,
    )
    yield Case(
        "pipeline: behind the health check",
        message("GET /_chp_healthz HTTP/1.1", "Host: a") + b"x\r\n\r\n",
        (200, 400),
        closed=True,
    )
    last = message("GET / HTTP/1.1", "Host: a", "Connection: close")
    yield Case(
        "pipeline: behind the last request", last + SMUGGLED.encode(), (200,), GET, closed=True
    )
    no_coding = message("POST / HTTP/1.1", "Host: a", "TransferEncoding: chunked", body=WELL_CODED)
    seen = forwarded("POST / HTTP/1.1", "TransferEncoding: chunked")
    yield Case("pipeline: chunks that none announced", no_coding, (200, 400), seen, closed=True)


CASES = [
    case
    for group in (
        framing,
        chunks,
        header_lines,
        hosts,
        request_lines,
        limits,
        upgrades,
        legal_bodies,
        hop_by_hop,
        paths,
        pipelines,
    )
    for case in group()
]
