"""What we make of a message, compared with what llhttp, the parser of Node.js, makes of it."""

from __future__ import annotations

import re

import httptools

from chp_gevent.http.errors import WireError
from chp_gevent.http.h1.bodies import BodyDecoder, body_decoder
from chp_gevent.http.h1.fields import Field
from chp_gevent.http.h1.heads import HEAD_END, RequestHead, parse_request_head, parse_response_head
from chp_gevent.http.limits import LimitOptions

LIMITS = LimitOptions()
Parser = httptools.HttpRequestParser | httptools.HttpResponseParser


_tab_behind_chunked = re.compile(
    rb"^transfer-encoding:[ \t]*chunked[ ]*\t", re.IGNORECASE | re.MULTILINE
).search


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


def is_exceptional_trailer(trailers: list[Field]) -> str:
    """Say which deliberate exception the trailers of a body are, or nothing."""
    if any(field.lower in ("content-length", "transfer-encoding") for field in trailers):
        # RFC 9110, 6.5.1: not to be merged with the header fields. None is forwarded.
        return "a trailer that would frame the message"
    return ""


def decoded(decoder: BodyDecoder, data: bytes) -> bytes:
    """Return the body in all that is behind a head. Raises ``WireError``."""
    body: bytes = decoder.feed(data) if data else b""
    while decoder.backlog:
        body += decoder.feed(b"")
    return body


def check_request(message: bytes) -> str:
    """Fail if we accept a request that llhttp reads differently, or not at all.

    Returns what became of it, for the statistics.
    """
    block, _, behind = message.partition(HEAD_END)
    try:
        head = parse_request_head(block, LIMITS)
        decoder = body_decoder(head)
        body = decoded(decoder, behind)
    except WireError:
        return "refused"
    if exception := is_exception(head) or is_exceptional_trailer(decoder.trailers):
        return exception
    if head.chunked and _tab_behind_chunked(block):
        # White space all the same (RFC 9110, 5.6.3); forwarded without.
        return "a tab behind the name of the coding"
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


def check_response(message: bytes) -> str:
    """Fail if we accept a response to a GET that llhttp reads differently, or not at all.

    Returns what became of it, for the statistics.
    """
    block, _, behind = message.partition(HEAD_END)
    try:
        ours = parse_response_head(block, "GET")
        decoder = body_decoder(ours)
        received = decoded(decoder, behind)
    except WireError:
        return "refused"
    if ours.status < 200:
        return "interim: has no body, whatever it says (RFC 9112, 6.3)"
    if exception := is_exceptional_trailer(decoder.trailers):
        return exception
    if ours.chunked and _tab_behind_chunked(block):
        return "a tab behind the name of the coding"
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
    return f"accepted {ours.status}"


def keeps(status: int, name: str) -> bool:
    """Whether a field is one that we leave in a response with this status."""
    return name.lower() != "content-length" or not (status < 200 or status == 204)
