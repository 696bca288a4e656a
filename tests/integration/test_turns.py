"""Nobody can hold a worker, or the management process: others are served meanwhile."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.kit.authority import Authority
from tests.kit.option_servers import start_server, trusting
from tests.kit.peers import RawClient, get
from tests.kit.peers.greedy import GreedyTarget, greedy
from tests.kit.peers.key_updates import can_update_keys, updating_keys
from tests.kit.peers.upgrades import SWITCHING, upgrade
from tests.kit.server import TOKEN, Proxy, start_proxy

pytestmark = [pytest.mark.ours, pytest.mark.calm]

TINY = b"1\r\na\r\n" * 43_690
"""256 KB in chunks of one byte."""

CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"
POST = f"POST /api/routes/a HTTP/1.1\r\nHost: a\r\n{CHUNKED}".encode()

# Seconds. Alone it is some milliseconds; who holds a process does so for seconds, or for ever.
BOUND = 0.8
PROBES = 40


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A quiet server with one worker."""
    with start_proxy("--log-level", "error") as proxy:
        yield proxy


def worst(connect: Callable[[], RawClient], path: str = "/_chp_healthz", *headers: str) -> float:
    """Return how long the slowest of some requests takes that come one after the other."""
    took = []
    for _ in range(PROBES):
        began = time.monotonic()
        with connect() as client:
            assert client.request(get(path, *headers)).status == 200
        took.append(time.monotonic() - began)
        time.sleep(0.02)  # the pace of a client that asks now and then
    return max(took)


def test_an_upload_in_chunks_of_one_byte_does_not_hold_a_worker(
    proxy: Proxy, add_route: Callable[[str], str]
) -> None:
    with GreedyTarget() as target:
        first = f"POST {add_route(target.url)} HTTP/1.1\r\nHost: a\r\n{CHUNKED}".encode()
        with greedy(proxy.client().socket, first=first, data=TINY):
            assert worst(proxy.client) < BOUND


def test_a_download_in_chunks_of_one_byte_does_not_hold_a_worker(
    proxy: Proxy, add_route: Callable[[str], str]
) -> None:
    with GreedyTarget(f"HTTP/1.1 200 OK\r\n{CHUNKED}".encode(), TINY) as target:
        first = get(add_route(target.url)).encode()
        with greedy(proxy.client().socket, first=first):
            assert worst(proxy.client) < BOUND


def test_pipelined_requests_do_not_hold_a_worker(proxy: Proxy) -> None:
    clients = [proxy.client().socket for _ in range(30)]
    with greedy(*clients, first=b"", data=get("/_chp_healthz").encode() * 1000):
        assert worst(proxy.client) < BOUND


def test_floods_through_tunnels_do_not_hold_a_worker(
    proxy: Proxy, add_route: Callable[[str], str]
) -> None:
    with GreedyTarget(SWITCHING, bytes(1 << 18)) as target:
        first = upgrade(add_route(target.url)).encode()
        clients = [proxy.client().socket for _ in range(4)]
        with greedy(*clients, first=first, data=bytes(1 << 18)):
            assert worst(proxy.client) < BOUND


@pytest.mark.parametrize(
    ("first", "data"),
    [
        (POST, TINY),
        (b"", POST + TINY + b"0\r\n\r\n"),
        (b"", get("/api/nothing").encode() * 1000),
    ],
    ids=["one body", "bodies", "requests without one"],
)
def test_one_connection_without_a_token_does_not_hold_the_api(
    proxy: Proxy, first: bytes, data: bytes
) -> None:
    def api() -> RawClient:
        return RawClient(proxy.api_address)

    def flood() -> RawClient:
        return RawClient(proxy.api_address, timeout=30)

    authorization = f"Authorization: token {TOKEN}"
    with greedy(*(flood().socket for _ in range(5)), first=first, data=data):
        assert worst(api, "/api/routes", authorization) < BOUND


# -- the same over TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who has issued the server's certificate."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


class TLSServer:
    """A server with one worker that speaks TLS, and how to connect to it."""

    def __init__(self, proxy: Proxy, context: ssl.SSLContext) -> None:
        self.proxy = proxy
        self._context = context

    def client(self) -> RawClient:
        """Return a new connection."""
        return RawClient(self.proxy.address, tls=self._context)


@pytest.fixture
def over_tls(authority: Authority) -> Iterator[Callable[[str], TLSServer]]:
    """A function that starts a server with this default target."""
    key, cert = authority.issue("localhost")
    with ExitStack() as servers:

        def start(target: str) -> TLSServer:
            flags = ["--ssl-key", key, "--ssl-cert", cert, "--log-level", "error"]
            proxy = servers.enter_context(
                start_server(*flags, "--default-target", target, ready_line="")
            )
            return TLSServer(proxy, trusting(authority))

        yield start


def test_uploads_over_tls_do_not_hold_a_worker(over_tls: Callable[[str], TLSServer]) -> None:
    first = b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n"
    with GreedyTarget() as target:
        server = over_tls(target.url)
        uploads = [server.client().socket for _ in range(6)]
        with greedy(*uploads, first=first, data=bytes(1 << 18)):
            assert worst(server.client) < BOUND


def test_floods_through_tunnels_over_tls_do_not_hold_a_worker(
    over_tls: Callable[[str], TLSServer],
) -> None:
    with GreedyTarget(SWITCHING, bytes(1 << 18)) as target:
        server = over_tls(target.url)
        clients = [server.client().socket for _ in range(4)]
        with greedy(*clients, first=upgrade("/").encode(), data=bytes(1 << 18)):
            assert worst(server.client) < BOUND


@pytest.mark.skipif(not can_update_keys(), reason="OpenSSL is out of reach")
def test_nothing_but_key_updates_does_not_hold_a_worker(
    over_tls: Callable[[str], TLSServer],
) -> None:
    server = over_tls("http://127.0.0.1:9")
    with updating_keys(server.proxy.port):
        assert worst(server.client) < BOUND
