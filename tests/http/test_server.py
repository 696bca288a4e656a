"""The HTTP server as any application finds it, byte by byte.

What is refused and how long clients may take is tested on the servers of the management
process and of the proxy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import gevent
import pytest

from chp_gevent.http.body import ClientGone
from chp_gevent.http.connection import ClientConnection
from chp_gevent.http.hooks import ServerHooks
from chp_gevent.http.settings import ServerSettings
from chp_gevent.http.stream import Stream
from tests.http.server_thread import ServerThread
from tests.peers import RawClient, get, wait_until


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
    return ServerThread(app, ServerHooks("test server", log), ServerSettings(**settings))


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

    with plain_server(log, slow, interrupts=interrupts) as server:
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


class Sharing(ServerHooks):
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


def test_a_server_tells_how_many_connections_it_has(log: logging.Logger) -> None:
    hooks = Sharing(log, 0.002, 0.0, 0.002)
    with ServerThread(application, hooks, ServerSettings(drain_grace=0.0)) as server:
        for _ in range(2):
            with RawClient(server.address) as client:
                assert client.request(get("/one")).status == 200
        wait_until(lambda: server.server.busy == 0, 5, "the connections are closed")
        server.run(server.server.drain)
    assert not hooks.pauses
    assert set(hooks.counts) <= {0, 1, 2}
    assert hooks.counts[-1] == 0
    assert hooks.accepting == [True, False]


def test_each_pause_before_accepting_lasts_as_long_as_it_should(log: logging.Logger) -> None:
    hooks = Sharing(log, 0.05, 0.05, 0.0, 0.05, 0.05)
    with ServerThread(application, hooks, ServerSettings(drain_grace=0.0)) as server:
        began = time.monotonic()
        with RawClient(server.address) as one, RawClient(server.address) as two:
            assert one.request(get("/one")).status == 200
            assert time.monotonic() - began >= 0.1
            assert two.request(get("/one")).status == 200
            assert time.monotonic() - began >= 0.2


def test_a_pause_ends_when_a_connection_does(log: logging.Logger) -> None:
    hooks = Sharing(log)
    with ServerThread(application, hooks, ServerSettings(drain_grace=0.0)) as server:
        with RawClient(server.address) as leaving:
            assert leaving.request(get("/one")).status == 200
            hooks.pauses = [3600.0]
            waiting = RawClient(server.address)
            wait_until(lambda: not hooks.pauses, 5, "the pause")
        with waiting:
            assert waiting.request(get("/one")).status == 200


# -- whatever happens to one connection is over with it


def never_taken(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Switch to a protocol that begins with more than any client here reads."""
    client = environ["chp.client"]
    client.switch_protocols(lambda: client.stream.write(bytes(64 << 20)))
    start_response("101 Switching Protocols", [])
    return []


def test_an_upgrade_whose_client_leaves_before_it_begins_leaves_nothing(
    log: logging.Logger, lines: list[str]
) -> None:
    with plain_server(log, never_taken) as server, RawClient(server.address) as client:
        client.send(get("/"))
        assert b"".join(client.source.pieces(1)) == bytes(1)
        wait_until(lambda: server.server.busy == 1, 5, "the connection")
        client.half_close()

        def is_forgotten() -> bool:
            server.advance(1)
            return server.server.busy == 0

        wait_until(is_forgotten, 5, "the connection is closed")
        client.read_to_end()
    assert not lines


def test_an_upgrade_that_fails_is_one_line_and_leaves_nothing(
    log: logging.Logger, lines: list[str]
) -> None:
    def failing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start() -> None:
            raise RuntimeError("no tunnel")

        environ["chp.client"].switch_protocols(start)
        return []

    with plain_server(log, failing) as server, RawClient(server.address) as client:
        client.send(get("/"))
        client.assert_closed()
        wait_until(lambda: server.server.busy == 0, 5, "the connection is forgotten")
    assert lines == ["error: Error in handler for a connection: RuntimeError: no tunnel"]


def test_a_connection_that_fails_in_the_sweep_keeps_it_from_no_other(
    log: logging.Logger, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: ClientConnection, now: float) -> None:
        raise RuntimeError("cannot be looked at")

    check = ClientConnection.check
    monkeypatch.setattr(
        ClientConnection,
        "check",
        lambda each, now: (fail if each.peer.trusted is None else check)(each, now),
    )
    with plain_server(log) as server, ExitStack() as clients:
        slow = [clients.enter_context(RawClient(server.address)) for _ in range(20)]
        for client in slow:
            client.send("GET / HTTP/1.1\r\n")
        wait_until(lambda: server.server.busy == 20, 5, "all are there")
        bad = server.run(lambda: next(iter(server.server._connections)))
        bad.peer = bad.peer._replace(trusted=None)
        others = [c for c in slow if c.socket.getsockname()[1] != int(bad_port(bad))]
        server.advance(61)
        assert [client.read_response().status for client in others] == [408] * 19
        monkeypatch.setattr(ClientConnection, "check", fail)
        server.run(server.server.drain)  # survives it too
        monkeypatch.undo()
    assert "error: Error in handler for a connection: RuntimeError: cannot be looked at" in lines


