"""The application under any WSGI server: a plain environ, and a validator around it."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import gevent
import pytest

from chp_gevent.config.options import ProxyOptions
from chp_gevent.config.tls_contexts import client_context
from chp_gevent.http.errors import ClientGone
from chp_gevent.http.open_tunnels import OpenTunnels
from chp_gevent.proxy.app import ProxyApplication
from chp_gevent.proxy.tunnels.upgrades import TunnelStarter
from chp_gevent.proxy.upstream.pools import Upstream
from chp_gevent.routing.table import Route, RouteTable
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.segment import REQUESTS_WEB, STATUS, Segment
from chp_gevent.shared.subscriber import Subscriber
from tests.kit.peers import RawTarget, chunked, response, then_close
from tests.kit.peers.raw_target import Exchange

PLAIN = [("Content-Type", "text/plain")]
Environ = dict[str, Any]
Headers = list[tuple[str, str]]


class Server:
    """A WSGI server of the smallest kind, with the application in a validator."""

    def __init__(self, options: ProxyOptions | None = None) -> None:
        options = options or ProxyOptions()
        segment = Segment(rows=1, routes=10)
        self.row = segment.row(0)
        self.table = RouteTable()
        self.upstream = Upstream(client_context(options.client_tls), 10.0)
        subscriber = Subscriber(segment, Journal(segment), self.table)
        tunnels = TunnelStarter(segment, self.row, OpenTunnels())
        self.app: Any = ProxyApplication(
            options, self.table, subscriber, segment, self.row, self.upstream, tunnels
        )

    def start(self, environ: Environ) -> tuple[str, Headers, Iterable[bytes]]:
        """Call the application; return status, headers and the body yet to be read."""
        started: list[tuple[str, Headers]] = []

        def start_response(status: str, headers: Headers, exc_info: Any = None) -> Any:
            assert not started or exc_info, "an answer is started once, PEP 3333 says"
            started.append((status, headers))
            return pytest.fail

        result = validator(self.app)(environ, start_response)
        (status, headers) = started[-1]
        return status, headers, result

    def call(self, environ: Environ) -> tuple[str, Headers, bytes]:
        """Call the application, read its answer to the end and close it."""
        status, headers, result = self.start(environ)
        try:
            return status, headers, b"".join(result)
        finally:
            close(result)


def close(result: Iterable[bytes]) -> None:
    """Close what an application returned, as PEP 3333 demands."""
    result.close()  # type: ignore[attr-defined]


def environ(path: str = "/", body: bytes = b"", **more: Any) -> Environ:
    """Return what a server tells the application about a request."""
    found: Environ = {
        "REQUEST_METHOD": "POST" if body else "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "proxy.test:8000",
        "wsgi.input": io.BytesIO(body),
    }
    if body:
        found["CONTENT_LENGTH"] = str(len(body))
    found.update(more)
    setup_testing_defaults(found)
    return found


def ok(body: bytes = b"ok", *headers: tuple[str, str], status: str = "200 OK") -> bytes:
    """Return a response that has what the validator wants, a content type."""
    return response(body, status, [*PLAIN, *headers])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.upstream.close()


@pytest.fixture
def target(server: Server) -> Iterator[RawTarget]:
    """A target that the root route leads to."""
    with RawTarget(ok()) as target:
        server.table.add(Route("/", target.url, 0))
        yield target


def test_a_request_is_forwarded_and_answered(server: Server, target: RawTarget) -> None:
    target.script(ok(b"body", ("X-A", "1"), ("X-A", "2"), status="201 Made It"))
    status, headers, body = server.call(environ("/a b", QUERY_STRING="c=%20d"))
    assert (status, body) == ("201 Made It", b"body")
    assert headers == [*PLAIN, ("X-A", "1"), ("X-A", "2"), ("Content-Length", "4")]
    assert target.request.start == "GET /a%20b?c=%20d HTTP/1.1"
    assert target.request.all("host") == ["proxy.test:8000"]
    assert (server.row[REQUESTS_WEB], server.row[STATUS + 201]) == (1, 1)


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"PATH_INFO": "/a", "SCRIPT_NAME": "/s"}, "/s/a"),
        ({"PATH_INFO": "/caf\xc3\xa9"}, "/caf%C3%A9"),
        ({"PATH_INFO": "/a%b?c#d\r\n"}, "/a%25b%3Fc%23d%0D%0A"),
        ({"PATH_INFO": "/a", "RAW_URI": "/%61?b"}, "/%61?b"),
        ({"PATH_INFO": "/a", "QUERY_STRING": "b=/?c"}, "/a?b=/?c"),
    ],
)
def test_the_path_is_put_together_again(
    server: Server, target: RawTarget, more: Environ, asked: str
) -> None:
    assert server.call(environ() | more)[0] == "200 OK"
    assert target.request.target == asked


def test_the_target_is_told_who_asked(server: Server, target: RawTarget) -> None:
    asked = environ(HTTP_X_FORWARDED_FOR="203.0.113.1")
    server.call(asked | {"wsgi.url_scheme": "https"})
    request = target.request
    assert request.all("x-forwarded-for") == ["203.0.113.1,192.0.2.1"]
    assert request.all("x-forwarded-port") == ["8000"]
    assert request.all("x-forwarded-proto") == ["https"]
    assert request.all("x-forwarded-host") == ["proxy.test:8000"]


@pytest.mark.parametrize(
    ("more", "gone"),
    [
        ({"HTTP_CONNECTION": "close"}, "connection"),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, "transfer-encoding"),
        ({"HTTP_CONNECTION": "upgrade", "HTTP_UPGRADE": "websocket"}, "upgrade"),
        ({"HTTP_TE": "trailers"}, "te"),
        ({"HTTP_PROXY_CONNECTION": "close"}, "proxy-connection"),
        ({"HTTP_KEEP_ALIVE": "1"}, "keep-alive"),
        ({"HTTP_CONNECTION": "x-mine", "HTTP_X_MINE": "1"}, "x-mine"),
    ],
)
def test_what_was_for_the_server_stays_there(
    server: Server, target: RawTarget, more: Environ, gone: str
) -> None:
    assert server.call(environ(HTTP_X_STAYS="1") | more)[0] == "200 OK"
    assert gone not in target.request.names()
    assert target.request.all("x-stays") == ["1"]


@pytest.mark.parametrize("size", [1, 65536, 300_000])
def test_a_body_is_streamed_to_the_target(server: Server, target: RawTarget, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    status, _, _ = server.call(environ(body=body[:size], CONTENT_TYPE="a/b"))
    assert status == "200 OK"
    assert target.request.body == body[:size]
    assert target.request.all("content-type") == ["a/b"]


def test_nothing_is_read_behind_a_body(server: Server, target: RawTarget) -> None:
    source = io.BytesIO(b"abcGET /smuggled")
    server.call(environ(REQUEST_METHOD="PUT", CONTENT_LENGTH="3") | {"wsgi.input": source})
    assert target.request.body == b"abc"
    assert source.tell() == 3


def test_a_body_without_a_length_is_streamed_where_the_server_marks_its_end(
    server: Server, target: RawTarget
) -> None:
    """As gunicorn does with chunked bodies and with those of HTTP/2."""
    found = environ(REQUEST_METHOD="POST", HTTP_TRANSFER_ENCODING="chunked")
    found |= {"wsgi.input": io.BytesIO(b"abc" * 50_000), "wsgi.input_terminated": True}
    assert server.call(found)[0] == "200 OK"
    assert target.request.body == b"abc" * 50_000


def test_a_body_that_ends_too_early_never_passes_for_a_whole_one(
    server: Server, target: RawTarget
) -> None:
    """A server's input may just end when its client leaves."""

    def answer_at_once(exchange: Exchange) -> None:
        exchange.send(ok(b"early"))
        if exchange.request.method == "POST":
            exchange.read_body()

    target.script(answer_at_once)
    with contextlib.suppress(ClientGone):
        server.call(environ(body=b"abcde", CONTENT_LENGTH="40"))
    target.wait_for_requests(1, complete=False)
    server.call(environ("/next"))
    assert [request.target for request in target.requests] == ["/", "/next"]
    assert target.requests[0].connection != target.requests[1].connection


