"""Bodies of messages: where they end, and what is refused on the way there."""

from __future__ import annotations

import pytest

from chp_gevent.http.errors import IncompleteMessage, WireError
from chp_gevent.http.h1.bodies import (
    BodyDecoder,
    ChunkedDecoder,
    EofDecoder,
    LengthDecoder,
    body_decoder,
    chunk,
    last_chunk,
)
from chp_gevent.http.h1.heads import parse_request_head, parse_response_head
from chp_gevent.http.limits import LimitOptions


def feed_all(decoder: BodyDecoder, *pieces: bytes) -> bytes:
    """Feed pieces until the message is complete; what is left over joins ``rest``."""
    body = b""
    for number, piece in enumerate(pieces):
        body += decoder.feed(piece)
        while decoder.backlog:
            body += decoder.feed(b"")
        if decoder.done:
            decoder.rest += b"".join(pieces[number + 1 :])
            break
    return body


def bytewise(data: bytes) -> list[bytes]:
    """Return each byte of ``data`` on its own."""
    return [data[i : i + 1] for i in range(len(data))]


# -- a length, or the end of the connection


@pytest.mark.parametrize(
    ("length", "data", "body", "done", "rest"),
    [
        (0, b"", b"", True, b""),
        (5, b"", b"", False, b""),
        (5, b"abc", b"abc", False, b""),
        (5, b"abcde", b"abcde", True, b""),
        (5, b"abcdeGET /", b"abcde", True, b"GET /"),
        (3, b"\r\n\r\n", b"\r\n\r", True, b"\n"),
    ],
)
def test_a_body_with_a_length_ends_there_and_nowhere_else(
    length: int, data: bytes, body: bytes, done: bool, rest: bytes
) -> None:
    for pieces in ([data], bytewise(data)):
        decoder = LengthDecoder(length)
        assert feed_all(decoder, *pieces) == body
        assert (decoder.done, decoder.rest, decoder.trailers) == (done, rest, [])


def test_what_follows_an_empty_body_is_the_next_message() -> None:
    decoder = LengthDecoder(0)
    assert decoder.done
    assert decoder.feed(b"GET /") == b""
    assert decoder.rest == b"GET /"


def test_a_body_without_a_length_lasts_until_the_connection_ends() -> None:
    decoder = EofDecoder()
    assert feed_all(decoder, b"abc", b"", b"def") == b"abcdef"
    assert not decoder.done
    decoder.end()
    assert decoder.done
    assert decoder.rest == b""


@pytest.mark.parametrize(
    ("decoder", "data"),
    [
        (LengthDecoder(5), b""),
        (LengthDecoder(5), b"abcd"),
        (ChunkedDecoder(), b""),
        (ChunkedDecoder(), b"5"),
        (ChunkedDecoder(), b"5\r\n"),
        (ChunkedDecoder(), b"5\r\nabc"),
        (ChunkedDecoder(), b"5\r\nabcde"),
        (ChunkedDecoder(), b"5\r\nabcde\r\n"),
        (ChunkedDecoder(), b"5\r\nabcde\r\n0\r\n"),
        (ChunkedDecoder(), b"5\r\nabcde\r\n0\r\n\r"),
        (ChunkedDecoder(), b"0\r\nX: y\r\n"),
    ],
)
def test_a_connection_that_ends_inside_a_body_is_noticed(decoder: BodyDecoder, data: bytes) -> None:
    decoder.feed(data)
    with pytest.raises(IncompleteMessage):
        decoder.end()


@pytest.mark.parametrize(
    ("decoder", "data"), [(LengthDecoder(3), b"abc"), (ChunkedDecoder(), b"0\r\n\r\n")]
)
def test_a_connection_that_ends_behind_a_body_is_fine(decoder: BodyDecoder, data: bytes) -> None:
    decoder.feed(data)
    decoder.end()


# -- chunks


