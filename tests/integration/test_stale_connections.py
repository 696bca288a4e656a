"""Connections to targets that end while idle, and targets behind several addresses."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.kit.peers import Exchange, RawTarget, get, response
from tests.kit.server import Proxy

AddRoute = Callable[[str], str]


def then_close_unannounced(exchange: Exchange) -> None:
    """Answer as if the connection were kept, and close it."""
    exchange.read_body()
    exchange.send(response(b"kept"))
    exchange.close()


class Fickle:
    """Answers each request on a connection but the second one of it, at which it closes."""

    def __init__(self) -> None:
        self.seen: set[socket.socket] = set()

    def __call__(self, exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.connection in self.seen:
            exchange.close()
            return
        self.seen.add(exchange.connection)
        exchange.send(response(b"kept"))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_target_that_closes_idle_connections_unannounced_costs_no_request(
    proxy: Proxy, add_route: AddRoute, method: str
) -> None:
    with RawTarget(then_close_unannounced) as target:
        path = add_route(target.url)
        with proxy.client() as client:
            for number in range(30):
                length = "" if method == "GET" else "Content-Length: 0\r\n"
                request = f"{method} {path}/{number} HTTP/1.1\r\nHost: a\r\n{length}\r\n"
                assert client.request(request).body == b"kept"
                target.wait_for_connections(0)


@pytest.mark.ours
def test_a_target_that_closes_just_as_a_connection_is_reused_costs_no_safe_request(
    proxy: Proxy, add_route: AddRoute
) -> None:
    with RawTarget(Fickle()) as target:
        path = add_route(target.url)
        with proxy.client() as client:
            for _ in range(20):
                assert client.request(get(path)).body == b"kept"


@pytest.mark.ours
def test_a_request_that_is_not_safe_is_never_sent_twice(proxy: Proxy, add_route: AddRoute) -> None:
    with RawTarget(Fickle()) as target:
        path = add_route(target.url)
        request = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        with proxy.client() as client:
            assert client.request(request).status == 200
            assert client.request(request).status == 503
            assert client.request(request).status == 200
        assert len(target.requests) == 3


def test_a_name_with_several_addresses_is_tried_at_each_of_them(
    proxy: Proxy, add_route: AddRoute
) -> None:
    found = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    for address in {sockaddr[0] for *_, sockaddr in found}:
        with RawTarget(host=str(address)) as target:
            path = add_route(f"http://localhost:{target.port}")
            assert proxy.get(path).status == 200
