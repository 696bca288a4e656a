"""What an access log is told of requests: one entry for each, whatever becomes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from chp_gevent.http.access_entry import AccessEntry, RequestFacts
from chp_gevent.http.errors import ResponseCut
from chp_gevent.http.events import ServerEvents
from chp_gevent.http.response import BufferedBody
from chp_gevent.http.settings import ServerSettings
from tests.kit.peers import RawClient, wait_until
from tests.kit.server_thread import ServerThread


class Application:
    """Answers as the path says."""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].strip("/")
        if path == "crash":
            raise RuntimeError("no")
        start("204 No Content" if path == "nothing" else "200 OK", [])
        return getattr(self, path, lambda environ: [])(environ)

    def whole(self, environ: dict[str, Any]) -> Iterable[bytes]:
        return [b"12345", b"678"]

    def pieces(self, environ: dict[str, Any]) -> Iterable[bytes]:
        return iter([b"12345", b"678"])

    def views(self, environ: dict[str, Any]) -> Iterable[bytes]:
        return BufferedBody(piece for piece in (memoryview(b"12345"), b"678"))

    def cut(self, environ: dict[str, Any]) -> Iterable[bytes]:
        yield b"12345"
        raise ResponseCut("target broke off")

    def read(self, environ: dict[str, Any]) -> Iterable[bytes]:
        return [environ["wsgi.input"].read()]


@pytest.fixture
def told() -> list[AccessEntry]:
    """What the server tells of requests."""
    return []


@pytest.fixture
def server(log: logging.Logger, told: list[AccessEntry]) -> Iterator[ServerThread]:
    """A server with an access log."""
    events = ServerEvents("server", log)
    with ServerThread(Application(), events, ServerSettings(), access=told.append) as running:
        yield running


def send(server: ServerThread, request: bytes) -> None:
    """Send a request, and read until the server closes."""
    with RawClient(server.address) as client:
        client.send(request)
        client.read_to_end()


def states(server: ServerThread) -> list[str]:
    """What the connections of a server are doing."""
    return [connection._state.name for connection in server.server._connections]


def request(path: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request that is the last one of its connection."""
    fields = "".join(f"{line}\r\n" for line in ("Host: a", "Connection: close", *lines))
    return f"{method} {path} HTTP/{version}\r\n{fields}\r\n".encode("latin-1")


def only(told: list[AccessEntry]) -> AccessEntry:
    """The one entry, as soon as it is there."""
    wait_until(lambda: told, 5, "an entry")
    (entry,) = told
    return entry


@pytest.mark.parametrize(
    ("path", "method", "status", "sent"),
    [
        ("/whole", "GET", 200, 8),
        ("/pieces", "GET", 200, 8),
        ("/views", "GET", 200, 8),
        ("/whole", "HEAD", 200, 0),
        ("/pieces", "HEAD", 200, 0),
        ("/nothing", "GET", 204, 0),
        ("/cut", "GET", 200, 5),
        ("/crash", "GET", 500, 21),
    ],
)
def test_status_and_size_of_an_answer_are_told(
    server: ServerThread, told: list[AccessEntry], path: str, method: str, status: int, sent: int
) -> None:
    send(server, request(path, method=method))
    entry = only(told)
    assert (entry.status, entry.sent) == (status, sent)
    assert entry.request == RequestFacts(method, path, "HTTP/1.1")
    assert entry.peer.address == "127.0.0.1"
    assert entry.answered is None


def test_header_fields_and_version_are_told(server: ServerThread, told: list[AccessEntry]) -> None:
    lines = ("Referer: /before?x", "User-Agent: a b", "Accept: c")
    send(server, request("/whole?q", *lines, version="1.0"))
    asked = RequestFacts("GET", "/whole?q", "HTTP/1.0", "/before?x", "a b")
    assert only(told).request == asked


def test_each_request_of_a_connection_has_its_entry(
    server: ServerThread, told: list[AccessEntry]
) -> None:
    kept = b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n"
    send(server, kept + kept + request("/nothing"))
    wait_until(lambda: len(told) == 3, 5, "all are told")
    assert [entry.status for entry in told] == [200, 200, 204]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", 505),
    ],
)
def test_a_refused_head_is_told_once(
    server: ServerThread, told: list[AccessEntry], sent: bytes, status: int
) -> None:
    send(server, sent)
    entry = only(told)
    assert (entry.status, entry.sent, entry.request) == (status, None, RequestFacts())


def test_a_refused_body_is_told_once(server: ServerThread, told: list[AccessEntry]) -> None:
    with RawClient(server.address) as client:
        client.send(b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        wait_until(lambda: server.run(states, server) == ["BUSY"], 5, "it is being answered")
        client.send(b"zz\r\n")
        client.read_to_end()
    entry = only(told)
    assert (entry.status, entry.sent, entry.request.method) == (400, None, "POST")


def test_a_request_that_stops_coming_is_told(server: ServerThread, told: list[AccessEntry]) -> None:
    with RawClient(server.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHos")
        wait_until(lambda: server.run(states, server) == ["HEAD"], 5, "a part of it is there")
        server.advance(61)
    assert only(told).status == 408


def test_a_client_that_leaves_without_an_answer_is_told_as_such(
    server: ServerThread, told: list[AccessEntry]
) -> None:
    with RawClient(server.address) as client:
        client.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        wait_until(lambda: server.run(states, server) == ["BUSY"], 5, "it is being answered")
    assert only(told).status == 499


def test_an_idle_connection_is_no_request(server: ServerThread, told: list[AccessEntry]) -> None:
    with RawClient(server.address) as client:
        client.send(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_response()
    wait_until(lambda: not server.run(lambda: server.server.open_connections), 5, "it has gone")
    assert only(told).status == 204
    assert told[0].ended == told[0].began == 1000.0, "the test's clock"
