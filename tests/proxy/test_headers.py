"""Header fields on their way through the proxy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chp_gevent.http.h1.fields import Field
from chp_gevent.http.peer import Peer
from chp_gevent.http.response import Headers
from chp_gevent.proxy import headers
from tests.kit import message_strategies as wire

NOBODY: frozenset[str] = frozenset()
CLIENT = Peer("192.0.2.1", secure=False, trusted=True)
TLS_CLIENT = CLIENT._replace(secure=True)
STRANGER = CLIENT._replace(trusted=False)
LOCAL_PROXY = CLIENT._replace(address="")


def fields(*pairs: tuple[str, str]) -> list[Field]:
    """Return fields as ``wire`` parses them."""
    return [
        Field(name, value, name.lower(), "HTTP_" + name.upper().replace("-", "_"))
        for name, value in pairs
    ]


def lines(*texts: str) -> list[Field]:
    """Return the fields of header lines."""
    return fields(*((text.partition(": ")[0], text.partition(": ")[2]) for text in texts))


def sent_pairs(sent: list[Field]) -> Headers:
    """Return the names and values of fields."""
    return [(field.name, field.value) for field in sent]


def texts(found: Headers) -> list[str]:
    """Return headers as lines."""
    return [f"{name}: {value}" for name, value in found]


# -- what goes on, and what does not


HOP_BY_HOP = (
    "Connection Keep-Alive Proxy-Authenticate Proxy-Authorization Proxy-Connection TE "
    "Transfer-Encoding Upgrade"
).split()


@pytest.mark.parametrize("name", [*HOP_BY_HOP, *map(str.lower, HOP_BY_HOP)])
def test_hop_by_hop_fields_are_dropped_both_ways(name: str) -> None:
    sent = fields(("A", "1"), (name, "x"), ("B", "2"))
    kept = [("A", "1"), ("B", "2")]
    assert headers.request_headers(sent, NOBODY, None) == kept
    assert headers.response_headers(sent, NOBODY) == kept
    assert headers.trailer_headers(sent) == kept


@pytest.mark.parametrize(
    ("named", "name", "kept"),
    [
        ({"x-mine"}, "X-Mine", False),
        ({"close", "x-mine"}, "x-MINE", False),
        ({"cookie"}, "Cookie", False),
        ({"x-other"}, "X-Mine", True),
        ({"host"}, "Host", True),
        ({"content-length"}, "Content-Length", True),
        ({"host", "x-mine"}, "Host", True),
    ],
)
def test_fields_named_in_connection_are_dropped_unless_the_message_needs_them(
    named: set[str], name: str, kept: bool
) -> None:
    sent = fields(("A", "1"), (name, "x"))
    expected = [("A", "1"), (name, "x")] if kept else [("A", "1")]
    assert headers.request_headers(sent, frozenset(named), None) == expected
    assert headers.request_headers(sent, frozenset(named), []) == expected
    assert headers.response_headers(sent, frozenset(named)) == expected


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-User", "Forwarded", "X-Real-IP"])
def test_a_client_cannot_have_dropped_what_a_proxy_in_front_of_us_said(name: str) -> None:
    sent = fields((name, "x"))
    named = frozenset((name.lower(), "x-mine"))
    assert headers.request_headers(sent, named, None) == [(name, "x")]


def test_order_case_and_duplicates_are_kept() -> None:
    sent = [("B", "1"), ("a", "2"), ("b", "3"), ("A", "2"), ("Set-Cookie", "x"), ("B", "")]
    assert headers.request_headers(fields(*sent), NOBODY, None) == sent
    assert headers.request_headers(fields(*sent), NOBODY, []) == sent
    assert headers.response_headers(fields(*sent), NOBODY) == sent


@pytest.mark.parametrize(
    "name",
    "Transfer_Encoding transfer_encoding Content_Length Keep_Alive Proxy_Connection "
    "Transfer.Encoding Content.Length content~length Keep'Alive Proxy|Connection".split(),
)
def test_a_name_that_a_cgi_target_takes_for_a_framing_field_is_dropped(name: str) -> None:
    assert headers.request_headers(fields((name, "5")), NOBODY, None) == []


@pytest.mark.parametrize(
    "name",
    "X_Forwarded_For X-Forwarded_For x_forwarded-proto X.Forwarded.For X'Forwarded!Host".split(),
)
def test_a_name_that_a_cgi_target_takes_for_a_forwarded_one_is_dropped(name: str) -> None:
    forwarded = [("X-Forwarded-For", "192.0.2.1")]
    assert headers.request_headers(fields((name, "x")), NOBODY, forwarded) == forwarded
    assert headers.request_headers(fields((name, "x")), NOBODY, None) == [(name, "x")]


def test_other_names_with_underscores_go_on() -> None:
    sent = [("X_Mine", "1"), ("content_type", "2"), ("_", "3")]
    assert headers.request_headers(fields(*sent), NOBODY, []) == sent


@pytest.mark.parametrize(
    "name",
    "X-Forwarded-For X-Forwarded-Prefix X_Forwarded_User Forwarded X-Real-IP X-Real_IP "
    "X.Forwarded.For X'Real'IP x`forwarded~user X_Scheme X!Client$IP X#Forwarded%Proto "
    "X^Forwarded|Port X*Real+IP X&Forwarded-Host".split(),
)
def test_a_stranger_speaks_for_nobody_but_itself(name: str) -> None:
    sent = fields((name, "x"), ("X-Forward", "y"))
    named = frozenset((name.lower(), "x-mine"))
    assert headers.request_headers(sent, named, None) == [*sent_pairs(sent)]
    unset: Headers = []
    for forwarded in (unset, None):
        kept = headers.request_headers(sent, NOBODY, forwarded, trusted=False)
        assert kept == [("X-Forward", "y")]
    assert headers.request_headers(fields((name, "x")), NOBODY, None) == [(name, "x")]


FORBIDDEN_TRAILERS = (
    "Content-Length Transfer-Encoding Host Content-Type Content-Encoding Content-Range Trailer "
    "Authorization Cookie Set-Cookie Cache-Control Expect TE Connection Upgrade Location "
    "X-Forwarded-For X-Forwarded-Host X-Real-IP X_Forwarded_For X.Real.IP Content_Length"
).split()


@pytest.mark.parametrize("name", FORBIDDEN_TRAILERS)
def test_a_trailer_cannot_say_what_belongs_before_the_body(name: str) -> None:
    assert headers.trailer_headers(fields((name, "5"), ("Digest", "x"))) == [("Digest", "x")]


def test_other_trailers_go_on_in_order() -> None:
    sent = [("grpc-status", "0"), ("Server-Timing", "a"), ("ETag", '"x"'), ("Server-Timing", "b")]
    assert headers.trailer_headers(fields(*sent)) == sent


# -- X-Forwarded-*, the values of CHP


@pytest.mark.parametrize(
    ("peer", "host", "expected"),
    [
        (CLIENT, "a", ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: a"]),
        (CLIENT, "a:8000", ["For: 192.0.2.1", "Port: 8000", "Proto: http", "Host: a:8000"]),
        (CLIENT, "[::1]:8000", ["For: 192.0.2.1", "Port: 8000", "Proto: http", "Host: [::1]:8000"]),
        (CLIENT, "[::1]", ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: [::1]"]),
        (CLIENT, "[::ffff]", ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: [::ffff]"]),
        (TLS_CLIENT, "[::1]", ["For: 192.0.2.1", "Port: 443", "Proto: https", "Host: [::1]"]),
        (CLIENT, "a:", ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: a:"]),
        (CLIENT, "", ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: "]),
        (TLS_CLIENT, "a", ["For: 192.0.2.1", "Port: 443", "Proto: https", "Host: a"]),
        (TLS_CLIENT, "a:80", ["For: 192.0.2.1", "Port: 80", "Proto: https", "Host: a:80"]),
        (LOCAL_PROXY, "a", ["Port: 80", "Proto: http", "Host: a"]),
        (STRANGER, "a", ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: a"]),
    ],
)
def test_a_target_is_told_who_asked_and_how(peer: Peer, host: str, expected: list[str]) -> None:
    found = headers.forwarded_headers(lines("Accept: x"), peer, host)
    assert texts(found) == [f"X-Forwarded-{line}" for line in expected]


@pytest.mark.parametrize(
    ("peer", "proto", "port"), [(CLIENT, "ws", "80"), (TLS_CLIENT, "wss", "443")]
)
def test_a_websocket_has_its_own_protocol_and_no_host_added(
    peer: Peer, proto: str, port: str
) -> None:
    found = headers.forwarded_headers([], peer, "a", websocket=True)
    assert texts(found) == [
        "X-Forwarded-For: 192.0.2.1",
        f"X-Forwarded-Port: {port}",
        f"X-Forwarded-Proto: {proto}",
    ]
    front = headers.forwarded_headers(lines("X-Forwarded-Host: front"), peer, "a", websocket=True)
    assert texts(front)[-1] == "X-Forwarded-Host: front"


ALL_SENT = [
    "X-Forwarded-For: 1",
    "X-Forwarded-Port: 2",
    "x-forwarded-proto: 3",
    "X-FORWARDED-HOST: 4",
]


@pytest.mark.parametrize(
    ("peer", "sent", "expected"),
    [
        (CLIENT, ALL_SENT, ["For: 1,192.0.2.1", "Port: 2,80", "Proto: 3,http", "Host: 4"]),
        (CLIENT, ALL_SENT[:1], ["For: 1,192.0.2.1", "Port: 80", "Proto: http", "Host: a"]),
        (CLIENT, ALL_SENT[3:], ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: 4"]),
        (
            CLIENT,
            ["X-Forwarded-For: 1, 2", "X-Forwarded-For: 3"],
            ["For: 1, 2, 3,192.0.2.1", "Port: 80", "Proto: http", "Host: a"],
        ),
        (
            CLIENT,
            ["X-Forwarded-For: ", "X-Forwarded-Host: "],
            ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: a"],
        ),
        (LOCAL_PROXY, ALL_SENT, ["For: 1", "Port: 2,80", "Proto: 3,http", "Host: 4"]),
        (LOCAL_PROXY, ALL_SENT[1:], ["Port: 2,80", "Proto: 3,http", "Host: 4"]),
        (STRANGER, ALL_SENT, ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: a"]),
    ],
)
def test_what_a_trusted_peer_sent_is_appended_to_and_what_a_stranger_sent_replaced(
    peer: Peer, sent: list[str], expected: list[str]
) -> None:
    forwarded = headers.forwarded_headers(lines(*sent), peer, "a")
    assert texts(forwarded) == [f"X-Forwarded-{line}" for line in expected]
    assert headers.request_headers(lines(*sent), NOBODY, forwarded) == forwarded


KEPT = ["X-Forwarded-Port: 8443", "X-Forwarded-Proto: https", "X-Forwarded-Host: hub.example:8443"]


@pytest.mark.parametrize(
    ("peer", "sent", "expected"),
    [
        # What the proxy in front says of its client is what the target is told.
        (
            CLIENT,
            ["X-Forwarded-For: 1", *KEPT],
            ["For: 1,192.0.2.1", "Port: 8443", "Proto: https", "Host: hub.example:8443"],
        ),
        (LOCAL_PROXY, KEPT, ["Port: 8443", "Proto: https", "Host: hub.example:8443"]),
        # What it does not say follows from what it does.
        (CLIENT, KEPT[1:2], ["For: 192.0.2.1", "Port: 443", "Proto: https", "Host: a"]),
        (
            CLIENT,
            ["X-Forwarded-Proto: HTTPS"],
            ["For: 192.0.2.1", "Port: 443", "Proto: HTTPS", "Host: a"],
        ),
        (
            TLS_CLIENT,
            ["X-Forwarded-Proto: http"],
            ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: a"],
        ),
        (
            CLIENT,
            KEPT[2:],
            ["For: 192.0.2.1", "Port: 8443", "Proto: http", "Host: hub.example:8443"],
        ),
        (
            CLIENT,
            ["X-Forwarded-Proto: https, http", "X-Forwarded-Host: [::1], b:1"],
            ["For: 192.0.2.1", "Port: 443", "Proto: https, http", "Host: [::1], b:1"],
        ),
        (
            CLIENT,
            ["X-Forwarded-For: 1"],
            ["For: 1,192.0.2.1", "Port: 80", "Proto: http", "Host: a"],
        ),
        (
            CLIENT,
            [f"X-Forwarded-{name}: " for name in ("For", "Port", "Proto", "Host")],
            ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: a"],
        ),
        (CLIENT, [], ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: a"]),
        (STRANGER, KEPT, ["For: 192.0.2.1", "Port: 80", "Proto: http", "Host: a"]),
    ],
)
def test_with_trusted_proxies_what_one_of_them_says_is_kept(
    peer: Peer, sent: list[str], expected: list[str]
) -> None:
    forwarded = headers.forwarded_headers(lines(*sent), peer, "a", kept=True)
    assert texts(forwarded) == [f"X-Forwarded-{line}" for line in expected]
    if peer is not STRANGER:
        assert headers.request_headers(lines(*sent), NOBODY, forwarded) == forwarded


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (KEPT[1:2], ["Port: 443", "Proto: https"]),
        (["X-Forwarded-Proto: wss"], ["Port: 443", "Proto: wss"]),
        (KEPT, ["Port: 8443", "Proto: https", "Host: hub.example:8443"]),
        (["X-Forwarded-Host: "], ["Port: 80", "Proto: ws"]),
    ],
)
def test_a_websocket_through_a_trusted_proxy_keeps_what_that_says(
    sent: list[str], expected: list[str]
) -> None:
    found = headers.forwarded_headers(lines(*sent), CLIENT, "a", websocket=True, kept=True)
    assert texts(found)[1:] == [f"X-Forwarded-{line}" for line in expected]


# -- replacing


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, ["Host: a", "X: 1", "Y: 2", "x: 3"]),
        ({"host": ("Host", "b")}, ["Host: b", "X: 1", "Y: 2", "x: 3"]),
        ({"x": ("X-NEW", "4")}, ["Host: a", "X-NEW: 4", "Y: 2"]),
        ({"z": ("Z", "4")}, ["Host: a", "X: 1", "Y: 2", "x: 3", "Z: 4"]),
    ],
)
def test_a_field_is_replaced_where_it_stands_or_added_at_the_end(
    overrides: dict[str, tuple[str, str]], expected: list[str]
) -> None:
    sent = [("Host", "a"), ("X", "1"), ("Y", "2"), ("x", "3")]
    assert texts(headers.replaced(sent, overrides)) == expected


# -- Location


# -- the prefix that was cut off


@pytest.mark.parametrize(
    ("sent", "prefix", "kept", "expected"),
    [
        ([], "/app", True, "/app"),
        ([], "/user/秀樹 x", True, "/user/%E7%A7%80%E6%A8%B9%20x"),
        ([], "/a\r\nX-B: 1", True, "/a%0D%0AX-B:%201"),
        ([], "/a,b%2F", True, "/a%2Cb%252F"),
        ([], "/", True, None),
        (["/outer"], "/inner", True, "/outer/inner"),
        (["/outer/"], "/inner", True, "/outer/inner"),
        (["/one, /two"], "/inner", True, "/one/two/inner"),
        (["/one", "/two"], "/inner", True, "/one/two/inner"),
        (["/"], "/inner", True, "/inner"),
        (["/outer"], "/", True, "/outer"),
        (["/outer"], "/inner", False, "/inner"),
        (["/outer"], "/", False, None),
    ],
)
def test_a_target_is_told_what_was_cut_off_its_paths(
    sent: list[str], prefix: str, kept: bool, expected: str | None
) -> None:
    before = [("A", "1"), *(("x-forwarded-prefix", value) for value in sent), ("B", "2")]
    told = headers.with_prefix(before, prefix, kept=kept)
    added = [] if expected is None else [("X-Forwarded-Prefix", expected)]
    assert told == [("A", "1"), ("B", "2"), *added]


@pytest.mark.parametrize("kept", [True, False])
def test_what_looks_like_a_prefix_to_a_cgi_target_is_dropped(kept: bool) -> None:
    before = [("X_Forwarded_Prefix", "/evil"), ("X.Forwarded-Prefix", "/evil")]
    assert headers.with_prefix(before, "/a", kept=kept) == [("X-Forwarded-Prefix", "/a")]


@pytest.mark.parametrize("status", [200, 201, 300, 301, 302, 303, 304, 307, 308, 404])
def test_location_is_rewritten_for_the_statuses_of_chp_and_for_303(status: int) -> None:
    assert headers.rewrites_location(status) is (status in (201, 301, 302, 303, 307, 308))


@pytest.mark.parametrize(
    ("location", "new_host", "new_scheme", "expected"),
    [
        ("http://t:8888/a?b#c", "pub:80", None, "http://pub:80/a?b#c"),
        ("http://T:8888/a", "pub", None, "http://pub/a"),
        ("http://t:8888", "pub", None, "http://pub/"),
        ("http://t:8888/a", None, "https", "https://t:8888/a"),
        ("http://t:8888/a", "pub", "https", "https://pub/a"),
        ("http://t:8888/a", "pub", "https:", "https://pub/a"),
        ("http://u:p@t:8888/a", "pub", None, "http://u:p@pub/a"),
        ("https://t:8888/a", "pub", None, "https://pub/a"),
        ("http://other:8888/a", "pub", "https", "http://other:8888/a"),
        ("http://t:8889/a", "pub", "https", "http://t:8889/a"),
        ("http://t/a", "pub", "https", "http://t/a"),
        ("/a", "pub", "https", "/a"),
        ("a", "pub", "https", "a"),
        ("//t/a", "pub", "https", "//t/a"),
        ("", "pub", "https", ""),
        ("http://t:x/a", "pub", "https", "http://t:x/a"),
        ("http://[t/a", "pub", "https", "http://[t/a"),
        ("http://t:" + "8" * 5000, "pub", "https", "http://t:" + "8" * 5000),
        ("javascript:alert(1)", "pub", "https", "javascript:alert(1)"),
    ],
)
def test_only_a_location_on_the_target_itself_is_rewritten(
    location: str, new_host: str | None, new_scheme: str | None, expected: str
) -> None:
    assert headers.rewritten_location(location, "t:8888", new_host, new_scheme) == expected


@pytest.mark.parametrize(
    ("scheme", "host", "port", "expected"),
    [
        ("http", "A", None, "a"),
        ("http", "a", 80, "a"),
        ("https", "a", 443, "a"),
        ("http", "a", 443, "a:443"),
        ("https", "a", 80, "a:80"),
        ("http", "::1", None, "[::1]"),
        ("http", "::1", 8000, "[::1]:8000"),
        ("http", None, None, ""),
    ],
)
def test_an_origin_has_no_default_port(
    scheme: str, host: str | None, port: int | None, expected: str
) -> None:
    assert headers.origin_host(scheme, host, port) == expected


# -- whatever hypothesis makes up


@given(wire.fields, st.frozensets(wire.names.map(str.lower), max_size=3), st.booleans())
def test_what_goes_on_was_sent_in_that_order_and_is_for_the_next_hop(
    sent: list[tuple[str, str]], named: frozenset[str], trusted: bool
) -> None:
    kept = headers.request_headers(fields(*sent), named, None, trusted=trusted)
    rest = iter(sent)
    assert all(pair in rest for pair in kept)
    assert not {name.lower() for name, _ in kept} & (headers.HOP_BY_HOP | named)


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=5))
def test_no_location_raises(location: str, host: str, scheme: str) -> None:
    assert isinstance(headers.rewritten_location(location, "t", host, scheme), str)
