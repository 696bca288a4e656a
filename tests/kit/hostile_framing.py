"""Requests that are longer for one reader than for another."""

from __future__ import annotations

from collections.abc import Iterable

from tests.kit.hostile_cases import Case, forwarded, message, passed, refused

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
        ("a request as a trailer", "5\r\nabcde\r\n0\r\nGET: /x HTTP/1.1\r\nHost: b\r\n\r\n"),
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
    forged = ["X.Forwarded.For: 1", "X'Forwarded`Host: b", "Transfer.Encoding: chunked"]
    raw = message("GET / HTTP/1.1", "Host: a", *forged, "Content~Length: 9", "Keep|Alive: 1")
    yield passed("hop by hop: forged with other characters", raw, GET)
    takes = ["TE: trailers"]
    for name, lines, goes_on in [
        ("as it should be", ["Connection: TE", *takes], True),
        ("among others", ["TE: gzip;q=0.5, Trailers", "Connection: close, te"], True),
        ("of somebody behind", takes, False),
        ("of somebody behind, too", ["Connection: x", *takes], False),
        ("without trailers", ["Connection: TE", "TE: gzip"], False),
        ("of no such name", ["Connection: TE", "TE: x-trailers"], False),
        ("that is only named", ["Connection: TE"], False),
    ]:
        close = any("close" in line for line in lines)
        raw = message("GET / HTTP/1.1", "Host: a", *lines)
        seen = GET.replace(b"\r\n\r\n", b"\r\nConnection: TE\r\nTE: trailers\r\n\r\n")
        yield Case(f"hop by hop: TE {name}", raw, (200,), seen if goes_on else GET, closed=close)
