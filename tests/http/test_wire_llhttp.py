"""``wire`` against llhttp, the parser of Node.js: what we let pass, it reads the same way.

The other direction is no promise: much that llhttp lets pass is refused here.
"""

from __future__ import annotations

import re

import httptools
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from chp_gevent.http.errors import WireError
from chp_gevent.http.framing import body_decoder
from chp_gevent.http.limits import LimitOptions
from chp_gevent.http.section import Field
from chp_gevent.http.wire import HEAD_END, RequestHead, parse_request_head, parse_response_head
from tests.http import wire_strategies as wire

LIMITS = LimitOptions()
Parser = httptools.HttpRequestParser | httptools.HttpResponseParser


class Seen:
    """What llhttp made of a message."""

    def __init__(self) -> None:
        self.target = b""
        self.reason = b""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.messages = 0
        self.error: Exception | None = None

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1

    def read(self, parser: Parser, message: bytes) -> None:
        try:
            parser.feed_data(message)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            self.error = error


def pairs(fields: list[Field]) -> list[tuple[str, str]]:
    return [(field.name, field.value) for field in fields]


def canonical(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave the zeros out that we leave out of lengths."""
    return [
        (name, str(int(value))) if name.lower() == "content-length" else (name, value)
        for name, value in headers
    ]


# -- what llhttp refuses and we do not, each for a reason


METHODS = frozenset(
    "DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK "
    "BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE "
    "PATCH PURGE MKCALENDAR LINK UNLINK SOURCE QUERY".split()
)


def is_exception(head: RequestHead) -> str:
    """Say which deliberate exception a request is, or nothing."""
    if not head.target.isascii():
        # CHP answers 400. Browsers escape these bytes; other clients of notebooks do not.
        return "a target with bytes above 127"
    if head.method not in METHODS:
        # RFC 9110, 9.1: a method is any token, and none of a proxy's business.
        return "a method that llhttp does not know"
    if "upgrade" in head.known_values and "upgrade" in head.connection_options and head.has_body:
        # httptools reads no body behind one. What is forwarded asks for no upgrade.
        return "an upgrade with a body"
    return ""


def check_request(message: bytes) -> str:
    """Fail if we accept a request that llhttp reads differently, or not at all.

    Returns what became of it, for the statistics.
    """
    block, _, behind = message.partition(HEAD_END)
    try:
        head = parse_request_head(block, LIMITS)
        decoder = body_decoder(head)
        body = decoder.feed(behind) if behind else b""
    except WireError:
        return "refused"
    if exception := is_exception(head):
        return exception
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    seen.read(parser, message[: len(message) - len(decoder.rest)])
    # It may complain of a line before that has ended, which is when we look at it.
    assert seen.error is None or not decoder.done
    assert seen.messages == (1 if decoder.done else 0)
    assert parser.get_method().decode() == head.method
    assert seen.target.decode("latin-1") == head.target
    assert parser.get_http_version() == ("1.0" if head.http_1_0 else "1.1")
    if decoder.done:
        assert canonical(seen.headers) == pairs(head.fields) + pairs(decoder.trailers)
    assert seen.body == body
    return "accepted"


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
    message = head + body
    block, _, behind = message.partition(HEAD_END)
    try:
        ours = parse_response_head(block, "GET")
        decoder = body_decoder(ours)
        received = decoder.feed(behind) if behind else b""
    except WireError:
        event("refused")
        return
    event(f"accepted {ours.status}")
    seen = Seen()
    parser = httptools.HttpResponseParser(seen)
    seen.read(parser, message[: len(message) - len(decoder.rest)])
    assert seen.error is None or not decoder.done
    assert parser.get_status_code() == ours.status
    assert seen.reason.decode("latin-1") == ours.reason
    fields = [p for p in canonical(seen.headers) if keeps(ours.status, p[0])]
    if decoder.done:
        assert fields == pairs(ours.fields) + pairs(decoder.trailers)
    assert seen.messages == (1 if decoder.done else 0)
    assert seen.body == received


def keeps(status: int, name: str) -> bool:
    """Whether a field is one that we leave in a response with this status."""
    return name.lower() != "content-length" or not (status < 200 or status == 204)


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
