"""--body-timeout: clients that stop in the middle of a request's body or of an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.kit import processes
from tests.kit.option_servers import start_server
from tests.kit.peers import LargeBodyTarget, RawClient, RawTarget, get, response, wait_until
from tests.kit.peers.raw_target import Exchange
from tests.kit.server import Proxy

pytestmark = pytest.mark.ours

SHORT = 0.6
"""What the timeout is set to, in seconds."""
SOON = 5.0
"""What must be over within: far more than a slow machine needs."""
PAUSE = threading.Event()


@pytest.fixture(scope="module")
def target() -> Iterator[RawTarget]:
    """A target that reads what it is sent, and answers."""
    with RawTarget() as target:
        yield target


@pytest.fixture(scope="module")
def strict(target: RawTarget) -> Iterator[Proxy]:
    """A server that soon gives up who stands still."""
    with start_server("--body-timeout", str(SHORT), "--default-target", target.url) as proxy:
        yield proxy


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_body_that_stops_coming_is_a_408(strict: Proxy, target: RawTarget, framing: str) -> None:
    target.script(response())
    with strict.client() as client:
        started = time.monotonic()
        client.send(f"POST /stopped HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
        client.send(b"1\r\nx\r\n")
        assert client.read_response().status == 408
        assert SHORT <= time.monotonic() - started < SOON
        client.assert_closed()
    target.wait_for_connections(0)
    strict.wait_for_log("warn: 408 refused a request from 127.0.0.1: the body of the request stop")


def test_a_body_that_moves_is_never_cut_off(strict: Proxy, target: RawTarget) -> None:
    target.script(response())
    with strict.client() as client:
        client.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        for _ in range(9):
            PAUSE.wait(SHORT / 3)
            client.send("x")
        assert client.read_response().status == 200
    assert target.request.body == b"x" * 9


def test_a_body_that_nobody_reads_is_not_its_clients_fault(
    strict: Proxy, target: RawTarget
) -> None:
    read_on = threading.Event()

    def reads_later(exchange: Exchange) -> None:
        read_on.wait(20)
        left = len(body) - len(exchange.source.pending())
        while left:
            left -= len(exchange.connection.recv(MEGABYTE))
        exchange.send(response())
        exchange.close()

    target.script(reads_later)
    body = bytes(30 * MEGABYTE)
    with strict.client() as client:
        client.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n")
        sending = threading.Thread(target=client.send, args=(body,))
        sending.start()
        PAUSE.wait(3 * SHORT)
        read_on.set()
        sending.join()
        assert client.read_response().status == 200


def test_an_answer_that_has_begun_is_reset_when_the_body_stops(
    strict: Proxy, target: RawTarget
) -> None:
    def answers_early(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        exchange.read_body()

    target.script(answers_early)
    with strict.client() as client:
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        assert client.read_head().status == 200
        assert b"".join(client.source.pieces(2)) == b"ab"
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)
    target.wait_for_connections(0)


# -- clients that do not read

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def large() -> Iterator[LargeBodyTarget]:
    """A target with a large answer."""
    with LargeBodyTarget() as target:
        yield target


@pytest.fixture(scope="module")
def bulky(large: LargeBodyTarget) -> Iterator[Proxy]:
    """A server that soon gives up who does not read a large answer."""
    with start_server("--body-timeout", str(SHORT), "--default-target", large.url) as proxy:
        yield proxy


def read_on(client: RawClient) -> None:
    """Read to the end of the connection."""
    while client.socket.recv(MEGABYTE):
        pass


def test_a_client_that_takes_nothing_more_is_given_up(bulky: Proxy) -> None:
    with RawClient(bulky.address, narrow=True) as client:
        client.send(get(f"/?size={40 * MEGABYTE}"))
        client.socket.recv(100)
        worker = bulky.worker_of(client)
        peer = client.socket.getsockname()[1]
        started = time.monotonic()
        wait_until(
            lambda: processes.holder_of_connection([worker], bulky.port, peer) is None,
            SOON,
            "the connection is closed",
        )
        assert time.monotonic() - started >= SHORT / 2
        with pytest.raises(ConnectionResetError):
            read_on(client)


def test_a_client_that_takes_little_by_little_is_waited_for(bulky: Proxy) -> None:
    with RawClient(bulky.address, narrow=True) as client:
        client.send(get(f"/?size={40 * MEGABYTE}"))
        # Far less than what has to leave the socket's buffer before more can be written.
        for _ in range(12):
            PAUSE.wait(SHORT / 4)
            left = 4096
            while left:
                left -= len(client.socket.recv(left))
        assert bulky.worker_of(client)
