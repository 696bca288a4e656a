"""The path that a request is routed by: what CHP's own expression makes of its target.

Where Node.js 20 does not throw, the expected values were printed by it for
``decodeURIComponent(new URL(target, "http://example.com").pathname)``; but for raw bytes above
127, which are the same as their escapes here.
"""

from __future__ import annotations

from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chp_gevent.routing import paths
from chp_gevent.routing.paths import (
    host_route_path,
    host_segment,
    is_utf8,
    request_path,
    route_path,
)
from chp_gevent.routing.table import Route, RouteTable

# A machine that is busy with something else must not fail a test.

PLAIN = [
    ("/", "/"),
    ("/user/name", "/user/name"),
    ("/user/name/", "/user/name/"),
    ("/user/name/api/kernels", "/user/name/api/kernels"),
    ("/user/name/api?x=1", "/user/name/api"),
    ("/?x", "/"),
    ("/?", "/"),
    ("/a?b?c", "/a"),
    ("/a?b#c", "/a"),
    ("/a;b=1/c", "/a;b=1/c"),
    ("/a:b", "/a:b"),
    ("/~a/(b)!*'", "/~a/(b)!*'"),
    ("/a&b=c+d", "/a&b=c+d"),
    ("/a=b,c$d", "/a=b,c$d"),
    ("/static/app.min.js", "/static/app.min.js"),
    ("/a.b/c..d", "/a.b/c..d"),
    ("/a//b", "/a//b"),
    ("/a///", "/a///"),
    ("/a/b//?c=/../d", "/a/b//"),
    ("/a?x=%zz", "/a"),
    ("/a?x=\\", "/a"),
]

DECODING = [
    ("/user/a%40b", "/user/a@b"),
    ("/user/a@b", "/user/a@b"),
    ("/has%20space", "/has space"),
    ("/has space/x", "/has space/x"),
    ("/user/%E7%A7%80%E6%A8%B9", "/user/秀樹"),
    ("/caf%C3%A9", "/café"),
    ("/caf%c3%a9/", "/café/"),
    ("/%41%42c", "/ABc"),
    ("/a%2Fb", "/a/b"),
    ("/a%2fb/c", "/a/b/c"),
    ("/%2Fuser/x", "//user/x"),
    ("/a%5Cb", "/a\\b"),
    ("/a%3Fb", "/a?b"),
    ("/a%23b", "/a#b"),
    ("/a%25b", "/a%b"),
    ("/a%2541", "/a%41"),
    ("/a%00b", "/a\u0000b"),
    ("/a%0D%0Ab", "/a\r\nb"),
    ("/%F0%9F%98%80", "/😀"),
    ("/%7e%7E", "/~~"),
    ("/%EF%BB%BFa", "/\ufeffa"),
]

RAW_BYTES = [
    ("/caf\u00c3\u00a9", "/café"),
    ("/caf\u00c3%A9", "/café"),
    ("/caf%c3\u00a9", "/café"),
    ("/user/\u00e7\u00a7\u0080\u00e6\u00a8\u00b9/x", "/user/秀樹/x"),
    ("/caf\u00c3\u00a9/../\u00c3\u00a9", "/é"),
]

# Bytes that are no UTF-8 are lone surrogates, each for itself.
NO_UTF8 = [
    ("/caf%E9.txt", "/caf\udce9.txt"),
    ("/caf\u00e9.txt", "/caf\udce9.txt"),
    ("/%FF", "/\udcff"),
    ("/%C3", "/\udcc3"),
    ("/%C3/%A9", "/\udcc3/\udca9"),
    ("/%C0%AF", "/\udcc0\udcaf"),
    ("/%C0%AE%C0%AE/a", "/\udcc0\udcae\udcc0\udcae/a"),
    ("/%E0%80%AF", "/\udce0\udc80\udcaf"),
    ("/%ED%A0%80", "/\udced\udca0\udc80"),
    ("/%ED%B3%A9", "/\udced\udcb3\udca9"),
    ("/%F4%90%80%80", "/\udcf4\udc90\udc80\udc80"),
    ("/a%E7%A7", "/a\udce7\udca7"),
    ("/%C3%A9%E9", "/é\udce9"),
]

# A "%" without two hexadecimal digits stands for itself, as in "%25".
LONE_PERCENTS = [
    ("/%", "/%"),
    ("/100%.txt", "/100%.txt"),
    ("/100%25.txt", "/100%.txt"),
    ("/%4", "/%4"),
    ("/a%zz", "/a%zz"),
    ("/%PUBLIC_URL%/favicon.ico", "/%PUBLIC_URL%/favicon.ico"),
    ("/%e", "/%e"),
    ("/a%4/b", "/a%4/b"),
    ("/%%41", "/%A"),
    ("/%2%35", "/%25"),
    ("/%+1", "/%+1"),
    ("/%u0041", "/%u0041"),
    ("/%/../a", "/a"),
    ("/%/%2e%2e/%E9", "/\udce9"),
    ("/%2e%/a", "/.%/a"),
]

