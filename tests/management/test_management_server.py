"""The HTTP servers of the management process, byte by byte."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from chp_gevent.config.options import ServerTlsOptions
from chp_gevent.config.tls_contexts import server_context
from chp_gevent.http import acceptor
from chp_gevent.management import management_server as serving
from chp_gevent.management.counters import management_row, statuses
from chp_gevent.management.management_server import (
    MAX_BODY,
    ManagementEvents,
    WholeBodies,
    server_settings,
)
from chp_gevent.shared.segment import Segment
from tests.kit.peers import RawClient, chunked, get, wait_until
from tests.kit.server_thread import ServerThread

BIG = b"x" * 20_000_000


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Echo the body, or do what the path says."""
    target = environ["RAW_URI"]
    if target == "/crash":
        raise RuntimeError("oh\nno")
    if target == "/injection":
        start_response("200 OK", [("X-Name", "a\r\nX-Injected: b")])
        return []
    if target == "/empty":
        start_response("204 No Content", [])
        return []
    start_response("200 OK", [("Content-Type", "text/x")])
    if target == "/big":
        return [BIG]
    if target.startswith("/environ/"):
        return [str(environ.get(target[9:])).encode("latin-1")]
    return [environ["REQUEST_METHOD"].encode(), b" ", environ["wsgi.input"].read()]


def management_server(
    log: logging.Logger,
    *,
    app: Any = application,
    row: memoryview[int] | None = None,
    listener: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
) -> ServerThread:
    """Return a server as the management process has them."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    events = ManagementEvents("test server", log, row)
    settings = server_settings([listener], tls)
    return ServerThread(WholeBodies(app), events, settings, listener=listener)


@pytest.fixture
def row(segment: Segment) -> memoryview[int]:
    """Where the server counts the requests that it refuses."""
    return management_row(segment)


@pytest.fixture
def server(log: logging.Logger, row: memoryview[int]) -> Iterator[ServerThread]:
    """A plain server."""
    with management_server(log, row=row) as server:
        yield server


@pytest.fixture
def client(server: ServerThread) -> Iterator[RawClient]:
    """A connection to it."""
    with RawClient(server.address) as client:
        yield client


def post(body: bytes, *headers: str, path: str = "/echo") -> bytes:
    """Return a POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


# -- requests and answers


def test_an_answer_looks_like_those_of_node(client: RawClient) -> None:
    answer = client.request(get("/"))
    assert answer.start == "HTTP/1.1 200 OK"
    assert [name for name, _ in answer.headers] == [
        "Content-Type",
        "Date",
        "Connection",
        "Keep-Alive",
        "Content-Length",
    ]
    assert answer.all("connection") == ["keep-alive"]
    assert answer.all("keep-alive") == ["timeout=5"]
    assert answer.body == b"GET "


def test_a_connection_serves_many_requests(client: RawClient) -> None:
    for number in range(10):
        assert client.request(post(b"%d" % number)).body == b"POST %d" % number


def test_pipelined_requests_are_answered_in_order(client: RawClient) -> None:
    client.send(b"".join(post(b"%d" % number) for number in range(10)) + get("/last").encode())
    for number in range(10):
        assert client.read_response().body == b"POST %d" % number
    assert client.read_response().body == b"GET "


def test_a_request_may_come_byte_by_byte(client: RawClient) -> None:
    for byte in b"\r\n" + post(b"body"):
        client.send(bytes([byte]))
    assert client.read_response().body == b"POST body"


def test_a_chunked_body_is_collected(client: RawClient) -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = chunked(b"one", b"two", trailers="X: y\r\n")
    assert client.request(head + body).body == b"POST onetwo"
    assert client.request(get("/")).status == 200


def test_a_client_that_expects_100_gets_it(client: RawClient) -> None:
    head, _, body = post(b"later", "Expect: 100-continue").partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert client.source.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(body)
    assert client.read_response().body == b"POST later"


