"""The HTTP server as any application finds it, byte by byte.

What is refused and how long clients may take is tested on the servers of the management
process and of the proxy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
import pytest

from chp_gevent.http.errors import ClientGone
from chp_gevent.http.events import ServerEvents
from chp_gevent.http.settings import ServerSettings
from tests.kit.peers import RawClient, get, wait_until
from tests.kit.server_thread import ServerThread


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do what the path says."""
    answers: dict[str, Iterable[bytes]] = {
        "/none": [],
        "/one": [b"one"],
        "/several": [b"one", b"", b"two"],
        "/generated": (piece for piece in (b"one", b"two")),
        "/late-crash": late_crash(),
    }
    path = environ["PATH_INFO"]
    if path == "/crash":
        start_response("200 OK", [("X-Lost", "y")])
        raise RuntimeError("oh no")
    if path == "/unstarted":
        return [b"one"]
    if path == "/no-descriptor":
        raise OSError("no descriptor")
    if path == "/long":
        start_response("200 OK", [("Content-Length", "5")])
        return [b"one"]
    if path == "/injection":
        start_response("200 OK", [("X-Name", "a\r\nX-Injected: b")])
        return []
    if path == "/echo":
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]
    start_response("200 OK", [])
    return answers[path]


def late_crash() -> Iterator[bytes]:
    """Fail when the answer has begun."""
    yield b"one"
    raise RuntimeError("too late")


def plain_server(log: logging.Logger, app: Any = application, **settings: Any) -> ServerThread:
    """Return a server with default settings but for these."""
    return ServerThread(app, ServerEvents("test server", log), ServerSettings(**settings))


@pytest.fixture
def server(log: logging.Logger) -> Iterator[ServerThread]:
    """A server with default settings."""
    with plain_server(log) as server:
        yield server


@pytest.fixture
def client(server: ServerThread) -> Iterator[RawClient]:
    """A connection to it."""
    with RawClient(server.address) as client:
        yield client


# -- how an answer is framed


@pytest.mark.parametrize(
    ("path", "length", "body"),
    [
        ("/none", ["0"], b""),
        ("/one", ["3"], b"one"),
        ("/several", ["6"], b"onetwo"),
        ("/generated", [], b"onetwo"),
    ],
)
def test_a_list_has_a_length_and_all_else_is_chunked(
    client: RawClient, path: str, length: list[str], body: bytes
) -> None:
    answer = client.request(get(path))
    assert answer.body == body
    assert answer.all("content-length") == length
    assert answer.all("transfer-encoding") == ([] if length else ["chunked"])
    assert answer.all("connection") == ["keep-alive"]
    assert answer.all("keep-alive") == []