@pytest.mark.parametrize(
    ("data", "body", "rest", "trailers"),
    [
        (b"0\r\n\r\n", b"", b"", []),
        (b"0\r\n\r\nGET /", b"", b"GET /", []),
        (b"000000000000000\r\n\r\n\r\n", b"", b"\r\n", []),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc", b"", []),
        (b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nrest", b"abcde", b"rest", []),
        (b"1\r\na\r\n" * 50 + b"0\r\n\r\n", b"a" * 50, b"", []),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b"", []),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b"", []),
        (b"00000000000000a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b"", []),
        (b"1f\r\n" + b"x" * 31 + b"\r\n0\r\n\r\n", b"x" * 31, b"", []),
        (b"6\r\n0\r\n\r\nX\r\n0\r\n\r\n", b"0\r\n\r\nX", b"", []),
        (b"2;a\r\nab\r\n0\r\n\r\n", b"ab", b"", []),
        (b"2;a;b\r\nab\r\n0;c=d\r\n\r\n", b"ab", b"", []),
        (b'2;a="";b="x y\t\\"\\\\;=\xe9"\r\nab\r\n0\r\n\r\n', b"ab", b"", []),
        (b"2;" + b"a" * 1020 + b"\r\nab\r\n0\r\n\r\n", b"ab", b"", []),
        (b"0\r\nX: y\r\n\r\n", b"", b"", [("X", "y")]),
        (b"0\r\nX: y\r\nx:z\r\n\r\nrest", b"", b"rest", [("X", "y"), ("x", "z")]),
        (b"0\r\nX: " + b"y" * 16377 + b"\r\n\r\n", b"", b"", [("X", "y" * 16377)]),
    ],
)
def test_a_chunked_body_is_put_together_wherever_it_is_split(
    data: bytes, body: bytes, rest: bytes, trailers: list[tuple[str, str]]
) -> None:
    half = len(data) // 2
    for pieces in ([data], [data[:half], data[half:]], bytewise(data)):
        decoder = ChunkedDecoder()
        assert feed_all(decoder, *pieces) == body
        assert decoder.done
        assert decoder.rest == rest
        assert [(field.name, field.value) for field in decoder.trailers] == trailers


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3\t\r\nabc\r\n",
        b"3\n\nabc\r\n",
        b"3\nabc\n0\n\n",
        b"3\rabc\r\n",
        b"3\r\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"-3\r\nabc\r\n",
        b"-0\r\n\r\n",
        b"0x3\r\nabc\r\n",
        b"x3\r\nabc\r\n",
        b"3h\r\nabc\r\n",
        b"3,3\r\nabc\r\n",
        b"3.0\r\nabc\r\n",
        b"1_0\r\n" + b"a" * 16,
        b"\xb2\r\nab\r\n",
        b"3\x00\r\nabc\r\n",
        b"0000000000000003\r\nabc\r\n",
        b"1000000000000000\r\nabc",
        b"ffffffffffffffff\r\nabc",
        b"100000000000000003\r\nabc\r\n",
        b"3;\r\nabc\r\n",
        b"3;;\r\nabc\r\n",
        b"3; a\r\nabc\r\n",
        b"3 ;a\r\nabc\r\n",
        b"3;a \r\nabc\r\n",
        b"3;a =b\r\nabc\r\n",
        b"3;a=\r\nabc\r\n",
        b"3;=b\r\nabc\r\n",
        b"3;a=b=c\r\nabc\r\n",
        b"3;a=b c\r\nabc\r\n",
        b'3;a="b\r\nabc\r\n',
        b'3;a="b"c\r\nabc\r\n',
        b'3;a="\\"\r\nabc\r\n',
        b"3;a\x00\r\nabc\r\n",
        b"3;a\x7f\r\nabc\r\n",
        b"3;\xe9\r\nabc\r\n",
        b"3;a\nabc\r\n",
        b"3;a\n0\r\n\r\n",
        b"3;a\r0\r\n\r\n",
        b"3a=b\r\nabc\r\n",
        b"3=b\r\nabc\r\n",
        b"3;" + b"a" * 1021 + b"\r\nabc\r\n",
        b"3;" + b"a" * 5000,
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        b"3\r\nabc\r\r\n0\r\n\r\n",
        b"3\r\nabc\r\n\r\n0\r\n\r\n",
        b"3\r\nabc\r\n 0\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\n X: y\r\n\r\n",
        b"0\r\n: y\r\n\r\n",
        b"0\r\nX: a\r\n b\r\n\r\n",
        b"0\r\nX: a\x00\r\n\r\n",
        b"0\r\nX: a\nY: b\r\n\r\n",
        b"0\r\nX: a\rY: b\r\n\r\n",
        b"0\r\n\n\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"0\r\nX: " + b"y" * 16378 + b"\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 5000,
    ],
)
def test_a_malformed_chunk_is_refused_wherever_it_is_split(data: bytes) -> None:
    for pieces in ([data], bytewise(data)):
        with pytest.raises(WireError) as refused:
            feed_all(ChunkedDecoder(), *pieces)
        assert not isinstance(refused.value, IncompleteMessage)