def test_head_has_no_body(client: RawClient) -> None:
    answer = client.request("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.status == 200
    assert client.request(get("/")).body == b"GET "


def test_204_has_neither_body_nor_length(client: RawClient) -> None:
    assert client.request(get("/empty")).all("content-length") == []
    assert client.request(get("/")).body == b"GET "


@pytest.mark.parametrize(
    "request_text",
    [
        get("/", "Connection: close"),
        get("/", "Connection: Close, x"),
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
def test_a_connection_that_is_not_to_be_kept_is_closed(
    client: RawClient, request_text: str
) -> None:
    answer = client.request(request_text)
    assert answer.all("connection") == ["close"]
    assert answer.all("keep-alive") == []
    client.assert_closed()


def test_a_big_answer_arrives_whole(client: RawClient) -> None:
    assert client.request(get("/big")).body == BIG


@pytest.mark.parametrize(
    ("key", "headers", "expected"),
    [
        ("RAW_URI", (), b"/environ/RAW_URI"),
        ("PATH_INFO", (), b"/environ/PATH_INFO"),
        ("QUERY_STRING", (), b""),
        ("REMOTE_ADDR", (), b"127.0.0.1"),
        ("SERVER_PROTOCOL", (), b"HTTP/1.1"),
        ("HTTP_HOST", (), b"proxy.test"),
        ("HTTP_AUTHORIZATION", ("Authorization:  token x ",), b"token x"),
        ("HTTP_X_TWICE", ("X-Twice: 1", "x-twice: 2"), b"1,2"),
        ("CONTENT_TYPE", ("Content-Type: a/b",), b"a/b"),
        ("wsgi.url_scheme", (), b"http"),
    ],
)
def test_the_application_finds_what_wsgi_promises(
    client: RawClient, key: str, headers: tuple[str, ...], expected: bytes
) -> None:
    assert client.request(get(f"/environ/{key}", *headers)).body == expected


# -- requests that are refused


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ("garbage\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (get("/", "Bad Header: x"), 400),
        (get("/", "X: a\x00b"), 400),
        (get("/", " folded"), 400),
        (get("/", "Content-Length: +1"), 400),
        (get("/", "Content-Length: 1", "Content-Length: 2"), 400),
        (get("/", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (get("/", "Transfer-Encoding: gzip, chunked"), 400),
        (get("/", "Transfer-Encoding: chunked") + "zz\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (get("/" + "a" * 20_000), 414),
        (get("/", "X: " + "a" * 40_000), 431),
        (get("/", *["X: y"] * 200), 431),
        (get("/", f"Content-Length: {MAX_BODY + 1}"), 413),
        (get("/", "Content-Length: 999999999999999999"), 413),
    ],
)
def test_what_could_be_misread_or_is_too_much_is_refused(
    row: memoryview[int], client: RawClient, lines: list[str], data: str, status: int
) -> None:
    answer = client.request(data)
    assert (answer.status, answer.body) == (status, b"")
    assert answer.all("connection") == ["close"]
    client.assert_closed()
    assert statuses(row) == {status: 1}
    assert len(lines) == 1
    assert lines[0].startswith(f"warn: {status} ")


def test_a_refused_body_is_logged_like_a_call(client: RawClient, lines: list[str]) -> None:
    assert client.request(post(b"x" * (MAX_BODY + 1), path="/api/routes/a?b")).status == 413
    assert lines == ["warn: 413 POST /api/routes/a body too large"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_who_sends_too_much_can_still_read_the_answer(client: RawClient, framing: str) -> None:
    body = b"x" * (2 * MAX_BODY)
    if framing == "length":
        data = post(body)
    else:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        data = head + chunked(body)
    sender = threading.Thread(target=client.send, args=(data,))
    sender.start()
    assert client.read_response().status == 413
    sender.join()


def test_the_largest_body_is_taken(client: RawClient) -> None:
    assert len(client.request(post(b"x" * MAX_BODY)).body) == MAX_BODY + len("POST ")


@pytest.mark.parametrize("path", ["/crash", "/injection"])
def test_a_failure_of_the_application_is_a_500_and_one_line(
    client: RawClient, lines: list[str], path: str
) -> None:
    answer = client.request(get(path))
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert "x-injected" not in {name.lower() for name, _ in answer.headers}
    assert len(lines) == 1
    assert lines[0].startswith(f"error: Error in handler for GET {path}: ")
    assert client.request(get("/")).status == 200, "the connection lives on"


# -- clients that leave or take their time


@pytest.mark.parametrize(
    "part", ["", "GET / HT", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel"]
)
def test_a_client_that_leaves_early_is_nobodys_trouble(
    server: ServerThread, client: RawClient, lines: list[str], part: str
) -> None:
    client.send(part)
    wait_until(lambda: server.server.open_connections == 1, 5, "the connection is open")
    client.close()
    wait_until(lambda: server.server.open_connections == 0, 5, "the connection is closed")
    assert lines == []


def test_an_idle_connection_is_closed_after_what_was_announced(
    server: ServerThread, client: RawClient, lines: list[str]
) -> None:
    client.request(get("/"))
    server.advance(5.5)
    assert client.request(get("/")).status == 200
    server.advance(5.5)
    assert not client.is_closed()
    server.advance(1)
    client.assert_closed()
    assert lines == []


def test_a_connection_without_any_request_is_closed_in_the_end(
    server: ServerThread, client: RawClient, lines: list[str]
) -> None:
    wait_until(lambda: server.server.open_connections == 1, 5, "the connection is open")
    server.advance(9)
    assert not client.is_closed()
    server.advance(2)
    client.assert_closed()
    assert lines == []


@pytest.mark.parametrize(
    "part",
    ["GET / HTTP/1.1\r\nHost: h\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"],
)
def test_a_request_that_does_not_become_complete_is_a_408(
    server: ServerThread, client: RawClient, part: str
) -> None:
    client.request(get("/"))
    client.send(part)
    # Another connection's round trip: the part has arrived by then.
    with RawClient(server.address) as other:
        other.request(get("/"))
    server.advance(61)
    assert client.read_response().status == 408
    client.assert_closed()


def test_a_client_that_does_not_read_is_dropped(server: ServerThread, client: RawClient) -> None:
    client.send(get("/big"))
    client.read_head()
    server.advance(61)
    wait_until(lambda: server.server.open_connections == 0, 5, "the connection is closed")


# -- connections


def test_a_unix_socket_serves_as_well(log: logging.Logger, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with (
        management_server(log, listener=listener) as server,
        RawClient(server.address) as client,
    ):
        assert client.request(post(b"x")).body == b"POST x"
        assert client.request(get("/environ/REMOTE_ADDR")).body == b""


# The hub's connection is idle meanwhile, and is closed after five seconds of that.
@pytest.mark.calm
@pytest.mark.parametrize("part", ["", "GET / HTTP/1.1\r\nHost: h\r\n"])
def test_connections_that_ask_nothing_do_not_lock_the_hub_out(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 20)
    with management_server(log) as server, ExitStack() as stack:
        hub = stack.enter_context(RawClient(server.address))
        assert hub.request(get("/")).status == 200
        for _ in range(100):
            silent = stack.enter_context(RawClient(server.address))
            silent.send(part)
        wait_until(lambda: server.server.open_connections == 20, 5, "the server is full")
        assert hub.request(get("/")).status == 200, "it was no victim of the crowd"
        server.advance(2.1)
        for _ in range(30):
            with RawClient(server.address) as another:
                assert another.request(get("/")).status == 200
        assert hub.request(get("/")).status == 200


def test_running_out_of_descriptors_is_logged_once_and_passes(
    server: ServerThread, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(errno.EMFILE, "Too many open files")] * 3
    accept = acceptor._Listener.accept

    def accept_or_fail(listener: Any) -> Any:
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(acceptor._Listener, "accept", accept_or_fail)
    with RawClient(server.address) as client:
        assert client.request(get("/")).status == 200
    assert lines == [
        "error: The test server can't accept connections: [Errno 24] Too many open files; "
        "raise the limit of open files"
    ]


def test_draining_closes_what_is_idle_and_answers_what_is_not(log: logging.Logger) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        entered.set()
        leave.wait(10)
        return application(environ, start_response)

    with management_server(log, app=slow) as server:
        idle, fresh, busy = (RawClient(server.address) for _ in range(3))
        leave.set()
        assert idle.request(get("/")).status == 200
        wait_until(lambda: server.server.open_connections == 3, 5, "three connections")
        leave.clear()
        entered.clear()
        busy.send(get("/"))
        assert entered.wait(5)
        drained = threading.Event()

        def drain() -> None:
            server.server.drain()
            assert server.server.join(5.0)
            drained.set()

        server.run_later(drain)
        leave.set()
        answer = busy.read_response()
        assert answer.status == 200
        for client in (idle, fresh, busy):
            client.assert_closed()
            client.close()
        assert drained.wait(5)
        with RawClient(server.address, timeout=0.2) as late:
            late.send(get("/"))
            with pytest.raises(TimeoutError):
                late.read_response()


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The authority of everything here."""
    return trustme.CA()


@pytest.fixture
def tls_options(authority: trustme.CA, tmp_path: Path) -> ServerTlsOptions:
    """A key and a certificate for localhost, and the authority that clients need one of."""
    certificate = authority.issue_cert("localhost")
    key, chain, ca = (tmp_path / name for name in ("key.pem", "cert.pem", "ca.pem"))
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    authority.cert_pem.write_to_path(ca)
    return ServerTlsOptions(
        str(key), str(chain), ca=str(ca), request_cert=True, reject_unauthorized=True
    )


@pytest.fixture
def tls_server(log: logging.Logger, tls_options: ServerTlsOptions) -> Iterator[ServerThread]:
    """A server that wants certificates from its clients, as JupyterHub's internal_ssl does."""
    context = server_context(tls_options)
    with management_server(log, tls=context) as server:
        yield server


def client_context(authority: trustme.CA, issuer: trustme.CA | None = None) -> ssl.SSLContext:
    """Return the context of a client, with a certificate of ``issuer`` if there is one."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if issuer is not None:
        issuer.issue_cert("client").configure_cert(context)
    return context


def test_calls_over_tls_are_answered(tls_server: ServerThread, authority: trustme.CA) -> None:
    with RawClient(tls_server.address, tls=client_context(authority, authority)) as client:
        assert client.request(get("/environ/wsgi.url_scheme")).body == b"https"
        body = b"x" * MAX_BODY
        assert client.request(post(body)).body == b"POST " + body
        assert client.request(get("/", "Connection: close")).status == 200
        client.assert_closed()


@pytest.mark.parametrize("foreign", [False, True])
def test_a_client_without_a_good_certificate_is_one_line(
    tls_server: ServerThread, authority: trustme.CA, lines: list[str], foreign: bool
) -> None:
    context = client_context(authority, trustme.CA() if foreign else None)
    with (
        socket.create_connection(tls_server.address) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as client,
    ):
        client.sendall(get("/").encode())
        with pytest.raises(ssl.SSLError, match="ALERT"):
            client.recv(1)
    wait_until(lambda: lines, 5, "the failure is logged")
    assert len(lines) == 1
    assert lines[0].startswith("warn: TLS handshake of 127.0.0.1 with the test server failed: ")
    with RawClient(tls_server.address, tls=client_context(authority, authority)) as client:
        assert client.request(get("/")).status == 200


def test_plain_http_on_a_tls_port_is_one_line(
    tls_server: ServerThread, authority: trustme.CA, lines: list[str]
) -> None:
    with RawClient(tls_server.address) as client:
        client.send(get("/"))
        client.read_to_end()
    assert lines == ["warn: TLS handshake of 127.0.0.1 with the test server failed: http request"]


def test_a_client_that_only_connects_is_nobodys_trouble(
    tls_server: ServerThread, lines: list[str]
) -> None:
    client = RawClient(tls_server.address)
    wait_until(lambda: tls_server.server.open_connections == 1, 5, "the connection is open")
    client.close()
    wait_until(lambda: tls_server.server.open_connections == 0, 5, "the connection is closed")
    assert lines == []


def test_a_handshake_that_does_not_end_is_given_up(tls_server: ServerThread) -> None:
    with RawClient(tls_server.address) as client:
        client.send(b"\x16\x03\x01")
        wait_until(lambda: tls_server.server.open_connections == 1, 5, "the connection is open")
        tls_server.advance(61)
        client.read_to_end()
    wait_until(lambda: tls_server.server.open_connections == 0, 5, "the connection is closed")
