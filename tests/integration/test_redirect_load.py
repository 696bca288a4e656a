"""The redirect is the workers' to serve: whatever comes there is nobody else's trouble."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.kit.authority import HOST, Authority
from tests.kit.option_servers import connects, start_server
from tests.kit.peers import RawClient, get, wait_until
from tests.kit.server import Proxy, free_ports

pytestmark = [pytest.mark.ours, pytest.mark.calm]

FLOODING = 8
"""Connections that send requests as fast as they are taken."""

SLOWEST_CALL = 0.5
"""Seconds that a call of the API may take beside that; two CPUs do everything here."""


@pytest.fixture
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the server's certificate."""
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@contextmanager
def redirecting(authority: Authority, *flags: str) -> Iterator[tuple[Proxy, tuple[str, int]]]:
    """A server that redirects, and the address where it does."""
    key, cert = authority.issue(HOST)
    (port,) = free_ports(1)
    tls = ["--ssl-key", key, "--ssl-cert", cert, "--redirect-port", str(port)]
    with start_server(*tls, *flags, stop=signal.SIGTERM) as proxy:
        wait_until(lambda: connects("127.0.0.1", port), 10, "the redirect server listens")
        yield proxy, ("127.0.0.1", port)


def redirected(address: tuple[str, int]) -> bool:
    """Whether a request is answered with a redirection."""
    with RawClient(address) as client:
        return client.request(get("/x")).status == 301


@contextmanager
def flood(address: tuple[str, int]) -> Iterator[list[int]]:
    """Send pipelined requests on FLOODING connections; yields the number of bytes answered."""
    answered, stop = [0], threading.Event()
    requests = get("/x").encode() * 500

    def send(sock: socket.socket) -> None:
        with suppress(OSError):
            while not stop.is_set():
                sock.sendall(requests)

    def receive(sock: socket.socket) -> None:
        with suppress(OSError):
            while data := sock.recv(1 << 20):
                answered[0] += len(data)

    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(address)) for _ in range(FLOODING)]
        threads = [threading.Thread(target=f, args=(s,)) for s in sockets for f in (send, receive)]
        for thread in threads:
            thread.start()
        try:
            yield answered
        finally:
            stop.set()
            for sock in sockets:
                sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def test_a_flood_of_requests_to_redirect_does_not_slow_the_api(authority: Authority) -> None:
    with redirecting(authority) as (proxy, address), flood(address) as answered:
        wait_until(lambda: answered[0] > 100_000, 10, "the flood is answered")
        slowest = 0.0
        for number in range(40):
            start = time.monotonic()
            proxy.api.add(f"/{number}", "http://127.0.0.1:9")
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < SLOWEST_CALL


def test_the_redirect_does_not_need_the_management_process(authority: Authority) -> None:
    with redirecting(authority) as (proxy, address):
        management = proxy.management_pid()
        os.kill(management, signal.SIGSTOP)
        try:
            assert redirected(address)
        finally:
            os.kill(management, signal.SIGCONT)


def test_the_redirect_is_refused_no_moment_while_workers_are_replaced(
    authority: Authority,
) -> None:
    with redirecting(authority, "--workers", "2") as (proxy, address):
        wait_until(lambda: len(proxy.tree()) == 4, 10, "all processes are there")
        old = proxy.worker_pids()
        with RawClient(address) as idle:
            assert idle.request(get("/x")).status == 301
            proxy.signal(signal.SIGHUP)
            while old & set(proxy.tree()):
                assert redirected(address)
            idle.assert_closed()
        line = "Added HTTP to HTTPS redirection from"
        assert sum(line in logged for logged in proxy.log().splitlines()) == 1


def test_silent_connections_to_the_redirect_do_not_delay_a_stop(authority: Authority) -> None:
    with redirecting(authority) as (proxy, address), ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(RawClient(address))
            assert client.request(get("/x")).status == 301
        start = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert time.monotonic() - start < 5
        assert not connects(*address)