@pytest.mark.parametrize(
    ("data", "status"), [(b"3 \r\n", 400), (b"0\r\n" + b"X: y\r\n" * 5000, 431)]
)
def test_an_error_in_a_body_has_a_status(data: bytes, status: int) -> None:
    with pytest.raises(WireError) as refused:
        ChunkedDecoder().feed(data)
    assert refused.value.status == status


TINY = [b"1\r\nx\r\n", b"01;extension\r\nx\r\n"]


@pytest.mark.parametrize("coded", [*TINY, b"".join(TINY)], ids=["plain", "extension", "both"])
def test_a_body_of_many_tiny_chunks_is_decoded_in_small_steps(coded: bytes) -> None:
    decoder = ChunkedDecoder()
    count = 10_000 * coded.count(b"x\r\n")
    steps = [decoder.feed(coded * 10_000)]
    while decoder.backlog:
        assert not decoder.done
        steps.append(decoder.feed(b""))
    assert b"".join(steps) == b"x" * count
    assert max(map(len, steps)) <= 257
    assert len(steps) < count / 100
    assert feed_all(decoder, b"0\r\n\r\nrest") == b""
    assert (decoder.done, decoder.backlog, decoder.rest) == (True, False, b"rest")


def test_what_arrives_behind_a_backlog_is_decoded_after_it() -> None:
    numbered = [b"%d" % number for number in range(1000)]
    first, second = (
        b"".join(map(b"".join, map(chunk, part))) for part in (numbered[:700], numbered[700:])
    )
    decoder = ChunkedDecoder()
    body = decoder.feed(first)
    assert decoder.backlog
    body += feed_all(decoder, second + last_chunk())
    assert body == b"".join(numbered)
    assert decoder.done


def test_an_error_in_a_backlog_is_found_when_it_is_decoded() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(TINY[0] * 1000 + b"x")
    with pytest.raises(WireError):
        feed_all(decoder, b"")


def test_bodies_of_large_chunks_leave_no_backlog() -> None:
    decoder = ChunkedDecoder()
    coded = b"400\r\n" + b"x" * 1024 + b"\r\n"
    assert len(decoder.feed(coded * 250)) == 250 * 1024
    assert not decoder.backlog


# -- who has which body


@pytest.mark.parametrize(
    ("framing", "decoder"),
    [
        (b"X: y", LengthDecoder),
        (b"Content-Length: 5", LengthDecoder),
        (b"Transfer-Encoding: chunked", ChunkedDecoder),
    ],
)
def test_a_request_without_framing_has_no_body(framing: bytes, decoder: type) -> None:
    block = b"DELETE / HTTP/1.1\r\nHost: a\r\n" + framing
    found = body_decoder(parse_request_head(block, LimitOptions()))
    assert isinstance(found, decoder)
    assert found.done is (framing == b"X: y")


@pytest.mark.parametrize(
    ("framing", "method", "decoder"),
    [
        (b"X: y", "GET", EofDecoder),
        (b"X: y", "HEAD", LengthDecoder),
        (b"Content-Length: 5", "GET", LengthDecoder),
        (b"Transfer-Encoding: chunked", "GET", ChunkedDecoder),
        (b"Transfer-Encoding: chunked", "HEAD", LengthDecoder),
    ],
)
def test_a_response_without_framing_lasts_until_the_connection_ends(
    framing: bytes, method: str, decoder: type
) -> None:
    head = parse_response_head(b"HTTP/1.1 200 OK\r\n" + framing, method)
    assert isinstance(body_decoder(head), decoder)


# -- writing


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"".join(chunk(b"a")), b"1\r\na\r\n"),
        (b"".join(chunk(b"0123456789abcdef")), b"10\r\n0123456789abcdef\r\n"),
        (last_chunk(), b"0\r\n\r\n"),
        (last_chunk([("X", "y"), ("Z", "")]), b"0\r\nX: y\r\nZ: \r\n\r\n"),
    ],
)
def test_chunks_are_written_in_one_canonical_form(written: bytes, expected: bytes) -> None:
    assert written == expected
