"""What broken and malicious targets answer, and what may become of it.

Each case is the answer to the first request on a connection. A second request follows,
which the target answers properly: it must get that answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What the client gets."""

    REFUSED = "a 503 of the proxy"
    CUT = "the beginning, and then the end of its connection"
    BROKEN = "one of the two: it depends on what had been sent already"
    PASSED = "the answer"


class End(Enum):
    """What the target does with its connection after its answer."""

    OPEN = "keeps it open"
    FIN = "closes it"
    RST = "resets it"


@dataclass(frozen=True)
class Case:
    """Bytes of a target, how it ends, and the verdict; ``reusable`` is its connection after it."""

    name: str
    raw: bytes
    verdict: Verdict
    method: str = "GET"
    end: End = End.OPEN
    status: int = 200
    body: bytes = b""
    reusable: bool = False
    upgrade: bool = False


def message(*lines: str, body: str = "") -> bytes:
    """Return the bytes of a response with these lines."""
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


OK = "HTTP/1.1 200 OK"
CHUNKED = "Transfer-Encoding: chunked"
EVIL = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"


def status_lines() -> Iterable[Case]:
    """First lines that are none."""
    for line in [
        "",
        "OK",
        "200 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 -200 OK",
        "HTTP/1.1 2 00 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200\tOK",
        "HTTP/1.1 200OK",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "HTTP/1.1 200 O\x00K",
        "HTTP/1.1 200 OK\rSet-Cookie: evil=1",
        "HTTP/1.1 200 OK\nSet-Cookie: evil=1",
        "HTTP/0.9 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/2 200",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "RTSP/1.0 200 OK",
        "SSH-2.0-OpenSSH_9.6",
        "GET / HTTP/1.1",
    ]:
        raw = message(line, "Content-Length: 2", body="ok")
        yield Case(f"status line: {line!r}", raw, Verdict.REFUSED)
    for name, raw in {
        "HTTP/0.9": b"<html>ok</html>",
        "lines that end with LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "lines that end with CR": b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok",
        "TLS": b"\x15\x03\x01\x00\x02\x02\x16",
        "nothing": b"",
        "half a head": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        "a head but one byte": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r",
    }.items():
        yield Case(f"status line: {name}", raw, Verdict.REFUSED, end=End.FIN)
        yield Case(f"status line: {name}, reset", raw, Verdict.REFUSED, end=End.RST)


def header_lines() -> Iterable[Case]:
    """Header lines that some parser reads as two, as none, or under another name."""
    for line in [
        "X",
        "X : y",
        " X: y",
        ": y",
        "X y: z",
        "X\x00: y",
        "X: \x00",
        "X: y\x01z",
        "X: y\x1b[2Jz",
        "X: y\x7f",
        "X: y\r\n z",
        "X: y\rSet-Cookie: evil=1",
        "X: y\nSet-Cookie: evil=1",
        "X: y\n\nEVIL",
        "X: y\r\rEVIL",
        "X: y\r\r\nZ: y",
        "Set-Cookie : a=b",
        "Location: /\x0d/",
        "X\xe9: y",
    ]:
        raw = message(OK, "Content-Length: 2", line, body="ok")
        yield Case(f"header: {line!r}", raw, Verdict.REFUSED)
    many = ["Content-Length: 0", *["a:"] * 1000]
    yield Case("header: 1001 short ones", message(OK, *many), Verdict.REFUSED)
    yield Case("header: 1000 short ones", message(OK, *many[:-1]), Verdict.PASSED, reusable=True)
    endless = message(OK, *["X: " + "y" * 1000] * 300, "Content-Length: 0")
    yield Case("header: too many of them", endless, Verdict.REFUSED)
    yield Case("header: no end of them", endless[:-4], Verdict.REFUSED)
    yield Case("header: no end of one", message(OK)[:-2] + b"X" * 300_000, Verdict.REFUSED)


def framing() -> Iterable[Case]:
    """Lengths and codings of which there are too many, or the wrong ones."""
    for lines in [
        ["Content-Length: 2", CHUNKED],
        [CHUNKED, "Content-Length: 2"],
        ["Content-Length: 2", "Transfer-Encoding: identity"],
        ["Content-Length: 2", "Content-Length: 2"],
        ["Content-Length: 2", "Content-Length: 3"],
        ["Content-Length: 2, 2"],
        ["Content-Length: -2"],
        ["Content-Length: +2"],
        ["Content-Length: 0x2"],
        ["Content-Length: 2 2"],
        ["Content-Length: two"],
        ["Content-Length:"],
        ["Content-Length: 18446744073709551618"],
        ["Content-Length : 2"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked, chunked"],
        ["Transfer-Encoding: gzip"],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding:"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding:\x0bchunked"],
        [CHUNKED, CHUNKED],
    ]:
        raw = message(OK, *lines, body="2\r\nok\r\n0\r\n\r\n")
        yield Case(f"framing: {' + '.join(lines)}", raw, Verdict.REFUSED)
    raw = message("HTTP/1.0 200 OK", CHUNKED, body="2\r\nok\r\n0\r\n\r\n")
    yield Case("framing: chunks in HTTP/1.0", raw, Verdict.REFUSED)
    raw = message(OK, "Content-Length: 2, 2")
    yield Case("framing: two lengths to HEAD", raw, Verdict.REFUSED, method="HEAD")
    raw = message("HTTP/1.1 304 Not Modified", "Content-Length: 2", CHUNKED)
    yield Case("framing: both in a 304", raw, Verdict.REFUSED)


