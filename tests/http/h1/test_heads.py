"""Heads of messages: what is understood, and what is refused before anyone acts upon it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chp_gevent.http.errors import WireError
from chp_gevent.http.h1.fields import Field
from chp_gevent.http.h1.heads import (
    HEAD_END,
    PartialHead,
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
    serialise_head,
    take_request_head,
)
from chp_gevent.http.limits import LimitOptions
from tests.kit import message_strategies as wire

LIMITS = LimitOptions()
SMALL = LimitOptions(max_request_line=30, max_header_size=80, max_headers=3)


def request(*lines: str, line: str = "GET / HTTP/1.1", host: str | None = "a") -> RequestHead:
    """Parse a request with these header lines."""
    hosts = [] if host is None else [f"Host: {host}"]
    return parse_request_head("\r\n".join([line, *hosts, *lines]).encode("latin-1"), LIMITS)


def response(*lines: str, line: str = "HTTP/1.1 200 OK", asked_with: str = "GET") -> ResponseHead:
    """Parse a response with these header lines."""
    return parse_response_head("\r\n".join([line, *lines]).encode("latin-1"), asked_with)


# -- request lines


@pytest.mark.parametrize(
    ("line", "method", "target", "http_1_0"),
    [
        ("GET / HTTP/1.1", "GET", "/", False),
        ("GET / HTTP/1.0", "GET", "/", True),
        ("get / HTTP/1.1", "get", "/", False),
        ("M-SEARCH /x HTTP/1.1", "M-SEARCH", "/x", False),
        ("!#$%&'*+-.^_`|~09Az / HTTP/1.1", "!#$%&'*+-.^_`|~09Az", "/", False),
        ("GET /a%20b?c=d/../e&f#g HTTP/1.1", "GET", "/a%20b?c=d/../e&f#g", False),
        ("GET //a/..;/\\b HTTP/1.1", "GET", "//a/..;/\\b", False),
        ('GET /"<>^`{|} HTTP/1.1', "GET", '/"<>^`{|}', False),
        ("GET /caf\xe9\xff HTTP/1.1", "GET", "/caf\xe9\xff", False),
        ("GET /%00%0d%0a HTTP/1.1", "GET", "/%00%0d%0a", False),
        ("OPTIONS * HTTP/1.1", "OPTIONS", "*", False),
        ("GET http://a/b HTTP/1.1", "GET", "http://a/b", False),
        ("GET HTTP://A HTTP/1.1", "GET", "HTTP://A", False),
        ("GET http://a:80?x HTTP/1.1", "GET", "http://a:80?x", False),
        ("GET https://a:443/ HTTP/1.1", "GET", "https://a:443/", False),
    ],
)
def test_a_request_line_is_split_and_kept_as_sent(
    line: str, method: str, target: str, http_1_0: bool
) -> None:
    head = request(line=line)
    assert (head.method, head.target, head.http_1_0) == (method, target, http_1_0)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("", 400),
        (" ", 400),
        ("GET", 400),
        ("GET /", 400),
        ("GET  HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET\t/\tHTTP/1.1", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /\ta HTTP/1.1", 400),
        ("GET /\x00 HTTP/1.1", 400),
        ("GET /\x7f HTTP/1.1", 400),
        ("GET /\x0b HTTP/1.1", 400),
        ("GET /\n HTTP/1.1", 400),
        ("GET /\r HTTP/1.1", 400),
        ("G(T / HTTP/1.1", 400),
        ("G\xc9T / HTTP/1.1", 400),
        ("GET, / HTTP/1.1", 400),
        (":GET / HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.1\x0b", 400),
        ("GET / HTTP/01.1", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/1,1", 400),
        ("GET / HTTP/+1.1", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/11", 400),
        ("GET / HTTP/0.9", 400),
        ("GET / HTTP/2.0", 400),
        ("GET / HTTP/2", 400),
        ("PRI * HTTP/2.0", 400),
        ("GET / ICE/1.0", 400),
        ("GET / RTSP/1.0", 400),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/1.9", 505),
        ("CONNECT a:443 HTTP/1.1", 405),
        ("CONNECT / HTTP/1.1", 405),
        ("CONNECT http://a/ HTTP/1.1", 405),
        ("GET * HTTP/1.1", 400),
        ("OPTIONS ** HTTP/1.1", 400),
        ("GET a HTTP/1.1", 400),
        ("GET a/b HTTP/1.1", 400),
        ("GET a:80 HTTP/1.1", 400),
        ("GET ?a HTTP/1.1", 400),
        ("GET #a HTTP/1.1", 400),
        ("GET \\a HTTP/1.1", 400),
        ("GET %2Fa HTTP/1.1", 400),
        ("GET ../a HTTP/1.1", 400),
        ("GET http:/a HTTP/1.1", 400),
        ("GET http:a HTTP/1.1", 400),
        ("GET http:// HTTP/1.1", 400),
        ("GET http:///a HTTP/1.1", 400),
        ("GET http://?a HTTP/1.1", 400),
        ("GET http:\\\\a HTTP/1.1", 400),
        ("GET http://a\\b HTTP/1.1", 400),
        ("GET http://user@a/ HTTP/1.1", 400),
        ("GET http://a:x/ HTTP/1.1", 400),
        ("GET http://[::1/ HTTP/1.1", 400),
        ("GET ws://a/ HTTP/1.1", 400),
        ("GET ftp://a/ HTTP/1.1", 400),
        ("GET file:///etc/passwd HTTP/1.1", 400),
        ("GET javascript:alert(1) HTTP/1.1", 400),
        ("GET http://b/ HTTP/1.1", 400),
        ("GET http://a.b/ HTTP/1.1", 400),
        ("GET http://a:81/ HTTP/1.1", 400),
        ("GET http://a:443/ HTTP/1.1", 400),
        ("GET https://a:80/ HTTP/1.1", 400),
    ],
)
def test_a_malformed_request_line_is_refused(line: str, status: int) -> None:
    with pytest.raises(WireError) as refused:
        request(line=line)
    assert refused.value.status == status


# -- header lines


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("X: y", "X", "y"),
        ("X:y", "X", "y"),
        ("X: \t y \t", "X", "y"),
        ("X:", "X", ""),
        ("X: \t", "X", ""),
        ("X: a: b", "X", "a: b"),
        ("X: a\tb  c", "X", "a\tb  c"),
        ("X: caf\xe9 \x80\xff", "X", "caf\xe9 \x80\xff"),
        ('X: "()<>@,;:\\/[]?={}', "X", '"()<>@,;:\\/[]?={}'),
        ("!#$%&'*+-.^_`|~09aZ: y", "!#$%&'*+-.^_`|~09aZ", "y"),
        ("x_y: z", "x_y", "z"),
    ],
)
def test_a_header_line_keeps_its_case_and_loses_only_white_space_around_its_value(
    line: str, name: str, value: str
) -> None:
    for fields in (request(line).fields[1:], response(line).fields):
        assert [(field.name, field.value, field.lower) for field in fields] == [
            (name, value, name.lower())
        ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "X",
        ":",
        ": y",
        "X : y",
        "X\t: y",
        " X: y",
        "\tX: y",
        " folded",
        "\tfolded",
        "X y: z",
        "X\xa0: y",
        "X\xe9: y",
        "X(: y",
        'X": y',
        "X/: y",
        "X[]: y",
        "X@y: z",
        "X\x00: y",
        "X\x01: y",
        "X\x7f: y",
        "X\r: y",
        "X\n: y",
        "X: \x00",
        "X: a\x00b",
        "X: a\x01b",
        "X: a\x08b",
        "X: a\x0bb",
        "X: a\x0cb",
        "X: a\x1fb",
        "X: a\x7fb",
        "X: a\rb",
        "X: a\nb",
        "X: a\n b",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X: a\r\r\nY: b",
        "X: a\n\r\nY: b",
        "X: a\nTransfer-Encoding: chunked",
        "X: a\rTransfer-Encoding: chunked",
        "GET / HTTP/1.1",
        "Content-Length 5",
        "Transfer-Encoding : chunked",
        "Content-Length : 5",
        "Host : b",
    ],
)
def test_a_malformed_header_line_is_refused_in_requests_and_responses(line: str) -> None:
    for parse in (request, response):
        with pytest.raises(WireError) as refused:
            parse(line)
        assert refused.value.status == 400


def test_a_line_that_was_refused_is_refused_again_and_one_that_passed_is_not_mixed_up() -> None:
    for _ in range(2):
        with pytest.raises(WireError):
            request("X : y")
        assert request("x: y").fields[1] == Field("x", "y", "x", "HTTP_X")
        assert request("X: y").fields[1] == Field("X", "y", "x", "HTTP_X")


@pytest.mark.parametrize(
    ("name", "cgi"),
    [
        ("X-My-Own", "HTTP_X_MY_OWN"),
        ("Content-Type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("Content_Length", "HTTP_CONTENT_LENGTH"),
        ("Content_Type", "HTTP_CONTENT_TYPE"),
    ],
)
def test_a_field_knows_its_name_in_an_environ(name: str, cgi: str) -> None:
    assert request(f"{name}: 0").fields[1].cgi == cgi


def test_fields_that_matter_are_noted_in_order() -> None:
    known_values = request("TE: a", "X: b", "te: c", "Expect: d", "Upgrade: e").known_values
    assert known_values == {"host": ["a"], "te": ["a", "c"], "expect": ["d"], "upgrade": ["e"]}


# -- Host


@pytest.mark.parametrize(
    "host",
    ["", *"a A.b-c_d a:80 a: :80 127.0.0.1:8000 [::1] [::1]:80 [fe80::1%25lo] a%41 a~b".split()],
)
def test_a_host_is_a_name_or_address_with_or_without_a_port(host: str) -> None:
    assert request(host=host).known_values["host"] == [host]


@pytest.mark.parametrize(
    "host",
    [
        *("a b", "a, b", "a: 80", "a\xe9", "a\tb"),
        *"a,b a/b a?b a#b a@b u:p@a a\\b a:b a:80:80 a:80/ a:-1 a:+1 ::1 [::1 ::1] [::1]x".split(),
        *'[] a"b <a> a^b http://a a{b} a|b a`b'.split(),
    ],
)
def test_a_malformed_host_is_refused(host: str) -> None:
    with pytest.raises(WireError) as refused:
        request(host=host)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("version", "hosts", "accepted"),
    [
        ("1.1", [], False),
        ("1.1", ["a"], True),
        ("1.1", ["a", "a"], False),
        ("1.1", ["a", "b"], False),
        ("1.1", ["a", ""], False),
        ("1.0", [], True),
        ("1.0", ["a"], True),
        ("1.0", ["a", "b"], False),
        ("1.0", ["a b"], False),
    ],
)
def test_one_host_line_is_needed_since_http_1_1_and_two_are_too_many(
    version: str, hosts: list[str], accepted: bool
) -> None:
    lines = [f"Host: {host}" for host in hosts]
    if accepted:
        request(*lines, line=f"GET / HTTP/{version}", host=None)
    else:
        with pytest.raises(WireError):
            request(*lines, line=f"GET / HTTP/{version}", host=None)


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://a.b/", "A.B"),
        ("http://A.b:80", "a.B"),
        ("http://a.b", "a.b:80"),
        ("https://a.b:443/x", "a.b"),
        ("http://a.b:8000/", "a.b:8000"),
        ("http://[::1]:8000/", "[::1]:8000"),
    ],
)
def test_the_host_of_an_absolute_target_may_be_written_differently_from_the_header(
    target: str, host: str
) -> None:
    assert request(line=f"GET {target} HTTP/1.1", host=host).target == target


# -- framing


@pytest.mark.parametrize(
    ("lines", "length", "chunked"),
    [
        ([], None, False),
        (["Content-Length: 0"], 0, False),
        (["Content-Length: 5"], 5, False),
        (["content-length:\t5 "], 5, False),
        (["Content-Length: 999999999999999999"], 999999999999999999, False),
        (["Transfer-Encoding: chunked"], None, True),
        (["transfer-encoding: CHUNKED"], None, True),
        (["Transfer-Encoding:\tchunked\t"], None, True),
    ],
)
def test_a_body_is_framed_by_one_length_or_by_chunks(
    lines: list[str], length: int | None, chunked: bool
) -> None:
    for head in (request(*lines), response(*lines)):
        assert (head.content_length, head.chunked) == (length, chunked)
    assert request(*lines).has_body is (chunked or bool(length))


DOUBTFUL_FRAMING = [
    ["Content-Length: 5", "Content-Length: 5"],
    ["Content-Length: 5", "Content-Length: 6"],
    ["Content-Length: 0", "Content-Length: 0"],
    ["Content-Length: 5, 5"],
    ["Content-Length: 5,"],
    ["Content-Length: 5 5"],
    ["Content-Length: +5"],
    ["Content-Length: -5"],
    ["Content-Length: -0"],
    ["Content-Length: 0x5"],
    ["Content-Length: 5h"],
    ["Content-Length: 5.0"],
    ["Content-Length: 5e0"],
    ["Content-Length: 1_0"],
    ["Content-Length: \xb2"],
    ["Content-Length: 5;"],
    ['Content-Length: "5"'],
    ["Content-Length:"],
    ["Content-Length: \t"],
    ["Content-Length: 1000000000000000000"],
    ["Content-Length: 18446744073709551621"],
    ["Content-Length: 5", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Content-Length: 5"],
    ["Transfer-Encoding: chunked", "Content-Length: 0"],
    ["Transfer-Encoding: identity", "Content-Length: 5"],
    ["Transfer-Encoding:", "Content-Length: 5"],
    ["Transfer-Encoding:"],
    ["Transfer-Encoding: identity"],
    ["Transfer-Encoding: gzip"],
    ["Transfer-Encoding: gzip, chunked"],
    ["Transfer-Encoding: chunked, gzip"],
    ["Transfer-Encoding: chunked, identity"],
    ["Transfer-Encoding: chunked, chunked"],
    ["Transfer-Encoding: chunked,"],
    ["Transfer-Encoding: ,chunked"],
    ["Transfer-Encoding: chunked;q=1"],
    ["Transfer-Encoding: x-chunked"],
    ["Transfer-Encoding: chunke"],
    ["Transfer-Encoding: chunkedd"],
    ["Transfer-Encoding: 'chunked'"],
    ['Transfer-Encoding: "chunked"'],
    ["Transfer-Encoding: \xa0chunked"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
]


@pytest.mark.parametrize("lines", DOUBTFUL_FRAMING, ids=" + ".join)
def test_framing_that_can_be_read_in_two_ways_is_refused(lines: list[str]) -> None:
    for parse in (request, response):
        with pytest.raises(WireError) as refused:
            parse(*lines)
        assert refused.value.status == 400


def test_chunks_are_unknown_to_http_1_0() -> None:
    with pytest.raises(WireError):
        request("Transfer-Encoding: chunked", line="POST / HTTP/1.0")
    with pytest.raises(WireError):
        response("Transfer-Encoding: chunked", line="HTTP/1.0 200 OK")


@pytest.mark.parametrize(("sent", "value"), [("007", "7"), ("0000", "0"), ("0" * 400 + "1", "1")])
def test_a_length_loses_its_leading_zeros(sent: str, value: str) -> None:
    for _ in range(2):
        head = request(f"Content-Length: {sent}")
        assert head.fields[1].value == value
        assert head.content_length == int(value)


# -- the life of the connection


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive", "options"),
    [
        ("1.1", [], True, set()),
        ("1.1", ["Connection: keep-alive"], True, {"keep-alive"}),
        ("1.1", ["Connection: Keep-Alive"], True, {"keep-alive"}),
        ("1.1", ["Connection: close"], False, {"close"}),
        ("1.1", ["Connection: CLOSE"], False, {"close"}),
        ("1.1", ["Connection: x, close"], False, {"x", "close"}),
        ("1.1", ["Connection: x,,\t Close ,"], False, {"x", "close"}),
        ("1.1", ["Connection: X-A", "connection: close"], False, {"x-a", "close"}),
        ("1.1", ["Connection: keep-alive, close"], False, {"keep-alive", "close"}),
        ("1.1", ["Connection: closed"], True, {"closed"}),
        ("1.1", ["Connection:"], True, set()),
        ("1.0", [], False, set()),
        ("1.0", ["Connection: keep-alive"], True, {"keep-alive"}),
        ("1.0", ["Connection: close"], False, {"close"}),
        ("1.0", ["Connection: close, keep-alive"], False, {"keep-alive", "close"}),
    ],
)
def test_connection_options_decide_whether_the_connection_lives_on(
    version: str, lines: list[str], keep_alive: bool, options: set[str]
) -> None:
    asked = request(*lines, line=f"GET / HTTP/{version}")
    answered = response(*lines, "Content-Length: 0", line=f"HTTP/{version} 200 OK")
    for head in (asked, answered):
        assert head.keep_alive is keep_alive
        assert head.connection_options == frozenset(options)


def test_more_connection_options_than_anybody_has_are_refused() -> None:
    def lines(number: int) -> list[str]:
        options = [f"a{i}" for i in range(number)]
        half = number // 2
        return [
            f"Connection: {','.join(options[:half])}",
            f"Connection: {','.join(options[half:])}",
        ]

    assert len(request(*lines(100)).connection_options) == 100
    for parse in (request, response):
        with pytest.raises(WireError, match="too many connection options") as refused:
            parse(*lines(20_000))
        assert refused.value.status == 400


def test_a_response_that_lasts_until_the_end_of_its_connection_does_not_keep_it() -> None:
    assert not response("Connection: keep-alive").keep_alive
    assert response("Connection: keep-alive", asked_with="HEAD").keep_alive


@pytest.mark.parametrize(
    ("lines", "protocol"),
    [
        (["Connection: Upgrade", "Upgrade: websocket"], "websocket"),
        (["Connection: keep-alive, upgrade", "Upgrade: WebSocket"], "websocket"),
        (["Connection: upgrade", "Upgrade: h2c"], "h2c"),
        (["Connection: upgrade", "Upgrade: websocket, h2c"], ""),
        (["Connection: upgrade", "Upgrade: a", "Upgrade: websocket"], ""),
        (["Connection: upgrade", "Upgrade: a, WebSocket", "Sec-WebSocket-Key: x"], "websocket"),
        (["Connection: upgrade", "Upgrade: h2c, a", "Sec-WebSocket-Key: x"], ""),
        (["Upgrade: websocket"], ""),
        (["Connection: upgrade"], ""),
        (["Connection: close", "Upgrade: websocket"], ""),
    ],
)
def test_an_upgrade_is_asked_for_in_two_places(lines: list[str], protocol: str) -> None:
    assert request(*lines).upgrade == protocol


def test_http_1_0_knows_no_upgrade() -> None:
    lines = ["Connection: upgrade", "Upgrade: websocket", "Content-Length: 5"]
    assert request(*lines, line="GET / HTTP/1.0").upgrade == ""


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0"])
@pytest.mark.parametrize(
    ("framing", "has_body"),
    [
        ("Content-Length: 0", False),
        ("Content-Length: 1", True),
        ("Transfer-Encoding: chunked", True),
    ],
)
def test_a_request_that_offers_an_upgrade_may_have_a_body(
    protocol: str, framing: str, has_body: bool
) -> None:
    head = request("Connection: Upgrade", f"Upgrade: {protocol}", framing)
    assert (head.upgrade, head.has_body) == (protocol.lower(), has_body)


# -- sections that come again


def test_a_header_section_that_was_fine_once_is_looked_at_again_where_other_rules_apply() -> None:
    coded = "Transfer-Encoding: chunked"
    for _ in range(2):
        assert request(coded).chunked
        with pytest.raises(WireError):
            request(coded, line="POST / HTTP/1.0")
        assert response("X: no host").fields
        with pytest.raises(WireError):
            request("X: no host", host=None)
        assert request("X: no host", host=None, line="GET / HTTP/1.0").fields
        assert request(line="GET http://a/ HTTP/1.1").target
        with pytest.raises(WireError):
            request(line="GET http://b/ HTTP/1.1")
        assert request("Connection: upgrade", "Upgrade: x", line="GET / HTTP/1.1").upgrade == "x"
        assert request("Connection: upgrade", "Upgrade: x", line="GET / HTTP/1.0").upgrade == ""


def test_one_section_means_different_things_behind_different_status_lines() -> None:
    for _ in range(2):
        for status, expected in [(200, 5), (204, 0), (304, 0), (103, 0), (500, 5)]:
            head = response("Content-Length: 5", line=f"HTTP/1.1 {status} X")
            assert head.content_length == expected
            assert len(head.fields) == (status not in (103, 204))
        assert response("X: y", asked_with="HEAD").keep_alive
        assert not response("X: y").keep_alive


# -- limits


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"GET /" + b"a" * 16 + b" HTTP/1.1", None),
        (b"GET /" + b"a" * 17 + b" HTTP/1.1", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y\r\nX: y", 431),
        (b"x" * 31, 414),
    ],
)
def test_a_head_past_a_limit_has_its_own_status(block: bytes, status: int | None) -> None:
    if status is None:
        parse_request_head(block if b"Host" in block else block + b"\r\nHost: a", SMALL)
    else:
        with pytest.raises(WireError) as refused:
            parse_request_head(block, SMALL)
        assert refused.value.status == status


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"", None),
        (b"a" * 30, None),
        (b"a" * 30 + b"\r", None),
        (b"a" * 30 + b"\r\n", None),
        (b"a" * 31 + b"\r", 414),
        (b"a" * 32, 414),
        (b"a" * 31 + b"\r\n", 414),
        (b"a" * 100, 414),
        (b"a\r\n" + b"b" * 77, None),
        (b"a\r\n" + b"b" * 77 + b"\r\n\r", None),
        (b"a\r\n" + b"b" * 81, 431),
        (b"a\r\n" + b"b\r\n" * 1000, 431),
        (b"\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"a\r\nb\n", 400),
        (b"a\r\n\n", 400),
        (b"a\n\r", 400),
        (b"a\n" * 1000, 400),
    ],
)
def test_a_head_that_does_not_end_is_refused_once_no_end_could_save_it(
    received: bytes, status: int | None
) -> None:
    for data in (received, bytearray(received)):
        error = PartialHead(data).error(SMALL)
        assert (error and error.status) == status


@given(st.binary(max_size=40) | st.just(b"a\r\nb\nc\r\n\r\n"), st.data())
def test_a_head_is_judged_the_same_however_it_arrives(sent: bytes, data: st.DataObject) -> None:
    whole, head = PartialHead(sent), PartialHead(b"")
    for piece in data.draw(wire.split(sent)):
        head.add(piece)
        if head.complete:
            break
    else:
        assert not whole.complete
        assert (head.bare_line_feed, head.first_line_end) == (
            whole.bare_line_feed,
            whole.first_line_end,
        )
        assert head.received == sent
    assert sent.startswith(bytes(head.received))
    assert head.complete is whole.complete


def test_each_byte_of_a_head_is_searched_once() -> None:
    head = PartialHead(b"GET /")
    began = time.process_time()
    for _ in range(400_000):
        head.add(b"a")
    # 0.5 s; searching all of it each time, 200.
    assert time.process_time() - began < 5.0
    assert not head.complete


# -- where a head begins and ends


@pytest.mark.parametrize("before", [b"", b"\r\n"])
@pytest.mark.parametrize("behind", [b"", b"body", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_head_is_taken_from_what_was_received_and_the_rest_is_left(
    before: bytes, behind: bytes
) -> None:
    taken = take_request_head(before + b"GET /a HTTP/1.1\r\nHost: b" + HEAD_END + behind, LIMITS)
    assert taken is not None
    head, left = taken
    assert (head.target, head.known_values["host"], left) == ("/a", ["b"], behind)


@pytest.mark.parametrize("received", [b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r"])
def test_nothing_is_taken_before_the_head_is_complete(received: bytes) -> None:
    assert take_request_head(received, LIMITS) is None


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (HEAD_END, 400),
        (b"\r\n" * 3 + b"GET / HTTP/1.1\r\nHost: a" + HEAD_END, 400),
        (b"a" * 100 + HEAD_END, 414),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20 + HEAD_END, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 100 + HEAD_END, 431),
        (b"GET / HTTP/1.1\nX: " + b"y" * 100 + HEAD_END, 400),
    ],
)
def test_a_head_that_must_not_be_taken_has_its_own_status(received: bytes, status: int) -> None:
    with pytest.raises(WireError) as refused:
        take_request_head(received, SMALL)
    assert refused.value.status == status


# -- responses


@pytest.mark.parametrize(
    ("line", "status", "reason", "http_1_0"),
    [
        ("HTTP/1.1 200 OK", 200, "OK", False),
        ("HTTP/1.0 404 Not Found", 404, "Not Found", True),
        ("HTTP/1.1 200 ", 200, "", False),
        ("HTTP/1.1 200", 200, "", False),
        ("HTTP/1.1 299 \xe9\t very  own", 299, "\xe9\t very  own", False),
        ("HTTP/1.1 599 x", 599, "x", False),
        ("HTTP/1.1 103 Early Hints", 103, "Early Hints", False),
    ],
)
def test_a_status_line_is_split(line: str, status: int, reason: str, http_1_0: bool) -> None:
    head = response(line=line)
    assert (head.status, head.reason, head.http_1_0) == (status, reason, http_1_0)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "200 OK",
        "OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 Low",
        "HTTP/1.1 600 High",
        "HTTP/1.1 999 High",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 2OO OK",
        "HTTP/1.1 2\xb20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200 O\x00K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 200 O\nK",
        "HTTP/1.1 200 O\x1bK",
        "http/1.1 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/1 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/2 200 OK",
        "HTTP/3 200 OK",
        "HTTP/11 200 OK",
        "ICY 200 OK",
        "RTSP/1.0 200 OK",
        "GET / HTTP/1.1",
        "<html>",
    ],
)
def test_a_malformed_status_line_is_refused(line: str) -> None:
    with pytest.raises(WireError):
        response(line=line)


@pytest.mark.parametrize(
    ("status", "asked_with", "framing", "expected"),
    [
        (200, "GET", "X: y", (None, False)),
        (200, "GET", "Content-Length: 5", (5, False)),
        (200, "GET", "Transfer-Encoding: chunked", (None, True)),
        (200, "HEAD", "X: y", (0, False)),
        (200, "HEAD", "Content-Length: 5", (0, False)),
        (200, "HEAD", "Transfer-Encoding: chunked", (0, False)),
        (404, "HEAD", "Content-Length: 5", (0, False)),
        (100, "GET", "X: y", (0, False)),
        (103, "GET", "Content-Length: 5", (0, False)),
        (101, "GET", "Content-Length: 5\r\nConnection: upgrade\r\nUpgrade: x", (0, False)),
        (204, "GET", "X: y", (0, False)),
        (204, "GET", "Content-Length: 5", (0, False)),
        (204, "GET", "Transfer-Encoding: chunked", (0, False)),
        (304, "GET", "Content-Length: 5", (0, False)),
        (304, "GET", "Transfer-Encoding: chunked", (0, False)),
        (205, "GET", "Content-Length: 5", (5, False)),
        (500, "GET", "Content-Length: 5", (5, False)),
    ],
)
def test_status_and_method_decide_whether_a_response_has_a_body(
    status: int, asked_with: str, framing: str, expected: tuple[int | None, bool]
) -> None:
    head = response(framing, line=f"HTTP/1.1 {status} X", asked_with=asked_with)
    assert (head.content_length, head.chunked) == expected


@pytest.mark.parametrize(
    ("status", "asked_with", "kept"),
    [(103, "GET", False), (204, "GET", False), (304, "GET", True), (200, "HEAD", True)],
)
def test_a_length_is_dropped_where_none_may_be_and_kept_where_it_describes_another_answer(
    status: int, asked_with: str, kept: bool
) -> None:
    head = response("Content-Length: 5", line=f"HTTP/1.1 {status} X", asked_with=asked_with)
    assert [field.lower for field in head.fields] == ["content-length"] * kept


def test_a_response_keeps_its_head_as_it_came() -> None:
    block = b"HTTP/1.1 101 X\r\nConnection:  Upgrade \r\nupgrade: a\r\nX: \xe9"
    assert parse_response_head(block, "GET").raw == block + HEAD_END


@pytest.mark.parametrize(
    ("lines", "accepted"),
    [
        (["Connection: upgrade", "Upgrade: websocket"], True),
        (["Connection: Keep-Alive, Upgrade", "Upgrade: websocket"], True),
        (["Connection: upgrade"], False),
        (["Upgrade: websocket"], False),
        (["Connection: close", "Upgrade: websocket"], False),
        ([], False),
    ],
)
def test_a_response_that_switches_protocols_says_so_in_its_header(
    lines: list[str], accepted: bool
) -> None:
    if accepted:
        assert response(*lines, line="HTTP/1.1 101 Switching Protocols").status == 101
    else:
        with pytest.raises(WireError):
            response(*lines, line="HTTP/1.1 101 Switching Protocols")


# -- writing


def test_a_head_is_written_in_one_canonical_form() -> None:
    headers = [("Host", "a"), ("X", ""), ("x", "\xe9")]
    assert serialise_head("GET / HTTP/1.1", headers) == (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\nx: \xe9\r\n\r\n"
    )
    assert serialise_head("HTTP/1.1 204 No Content", []) == b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize("line", ["a:", "Set-Cookie: name=value; Path=/"])
def test_the_fields_of_an_answer_have_a_limit_however_short_they_are(line: str) -> None:
    most = "\r\n".join(["HTTP/1.1 204 No Content", *[line] * 1000]).encode()
    assert len(parse_response_head(most, "GET").fields) == 1000
    with pytest.raises(WireError, match="too many header lines"):
        parse_response_head(most + b"\r\n" + line.encode(), "GET")
