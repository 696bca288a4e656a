"""Requests of attackers, and what may become of each.

Each case is sent on a connection of its own to a server whose only route leads to one
target. It is refused, and nothing of it reaches the target; or it is legal, and the target
receives exactly the bytes that are listed here.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.kit.hostile_cases import Case, forwarded, message, passed, refused
from tests.kit.hostile_framing import (
    GET,
    SMUGGLED,
    WELL_CODED,
    chunks,
    framing,
    hop_by_hop,
    legal_bodies,
)


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
        "http://a#b",
        "http://a:80#/b",
    ]:
        raw = message(f"GET {target} HTTP/1.1", "Host: a")
        yield refused(f"host: target {target}", raw)
    for target, asked in [
        ("http://a/b?c", "/b?c"),
        ("HTTP://A:80", "/"),
        ("http://a?b", "/?b"),
        ("http://a//b/../c", "//b/../c"),
        ("http://a/%/%E9", "/%/%E9"),
        ("http://a", "/"),
    ]:
        raw = message(f"GET {target} HTTP/1.1", "Host: a")
        yield passed(f"host: target {target}", raw, forwarded(f"GET {asked} HTTP/1.1"))
    for target, asked in [("http://a", "*"), ("http://a:80", "*"), ("http://a/", "/"), ("*", "*")]:
        raw = message(f"OPTIONS {target} HTTP/1.1", "Host: a")
        yield passed(f"host: OPTIONS {target}", raw, forwarded(f"OPTIONS {asked} HTTP/1.1"))


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
    # Ordinary requests: the target is asked for no upgrade, so that their bodies stay bodies.
    length, coding = "Content-Length: 5", "Transfer-Encoding: chunked"
    for protocol in ("websocket", "h2c", "h2c, websocket", "TLS/1.0"):
        offer = ["Connection: upgrade", f"Upgrade: {protocol}"]
        for line in ("GET / HTTP/1.1", "POST / HTTP/1.1"):
            name = f"upgrade: {protocol} with a body, {line}"
            raw = message(line, "Host: a", *offer, length, body="abcde")
            yield passed(f"{name}, {length}", raw, forwarded(line, length, body="abcde"))
            raw = message(line, "Host: a", *offer, coding, body=WELL_CODED)
            seen = forwarded(line, coding=True, body=WELL_CODED)
            yield passed(f"{name}, {coding}", raw, seen)
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
        "//",
        "//a:b/",
        "//a@/",
        "//[",
        f"//a:{'0' * 5000}/",
        f"//a:{'9' * 5000}/",
        "/%",
        "/%zz",
        "/a%f",
        "/%ff",
        "/\xff",
        "/%c0%ae%c0%ae/",
        "/%ed%a0%80",
        "/%fe\xff%",
        "/%%32%65%2",
        "/%u002e",
        "/caf%E9/..%5c%",
    ]:
        line = f"GET {path} HTTP/1.1"
        yield passed(f"path: {path[:40]}", message(line, "Host: a"), forwarded(line))


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