def chunks() -> Iterable[Case]:
    """Malformed chunks."""
    for coded in [
        "2 \r\nok\r\n0\r\n\r\n",
        "-2\r\nok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "\r\n2\r\nok\r\n0\r\n\r\n",
        "2\nok\n0\n\n",
        "2\r\nokay\r\n0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "fffffffffffffffff\r\nok\r\n0\r\n\r\n",
        "2;\x00\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\nX : y\r\n\r\n",
        "2\r\nok\r\n0\r\nX: y\nZ: y\r\n\r\n",
        "2\r\nok\r\n0\r\nX: y\x00\r\n\r\n",
        "2\r\nok\r\n0\r\n" + EVIL,
        "2\r\nok\r\nEVIL",
        "<html>",
        "0\r\n" + "X: y\r\n" * 4000,
    ]:
        yield Case(f"chunks: {coded[:40]!r}", message(OK, CHUNKED, body=coded), Verdict.BROKEN)


def cut_short() -> Iterable[Case]:
    """Bodies that end too early: never passed off as complete."""
    for name, raw in {
        "a length and nothing": message(OK, "Content-Length: 10"),
        "a length": message(OK, "Content-Length: 10", body="begun"),
        "a length but one byte": message(OK, "Content-Length: 10", body="123456789"),
        "HTTP/1.0 and a length": message("HTTP/1.0 200 OK", "Content-Length: 10", body="begun"),
        "an error page": message("HTTP/1.1 404 Not Found", "Content-Length: 10", body="begun"),
        "chunks and nothing": message(OK, CHUNKED),
        "chunks in a size": message(OK, CHUNKED, body="a"),
        "chunks behind a size": message(OK, CHUNKED, body="a\r\n"),
        "chunks in a chunk": message(OK, CHUNKED, body="a\r\nbegun"),
        "chunks behind a chunk": message(OK, CHUNKED, body="5\r\nbegun"),
        "chunks between chunks": message(OK, CHUNKED, body="5\r\nbegun\r\n"),
        "chunks behind the last": message(OK, CHUNKED, body="5\r\nbegun\r\n0\r\n"),
        "chunks in the trailers": message(OK, CHUNKED, body="5\r\nbegun\r\n0\r\nX: y\r\n"),
        "chunks but one byte": message(OK, CHUNKED, body="5\r\nbegun\r\n0\r\n\r"),
    }.items():
        yield Case(f"cut short: {name}", raw, Verdict.CUT, end=End.FIN)
        yield Case(f"cut short: {name}, reset", raw, Verdict.BROKEN, end=End.RST)
    until_end = message(OK, body="begun")
    yield Case("cut short: until the end, reset", until_end, Verdict.BROKEN, end=End.RST)


def too_much() -> Iterable[Case]:
    """More than the answer: the rest is nobody's answer, and the connection not used again."""
    sized, coded = "Content-Length: 2", "2\r\nok\r\n0\r\n\r\n"
    head = {"method": "HEAD", "body": b""}
    for name, raw, expected in [
        ("a length", message(OK, sized, body="ok" + EVIL), {"body": b"ok"}),
        ("a length of 0", message(OK, "Content-Length: 0", body=EVIL), {"body": b""}),
        ("one byte", message(OK, sized, body="ok\n"), {"body": b"ok"}),
        ("an empty line", message(OK, sized, body="ok\r\n"), {"body": b"ok"}),
        ("chunks", message(OK, CHUNKED, body=coded + EVIL), {"body": b"ok"}),
        ("chunks twice", message(OK, CHUNKED, body=coded * 2), {"body": b"ok"}),
        ("HEAD with a body", message(OK, sized, body="ok"), head),
        ("HEAD with chunks", message(OK, CHUNKED, body=coded), head),
        ("HEAD with an answer", message(OK, sized, body=EVIL), head),
        ("204 with a body", message("HTTP/1.1 204 X", sized, body="ok"), {"status": 204}),
        ("204 with chunks", message("HTTP/1.1 204 X", CHUNKED, body=coded), {"status": 204}),
        ("204 with an answer", message("HTTP/1.1 204 X", body=EVIL), {"status": 204}),
        ("304 with a body", message("HTTP/1.1 304 X", sized, body="ok"), {"status": 304}),
        ("304 with chunks", message("HTTP/1.1 304 X", CHUNKED, body=coded), {"status": 304}),
        ("a 205", message("HTTP/1.1 205 X", "Content-Length: 0", body=EVIL), {"status": 205}),
    ]:  # fmt: skip
        yield Case(f"too much: {name}", raw, Verdict.PASSED, **expected)  # type: ignore[arg-type]