def test_head_tells_the_length_and_has_no_body(client: RawClient) -> None:
    client.send("HEAD /one HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"\r\nContent-Length: 3\r\n" in client.source.until(b"\r\n\r\n")
    assert client.request(get("/one")).body == b"one"


def test_http_1_0_clients_may_keep_their_connection(client: RawClient) -> None:
    for _ in range(2):
        answer = client.request("GET /one HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.all("connection") == ["keep-alive"]


def test_a_request_that_is_refused_is_told_why(client: RawClient, lines: list[str]) -> None:
    answer = client.request("GET / HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.body) == (400, b"Bad Request: no Host header\n")
    assert lines == ["warn: 400 refused a request from 127.0.0.1: no Host header"]
    client.assert_closed()


def test_a_client_that_expects_100_gets_it(client: RawClient) -> None:
    client.send(
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    assert client.source.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send("ok")
    assert client.read_response().body == b"ok"


# -- applications that fail


@pytest.mark.parametrize("path", ["/crash", "/injection", "/no-descriptor", "/unstarted"])
def test_an_application_that_fails_is_a_500_and_one_line(
    client: RawClient, lines: list[str], path: str
) -> None:
    answer = client.request(get(f"{path}?secret"))
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert answer.all("x-lost") == answer.all("x-injected") == []
    assert len(lines) == 1
    assert lines[0].startswith(f"error: Error in handler for GET {path}: ")
    assert client.request(get("/one")).status == 200, "the connection lives on"


def test_an_answer_that_has_begun_is_cut_off(client: RawClient, lines: list[str]) -> None:
    client.send(get("/late-crash"))
    client.source.until(b"\r\n\r\n")
    assert client.read_to_end() == b"3\r\none\r\n"
    assert lines == ["error: Error in handler for GET /late-crash: RuntimeError: too late"]


def test_an_answer_shorter_than_its_length_is_cut_off(client: RawClient) -> None:
    client.send(get("/long"))
    client.source.until(b"\r\n\r\n")
    assert client.read_to_end() == b"one"


# -- clients that leave while they are being answered


@pytest.mark.parametrize("interrupts", [True, False])
def test_an_application_is_interrupted_only_if_the_settings_say_so(
    log: logging.Logger, interrupts: bool
) -> None:
    entered, finished, interrupted = threading.Event(), threading.Event(), threading.Event()
    wakers: list[Any] = []

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        hub = gevent.get_hub()
        waker = hub.loop.async_()
        wakers.append(waker)
        try:
            entered.set()
            hub.wait(waker)
            finished.set()
        except ClientGone:
            interrupted.set()
            raise
        start_response("200 OK", [])
        return []

    with plain_server(log, slow, abort_on_disconnect=interrupts) as server:
        client = RawClient(server.address)
        client.send(get("/"))
        assert entered.wait(5)
        client.close()
        if interrupts:
            assert interrupted.wait(5)
        else:
            server.advance(3600)
            assert not interrupted.is_set()
            wakers[0].send()
            assert finished.wait(5)
        wait_until(lambda: server.server.busy == 0, 5, "the connection is closed")


# -- sockets that others share


class Sharing(ServerEvents):
    """Leaves connections to somebody else who never takes one: for so many seconds each."""

    shares_sockets = True

    def __init__(self, log: logging.Logger, *pauses: float) -> None:
        super().__init__("test server", log)
        self.pauses = list(pauses)
        self.counts: list[int] = []
        self.accepting: list[bool] = []

    def pause_before_accepting(self, full: bool) -> float:
        return self.pauses.pop(0) if self.pauses else 0.0

    def on_connections(self, count: int) -> None:
        self.counts.append(count)

    def on_accepting(self, accepting: bool) -> None:
        self.accepting.append(accepting)


def test_an_idle_connection_does_not_keep_what_it_was_asked_last(
    server: ServerThread, client: RawClient
) -> None:
    def keeps_something() -> bool:
        (connection,) = server.server._connections
        return hasattr(connection, "head") or hasattr(connection, "body")

    for _ in range(2):  # and goes on to be asked
        client.send(get("/one"))
        assert client.read_response().body == b"one"
        wait_until(lambda: not server.run(keeps_something), 5, "the request is forgotten")


def test_a_server_tells_how_many_connections_it_has(log: logging.Logger) -> None:
    events = Sharing(log, 0.002, 0.0, 0.002)
    with ServerThread(application, events, ServerSettings(drain_grace=0.0)) as server:
        for _ in range(2):
            with RawClient(server.address) as client:
                assert client.request(get("/one")).status == 200
        wait_until(lambda: server.server.busy == 0, 5, "the connections are closed")
        server.run(server.server.drain)
    assert not events.pauses
    assert set(events.counts) <= {0, 1, 2}
    assert events.counts[-1] == 0
    assert events.accepting == [True, False]


def test_each_pause_before_accepting_lasts_as_long_as_it_should(log: logging.Logger) -> None:
    events = Sharing(log, 0.05, 0.05, 0.0, 0.05, 0.05)
    with ServerThread(application, events, ServerSettings(drain_grace=0.0)) as server:
        began = time.monotonic()
        with RawClient(server.address) as one, RawClient(server.address) as two:
            assert one.request(get("/one")).status == 200
            assert time.monotonic() - began >= 0.1
            assert two.request(get("/one")).status == 200
            assert time.monotonic() - began >= 0.2


def test_a_pause_ends_when_a_connection_does(log: logging.Logger) -> None:
    events = Sharing(log)
    with ServerThread(application, events, ServerSettings(drain_grace=0.0)) as server:
        with RawClient(server.address) as leaving:
            assert leaving.request(get("/one")).status == 200
            events.pauses = [3600.0]
            waiting = RawClient(server.address)
            wait_until(lambda: not events.pauses, 5, "the pause")
        with waiting:
            assert waiting.request(get("/one")).status == 200


@pytest.mark.parametrize(
    "pieces",
    [[b"body and more"], [b"bo", b"dy and more"], [b"body", b"HTTP/1.1 200 OK\r\n\r\n"]],
    ids=["in the first piece", "in a later piece", "a piece more"],
)
def test_a_body_longer_than_its_content_length_is_clipped(
    log: logging.Logger, pieces: list[bytes]
) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        return pieces

    events = ServerEvents("test server", log)
    with (
        ServerThread(application, events, ServerSettings()) as server,
        RawClient(server.address) as client,
    ):
        client.send(get("/") + get("/"))
        assert client.read_response().body == b"body"
        if pieces[0] == b"body":
            # Nothing of the excess has gone out: the connection is as good as before.
            assert client.read_response().body == b"body"
        else:
            client.assert_closed()
