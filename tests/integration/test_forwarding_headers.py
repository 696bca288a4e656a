"""What happens to the header section, and to the request line, on its way through."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.kit.peers import RawTarget, get, response
from tests.kit.peers.messages import Request
from tests.kit.server import Proxy

AddRoute = Callable[[str], str]
Forward = Callable[..., Request]


@pytest.fixture
def forward(proxy: Proxy, add_route: AddRoute) -> Forward:
    """A function that GETs with these header lines and returns what the target received."""

    def forward(*lines: str, host: str = "proxy.test") -> Request:
        with RawTarget() as target:
            path = add_route(target.url)
            with proxy.client() as client:
                assert client.request(get(path, *lines, host=host)).status == 200
            return target.request

    return forward


@pytest.mark.parametrize(
    ("host", "lines", "expected"),
    [
        ("proxy.test", [], ["127.0.0.1", "80", "http", "proxy.test"]),
        ("proxy.test:8000", [], ["127.0.0.1", "8000", "http", "proxy.test:8000"]),
        ("[::1]:8080", [], ["127.0.0.1", None, "http", "[::1]:8080"]),
        (
            "proxy.test",
            ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https"],
            ["1.2.3.4,127.0.0.1", "443,80", "https,http", "proxy.test"],
        ),
        (
            "proxy.test",
            ["x-forwarded-for: 1.1.1.1, 2.2.2.2", "X-FORWARDED-HOST: front.test"],
            ["1.1.1.1, 2.2.2.2,127.0.0.1", "80", "http", "front.test"],
        ),
        (
            "proxy.test",
            ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2"],
            ["1.1.1.1, 2.2.2.2,127.0.0.1", "80", "http", "proxy.test"],
        ),
    ],
)
def test_the_target_is_told_who_asked_and_how(
    forward: Forward, host: str, lines: list[str], expected: list[str | None]
) -> None:
    request = forward(*lines, host=host)
    for name, value in zip(["for", "port", "proto", "host"], expected, strict=True):
        if value is not None:
            assert request.all(f"x-forwarded-{name}") == [value], name


def test_the_host_header_is_preserved(forward: Forward) -> None:
    assert forward(host="Some.Host:1234").all("host") == ["Some.Host:1234"]


@pytest.mark.ours
@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ("Keep-Alive: timeout=5", "keep-alive"),
        ("Proxy-Connection: keep-alive", "proxy-connection"),
        ("TE: gzip", "te"),
        ("Upgrade: h2c", "upgrade"),
        ("Connection: X-Mine\r\nX-Mine: 1", "x-mine"),
        ("Connection: close, x-mine\r\nX-MINE: 1\r\nX-Mine: 2", "x-mine"),
        ("Connection: keep-alive\r\nConnection: X-A, X-Mine\r\nX-Mine: 1", "x-mine"),
    ],
)
def test_hop_by_hop_request_headers_stop_at_the_proxy(
    forward: Forward, line: str, gone: str
) -> None:
    request = forward(line, "X-Stays: 1")
    assert gone not in request.names()
    assert request.all("x-stays") == ["1"]


@pytest.mark.ours
@pytest.mark.parametrize("name", ["Host", "Cookie", "Content-Length", "X-Forwarded-For"])
def test_the_connection_header_cannot_remove_what_the_target_relies_on(
    proxy: Proxy, add_route: AddRoute, name: str
) -> None:
    with RawTarget() as target:
        path = add_route(target.url)
        with proxy.client() as client:
            client.request(
                f"POST {path} HTTP/1.1\r\nHost: a\r\nCookie: c=1\r\nContent-Length: 3\r\n"
                f"Connection: close, {name}\r\n\r\nabc"
            )
        assert target.request.body == b"abc"
        if name != "Cookie":
            assert target.request.all(name), name


@pytest.mark.ours
@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ("Keep-Alive: timeout=99", "timeout=99"),
        ("Proxy-Authenticate: Basic", None),
        ("Connection: X-Mine\r\nX-Mine: secret", "secret"),
        ("Upgrade: h2c", "h2c"),
        ("Proxy-Connection: close", "proxy-connection"),
    ],
)
def test_hop_by_hop_response_headers_stop_at_the_proxy(
    proxy: Proxy, add_route: AddRoute, line: str, gone: str | None
) -> None:
    reply = response(headers=[(line.partition(": ")[0], line.partition(": ")[2])])
    with RawTarget(reply) as target:
        answer = proxy.get(add_route(target.url))
    assert answer.status == 200
    if gone is not None:
        assert gone not in answer.raw.decode("latin-1").lower()


@pytest.mark.ours
def test_request_headers_keep_their_order_case_and_duplicates(forward: Forward) -> None:
    lines = [
        "X-zeta: 1",
        "x-Alpha: 2",
        "ACCEPT: text/html",
        "Cookie: a=1",
        "X-zeta: 3",
        "cookie: b=2",
        "X-Empty:",
        "X-Bytes: caf\xe9 \xff",
        "Accept-Encoding: gzip, br",
        "X-Spaces: a  b",
    ]
    sent = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in lines]
    received = forward(*lines).headers
    assert [pair for pair in received if pair in sent] == sent


def test_response_headers_arrive_unchanged(proxy: Proxy, add_route: AddRoute) -> None:
    sent = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2; HttpOnly"),
        ("X-Custom", "v"),
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Server", "target/1.0"),
        ("Location", "http://elsewhere.test/%7E?x=1"),
        ("X-Bytes", "caf\xe9"),
    ]
    with RawTarget(response(headers=sent)) as target:
        answer = proxy.get(add_route(target.url))
    received = [(name.lower(), value) for name, value in answer.headers]
    for name, value in sent:
        assert (name.lower(), value) in received
    assert answer.all("set-cookie") == ["a=1; Path=/", "b=2; HttpOnly"]
    assert answer.all("date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]


@pytest.mark.ours
def test_response_headers_keep_their_order_case_and_duplicates(
    proxy: Proxy, add_route: AddRoute
) -> None:
    sent = [("X-zeta", "1"), ("x-ALPHA", "2"), ("Via", "a"), ("X-zeta", "3"), ("ETag", '"x"')]
    with RawTarget(response(headers=sent)) as target:
        answer = proxy.get(add_route(target.url))
    assert [pair for pair in answer.headers if pair in sent] == sent


@pytest.mark.parametrize(
    "status_line",
    ["200 OK", "201 Created", "299 Very Own", "404 Nope", "418 I'm a teapot", "500 X"],
)
def test_the_status_and_its_reason_are_passed_on(
    proxy: Proxy, add_route: AddRoute, status_line: str
) -> None:
    with RawTarget(response(status=status_line)) as target:
        answer = proxy.get(add_route(target.url))
    assert answer.start == f"HTTP/1.1 {status_line}"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Accept: */*", "keep-alive"),
        ("Connection: keep-alive", "keep-alive"),
        ("Connection: close", "close"),
    ],
)
def test_answers_say_whether_the_connection_stays_open(
    proxy: Proxy, add_route: AddRoute, line: str, shown: str
) -> None:
    with RawTarget() as target:
        path = add_route(target.url)
        with proxy.client() as client:
            answer = client.request(get(path, line))
            assert answer.all("connection") == [shown]
            if shown == "close":
                client.assert_closed()
            else:
                assert client.request(get(path)).status == 200


@pytest.mark.parametrize(
    "suffix",
    [
        "",
        "/",
        "/page?x=1&y=2",
        "?only=query",
        "/a%20b/%41",
        "/%E7%A7%80%E6%A8%B9",
        "/a?b?c=/d#not",
        "/a;p=1/b,c/@:!$&'()*+=~",
        pytest.param("/a//b///c", id="double slashes"),
        pytest.param("/a/../b/./c", marks=pytest.mark.ours, id="dots"),
        pytest.param("/a/%2e%2E/b", marks=pytest.mark.ours, id="encoded dots"),
        pytest.param("/a%2fb%2Fc", id="encoded slashes"),
        pytest.param('/"<>^`{|}\\', marks=pytest.mark.ours, id="unsafe characters"),
        pytest.param("/caf\xe9/\xff", marks=pytest.mark.ours, id="bytes above 127"),
        pytest.param("/?", marks=pytest.mark.ours, id="empty query"),
        pytest.param("/x?a=%zz'\"<", marks=pytest.mark.ours, id="strange query"),
    ],
)
def test_the_request_target_is_forwarded_byte_for_byte(
    proxy: Proxy, add_route: AddRoute, suffix: str
) -> None:
    suffix = suffix.replace("#not", "")
    with RawTarget() as target:
        path = add_route(target.url) + suffix
        assert proxy.get(path).status == 200
        assert target.request.target == path


METHODS = "GET POST PUT PATCH DELETE OPTIONS PROPFIND MKCOL REPORT LINK PURGE SEARCH".split()


@pytest.mark.parametrize(
    "method",
    [
        *METHODS,
        *(pytest.param(m, marks=pytest.mark.ours) for m in ("BREW", "X-OWN", "get", "QUERY2", "A")),
    ],
)
def test_every_method_is_forwarded(proxy: Proxy, add_route: AddRoute, method: str) -> None:
    with RawTarget() as target:
        path = add_route(target.url)
        with proxy.client() as client:
            answer = client.request(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.status == 200
        assert target.request.method == method
        assert target.request.body == b""