DOTS = [
    ("/.", "/"),
    ("/..", "/"),
    ("/./", "/"),
    ("/../", "/"),
    ("/a/.", "/a/"),
    ("/a/..", "/"),
    ("/a/./b", "/a/b"),
    ("/a/../b", "/b"),
    ("/a/b/../../c", "/c"),
    ("/../../a", "/a"),
    ("/a//../b", "/a/b"),
    ("/a/b/..", "/a/"),
    ("/a/...", "/a/..."),
    ("/a/..b", "/a/..b"),
    ("/a/.b", "/a/.b"),
    ("/a/b.", "/a/b."),
    ("/a/.../b", "/a/.../b"),
    ("/%2e", "/"),
    ("/%2E/a", "/a"),
    ("/a/%2e%2E/b", "/b"),
    ("/a/.%2e/b", "/b"),
    ("/a/%2e./b", "/b"),
    ("/a/%2e%2e", "/"),
    ("/a/%2eb", "/a/.b"),
    ("/a/b%2e", "/a/b."),
    ("/a%2e%2e/b", "/a../b"),
    ("/a/%252e%252e/b", "/a/%2e%2e/b"),
    ("/a/..%2fb", "/a/../b"),
    ("/a/..;/b", "/a/..;/b"),
    ("/a/../../../user/x/", "/user/x/"),
    ("/a/..?x", "/"),
    ("/a/.?x", "/a/"),
]

BACKSLASHES = [
    ("\\", "/"),
    ("/a\\b", "/a/b"),
    ("\\a\\b", "/a/b"),
    ("/a\\..\\b", "/b"),
    ("/a/b\\", "/a/b/"),
    ("/a\\\\b", "/a//b"),
    ("\\\\host\\path", "/path"),
    ("/\\host/path", "/path"),
    ("/a?\\b", "/a"),
]

FRAGMENTS = [
    ("/a#b", "/a"),
    ("/a#b?c", "/a"),
    ("/#", "/"),
    ("#", "/"),
    ("#a/b", "/"),
    ("/a/#/b", "/a/"),
    ("//host#a", "/"),
]

ABSOLUTE_TARGETS = [
    ("http://host/path", "/path"),
    ("http://host", "/"),
    ("http://host/", "/"),
    ("http://host?x", "/"),
    ("http://host/a/../b?c", "/b"),
    ("HTTP://HOST/Path", "/Path"),
    ("https://host/a", "/a"),
    ("http://host:80/a", "/a"),
    ("http://host:/a", "/a"),
    ("http://[::1]:80/a", "/a"),
    ("http://host/http://other/x", "/http://other/x"),
    ("http://host/%2e%2e/a", "/a"),
    ("*", "/*"),
]

TARGETS_WITH_ONLY_A_HOST = [
    ("//host/path", "/path"),
    ("//host", "/"),
    ("///host/path", "/path"),
    ("////host//path", "//path"),
    ("//host:80/a", "/a"),
    ("//host/../a", "/a"),
    ("//user@host/a", "/a"),
    ("//host\\a", "/a"),
    ("//hub/api?x", "/api"),
    ("//a..b/x", "/x"),
]

# JavaScript throws: what a host looks like, or that there is none, is nothing to route by.
NO_HOSTS = [
    ("//", "/"),
    ("///", "/"),
    ("//?x", "/"),
    ("//:80/a", "/a"),
    ("//host:port/a", "/a"),
    ("//host:65536/a", "/a"),
    ("//user@/a", "/a"),
    ("//a%zz/c", "/c"),
    ("//%FF/c", "/c"),
    ("//[::1/x", "/x"),
    ("//256.1.1.1/x", "/x"),
    ("//a.1/x", "/x"),
    ("//host-/x", "/x"),
    ("//h_st/x", "/x"),
    *((f"//{host}/x", "/x") for host in (
        "host:" + "9" * 5000,
        "host:" + "0" * 5000,
        "1." * 4000,
        "0x" + "f" * 8000,
        "[" * 8000,
    )),
]  # fmt: skip

# What WHATWG URLs are made of, in pieces that matter to the parser.
PIECES = st.sampled_from(
    [
        *"/ // \\ . .. %2e %2F %41 %C3%A9 %C3 \xa9 %FF % ? # @ : [ ] a user host é \x80".split(),
        *"[::1] 127.0.0.1 http: http:// https://".split(),
    ]
)
TARGETS = st.lists(PIECES, max_size=12).map("".join)


@pytest.mark.parametrize(
    ("target", "path"),
    PLAIN + DECODING + DOTS + BACKSLASHES + FRAGMENTS + ABSOLUTE_TARGETS + TARGETS_WITH_ONLY_A_HOST,
)
def test_a_request_is_routed_by_the_path_that_chp_sees(target: str, path: str) -> None:
    assert request_path(target) == path


@pytest.mark.parametrize(("target", "path"), RAW_BYTES + NO_UTF8 + LONE_PERCENTS + NO_HOSTS)
def test_a_target_that_chp_refuses_or_takes_for_text_is_routed_by_its_bytes(
    target: str, path: str
) -> None:
    assert request_path(target) == path


