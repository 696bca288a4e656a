"""Targets: where a route's URL points to, and what is asked for there.

The joined paths were printed by ``urlJoin`` of http-proxy-3, apart from an empty query,
which stays here.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chp_gevent.proxy.upstream.target import joined_path, origin_form, parse_target, without_prefix
from chp_gevent.routing.paths import is_utf8, request_path


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path", "origin"),
    [
        ("http://a", "http", "a", 80, "/", "a"),
        ("http://a/", "http", "a", 80, "/", "a"),
        ("HTTP://A:80/B", "http", "a", 80, "/B", "a"),
        ("http://a:8888", "http", "a", 8888, "/", "a:8888"),
        ("http://a:8888/b/?c=d", "http", "a", 8888, "/b/?c=d", "a:8888"),
        ("http://a?c", "http", "a", 80, "?c", "a"),
        ("http://127.0.0.1:1", "http", "127.0.0.1", 1, "/", "127.0.0.1:1"),
        ("http://[::1]:8888/b", "http", "::1", 8888, "/b", "[::1]:8888"),
        ("http://[fe80::1%25Eth0]", "http", "fe80::1%Eth0", 80, "/", "[fe80::1]"),
        ("http://[fe80::1%eth0]:81", "http", "fe80::1%eth0", 81, "/", "[fe80::1]:81"),
        ("http://[fe80::1%25]", "http", "fe80::1%25", 80, "/", "[fe80::1]"),
        ("http://jupyter-ada-:1", "http", "jupyter-ada-", 1, "/", "jupyter-ada-:1"),
        ("http://-ada:1", "http", "-ada", 1, "/", "-ada:1"),
        ("http://j_a-._b_:1", "http", "j_a-._b_", 1, "/", "j_a-._b_:1"),
        ("http://a.:1", "http", "a.", 1, "/", "a.:1"),
        ("http://a:443", "http", "a", 443, "/", "a:443"),
        ("https://a", "https", "a", 443, "/", "a"),
        ("https://a:443/b", "https", "a", 443, "/b", "a"),
        ("https://a:80", "https", "a", 80, "/", "a:80"),
        ("http+unix://%2Frun%2Fx.sock", "http+unix", "/run/x.sock", 80, "/", "localhost"),
        ("unix+http://%2Frun%2Fx.sock/b", "http+unix", "/run/x.sock", 80, "/b", "localhost"),
        ("http+unix://%2FRun%2FX%20y", "http+unix", "/Run/X y", 80, "/", "localhost"),
    ],
)
def test_a_target_says_where_to_connect_and_what_to_ask_for(
    url: str, scheme: str, host: str, port: int, path: str, origin: str
) -> None:
    target = parse_target(url)
    assert target.url == url
    assert (target.scheme, target.host, target.port) == (scheme, host, port)
    assert (target.path, target.origin) == (path, origin)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a",
        "a:80",
        "/a",
        "//a",
        "http:",
        "http:a",
        "http:/a",
        "http://",
        "http:///a",
        "http://:80",
        "http://a:0",
        "http://a:99999",
        "http://a:x",
        "http://a:80:80",
        "http://[::1",
        "http://::1",
        "http://a@b",
        "http://u:p@a",
        "http://a#b",
        "http://a b",
        "http://a/b c",
        "http://a/b\r\nX: y",
        "http://a\r\nX: y",
        "http://a/\x00",
        "http://a/\x7f",
        "http://a/\xe9",
        "http://a\\b",
        " http://a",
        "http://a ",
        "http://-",
        "http://.",
        "http://_.-",
        "http://a:" + "9" * 5000,
        "http://a:" + "0" * 5000,
        "ws://a",
        "ftp://a",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http+unix://",
        "http+unix:///run/x.sock",
        "http+unix://%00",
        "unix:///run/x.sock",
    ],
)
def test_what_could_break_a_request_line_or_leads_nowhere_is_no_target(url: str) -> None:
    with pytest.raises(ValueError, match="target"):
        parse_target(url)


@pytest.mark.parametrize(
    ("sent", "origin"),
    [
        ("/a?b", "/a?b"),
        ("//a/b", "//a/b"),
        ("/http://a/b", "/http://a/b"),
        ("/a?u=http://b", "/a?u=http://b"),
        ("*", "*"),
        ("http://a", "/"),
        ("http://a/", "/"),
        ("http://a:80/b//c/../%2e?d#e", "/b//c/../%2e?d#e"),
        ("HTTPS://A/b", "/b"),
        ("http://a?b", "/?b"),
        ("http://a?b/c", "/?b/c"),
        ("http://a//b", "//b"),
    ],
)
def test_an_absolute_target_loses_its_host_and_nothing_else(sent: str, origin: str) -> None:
    assert origin_form(sent, "GET") == origin


@pytest.mark.parametrize(
    ("sent", "origin"),
    [
        ("http://a", "*"),
        ("HTTPS://a:443", "*"),
        ("http://a/", "/"),
        ("http://a?", "/?"),
        ("http://a/b", "/b"),
        ("*", "*"),
        ("/", "/"),
    ],
)
def test_options_of_a_host_alone_are_those_of_the_server(sent: str, origin: str) -> None:
    assert origin_form(sent, "OPTIONS") == origin


@pytest.mark.parametrize(
    ("sent", "prefix", "rest"),
    [
        ("/a/b?c", "/", "/a/b?c"),
        ("*", "/", "*"),
        ("/a", "/a", "/"),
        ("/a/", "/a", "/"),
        ("/a?c", "/a", "/?c"),
        ("/a?", "/a", "/?"),
        ("/a/b", "/a", "/b"),
        ("/a/b/c?d=/a/b", "/a/b", "/c?d=/a/b"),
        ("/a//b", "/a", "//b"),
        ("/a/b%2Fc%20d", "/a", "/b%2Fc%20d"),
        ("/has%20space/x", "/has space", "/x"),
        ("/has space/x", "/has space", "/x"),
        ("/user/a%40b/%7e", "/user/a@b", "/%7e"),
        ("/user/a@b/%7e", "/user/a@b", "/%7e"),
        ("/user/%E7%A7%80%E6%A8%B9/x%41", "/user/秀樹", "/x%41"),
        ("/%61/x", "/a", "/x"),
        ("/a%2Fb/c", "/a/b", "/c"),
        ("/a%25b/c", "/a%b", "/c"),
        ("/caf\xc3\xa9/x", "/caf\xe9", "/x"),
        ("/caf\xc3%A9%20/x", "/caf\xe9 ", "/x"),
        # As text these begin with the prefix; as bytes they are more than it.
        ("/\xc3\x83/x", "/\xc3", "/x"),
        ("/%2525/x", "/%25", "/x"),
        ("/100%/caf%E9.txt", "/100%", "/caf%E9.txt"),
        ("/100%25/100%.txt", "/100%", "/100%.txt"),
        ("/a/caf%E9.txt?100%", "/a", "/caf%E9.txt?100%"),
        ("/a/caf\xe9.txt", "/a", "/caf\xe9.txt"),
        ("/a/%zz", "/a", "/%zz"),
        ("/x/../a/caf%E9/100%", "/a", "/caf%E9/100%25"),
        ("/x/../a/\xe9\xc3\xa9", "/a", "/%E9%C3%A9"),
        # Slashes before a path are not part of what a route is looked up with.
        ("/%2Fa/b", "/a", "/b"),
        ("/%2f%2Fuser%2fx/b", "/user/x", "/b"),
        ("//host//a/b", "/a", "/b"),
        ("/a%2Fb%2Fc", "/a/b", "/c"),
        ("/a%2fb", "/a", "/b"),
        # With --host-routing the slashes behind the host's segment count.
        ("//host//b/x", "//b", "/x"),
        ("/%2Fb/x", "//b", "/x"),
        ("/a/b/../c", "/a", "/c"),
        ("/x/../a/b", "/a", "/b"),
        ("/a/../a/b", "/a", "/b"),
        ("/a/%2e%2E/a/b c?d", "/a", "/b%20c?d"),
        ("/./a/b", "/a", "/b"),
        ("\\a\\b", "/a", "/b"),
        ("/a\\b", "/a", "/b"),
        ("/a/x/../%E7%A7%80", "/a", "/%E7%A7%80"),
    ],
)
def test_a_prefix_is_cut_off_in_whatever_way_it_was_written(
    sent: str, prefix: str, rest: str
) -> None:
    assert without_prefix(sent, prefix) == rest


@pytest.mark.parametrize(
    ("target_path", "sent", "asked"),
    [
        ("/", "/x", "/x"),
        ("/", "//x", "//x"),
        ("/", "/?", "/?"),
        ("/base", "/x", "/base/x"),
        ("/base/", "/x", "/base/x"),
        ("/base/", "//x", "/base//x"),
        ("/base", "/", "/base/"),
        ("/base/", "/", "/base/"),
        ("/base", "/?q", "/base/?q"),
        ("/b", "/x?", "/b/x?"),
        ("/b?t=1", "/x?q=2", "/b/x?t=1&q=2"),
        ("/b?t=1", "/x", "/b/x?t=1"),
        ("/b?t=1", "/x?", "/b/x?t=1"),
        ("/b", "/x?a?b", "/b/x?a?b"),
        ("/b//", "/x", "/b//x"),
        ("/?t=1", "/x", "/x?t=1"),
        ("/?t=1", "/x?y", "/x?t=1&y"),
        ("?t=1", "/x?y", "/x?t=1&y"),
        ("/", "*", "*"),
        ("/base", "*", "*"),
    ],
)
def test_a_target_with_a_path_gets_that_path_first(target_path: str, sent: str, asked: str) -> None:
    assert joined_path(target_path, sent) == asked


SEGMENTS = st.text("ab.%25EF0/\\\xe9秀", max_size=6).map(
    lambda text: text.encode()
) | st.sampled_from([b"%E9", b"\xe9", b"%c3\xa9", b"%", b"%2F", b"%2f%2Fa", b"a%2fb", b"%25"])


@given(st.lists(SEGMENTS, max_size=5), st.integers(1, 5), st.sampled_from(["", "?q=/a"]))
def test_what_is_left_of_a_path_leads_to_what_is_left_of_the_route(
    segments: list[bytes], depth: int, query: str
) -> None:
    """Cutting a prefix off and decoding is decoding and cutting the prefix off."""
    sent = (b"/" + b"/".join(segments)).decode("latin-1")
    path = "/" + request_path(sent).lstrip("/")
    prefix = "/".join(path.split("/")[: depth + 1])
    if prefix.endswith("/") or not is_utf8(prefix):
        return  # no such route
    rest = without_prefix(sent + query, prefix)
    assert rest.startswith("/")
    assert rest.endswith(query)
    left = path[len(prefix) :] or "/"
    if "//" not in left and "\\" not in left and "/." not in left:
        # Elsewhere a second look would normalise what is normalised already.
        assert request_path(rest) == left


@given(st.text("abc:/.[]@?#%+ \r\n\\", max_size=12).map(lambda rest: "http://" + rest))
def test_no_url_makes_a_target_that_breaks_a_request_line(url: str) -> None:
    try:
        target = parse_target(url)
    except ValueError:
        return
    assert target.host
    assert not set(target.path + target.origin) & set(" \r\n#")