class Broken(io.BytesIO):
    """An input that fails for a reason that nobody foresaw."""

    def read(self, size: int | None = -1) -> bytes:
        raise RuntimeError("no input")


def test_a_body_that_cannot_be_read_ends_the_request(server: Server, target: RawTarget) -> None:
    asked = environ(REQUEST_METHOD="POST", CONTENT_LENGTH="5") | {"wsgi.input": Broken()}
    with gevent.Timeout(10), pytest.raises(RuntimeError, match="no input"):
        server.call(asked)
    target.wait_for_connections(0)


@pytest.mark.parametrize(
    ("method", "reply", "expected"),
    [
        ("HEAD", ok(b"")[:-1] + b"\n", b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", b""),
        ("GET", ok(b""), b""),
        ("GET", ok(bytes(500_000)), bytes(500_000)),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunked(b"a", b"b" * 70_000, trailers="X: y\r\n"),
            b"a" + b"b" * 70_000,
        ),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nConnection: close\r\n\r\nuntil the end",
            b"until the end",
        ),
        ("GET", b"HTTP/1.1 103 X\r\nLink: a\r\n\r\n" + ok(b"final"), b"final"),
    ],
)
def test_every_kind_of_answer_is_proper_wsgi(
    server: Server, target: RawTarget, method: str, reply: bytes, expected: bytes
) -> None:
    target.script(reply)
    for _ in range(2):
        status, headers, body = server.call(environ(REQUEST_METHOD=method))
        assert status.startswith(reply.split(b" ")[1].decode()) or b"103" in reply
        assert body == expected
        assert not {name.lower() for name, _ in headers} & {"connection", "transfer-encoding"}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/dead/x", "503 Service Unavailable"), ("/%", "404 Not Found")],
)
def test_an_error_is_proper_wsgi(server: Server, path: str, status: str) -> None:
    server.table.add(Route("/dead", "http://127.0.0.1:1", 0))
    for method in ("GET", "HEAD"):
        found, headers, body = server.call(environ(path, RAW_URI=path, REQUEST_METHOD=method))
        assert found == status
        assert ("Content-Type", "text/html") in headers
        assert status.encode() in body or method == "HEAD"