def interim() -> Iterable[Case]:
    """Interim answers that never end, have bodies, or switch protocols unasked."""
    final = message(OK, "Content-Length: 2", body="ok")
    for name, raw, body in [
        ("100 that nobody asked for", message("HTTP/1.1 100 Continue") + final, b"ok"),
        ("several", message("HTTP/1.1 103 X", "Link: a") * 5 + final, b"ok"),
        ("with a length", message("HTTP/1.1 103 X", "Content-Length: 5") + final, b"ok"),
        ("with chunks", message("HTTP/1.1 102 X", CHUNKED) + final, b"ok"),
    ]:
        yield Case(f"interim: {name}", raw, Verdict.PASSED, body=body, reusable=True)
    asked = ["Connection: Upgrade", "Upgrade: websocket"]
    switching = "HTTP/1.1 101 Switching Protocols"
    for name, raw in {
        "with a body": message("HTTP/1.1 103 X", "Content-Length: 5", body="hello") + final,
        "malformed": message("HTTP/1.1 103 X", "Link : a") + final,
        "with two lengths": message("HTTP/1.1 103 X", "Content-Length: 1, 1") + final,
        "with an injected header": message("HTTP/1.1 103 X", "Link: a\nSet-Cookie: b") + final,
        "101 that nobody asked for": message(switching, *asked) + final,
        "101 behind a 100": message("HTTP/1.1 100 X") + message(switching, *asked),
    }.items():
        yield Case(f"interim: {name}", raw, Verdict.REFUSED)
    endless = message("HTTP/1.1 103 Early Hints", "Link: a") * 2000
    yield Case("interim: no end of them", endless, Verdict.REFUSED)
    yield Case("interim: only one", message("HTTP/1.1 100 X"), Verdict.REFUSED, end=End.FIN)
    for name, lines in {
        "a bare 101": [],
        "a 101 without Upgrade": ["Connection: Upgrade"],
        "a 101 without Connection": ["Upgrade: websocket"],
        "a 101 with a bad header": [*asked, "X : y"],
        "a 101 with an injected header": [*asked, "X: y\nSet-Cookie: evil=1"],
        "a 101 with both framings": [*asked, "Content-Length: 2", CHUNKED],
    }.items():
        raw = message(switching, *lines, body="\x81\x04EVIL")
        yield Case(f"upgrade: {name}", raw, Verdict.REFUSED, upgrade=True)


def legal() -> Iterable[Case]:
    """What looks strange and is allowed: passed on in canonical form."""
    ok: dict[str, bytes] = {"body": b"ok"}
    for name, raw in {
        "until the end": message(OK, body="ok"),
        "until the end of HTTP/1.0": message("HTTP/1.0 200 OK", body="ok"),
        "until the end, in spite of keep-alive": message(OK, "Connection: keep-alive", body="ok"),
        "no reason": message("HTTP/1.1 200", body="ok"),
    }.items():
        yield Case(f"legal: {name}", raw, Verdict.PASSED, end=End.FIN, **ok)  # type: ignore[arg-type]
    for name, raw in {
        "a length with zeros": message(OK, "content-length:  0002 ", body="ok"),
        "a length that Connection names": message(
            OK, "Content-Length: 2", "Connection: content-length", body="ok"
        ),
        "chunks with extensions": message(
            OK, "transfer-encoding: CHUNKED", body='02;a="b";c\r\nok\r\n000;d\r\n\r\n'
        ),
        "forged trailers": message(
            OK, CHUNKED, body="2\r\nok\r\n0\r\nContent-Length: 9\r\nSet-Cookie: evil=1\r\n\r\n"
        ),
        "an upgrade offered": message(
            OK, "Connection: upgrade", "Upgrade: h2c", "Content-Length: 2", body="ok"
        ),
    }.items():
        yield Case(f"legal: {name}", raw, Verdict.PASSED, body=b"ok", reusable=True)


CASES = [
    case
    for group in (
        status_lines,
        header_lines,
        framing,
        chunks,
        cut_short,
        too_much,
        interim,
        legal,
    )
    for case in group()
]
