"""The path that a request is routed by: what CHP's own expression makes of its target.

The expected values were printed by Node.js 20 for
``decodeURIComponent(new URL(target, "http://example.com").pathname)``.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chp_gevent.routing import paths
from chp_gevent.routing.paths import MalformedPath, request_path, route_path

# A machine that is busy with something else must not fail a test.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

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
    ("/café", "/café"),
    ("/\u00e7\u00a7\u0080", "/\u00e7\u00a7\u0080"),
    ("/\u0080\u00ff", "/\u0080\u00ff"),
]

BAD_ESCAPES = [
    "/%",
    "/%4",
    "/a%zz",
    "/%e",
    "/a%4/b",
    "/%%41",
    "/%FF",
    "/%C3",
    "/%C3/%A9",
    "/%C3©",
    "/%C0%AF",
    "/%E0%80%AF",
    "/%ED%A0%80",
    "/%F4%90%80%80",
    "/%F8%88%80%80%80",
    "/a%E7%A7",
    "/%+1",
    "/% 1",
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

WITHOUT_A_SLASH = [
    ("", "/"),
    ("?", "/"),
    ("?x=1", "/"),
    ("*", "/*"),
    ("user/name", "/user/name"),
    ("./a", "/a"),
    ("../a", "/a"),
    ("..", "/"),
    ("%41", "/A"),
    ("user name", "/user name"),
]

BLANKS = [
    (" /a", "/a"),
    (" /a ", "/a"),
    ("/a ", "/a"),
    ("/a ?b", "/a "),
    ("\t/a", "/a"),
    ("/a\tb", "/ab"),
    ("/a\r\nb", "/ab"),
    ("/\u0001a", "/\u0001a"),
    ("/a\u0001", "/a"),
    ("\u0000/a\u0000b", "/a\u0000b"),
    ("/a\u007fb", "/a\u007fb"),
    ("/ / /", "/ / /"),
]

ABSOLUTE_TARGETS = [
    ("http://host/path", "/path"),
    ("http://host", "/"),
    ("http://host/", "/"),
    ("http://host?x", "/"),
    ("http://host/a/../b?c", "/b"),
    ("HTTP://HOST/Path", "/Path"),
    ("https://host/a", "/a"),
    ("ws://host/a", "/a"),
    ("wss://host/a", "/a"),
    ("ftp://host/a", "/a"),
    ("http://host:80/a", "/a"),
    ("http://host:/a", "/a"),
    ("http://host:65535/a", "/a"),
    ("http://host:000080/a", "/a"),
    ("http://user:pw@host/a", "/a"),
    ("http://a@b@host/a", "/a"),
    ("http://[::1]/a", "/a"),
    ("http://[::1]:80/a", "/a"),
    ("http://[::ffff:1.2.3.4]/a", "/a"),
    ("http://127.0.0.1/a", "/a"),
    ("http://0x7f.1/a", "/a"),
    ("http://127.1/a", "/a"),
    ("http://1.2.3.4./a", "/a"),
    ("http://4294967295/a", "/a"),
    ("http://a.1.example/a", "/a"),
    ("http://h%41st/a", "/a"),
    ("http://%C3%A9/a", "/a"),
    ("http://h_st/a", "/a"),
    ("http://host/http://other/x", "/http://other/x"),
    ("http://host/%2e%2e/a", "/a"),
    ("http:/a/b", "/a/b"),
    ("http:a/b", "/a/b"),
    ("http:", "/"),
    ("http:?x", "/"),
    ("http:////host/a", "/a"),
    ("http:\\\\host\\a", "/a"),
    ("https:host/a", "/a"),
    ("https:/host/a", "/a"),
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

BAD_HOSTS = [
    "//",
    "///",
    "//?x",
    "//#x",
    "//:80/a",
    "//host:port/a",
    "//host:65536/a",
    "//host:99999999999999999999/a",
    "//host:-1/a",
    "//user@/a",
    "//a b/c",
    "//a%20b/c",
    "//a%2fb/c",
    "//a%zz/c",
    "//%FF/c",
    "//a<b/c",
    "//a|b/c",
    "//a^b/c",
    "//[/x",
    "//[]/x",
    "//[::1/x",
    "//[::1]x/y",
    "//[::g]/x",
    "//[1:2]/x",
    "//[fe80::1%25eth0]/x",
    "//]/x",
    "//a[b]/x",
    "//256.1.1.1/x",
    "//1.2.3.4.5/x",
    "//1.2.3.0400/x",
    "//0xg.1/x",
    "//08/x",
    "//a.1/x",
    "//1..2/x",
    "//4294967296/x",
    "//1.2.65536/x",
    "http://",
    "http:///",
    "http://[bad/x",
    "http://a:b:c/x",
    "https://",
    "https:",
    "ws:?x",
]

# What WHATWG URLs are made of, in pieces that matter to the parser.
PIECES = st.sampled_from(
    [
        *"/ // \\ . .. %2e %41 %C3%A9 %FF % ? # @ : [ ] a user host é \x80".split(),
        *"[::1] 127.0.0.1 http: https://".split(),
        *(" ", "\t", "\0"),
    ]
)
TARGETS = st.lists(PIECES, max_size=12).map("".join)


@pytest.mark.parametrize(
    ("target", "path"),
    PLAIN
    + DECODING
    + DOTS
    + BACKSLASHES
    + FRAGMENTS
    + WITHOUT_A_SLASH
    + BLANKS
    + ABSOLUTE_TARGETS
    + TARGETS_WITH_ONLY_A_HOST,
)
def test_a_request_is_routed_by_the_path_that_chp_sees(target: str, path: str) -> None:
    assert request_path(target) == path


@pytest.mark.parametrize("target", BAD_ESCAPES + BAD_HOSTS)
def test_a_target_that_makes_chp_throw_is_malformed(target: str) -> None:
    with pytest.raises(MalformedPath):
        request_path(target)


@pytest.mark.parametrize(
    "target", ["ftps://host/a", "file:///etc", "mailto:a@b", "host.example:80"]
)
def test_an_absolute_target_of_another_scheme_is_malformed(target: str) -> None:
    with pytest.raises(MalformedPath):
        request_path(target)


@pytest.mark.parametrize(
    ("target", "path"),
    [("/user/.x/../y", "/user/y"), ("/user/.x/..", "/user/"), ("/a/.b/./c", "/a/.b/c")],
)
def test_dot_segments_behind_a_hidden_file_are_resolved_as_the_standard_says(
    target: str, path: str
) -> None:
    """Node.js 20 leaves these alone: its parser gives up at the first ``/.``."""
    assert request_path(target) == path


@unhurried
@given(TARGETS)
def test_any_target_has_a_path_or_is_malformed(target: str) -> None:
    with contextlib.suppress(MalformedPath):
        assert request_path(target).startswith("/")


@unhurried
@given(TARGETS.map("/a".__add__))
@example("/a?%zz")
def test_the_short_cut_for_plain_targets_gives_what_parsing_gives(target: str) -> None:
    try:
        parsed = paths._decode_uri_component(paths._pathname(target))
    except MalformedPath:
        with pytest.raises(MalformedPath):
            request_path(target)
    else:
        assert request_path(target) == parsed


@unhurried
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_percent_encoding(text: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in text.encode())
    assert request_path(f"/a{escaped}") == f"/a{text}"


@pytest.mark.parametrize(
    "target",
    [
        "//" + "1." * 4000,
        "//" + "9" * 8000,
        "//0" + "7" * 8000,
        "//0x" + "f" * 8000,
        "//host:" + "9" * 8000,
        "//[" + ":" * 8000 + "]",
        "//[" * 2600,
    ],
)
def test_a_host_of_8_kilobytes_is_malformed(target: str) -> None:
    with pytest.raises(MalformedPath):
        request_path(target)


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
