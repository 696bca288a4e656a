"""One request and its answer with peers that are slow, silent, cut off or somebody else's."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.authority import Authority
from tests.kit.peers import Exchange, RawClient, RawTarget, chunked, get, response, wait_until
from tests.kit.peers.upgrades import echo, receive, switched
from tests.kit.server import Proxy, free_ports, start_proxy

AddRoute = Callable[[str], str]

pytestmark = pytest.mark.ours

SOON = 3.0

# Larger than what sockets with small buffers take.
FILLING = "".join(f"X-{number}: {'y' * 1000}\r\n" for number in range(100))


@pytest.fixture(scope="module")
def impatient() -> Iterator[Proxy]:
    """A server with a short ``--proxy-timeout``."""
    with start_proxy("--proxy-timeout", "700") as proxy:
        yield proxy


# -- an answer that has begun is never mixed with another one


def slow_reader(proxy: Proxy) -> RawClient:
    """Return a client whose receive buffer is as small as can be."""
    client = RawClient.__new__(RawClient)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    plain.settimeout(10)
    plain.connect(proxy.address)
    client.socket = plain
    return client


def read_all(client: RawClient) -> bytes:
    """Return everything until the end of the connection, an error being an end too."""
    received = b""
    try:
        while piece := client.socket.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def test_what_the_client_takes_its_time_to_read_does_not_count_as_silence_of_the_target(
    impatient: Proxy,
) -> None:
    answer = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.send(f"HTTP/1.1 103 Early Hints\r\n{FILLING}\r\n".encode())
        exchange.stall(answer)
        exchange.send(response(b"then", "Connection: close"))

    with RawTarget(reply) as target:
        impatient.api.add("/hints", target.url)
        client = slow_reader(impatient)
        client.socket.sendall(b"GET /hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        target.wait_for_requests(1)
        # Longer than --proxy-timeout, with an interim response half written.
        time.sleep(1.0)
        answer.set()
        received = read_all(client)
        client.socket.close()
    interim, _, rest = received.partition(b"\r\n\r\n")
    assert interim.startswith(b"HTTP/1.1 103")
    assert rest.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503"))
    assert received.count(b"HTTP/1.1") == 2


def test_an_upload_that_turns_out_malformed_breaks_an_answer_that_is_being_written(
    proxy: Proxy, add_route: AddRoute
) -> None:
    def reply(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"y" * 5_000_000)

    with RawTarget(reply) as target:
        path = add_route(target.url)
        client = slow_reader(proxy)
        client.socket.sendall(
            b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
            % path.encode()
        )
        target.wait_for_requests(1, complete=False)
        client.socket.sendall(b"not a chunk\r\n")
        received = read_all(client)
        client.socket.close()
    assert received.count(b"HTTP/1.1") <= 1


def test_an_upload_that_turns_out_malformed_is_not_blamed_on_the_target(
    proxy: Proxy, add_route: AddRoute
) -> None:
    never = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        exchange.stall(never, 20)

    with RawTarget(reply) as target, proxy.client() as client:
        path = add_route(target.url)
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + "1\r\na\r\n")
        assert client.read_head().status == 200
        position = proxy.log_position()
        client.send("not a chunk\r\n")
        assert read_all(client) in (b"", b"half")
        proxy.wait_for_log("400 refused a request from .*: malformed chunk", after=position)
        assert "malformed response" not in "\n".join(proxy.log().splitlines()[position:])
        never.set()


# -- a timeout is no stale connection; what may be repeated is


class SilentTheSecondTime:
    """Answers the first request on a connection, and none after it."""

    def __init__(self) -> None:
        self.seen: set[socket.socket] = set()
        self.requests = 0

    def __call__(self, exchange: Exchange) -> None:
        exchange.read_body()
        self.requests += 1
        if exchange.connection in self.seen:
            exchange.stall(threading.Event(), 5)
            return
        self.seen.add(exchange.connection)
        exchange.send(response(b"kept"))


def test_a_request_that_timed_out_on_a_reused_connection_is_not_sent_again(
    impatient: Proxy,
) -> None:
    silent = SilentTheSecondTime()
    with RawTarget(silent) as target, impatient.client() as client:
        impatient.api.add("/silent", target.url)
        assert client.request(get("/silent")).status == 200
        started = time.monotonic()
        assert client.request(get("/silent")).status == 503
        assert time.monotonic() - started < 1.3, "one timeout, not two"
        assert silent.requests == 2


class BreaksTheSecondTime:
    """Answers the first request on a connection; breaks it at the next, after ``interim``."""

    def __init__(self, interim: bytes = b"") -> None:
        self.interim = interim
        self.seen: set[socket.socket] = set()
        self.bodies: list[bytes] = []

    def __call__(self, exchange: Exchange) -> None:
        self.bodies.append(exchange.read_body())
        if exchange.connection in self.seen:
            exchange.send(self.interim)
            exchange.reset()
            return
        self.seen.add(exchange.connection)
        exchange.send(response(b"kept"))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET", "OPTIONS"])
def test_an_idempotent_request_whose_body_is_here_is_sent_again(
    proxy: Proxy, add_route: AddRoute, method: str
) -> None:
    breaking = BreaksTheSecondTime()
    with RawTarget(breaking) as target, proxy.client() as client:
        path = add_route(target.url)
        assert client.request(get(path)).status == 200
        request = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        assert client.request(request).status == 200
        assert breaking.bodies == [b"", b"hello", b"hello"]


def test_a_body_that_is_still_coming_is_not_sent_again(proxy: Proxy, add_route: AddRoute) -> None:
    breaking = BreaksTheSecondTime()
    with RawTarget(breaking) as target, proxy.client() as client:
        path = add_route(target.url)
        assert client.request(get(path)).status == 200
        client.send(f"PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
        wait_until(lambda: len(target.requests) == 2, 5, "the head at the target")
        client.send("lo")
        assert client.read_response().status == 503
        assert breaking.bodies == [b"", b"hello"]


def test_an_interim_response_is_an_answer_and_nothing_is_sent_again(
    proxy: Proxy, add_route: AddRoute
) -> None:
    breaking = BreaksTheSecondTime(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    with RawTarget(breaking) as target, proxy.client() as client:
        path = add_route(target.url)
        assert client.request(get(path)).status == 200
        answer = client.request(get(path))
        assert answer.status == 503
        assert [each.status for each in answer.interim] == [103]
        assert len(breaking.bodies) == 2


# -- targets that end, or are none


@contextmanager
def tls_target(authority: Authority, answer: bytes) -> Iterator[str]:
    """An https target that sends ``answer`` and ends without close_notify."""
    key, cert = authority.issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            secure = context.wrap_socket(plain, server_side=True)
            while b"\r\n\r\n" not in secure.recv(65536):
                pass
            secure.sendall(answer)
            os.close(secure.detach())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nhalf of the ans", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", True),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
            True,
        ),
    ],
    ids=["until the end", "length", "chunked"],
)
def test_an_answer_over_tls_that_ends_with_the_connection_needs_a_close_notify(
    tmp_path: Path, answer: bytes, whole: bool
) -> None:
    with (
        tls_target(Authority(tmp_path / "ca"), answer) as url,
        start_proxy("--insecure") as proxy,
    ):
        proxy.api.add("/", url)
        with proxy.client() as client:
            client.send(get("/"))
            received = read_all(client)
        assert received.startswith(b"HTTP/1.1 200")
        assert received.endswith((b"0\r\n\r\n", b"\r\n\r\nbody")) == whole


@pytest.mark.parametrize(
    "greeting",
    [b"SSH-2.0-OpenSSH_9.2p1\r\n", b"\x16\x03\x01\x02\x00", b"HTTP/2", b"220 mail\r\n", b"\0" * 9],
)
def test_what_is_no_http_server_is_a_503_at_once(
    proxy: Proxy, add_route: AddRoute, greeting: bytes
) -> None:
    never = threading.Event()

    def greet(exchange: Exchange) -> None:
        exchange.send(greeting)
        exchange.stall(never, 20)

    with RawTarget(greet) as target:
        path = add_route(target.url)
        started = time.monotonic()
        assert proxy.get(path).status == 503
        assert time.monotonic() - started < SOON
        never.set()


# -- request trailers stop here


@pytest.mark.parametrize("late", [False, True], ids=["with the head", "later"])
def test_trailers_of_a_request_are_not_passed_on(
    proxy: Proxy, add_route: AddRoute, late: bool
) -> None:
    with RawTarget() as target, proxy.client() as client:
        path = add_route(target.url)
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = chunked(b"body", trailers="GET: /smuggled HTTP/1.1\r\nX: y\r\n")
        client.send(head.encode() + (b"" if late else body))
        if late:
            target.wait_for_requests(1, complete=False)
            client.send(body)
        assert client.read_response().status == 200
        wait_until(lambda: target.requests[0].body == b"body", 5, "the body")
        assert target.requests[0].trailers == []
        assert len(target.requests) == 1


# -- Expect: 100-continue


def expecting(path: str, version: str = "1.1") -> str:
    """Return the head of an upload whose client waits to be asked for it."""
    return (
        f"POST {path} HTTP/{version}\r\nHost: a\r\nContent-Length: 4\r\n"
        "Expect: 100-continue\r\n\r\n"
    )


def test_a_client_that_waits_gets_a_100_from_us_when_the_target_is_silent(
    proxy: Proxy, add_route: AddRoute
) -> None:
    with RawTarget() as target, proxy.client() as client:
        path = add_route(target.url)
        started = time.monotonic()
        client.send(expecting(path))
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert 0.5 < time.monotonic() - started < SOON
        client.send("body")
        answer = client.read_response()
        assert answer.status == 200
        assert answer.interim == []


def test_the_100_of_the_target_is_passed_on_and_there_is_no_second_one(
    proxy: Proxy, add_route: AddRoute
) -> None:
    go = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.stall(go)
        exchange.read_body()
        exchange.send(response(b"done"))

    with RawTarget(reply) as target, proxy.client() as client:
        path = add_route(target.url)
        started = time.monotonic()
        client.send(expecting(path))
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert time.monotonic() - started < 0.9
        client.socket.settimeout(1.3)
        with pytest.raises(TimeoutError):
            client.socket.recv(100)
        client.socket.settimeout(10)
        go.set()
        client.send("body")
        assert client.read_response().body == b"done"


def test_a_target_that_says_100_after_us_is_not_heard(proxy: Proxy, add_route: AddRoute) -> None:
    go = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.stall(go)
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.read_body()
        exchange.send(response(b"done"))

    with RawTarget(reply) as target, proxy.client() as client:
        path = add_route(target.url)
        client.send(expecting(path))
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        go.set()
        client.send("body")
        answer = client.read_response()
        assert (answer.body, answer.interim) == (b"done", [])


def test_a_client_that_does_not_wait_gets_no_100(proxy: Proxy, add_route: AddRoute) -> None:
    go = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.stall(go)
        exchange.send(response(b"done"))

    with RawTarget(reply) as target, proxy.client() as client:
        path = add_route(target.url)
        client.send(expecting(path))
        target.wait_for_requests(1, complete=False)
        client.send("body")
        client.socket.settimeout(1.3)
        with pytest.raises(TimeoutError):
            client.socket.recv(100)
        client.socket.settimeout(10)
        go.set()
        assert client.read_response().interim == []


# -- an offer of another protocol that can't be meant


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "h2c, websocket", "foo/2"])
def test_an_upgrade_with_a_body_is_an_ordinary_request(
    proxy: Proxy, add_route: AddRoute, protocol: str
) -> None:
    with RawTarget() as target, proxy.client() as client:
        path = add_route(target.url)
        for method in ("POST", "GET"):
            answer = client.request(
                f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                f"Upgrade: {protocol}\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
                "Content-Length: 4\r\n\r\nbody"
            )
            assert answer.status == 200
        for request in target.requests:
            assert request.body == b"body"
            names = {name.lower() for name, _ in request.headers}
            assert not names & {"upgrade", "http2-settings"}


def test_of_a_list_of_protocols_a_websocket_handshake_means_websocket(
    proxy: Proxy, add_route: AddRoute
) -> None:
    handshake = (
        "GET {} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, WebSocket\r\n"
        "{}Sec-WebSocket-Version: 13\r\n\r\n"
    )
    with RawTarget(switched(echo)) as target, proxy.client() as client:
        path = add_route(target.url)
        client.send(handshake.format(path, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"))
        assert client.read_head().status == 101
        client.send("through")
        assert receive(client, 7) == b"through"
        assert ("Upgrade", "websocket") in target.requests[0].headers
    with RawTarget() as target:
        path = add_route(target.url)
        with proxy.client() as client:
            assert client.request(handshake.format(path, "")).status == 200
        assert "upgrade" not in {name.lower() for name, _ in target.requests[0].headers}


# -- whose connection it is


class Authenticating:
    """A target that authenticates connections: who has said a name is that from then on."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.users: dict[socket.socket, str] = {}

    def __call__(self, exchange: Exchange) -> None:
        headers = {name.lower(): value for name, value in exchange.request.headers}
        credentials = headers.get("authorization", "")
        if credentials.startswith(self.scheme):
            self.users[exchange.connection] = credentials.split()[1]
        user = self.users.get(exchange.connection, "nobody")
        exchange.send(response(user.encode()))


