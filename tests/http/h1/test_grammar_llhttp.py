"""``wire`` against llhttp, the parser of Node.js: what we let pass, it reads the same way.

The other direction is no promise: much that llhttp lets pass is refused here.
"""

from __future__ import annotations

import re

import httptools
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from chp_gevent.http.h1.heads import HEAD_END, parse_request_head
from tests.kit import message_strategies as wire
from tests.kit.llhttp_oracle import LIMITS, Seen, check_request, check_response


@wire.thorough
@given(wire.mutated(wire.heads(wire.request_lines())))
def test_a_request_head_that_we_accept_is_the_same_to_llhttp(message: bytes) -> None:
    assume(HEAD_END in message)
    event(check_request(message[: message.index(HEAD_END) + len(HEAD_END)]))


@wire.thorough
@given(
    wire.mutated(wire.heads(wire.request_lines())),
    st.one_of(st.binary(max_size=10), wire.mutated(wire.coded_bodies())),
)
def test_a_request_with_a_body_that_we_accept_is_the_same_to_llhttp(
    head: bytes, body: bytes
) -> None:
    event(check_request(head + body))


@wire.thorough
@given(wire.mutated(wire.coded_bodies()))
def test_a_chunked_body_that_we_accept_is_the_same_to_llhttp(body: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    event(check_request(head + body))


@pytest.mark.parametrize(
    "pattern",
    [
        b"GET? / HTTP/1.1\r\nHost: a",
        b"GET /? HTTP/1.1\r\nHost: a",
        b"GET / HTTP/1.1?\r\nHost: a",
        b"GET / HTTP/1.1\r\n?Host: a",
        b"GET / HTTP/1.1\r\nHost: a?b",
        b"GET / HTTP/1.1\r\nHost: a\r\nX?: y",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y?z",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r?",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: ?5",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5?\r\nX: y",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ?chunked",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked?",
        b"GET http://a?b/ HTTP/1.1\r\nHost: a?b",
        b"GET http://a? HTTP/1.1\r\nHost: a",
        b"GET http://a:80?b HTTP/1.1\r\nHost: a:80",
        b"GET http://a/? HTTP/1.1\r\nHost: a",
    ],
)
def test_every_byte_that_we_accept_in_a_head_is_the_same_to_llhttp(pattern: bytes) -> None:
    for byte in range(256):
        check_request(pattern.replace(b"?", bytes([byte])) + HEAD_END)


@wire.thorough
@given(
    wire.mutated(wire.heads(wire.status_lines())),
    st.one_of(st.binary(max_size=10), wire.mutated(wire.coded_bodies())),
)
def test_a_response_that_we_accept_is_the_same_to_llhttp(head: bytes, body: bytes) -> None:
    event(check_response(head + body))


# -- the exceptions, so that nobody takes them for oversights


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        (b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a", "url"),
        (b"BREW / HTTP/1.1\r\nHost: a", "method"),
        (b"get / HTTP/1.1\r\nHost: a", "method"),
    ],
)
def test_what_llhttp_refuses_and_we_do_not_is_a_short_list(head: bytes, complaint: str) -> None:
    parse_request_head(head, LIMITS)
    with pytest.raises(httptools.HttpParserError) as refused:
        httptools.HttpRequestParser(Seen()).feed_data(head + HEAD_END)
    assert re.search(complaint, str(refused.value), re.IGNORECASE)
