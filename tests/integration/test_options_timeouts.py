"""--timeout, --proxy-timeout, --keep-alive-timeout and --header-timeout, in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.kit.option_servers import start_server
from tests.kit.peers import RawTarget, get, response, stalled
from tests.kit.peers.raw_target import Exchange
from tests.kit.peers.upgrades import echo, receive, switched, switched_client
from tests.kit.server import OTHER_COMMAND, Proxy

NEVER = threading.Event()
SHORT = 0.3
"""What the timeouts are set to, in seconds."""
SOON = 5.0
"""What they must be over within: far more than a slow machine needs."""


@pytest.fixture(scope="module")
def target() -> Iterator[RawTarget]:
    """A target that may be slow."""
    with RawTarget() as target:
        yield target


@pytest.fixture(scope="module")
def impatient(target: RawTarget) -> Iterator[Proxy]:
    """A server that gives targets and idle connections up quickly."""
    flags = ["--proxy-timeout", str(int(SHORT * 1000)), "--default-target", target.url]
    flags += ["--keep-alive-timeout", str(int(SHORT * 1000))]
    flags += [] if OTHER_COMMAND else ["--header-timeout", str(SHORT)]
    with start_server(*flags) as proxy:
        assert proxy.get("/").status == 200
        yield proxy


def test_a_target_that_is_silent_is_a_503(impatient: Proxy, target: RawTarget) -> None:
    target.script(stalled(NEVER))
    started = time.monotonic()
    answer = impatient.get("/silent")
    assert answer.status == 503
    assert SHORT <= time.monotonic() - started < SOON
    impatient.wait_for_log("error: 503 GET /silent")
    target.wait_for_connections(0)


def test_a_target_that_goes_on_in_time_is_waited_for(impatient: Proxy, target: RawTarget) -> None:
    pieces = 6

    def slowly(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % pieces)
        for _ in range(pieces):
            NEVER.wait(SHORT / 3)
            exchange.send(b"x")

    target.script(slowly)
    assert impatient.get("/slow").body == b"x" * pieces


def test_websockets_may_be_silent(impatient: Proxy, target: RawTarget) -> None:
    target.script(switched(echo))
    with impatient.client() as client:
        switched_client(client, "/ws")
        assert not client.is_closed(3 * SHORT)
        client.send("hello")
        assert receive(client, 5) == b"hello"


def test_a_client_without_requests_is_disconnected(impatient: Proxy, target: RawTarget) -> None:
    target.script(response())
    with impatient.client() as client:
        for _ in range(4):
            assert client.request(get("/")).status == 200
            assert not client.is_closed(SHORT / 3), "the time begins anew with each request"
        started = time.monotonic()
        client.assert_closed(within=SOON)
        assert time.monotonic() - started > SHORT / 3


@pytest.mark.ours
def test_a_client_that_is_slow_to_ask_is_answered_408(impatient: Proxy) -> None:
    with impatient.client() as client:
        client.send("GET / HTTP/1.1\r\nHost: a\r\n")
        answer = client.read_response()
        assert answer.status == 408
        client.assert_closed()


def test_a_client_that_is_silent_during_a_request_is_dropped() -> None:
    with (
        RawTarget() as target,
        start_server("--timeout", str(int(SHORT * 1000)), "--default-target", target.url) as proxy,
    ):
        assert proxy.get("/").status == 200
        target.script(stalled(NEVER))
        with proxy.client() as client:
            started = time.monotonic()
            client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            assert client.read_to_end() == b""
            assert SHORT <= time.monotonic() - started < SOON
        target.wait_for_connections(0)

        target.script(response())
        with proxy.client() as client:
            client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
            for _ in range(6):
                NEVER.wait(SHORT / 3)
                client.send("x")
            assert client.read_response().status == 200, "slow, but never silent"


def test_zero_is_no_timeout_at_all(target: RawTarget) -> None:
    flags = ["--timeout", "0", "--proxy-timeout", "0", "--keep-alive-timeout", "0"]
    with start_server(*flags, "--default-target", target.url) as proxy:
        answer = threading.Event()
        target.script(stalled(answer, then=response()))
        with proxy.client() as client:
            client.send(get("/"))
            assert not client.is_closed(2 * SHORT)
            answer.set()
            assert client.read_response().status == 200
            assert not client.is_closed(2 * SHORT)
            assert client.request(get("/_chp_healthz")).status == 200
