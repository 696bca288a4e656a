"""What is remembered of header sections is bounded, whatever clients and targets send."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from chp_gevent.http.environ import _header_variables
from chp_gevent.http.h1 import fields as module
from chp_gevent.http.h1.fields import (
    REQUEST_SECTIONS,
    RESPONSE_SECTIONS,
    HeaderSection,
    ResponseFields,
    SectionMemory,
    parse_section,
    serialise_fields,
)
from chp_gevent.http.h1.heads import RequestHead, parse_request_head, parse_response_head
from chp_gevent.http.limits import LimitOptions
from chp_gevent.http.peer import Peer
from chp_gevent.proxy.headers import forwarded_headers, request_headers, response_headers

FORMS = 8


def block(number: int, fields: int, size: int) -> bytes:
    """A section that was never sent before, of so many fields and about so many bytes."""
    length = max(12, size // fields - 2)
    lines = [f"N{number:05d}{i:03d}: ".ljust(length, "v")[:length] for i in range(fields - 1)]
    return "\r\n".join(["Host: a", *lines]).encode()


def use_request(section: HeaderSection, forms: int = FORMS) -> None:
    """Derive from a section what the server and the proxy do, for several peers."""
    section.variables = _header_variables(RequestHead("GET", "/", False, section))
    for number in range(forms):
        peer = Peer(f"192.0.2.{number}", False, True)
        key = (peer, False, "127.0.0.1:8888")
        if key not in section.forwarded:
            forwarded = forwarded_headers(section.fields, peer, "a", websocket=False)
            fields = request_headers(
                section.fields, section.connection_options, forwarded, trusted=True
            )
            section.keep_forwarded(key, serialise_fields(fields) + b"\r\n")


def use_answer(section: HeaderSection) -> None:
    """Derive from a section what the proxy does."""
    section.answer = ResponseFields(response_headers(section.fields, section.connection_options))


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    for memory in (REQUEST_SECTIONS, RESPONSE_SECTIONS):
        memory.clear()
    module._FIELD_CACHE.clear()


def grown(fill: Callable[[], None]) -> int:
    """Return the most bytes that a call has left behind so far, without remembered lines."""
    tracemalloc.start()
    try:
        fill()
        module._FIELD_CACHE.clear()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


SHAPES = [(2, 2040), (8, 2040), (15, 900), (32, 400), (32, 2040)]


@pytest.mark.parametrize(("fields", "size"), SHAPES)
@pytest.mark.parametrize("forms", [0, 1, FORMS])
def test_requests_are_remembered_up_to_a_limit(fields: int, size: int, forms: int) -> None:
    def fill() -> None:
        for number in range(SectionMemory.MOST):
            whole = block(number, fields, size)
            use_request(parse_section(whole, False, REQUEST_SECTIONS), forms)
            if full():
                break  # the next one would have it forgotten

    def full() -> bool:
        return REQUEST_SECTIONS._left < 40_000

    bytes_taken = grown(fill)
    assert bytes_taken <= SectionMemory.MOST_BYTES
    if full():
        assert bytes_taken > 0.6 * SectionMemory.MOST_BYTES, "the account is not far from the truth"


@pytest.mark.parametrize(("fields", "size"), SHAPES)
def test_answers_are_remembered_up_to_a_limit(fields: int, size: int) -> None:
    def fill() -> None:
        for number in range(SectionMemory.MOST):
            use_answer(parse_section(block(number, fields, size), False, RESPONSE_SECTIONS))
            if RESPONSE_SECTIONS._left < 20_000:
                break

    assert grown(fill) <= SectionMemory.MOST_BYTES


def test_the_limit_has_all_forgotten() -> None:
    most = 0
    for number in range(3 * SectionMemory.MOST):
        use_request(parse_section(block(number, 32, 2040), False, REQUEST_SECTIONS))
        most = max(most, len(REQUEST_SECTIONS))
    assert 250 < most < 500
    assert len(REQUEST_SECTIONS) <= most
    for number in range(3 * SectionMemory.MOST):
        parse_section(block(number, 2, 40), False, REQUEST_SECTIONS)
        most = max(most, len(REQUEST_SECTIONS))
    assert most == SectionMemory.MOST


def test_a_thousand_browsers_are_remembered() -> None:
    for number in range(900):
        use_request(parse_section(block(number, 15, 1000), False, REQUEST_SECTIONS), 1)
    assert len(REQUEST_SECTIONS) == 900


@pytest.mark.parametrize(
    "whole", [block(0, 33, 900), block(0, 4, 3000)], ids=["many fields", "many bytes"]
)
def test_large_sections_are_not_remembered_nor_what_is_derived_from_them(whole: bytes) -> None:
    section = parse_section(whole, False, REQUEST_SECTIONS)
    use_request(section)
    assert len(REQUEST_SECTIONS) == 0
    assert not section.forwarded


def test_what_goes_on_is_remembered_by_who_sent_it_and_where_to() -> None:
    section = parse_section(b"Host: a", False, REQUEST_SECTIONS)
    one, other = Peer("192.0.2.1", False, True), Peer("192.0.2.1", True, True)
    section.keep_forwarded((one, False, "x"), b"1")
    section.keep_forwarded((other, False, "x"), b"2")
    again = parse_section(b"Host: a", False, REQUEST_SECTIONS)
    assert again is section
    assert again.forwarded == {(one, False, "x"): b"1", (other, False, "x"): b"2"}
    assert not parse_section(b"Host: b", False, REQUEST_SECTIONS).forwarded


def test_many_clients_with_the_same_lines_take_no_more_room() -> None:
    section = parse_section(b"Host: a", False, REQUEST_SECTIONS)
    for number in range(1000):
        section.keep_forwarded((Peer(str(number), False, True), False, "x"), b"1")
    assert 0 < len(section.forwarded) <= FORMS


def test_lines_are_remembered_up_to_a_limit() -> None:
    def fill() -> None:
        for number in range(module._FIELD_CACHE_SIZE // 30):
            lines = (f"N{number}-{i}-{'x' * 200}: {'v' * 40}" for i in range(30))
            parse_section("\r\n".join(["Host: a", *lines]).encode(), False, RESPONSE_SECTIONS)
        RESPONSE_SECTIONS.clear()

    tracemalloc.start()
    try:
        fill()
        assert tracemalloc.get_traced_memory()[0] <= module._FIELD_CACHE_MOST
    finally:
        tracemalloc.stop()


def test_what_is_remembered_of_strange_sections_is_little() -> None:
    tracemalloc.start()
    try:
        for number in range(1000):
            lines = "\r\n".join(f"{number:x}-{line:x}: y" for line in range(127))
            parse_request_head(f"GET / HTTP/1.1\r\nHost: a\r\n{lines}".encode(), LimitOptions())
            parse_response_head(f"HTTP/1.1 200 OK\r\n{lines}".encode(), "GET")
        assert tracemalloc.get_traced_memory()[0] < 8_000_000
    finally:
        tracemalloc.stop()
