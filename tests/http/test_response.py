"""How the bodies of answers are framed."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from chp_gevent.http.h1.fields import ResponseFields
from chp_gevent.http.h1.heads import parse_request_head
from chp_gevent.http.limits import LimitOptions
from chp_gevent.http.response import UNTIL_END, response_framing

PLAIN = b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LISTED = [b"abc", b"de"]


def counted(length: int) -> bytes:
    """The end of a head that gives a length."""
    return b"Content-Length: %d\r\n\r\n" % length


def streamed() -> Iterable[bytes]:
    """A body whose length nobody knows yet."""
    return iter(LISTED)


@pytest.mark.parametrize(
    ("asked", "status", "declared", "listed", "expected"),
    [
        # The application says it, and it is passed on.
        ("GET / HTTP/1.1", "200 OK", "7", False, (PLAIN, False, 7)),
        ("GET / HTTP/1.1", "200 OK", "5", True, (PLAIN, False, 5)),
        ("GET / HTTP/1.0", "200 OK", "7", False, (PLAIN, False, 7)),
        # A list says it.
        ("GET / HTTP/1.1", "200 OK", None, True, (counted(5), False, 5)),
        ("GET / HTTP/1.0", "200 OK", None, True, (counted(5), False, 5)),
        # Nobody says it: chunks, or the end of the connection for who knows none.
        ("GET / HTTP/1.1", "200 OK", None, False, (CHUNKED, True, UNTIL_END)),
        ("GET / HTTP/1.0", "200 OK", None, False, (PLAIN, False, UNTIL_END)),
        # No body, whatever the head says of one.
        ("HEAD / HTTP/1.1", "200 OK", "7", False, (PLAIN, False, 0)),
        ("HEAD / HTTP/1.1", "200 OK", None, True, (counted(5), False, 0)),
        ("HEAD / HTTP/1.1", "200 OK", None, False, (PLAIN, False, 0)),
        ("HEAD / HTTP/1.0", "200 OK", None, False, (PLAIN, False, 0)),
        ("GET / HTTP/1.1", "304 Not Modified", "7", False, (PLAIN, False, 0)),
        ("GET / HTTP/1.1", "304 Not Modified", None, True, (PLAIN, False, 0)),
        ("GET / HTTP/1.1", "204 No Content", None, False, (PLAIN, False, 0)),
        ("GET / HTTP/1.1", "204 No Content", None, True, (PLAIN, False, 0)),
        ("GET / HTTP/1.0", "204 No Content", None, False, (PLAIN, False, 0)),
    ],
)
def test_the_body_of_an_answer_has_one_length(
    asked: str,
    status: str,
    declared: str | None,
    listed: bool,
    expected: tuple[bytes, bool, float],
) -> None:
    request = parse_request_head(f"{asked}\r\nHost: a".encode(), LimitOptions())
    fields = ResponseFields([] if declared is None else [("Content-Length", declared)])
    assert response_framing(request, status, fields, LISTED if listed else streamed()) == expected


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb", "a\r\n\r\n"])
def test_a_field_that_would_end_the_head_is_none(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        ResponseFields([("X-Field", value)])
