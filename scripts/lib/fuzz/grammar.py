"""Requests put together from parts, each of them right, legal but odd, or, now and then, wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence

_METHODS = [b"GET", b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"X-ANY"]
_WRONG_METHODS = [b"CONNECT", b"G T", b"GET\0", b""]
_TARGETS = [
    b"/%s",
    b"/%s",
    b"/%s?a=b&c",
    b"//%s",
    b"/../%s/./%%2e%%2e/",
    b"/%s%%2fa%%00%%ff",
    b"/%s#fragment",
    b"/%s\\a",
    b"http://a/%s",
    b"HTTP://a:80/%s",
]
_WRONG_TARGETS = [b"http://b/%s", b"http://a@b/%s", b"*", b"%s", b"a:80", b"/%s /"]
_VERSIONS = [b"HTTP/1.1"] * 6 + [b"HTTP/1.0"]
_WRONG_VERSIONS = [b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b""]
_HOSTS = [b"Host: a", b"Host: a", b"host:a", b"HOST:\ta "]
_WRONG_HOSTS = [b"Host: a\r\nHost: a", b"Host: a, b", b"Host: u@a", b"Host : a", b"X: y"]
_FIELDS = [
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Content-Length",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"Connection: Upgrade\r\nUpgrade: h2c, websocket",
    b"Connection: TE\r\nTE: trailers",
    b"Expect: 100-continue",
    b"Cookie: a=%s",
    b"X-Forwarded-For: 192.0.2.1",
    b"Content_Length: 3",
    b"Transfer_Encoding: chunked",
    b"X:",
    b"X: \x80\xff",
]
_WRONG_FIELDS = [
    b"Expect: 200-ok",
    b"X: y\r\n folded",
    b"X: a\0b",
    b"X: a\rb",
    b"X: a\nContent-Length: 3",
    b"X y",
    b"Content-Length\x0b: 3",
]
_LENGTHS = [b"Content-Length: ", b"content-length:", b"Content-Length:\t", b"Content-Length: 0"]
_WRONG_LENGTHS = [b"Content-Length : ", b"Content-Length: +", b"Content-Length: 0x"]
_CODINGS = [
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:chunked",
    b"transfer-encoding:\tCHUNKED\t",
]
_WRONG_CODINGS = [
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
]
_SIZES = [b"%x", b"%X", b"0%x", b"0000%x"]
_WRONG_SIZES = [b"0x%x", b"-%x", b" %x", b"1_%x"]
_EXTENSIONS = [b"", b"", b"", b";a", b";a=b", b';a="b;c"', b';a="\\\r"']
_WRONG_EXTENSIONS = [b" ", b" ;a", b";", b";a=\n", b"\t"]
_ENDS = [b"\r\n"]
_WRONG_ENDS = [b"\n", b"\r", b"\r\r\n", b"", b"\r\n\r\n"]
_TRAILERS = [b"", b"", b"X: y\r\n", b"Host: b\r\n", b"Content-Length: 3\r\n"]
_WRONG_TRAILERS = [b"X y\r\n", b" folded\r\n", b"X: y\n"]
# What becomes a request where a body ends too early.
_INSIDE = b"GET /inside-%s HTTP/1.1\r\nHost: a\r\n\r\n"


class Grammar:
    """Makes requests; ``%s`` is where their name goes, as in those of a corpus."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def request(self) -> bytes:
        """Return a request, which may contradict itself, and maybe something behind it."""
        pick = self._pick
        first = b" ".join(
            (
                pick(_METHODS, _WRONG_METHODS),
                pick(_TARGETS, _WRONG_TARGETS),
                pick(_VERSIONS, _WRONG_VERSIONS),
            )
        )
        lines = [pick(_HOSTS, _WRONG_HOSTS)]
        lines += [pick(_FIELDS, _WRONG_FIELDS) for _ in range(self._chance.choice((0, 0, 1, 2)))]
        framing, body = self._framing()
        for line in framing:
            lines.insert(self._chance.randint(0, len(lines)), line)
        end = pick(_ENDS, _WRONG_ENDS)
        return first + end + b"\r\n".join([*lines, b"", body])

    def _pick(self, right: Sequence[bytes], wrong: Sequence[bytes]) -> bytes:
        return self._chance.choice(wrong if self._chance.random() < 0.04 else right)

    def _framing(self) -> tuple[list[bytes], bytes]:
        """Return lines that say where a body ends, and one that may have been meant."""
        choice = self._chance.choice
        body = choice((b"", b"abcde", _INSIDE, b"0\r\n\r\n" + _INSIDE))
        length = self._pick(_LENGTHS, _WRONG_LENGTHS) + b"%d" % self._size(body)
        coding = self._pick(_CODINGS, _WRONG_CODINGS)
        kind = self._chance.random()
        if kind < 0.25:
            return [], choice((b"", b"", body))
        if kind < 0.6:
            return [length], body
        if kind < 0.95:
            return [coding], self._chunks(body)
        if kind < 0.98:
            return [coding, length], choice((body, self._chunks(body)))
        return [length, b"Content-Length: %d" % choice((0, 5, self._size(body)))], body

    def _size(self, body: bytes) -> int:
        """Return how long a body is, or nearly so: a name takes 18 bytes, in place of two."""
        size = len(body) + 16 * body.count(b"%s")
        return max(0, size + self._chance.choice((0, 0, 0, 0, 0, 0, -1, 1, 5)))

    def _chunks(self, body: bytes) -> bytes:
        pick = self._pick
        coded = b""
        if body:
            coded = pick(_SIZES, _WRONG_SIZES) % self._size(body) + self._size_end() + body
            coded += pick(_ENDS, _WRONG_ENDS)
        last = pick([b"0", b"00"], [b"", b"-0"]) + self._size_end()
        return coded + last + pick(_TRAILERS, _WRONG_TRAILERS) + pick(_ENDS, [b"", _INSIDE])

    def _size_end(self) -> bytes:
        return self._pick(_EXTENSIONS, _WRONG_EXTENSIONS) + self._pick(_ENDS, _WRONG_ENDS)
