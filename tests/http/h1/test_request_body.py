"""The body of a request as the application reads it, while it is still coming."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chp_gevent.http.errors import ClientGone, WireError
from chp_gevent.http.h1.bodies import chunk, last_chunk
from chp_gevent.http.h1.heads import RequestHead, parse_request_head
from chp_gevent.http.h1.request_body import NO_BODY, NoBody, RequestBody
from chp_gevent.http.limits import LimitOptions
from tests.kit import message_strategies as wire

NEXT = b"GET /next HTTP/1.1\r\n"


class Arrivals:
    """A stream on which these pieces arrive; an exception among them is raised."""

    def __init__(self, pieces: Iterable[bytes | Exception]) -> None:
        self._pieces = list(pieces)
        self.reads = self.gave_way = 0
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def give_way(self) -> None:
        self.gave_way += 1

    def read(self, size: int = 65536) -> bytes:
        self.reads += 1
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece


def head(framing: str) -> RequestHead:
    """Return the head of a request with this framing line."""
    return parse_request_head(f"POST / HTTP/1.1\r\nHost: a\r\n{framing}".encode(), LimitOptions())


def sized(length: int, *pieces: bytes | Exception) -> RequestBody:
    """Return a body with a length whose pieces arrive one by one; the first with the head."""
    return body(f"Content-Length: {length}", *pieces)


def body(framing: str, *pieces: bytes | Exception) -> RequestBody:
    """Return a body; the first piece came with the head."""
    first, *later = pieces or (b"",)
    assert isinstance(first, bytes)
    stream: Any = Arrivals(later)
    return RequestBody(stream, head(framing), first)


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("framing", "pieces"),
    [
        ("Content-Length: 3", [b"abcGET /next HTTP/1.1\r\n"]),
        ("Content-Length: 3", [b"", b"abcGET /next HTTP/1.1\r\n"]),
        ("Content-Length: 3", [b"a", b"b", b"cGET /next HTTP/1.1\r\n"]),
        (CHUNKED, [b"3\r\nabc\r\n0\r\n\r\nGET /next HTTP/1.1\r\n"]),
        (CHUNKED, [b"", b"1\r\na\r\n2\r", b"\nbc\r\n0\r\n\r\nGET /next HTTP/1.1\r\n"]),
    ],
)
def test_a_body_is_read_to_its_end_and_what_follows_is_the_next_request(
    framing: str, pieces: list[bytes]
) -> None:
    for read_all in (RequestBody.read, lambda found: b"".join(found.pieces()), whole_lines):
        found = body(framing, *pieces)
        assert read_all(found) == b"abc"
        assert found.complete
        assert found.take_if_complete() == b""
        assert found.rest == NEXT


def whole_lines(found: RequestBody) -> bytes:
    return b"".join(found)


def test_a_request_without_a_body_has_one_that_is_at_its_end() -> None:
    assert isinstance(NO_BODY, NoBody)
    for _ in range(2):
        assert (NO_BODY.complete, NO_BODY.take_if_complete(), NO_BODY.rest) == (True, b"", b"")
        assert (NO_BODY.read(), NO_BODY.read(3), NO_BODY.readline(), NO_BODY.readline(3)) == (
            *(b"", b""),
            *(b"", b""),
        )
        assert (NO_BODY.readlines(), list(NO_BODY), list(NO_BODY.pieces())) == ([], [], [])
        NO_BODY.put_back(b"")


def test_pieces_are_handed_out_as_they_arrive_and_not_collected() -> None:
    pieces = sized(6, b"ab", b"cd", b"efrest").pieces()
    assert [next(pieces), next(pieces), next(pieces)] == [b"ab", b"cd", b"ef"]
    assert next(pieces, None) is None


def test_nothing_is_read_before_somebody_asks() -> None:
    stream: Any = Arrivals([b"abc"])
    found = RequestBody(stream, head("Content-Length: 3"), b"")
    assert (stream.reads, found.complete) == (0, False)
    assert found.read(1) == b"a"
    assert stream.reads == 1


@pytest.mark.parametrize("read", [RequestBody.read, lambda found: list(found.pieces())])
def test_others_are_served_while_tiny_chunks_are_decoded(
    read: Callable[[RequestBody], object],
) -> None:
    tiny = b"1\r\nx\r\n" * 10_000
    stream: Any = Arrivals([tiny + last_chunk()])
    found = RequestBody(stream, head(CHUNKED), tiny)
    assert (found.complete, found.take_if_complete()) == (False, None)
    read(found)
    assert found.complete
    assert stream.reads == 1
    assert stream.gave_way > 20_000 / 300


@pytest.mark.calm
def test_lines_are_not_copied_with_all_that_follows() -> None:
    count = 1_500_000
    found = sized(count, b"\n" * count)
    began = time.process_time()
    assert sum(map(len, found)) == count
    # 1 s; with a copy of the rest for each line 30.
    assert time.process_time() - began < 6.0


def test_nothing_is_read_behind_the_end() -> None:
    stream: Any = Arrivals([b"next"])
    found = RequestBody(stream, head("Content-Length: 3"), b"abc")
    assert (found.read(), found.read(), found.readline(), list(found.pieces())) == (
        *(b"abc", b"", b""),
        [],
    )
    assert stream.reads == 0


@pytest.mark.parametrize(
    ("framing", "first", "taken"),
    [
        ("Content-Length: 3", b"abcrest", b"abc"),
        ("Content-Length: 3", b"ab", None),
        (CHUNKED, b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (CHUNKED, b"3\r\nabc\r\n0\r\n\r", None),
        (CHUNKED, b"0\r\n\r\n", b""),
    ],
)
def test_a_body_that_came_with_the_head_is_taken_at_once(
    framing: str, first: bytes, taken: bytes | None
) -> None:
    found = body(framing, first)
    assert found.take_if_complete() == taken
    assert found.complete is (taken is not None)
    if taken is not None:
        assert found.take_if_complete() == b""
        found.put_back(taken)
        assert found.read() == taken


def test_what_has_been_read_of_a_body_is_not_taken_again() -> None:
    found = sized(3, b"abc")
    found.read(2)
    assert found.take_if_complete() == b"c"
    assert found.take_if_complete() == b""


READERS: list[Callable[[RequestBody], object]] = [
    RequestBody.read,
    RequestBody.readline,
    RequestBody.readlines,
    lambda found: list(found.pieces()),
]


@pytest.mark.parametrize("read", READERS, ids=["read", "readline", "readlines", "pieces"])
@pytest.mark.parametrize(
    "pieces",
    [[b"ab"], [b""], [b"ab", b""], [b"ab", ConnectionResetError()], [b"", TimeoutError()]],
    ids=["FIN", "FIN at once", "FIN later", "RST", "timeout"],
)
def test_a_client_that_leaves_inside_its_body_is_gone(
    read: Callable[[RequestBody], object], pieces: list[bytes | Exception]
) -> None:
    with pytest.raises(ClientGone):
        read(sized(5, *pieces))


def test_a_client_that_is_gone_is_no_exception_that_an_application_would_handle() -> None:
    assert not issubclass(ClientGone, Exception)


@pytest.mark.parametrize("read", READERS, ids=["read", "readline", "readlines", "pieces"])
def test_a_malformed_body_is_refused_when_it_is_read(read: Callable[[RequestBody], object]) -> None:
    with pytest.raises(WireError):
        read(body(CHUNKED, b"3\r\nabc\r\n", b"3 \r\nabc\r\n"))


def test_a_malformed_body_that_came_with_the_head_is_refused_before_anyone_sees_it() -> None:
    with pytest.raises(WireError):
        body(CHUNKED, b"3\r\nabc\r\nx")


@pytest.mark.parametrize("read", READERS, ids=["read", "readline", "readlines", "pieces"])
@pytest.mark.parametrize(
    ("framing", "first", "invited"),
    [
        ("Content-Length: 3\r\nExpect: 100-continue", b"", True),
        ("Transfer-Encoding: chunked\r\nexpect: 100-Continue", b"", True),
        ("Content-Length: 3\r\nExpect: 100-continue", b"abc", False),
        ("Content-Length: 3\r\nExpect: something", b"", False),
        ("Content-Length: 3", b"", False),
    ],
)
def test_a_client_that_waits_for_it_is_told_once_to_send_its_body(
    read: Callable[[RequestBody], object], framing: str, first: bytes, invited: bool
) -> None:
    stream: Any = Arrivals([b"abc"] if "Content" in framing else [b"3\r\nabc\r\n", b"0\r\n\r\n"])
    found = RequestBody(stream, head(framing), first)
    assert stream.written == b""
    read(found)
    read(found)
    # Who takes the pieces passes on what the target says to the expectation.
    expected = invited and read is not READERS[-1]
    assert stream.written == b"HTTP/1.1 100 Continue\r\n\r\n" * expected


# -- wsgi.input, PEP 3333


CALLS = st.lists(st.tuples(st.sampled_from(["read", "readline"]), st.integers(-1, 12)), max_size=12)


@given(st.lists(st.binary(max_size=12) | st.just(b"a\nb\n"), max_size=8), CALLS, st.booleans())
def test_a_body_reads_like_a_file(
    pieces: list[bytes], calls: list[tuple[str, int]], chunked: bool
) -> None:
    content = b"".join(pieces)
    file = io.BytesIO(content)
    if chunked:
        arriving = [b"".join(chunk(piece)) for piece in pieces if piece] + [last_chunk()]
        found = body(CHUNKED, *arriving)
    else:
        arriving = [piece for piece in pieces if piece]
        found = sized(len(content), *arriving)
    for method, size in calls:
        assert getattr(found, method)(size) == getattr(file, method)(size)
    assert found.readlines() == file.readlines()


@given(wire.bodies, st.data())
def test_a_body_is_the_same_however_it_arrives(parts: list[bytes], data: st.DataObject) -> None:
    coded = b"".join(b"".join(chunk(part)) for part in parts) + last_chunk() + NEXT
    found = body(CHUNKED, b"", *data.draw(wire.split(coded)))
    assert b"".join(found.pieces()) == b"".join(parts)
    assert NEXT.startswith(found.rest)