def bad_port(connection: ClientConnection) -> str:
    """Return the port that a connection comes from."""
    return str(connection._environ["REMOTE_PORT"])


def test_a_connection_that_cannot_be_served_keeps_nobody_else_waiting(
    log: logging.Logger, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Stream.__init__
    failures = [OSError("no watcher")]

    def fail_once(stream: Stream, *args: Any) -> None:
        if failures:
            raise failures.pop()
        made(stream, *args)

    with plain_server(log) as server:
        monkeypatch.setattr(Stream, "__init__", fail_once)
        with RawClient(server.address) as unlucky, RawClient(server.address) as lucky:
            unlucky.assert_closed()
            assert lucky.request(get("/one")).status == 200
    assert lines == ["error: Error in handler for a connection: OSError: no watcher"]


# -- a server that is full


@pytest.fixture
def small(log: logging.Logger) -> Iterator[ServerThread]:
    """A server that may have three connections."""
    with plain_server(log, max_connections=3) as server:
        yield server


def answered(server: ServerThread, stack: ExitStack) -> RawClient:
    """Return a client that has had an answer, and keeps its connection."""
    client = stack.enter_context(RawClient(server.address))
    assert client.request(get("/one")).status == 200
    server.advance(0.01)
    return client


def test_a_newcomer_takes_the_place_of_the_longest_idle(
    small: ServerThread, lines: list[str]
) -> None:
    with ExitStack() as stack:
        clients = [answered(small, stack) for _ in range(3)]
        assert clients[0].request(get("/one")).status == 200
        answered(small, stack)
        clients[1].assert_closed()
        assert clients[0].request(get("/one")).status == 200
        assert clients[2].request(get("/one")).status == 200
        answered(small, stack)
        assert small.run(lambda: small.server.busy) == 3
    assert lines == [
        "warn: The test server has as many connections as it may: "
        "silent ones are closed to take others"
    ]


@pytest.mark.parametrize("part", ["", "GET / HTTP/1.1\r\nHost: h\r\n"])
def test_who_never_asks_cannot_lock_others_out(small: ServerThread, part: str) -> None:
    with ExitStack() as stack:
        kept = answered(small, stack)
        silent = [stack.enter_context(RawClient(small.address)) for _ in range(2)]
        for client in silent:
            client.send(part)
        wait_until(lambda: small.server.busy == 3, 5, "all are there")
        small.advance(2.1)
        for _ in range(2):
            answered(small, stack)
        for client in silent:
            client.assert_closed()
        assert kept.request(get("/one")).status == 200, "it has asked before"


def test_an_answer_is_never_cut_off_for_a_newcomer(log: logging.Logger, lines: list[str]) -> None:
    wakers: dict[str, Any] = {}

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path != "/":
            waker = wakers[path] = gevent.get_hub().loop.async_()
            gevent.get_hub().wait(waker)
        start_response("200 OK", [])
        return [b"done"]

    with plain_server(log, slow, max_connections=2) as server, ExitStack() as stack:
        busy = [stack.enter_context(RawClient(server.address)) for _ in range(2)]
        for number, client in enumerate(busy):
            client.send(get(f"/{number}"))
        wait_until(lambda: len(wakers) == 2, 5, "both are being answered")
        waiting = stack.enter_context(RawClient(server.address))
        waiting.send(get("/"))
        wait_until(lambda: lines, 5, "somebody waits")
        assert not waiting.is_closed()
        assert server.run(lambda: server.server.busy) == 2
        wakers["/0"].send()
        assert busy[0].read_response().body == b"done"
        # Which is idle now; that is noticed by the next sweep.
        assert waiting.read_response().body == b"done"
        busy[0].assert_closed()
        wakers["/1"].send()
        assert busy[1].read_response().body == b"done"
    assert lines == ["warn: The test server has as many connections as it may: others wait"]


def test_a_request_that_has_just_come_is_answered_although_the_server_is_full(
    small: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        clients = [answered(small, stack) for _ in range(3)]

        def send_and_make_room() -> None:
            # In a callback of the loop, which has not been told of what arrives here.
            clients[0].send(get("/one"))
            made.append(small.server._make_room())

        made: list[bool] = []
        small.run(lambda: gevent.get_hub().loop.run_callback(send_and_make_room))
        wait_until(lambda: made, 5, "room has been made")
        assert made == [True]
        assert clients[0].read_response().status == 200
        clients[1].assert_closed()


def test_a_full_server_leaves_newcomers_to_others_first(log: logging.Logger) -> None:
    asked = []

    class Full(Sharing):
        def pause_before_accepting(self, full: bool) -> float:
            asked.append(full)
            return 0.0

    with (
        ServerThread(application, Full(log), ServerSettings(max_connections=1)) as server,
        ExitStack() as stack,
    ):
        for _ in range(2):
            answered(server, stack)
    assert asked == [False, True]
