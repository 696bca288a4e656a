"""``wire`` against whatever hypothesis makes up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chp_gevent.http.errors import WireError
from chp_gevent.http.h1.bodies import (
    BodyDecoder,
    ChunkedDecoder,
    LengthDecoder,
    body_decoder,
    chunk,
    last_chunk,
)
from chp_gevent.http.h1.heads import (
    HEAD_END,
    PartialHead,
    parse_request_head,
    parse_response_head,
    serialise_head,
)
from chp_gevent.http.limits import LimitOptions
from tests.kit import message_strategies as wire

LIMITS = LimitOptions()
Pairs = list[tuple[str, str]]


def outcome(decoder: BodyDecoder, pieces: list[bytes]) -> tuple[str, bytes, bytes, Pairs]:
    """Return how decoding ended, the body, what was left over, and the trailers."""
    body = b""
    for number, piece in enumerate(pieces):
        try:
            body += decoder.feed(piece)
            while decoder.backlog:
                body += decoder.feed(b"")
        except WireError as error:
            return f"{error.status} {error}", body, b"", []
        if decoder.done:
            rest = decoder.rest + b"".join(pieces[number + 1 :])
            trailers = [(field.name, field.value) for field in decoder.trailers]
            return "complete", body, rest, trailers
    return "incomplete", body, b"", []


# -- round trips


@given(wire.tokens.filter(lambda method: method != "CONNECT"), wire.targets, wire.fields)
def test_a_request_head_is_read_as_it_was_written(method: str, target: str, sent: Pairs) -> None:
    headers = [("Host", "a"), *sent]
    written = serialise_head(f"{method} {target} HTTP/1.1", headers)
    head = parse_request_head(written.removesuffix(HEAD_END), LIMITS)
    assert (head.method, head.target) == (method, target)
    assert [(field.name, field.value) for field in head.fields] == headers


@given(st.integers(200, 599), wire.values, wire.fields)
def test_a_response_head_is_read_as_it_was_written(status: int, reason: str, sent: Pairs) -> None:
    written = serialise_head(f"HTTP/1.1 {status} {reason}", sent)
    head = parse_response_head(written.removesuffix(HEAD_END), "GET")
    assert (head.status, head.reason) == (status, reason)
    assert [(field.name, field.value) for field in head.fields] == sent
    assert head.raw == written


@given(wire.bodies, wire.fields, st.binary(max_size=10), st.data())
def test_a_chunked_body_is_read_as_it_was_written(
    pieces: list[bytes], trailers: Pairs, rest: bytes, data: st.DataObject
) -> None:
    coded = b"".join(b"".join(chunk(piece)) for piece in pieces) + last_chunk(trailers)
    fed = data.draw(wire.split(coded + rest))
    assert outcome(ChunkedDecoder(), fed) == ("complete", b"".join(pieces), rest, trailers)


@given(wire.mutated(wire.heads(wire.request_lines())))
def test_what_a_request_is_understood_as_is_what_it_is_forwarded_as(sent: bytes) -> None:
    try:
        head = parse_request_head(sent.partition(HEAD_END)[0], LIMITS)
    except WireError:
        return
    version = "HTTP/1.0" if head.http_1_0 else "HTTP/1.1"
    pairs = [(field.name, field.value) for field in head.fields]
    written = serialise_head(f"{head.method} {head.target} {version}", pairs)
    again = parse_request_head(written.removesuffix(HEAD_END), LIMITS)
    assert (again.method, again.target, again.http_1_0) == (head.method, head.target, head.http_1_0)
    assert (again.fields, again.known_values) == (head.fields, head.known_values)
    assert (again.content_length, again.chunked) == (head.content_length, head.chunked)
    assert (again.keep_alive, again.upgrade) == (head.keep_alive, head.upgrade)


@given(wire.mutated(wire.heads(wire.status_lines())))
def test_what_a_response_is_understood_as_is_what_it_is_forwarded_as(sent: bytes) -> None:
    try:
        head = parse_response_head(sent.partition(HEAD_END)[0], "GET")
    except WireError:
        return
    version = "HTTP/1.0" if head.http_1_0 else "HTTP/1.1"
    pairs = [(field.name, field.value) for field in head.fields]
    written = serialise_head(f"{version} {head.status} {head.reason}", pairs)
    again = parse_response_head(written.removesuffix(HEAD_END), "GET")
    assert (again.status, again.reason, again.fields) == (head.status, head.reason, head.fields)
    if head.status != 204 and head.status >= 200:
        assert (again.content_length, again.chunked) == (head.content_length, head.chunked)


# -- any split


@given(wire.mutated(wire.coded_bodies()), st.data())
def test_a_chunked_body_means_the_same_however_it_is_split(
    coded: bytes, data: st.DataObject
) -> None:
    how, body, rest, trailers = outcome(ChunkedDecoder(), [coded])
    pieces = data.draw(wire.split(coded))
    for fed in (pieces, [coded[i : i + 1] for i in range(len(coded))]):
        how_split, body_split, *others = outcome(ChunkedDecoder(), fed)
        assert (how_split, *others) == (how, rest, trailers)
        # What came before an error may have been handed out, or not.
        assert body_split == body or (how[0].isdigit() and body_split.startswith(body))


@given(st.integers(0, 60), st.binary(max_size=80), st.data())
def test_a_body_with_a_length_means_the_same_however_it_is_split(
    length: int, sent: bytes, data: st.DataObject
) -> None:
    expected = ("complete" if len(sent) >= length else "incomplete", sent[:length], sent[length:])
    decoder = LengthDecoder(length)
    if decoder.done:
        decoder.feed(sent)
        assert decoder.rest == sent
    else:
        assert outcome(decoder, data.draw(wire.split(sent))) == (*expected, [])


@given(wire.mutated(wire.heads(wire.request_lines())), st.integers(0, 40), st.integers(0, 80))
def test_a_head_within_its_limits_is_never_too_large_before_it_is_complete(
    sent: bytes, line: int, size: int
) -> None:
    limits = LimitOptions(max_request_line=line, max_header_size=size)
    end = sent.find(HEAD_END)
    block = sent[:end]
    line_end = (block + b"\r\n").find(b"\r\n")
    if end < 0 or len(block) > size or line_end > line or PartialHead(block).bare_line_feed:
        return
    for received in range(end + len(HEAD_END)):
        assert PartialHead(sent[:received]).error(limits) is None


# -- nothing but WireError


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@given(data=st.one_of(st.binary(max_size=200), wire.mutated(wire.heads(wire.status_lines()))))
def test_no_bytes_from_a_target_raise_anything_but_a_wire_error(method: str, data: bytes) -> None:
    head, _, behind = data.partition(HEAD_END)
    try:
        body_decoder(parse_response_head(head, method)).feed(behind)
    except WireError:
        return


@given(st.one_of(st.binary(max_size=200), wire.mutated(wire.heads(wire.request_lines()))))
def test_no_bytes_from_a_client_raise_anything_but_a_wire_error(data: bytes) -> None:
    head, _, behind = data.partition(HEAD_END)
    status = 200
    try:
        body_decoder(parse_request_head(head, LIMITS)).feed(behind)
    except WireError as error:
        status = error.status
    assert status in (200, 400, 405, 414, 431, 505)


@given(st.one_of(st.binary(max_size=200), wire.mutated(wire.coded_bodies())))
def test_no_bytes_of_a_body_raise_anything_but_a_wire_error(data: bytes) -> None:
    how, *_ = outcome(ChunkedDecoder(), [data])
    assert how in ("complete", "incomplete") or how[:3] in ("400", "431")