@pytest.mark.parametrize(("target", "path"), NO_UTF8)
def test_a_path_that_is_not_utf8_is_told_from_one_that_is(target: str, path: str) -> None:
    assert not is_utf8(path)
    assert is_utf8("/café/%E9")


@pytest.mark.parametrize(
    ("target", "path"),
    [("/user/.x/../y", "/user/y"), ("/user/.x/..", "/user/"), ("/a/.b/./c", "/a/.b/c")],
)
def test_dot_segments_behind_a_hidden_file_are_resolved_as_the_standard_says(
    target: str, path: str
) -> None:
    """Node.js 20 leaves these alone: its parser gives up at the first ``/.``."""
    assert request_path(target) == path


@given(TARGETS)
def test_any_target_has_a_path_in_which_dot_segments_are_resolved(target: str) -> None:
    path = request_path(target)
    assert path.startswith("/")
    # Slashes that are escaped end no segment when these are resolved, as in CHP.
    assert "%2F" in target or not {".", ".."} & set(path.split("/"))


@given(TARGETS.map("/a".__add__))
@example("/a?%zz")
def test_the_short_cut_for_plain_targets_gives_what_parsing_gives(target: str) -> None:
    parsed = unquote_to_bytes(paths._pathname(target).encode("latin-1"))
    assert request_path(target).encode("utf-8", "surrogateescape") == parsed


@given(st.binary(max_size=20))
def test_bytes_and_their_escapes_are_the_same_path_and_other_bytes_another(sent: bytes) -> None:
    """Each byte raw, where that means no more than itself; escaped; and escaped in capitals."""
    escaped = "".join(f"%{byte:02x}" for byte in sent)
    path = request_path(f"/a{escaped}")
    assert path.encode("utf-8", "surrogateescape") == b"/a" + sent
    assert request_path(f"/a{escaped.upper()}") == path
    raw = "".join(
        chr(byte) if byte > 0x7F or chr(byte).isalnum() else f"%{byte:02X}" for byte in sent
    )
    assert request_path(f"/a{raw}") == path
    assert request_path("/a" + quote_from_bytes(sent, safe="")) == path


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_percent_encoding(text: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in text.encode())
    assert request_path(f"/a{escaped}") == f"/a{text}"


@pytest.mark.parametrize(
    ("sent", "route"),
    [
        ("/user/\u00c3\u00a9/x", "/user/é"),
        ("/user/%C3%A9/caf%E9.txt", "/user/é"),
        ("/user/ada/caf%E9.txt", "/user/ada"),
        ("/user/ada%E9/x", "/"),
        ("/user/%E9/x", "/"),
        ("/user/\u00e9/x", "/"),
        ("/user/100%/x", "/user/100%"),
        ("/user/100%25/x", "/user/100%"),
        ("/user/caf%25E9/x", "/user/caf%E9"),
        ("/user/caf%E9/x", "/"),
        ("/user/ada/%C0%AE%C0%AE/100%25", "/user/ada"),
        ("/%55ser/%61da\\%FF", "/"),
        ("/%75ser/%61da\\%FF", "/user/ada"),
    ],
)
def test_only_the_bytes_of_its_path_lead_to_a_route(sent: str, route: str) -> None:
    table = RouteTable()
    for slot, prefix in enumerate(["/", "/user/é", "/user/ada", "/user/100%", "/user/caf%E9"]):
        table.add(Route(prefix, "http://target", slot))
    found = table.find(request_path(sent))
    assert found is not None
    assert found.prefix == route


@pytest.mark.parametrize(
    ("host", "segment"),
    [
        ("hub.example", "hub.example"),
        ("Hub.EXAMPLE", "hub.example"),
        ("hub.example.", "hub.example"),
        ("hub.example..", "hub.example."),
        ("127.0.0.1", "127.0.0.1"),
        ("", ""),
    ],
)
def test_neither_case_nor_a_final_dot_make_another_host(host: str, segment: str) -> None:
    assert host_segment(host) == segment


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/", "/"),
        ("", "/"),
        ("/Hub.Example.", "/hub.example"),
        ("/hub.example/User/A./", "/hub.example/User/A."),
        ("hub.example//x", "/hub.example//x"),
    ],
)
def test_a_route_with_a_host_is_stored_by_the_name_that_is_looked_up(
    path: str, canonical: str
) -> None:
    assert host_route_path(path) == canonical
    assert host_route_path(canonical) == canonical


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("", "/"),
        ("/", "/"),
        ("//", "/"),
        ("user/name", "/user/name"),
        ("/user/name", "/user/name"),
        ("/user/name/", "/user/name"),
        ("//user/name//", "/user/name"),
        ("/user//name", "/user//name"),
        ("/user/秀樹", "/user/秀樹"),
        ("/has space", "/has space"),
        ("/has%20space", "/has%20space"),
        ("/ ", "/ "),
        ("/a/./..", "/a/./.."),
    ],
)
def test_a_route_is_stored_with_one_leading_slash_and_no_trailing_ones(
    path: str, canonical: str
) -> None:
    assert route_path(path) == canonical
    assert route_path(canonical) == canonical