def test_without_a_route_there_is_a_404(server: Server) -> None:
    assert server.call(environ("/nowhere"))[0] == "404 Not Found"


def test_the_health_check_needs_no_route(server: Server) -> None:
    assert server.call(environ("/_chp_healthz"))[2] == b'{"status":"OK"}'


@pytest.mark.parametrize(
    "reply",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
    ],
    ids=["status line", "two lengths", "101", "chunk"],
)
def test_a_target_that_answers_nonsense_is_a_503(
    server: Server, target: RawTarget, reply: bytes
) -> None:
    target.script(then_close(reply))
    assert server.call(environ())[0] == "503 Service Unavailable"


def test_an_answer_that_is_cut_short_is_an_error_of_its_iterator(
    server: Server, target: RawTarget
) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 10\r\n\r\nbegun"
    target.script(then_close(cut))
    status, _, result = server.start(environ())
    assert status == "200 OK"
    with pytest.raises(Exception, match="cut short"):
        list(result)
    close(result)


def test_an_answer_that_nobody_reads_to_its_end_frees_the_target(
    server: Server, target: RawTarget
) -> None:
    def flood(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n")
        while True:
            exchange.send(bytes(65536))

    target.script(flood)
    _, _, result = server.start(environ())
    pieces = iter(result)
    while not next(pieces):
        pass
    close(result)
    target.wait_for_connections(0)


def test_the_connection_to_the_target_is_kept(server: Server, target: RawTarget) -> None:
    for _ in range(3):
        server.call(environ())
    assert target.accepted == 1


def test_a_target_whose_neighbour_was_retired_is_still_there(
    server: Server, target: RawTarget
) -> None:
    """Targets of one host and port share a pool, which ends with the last of them."""
    server.table.add(Route("/b", f"{target.url}/elsewhere", 1))
    for path in ("/", "/b"):
        assert server.call(environ(path))[2] == b"ok"
    server.upstream.retire(f"{target.url}/elsewhere")
    server.upstream.close_idle(time.monotonic())
    assert server.call(environ())[2] == b"ok"


def test_middleware_can_wrap_the_application(server: Server, target: RawTarget) -> None:
    proxy = server.app

    def middleware(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["HTTP_X_ADDED"] = "1"

        def add_header(status: str, headers: Headers, *exc_info: Any) -> Any:
            return start_response(status, [*headers, ("X-Wrapped", "2")], *exc_info)

        return (piece.upper() for piece in proxy(environ, add_header))

    server.app = validator(middleware)
    _, headers, body = server.call(environ())
    assert (body, headers[-1]) == (b"OK", ("X-Wrapped", "2"))
    assert target.request.all("x-added") == ["1"]


@pytest.mark.parametrize("size", [100, 20_000, 100_000, 3_000_000])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
def test_bodies_of_any_size_are_bytes_to_other_servers(
    server: Server, target: RawTarget, size: int, in_chunks: bool
) -> None:
    body = bytes(range(250)) * (size // 250)

    def answer(exchange: Exchange) -> None:
        if in_chunks:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
            exchange.send(head + chunked(body))
        else:
            exchange.send(response(body, headers=PLAIN))

    target.script(answer)
    assert server.call(environ())[2] == body


@pytest.mark.parametrize(
    ("size", "status"), [(130_000, "200 OK"), (140_000, "503 Service Unavailable")]
)
def test_the_head_of_an_answer_has_a_limit_however_it_arrives(
    server: Server, target: RawTarget, size: int, status: str
) -> None:
    target.script(lambda exchange: exchange.send(response(headers=[*PLAIN, ("X", "x" * size)])))
    assert server.call(environ())[0] == status