@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
def test_a_connection_that_was_authenticated_is_its_clients_alone(
    proxy: Proxy, add_route: AddRoute, scheme: str
) -> None:
    with RawTarget(Authenticating(scheme)) as target:
        path = add_route(target.url)
        with proxy.client() as ada, proxy.client() as eve:
            login = get(path).replace("\r\n\r\n", f"\r\nAuthorization: {scheme} ada\r\n\r\n")
            assert ada.request(login).body == b"ada"
            for _ in range(3):
                assert eve.request(get(path)).body == b"nobody"
                assert ada.request(get(path)).body == b"ada", "on the same connection"
        # It ends with its client.
        wait_until(lambda: proxy.get(path).body == b"nobody", 5, "nobody's connection")
        wait_until(lambda: target.open_connections <= 1, 5, "ada's connection is closed")


def test_a_connection_of_a_removed_route_carries_no_request_of_the_next_one(
    proxy: Proxy,
) -> None:
    (port,) = free_ports(1)
    for number in range(5):
        a, b = f"/a-{number}", f"/b-{number}"
        with RawTarget(lambda exchange: exchange.send(response(b"A")), port=port) as first:
            proxy.api.add(a, first.url)
            assert proxy.get(a).body == b"A"
            proxy.api.remove(a)
            first.stop_listening()
            with RawTarget(lambda exchange: exchange.send(response(b"B")), port=port) as second:
                proxy.api.add(b, second.url)
                assert proxy.get(b).body == b"B"
                proxy.api.remove(b)


def test_a_connection_that_is_in_use_while_its_route_goes_is_not_kept(proxy: Proxy) -> None:
    go = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.stall(go)
        exchange.send(response(b"done"))

    with RawTarget(reply) as target, proxy.client() as client:
        proxy.api.add("/leaving", target.url)
        client.send(get("/leaving"))
        target.wait_for_requests(1)
        proxy.api.remove("/leaving")
        proxy.get("/_chp_healthz/x")  # the worker takes note
        go.set()
        assert client.read_response().body == b"done"
        target.wait_for_connections(0, SOON)


def test_a_connection_is_kept_while_another_route_leads_to_its_target(proxy: Proxy) -> None:
    """Routes of one server come and go all the time with some spawners."""
    with RawTarget() as target, proxy.client() as client:
        proxy.api.add("/stays", target.url)
        for number in range(5):
            proxy.api.add(f"/goes-{number}", target.url)
            assert client.request(get(f"/goes-{number}")).status == 200
            proxy.api.remove(f"/goes-{number}")
            assert client.request(get("/stays")).status == 200
        assert target.accepted == 1
        proxy.api.remove("/stays")
        proxy.get("/_chp_healthz/x")  # the worker takes note
        target.wait_for_connections(0, SOON)
