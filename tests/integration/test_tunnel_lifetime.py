"""The life of tunnels: reload and stop, what is counted, and what stays of them."""

from __future__ import annotations

import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable

import pytest
import requests

from tests.kit import processes
from tests.kit.peers import Exchange, RawClient, RawTarget, get, response, stalled, wait_until
from tests.kit.peers.upgrades import echo, says_back, switched, switched_client
from tests.kit.server import Proxy, free_ports
from tests.kit.tunnels_of_workers import tunnel_elsewhere

StartProxy = Callable[..., Proxy]

MEGABYTE = 1 << 20
CHUNK = bytes(range(256)) * 256

SOON = 1.0
"""Seconds within which the end of one side must have reached the other."""


# -- reload and stop


def is_served_by_another(proxy: Proxy, old: set[int]) -> bool:
    """Whether a new connection is served by a worker that is not one of ``old``."""
    with proxy.client() as client:
        client.request(get("/_chp_healthz"))
        return proxy.worker_of(client) not in old


def opens_elsewhere(proxy: Proxy, old_worker: int) -> bool:
    """Whether a new tunnel works, and is another worker's than ``old_worker``'s."""
    with switched_client(proxy.client(), "/") as new:
        assert says_back(new, "through a new one")
        return proxy.worker_of(new) != old_worker


@pytest.mark.ours
def test_a_reload_keeps_tunnels_and_opens_new_ones_on_new_workers(start_proxy: StartProxy) -> None:
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy(workers=2)
        proxy.api.add("/", target.url)
        with switched_client(proxy.client(), "/") as old:
            old_worker = proxy.worker_of(old)
            others = set(proxy.tree())
            proxy.signal(signal.SIGHUP)
            # The other old worker has no tunnel to wait for, and leaves when it has been told to.
            wait_until(lambda: len(others & set(proxy.tree())) < len(others), 10, "one has left")
            wait_until(lambda: is_served_by_another(proxy, others), 10, "a new worker")
            assert says_back(old, "through the old worker")
            wait_until(lambda: opens_elsewhere(proxy, old_worker), 10, "a tunnel of a new worker")
            assert proxy.worker_of(old) == old_worker
        wait_until(lambda: old_worker not in proxy.tree(), 5, "the old worker has left")


@pytest.mark.ours
def test_a_stop_closes_tunnels_with_the_last_request(start_proxy: StartProxy) -> None:
    go = threading.Event()
    with (
        RawTarget(switched(echo)) as target,
        RawTarget(stalled(go, then=response(b"done"))) as slow,
    ):
        proxy = start_proxy(workers=1)
        proxy.api.add("/", target.url)
        proxy.api.add("/slow", slow.url)
        with switched_client(proxy.client(), "/") as tunnel, proxy.client() as client:
            client.send(get("/slow"))
            slow.wait_for_requests(1)
            proxy.signal(signal.SIGTERM)
            wait_until(lambda: refuses_connections(proxy), 5, "no new connections")
            for number in range(3):
                assert says_back(tunnel, f"still here {number}")
            go.set()
            assert client.read_response().body == b"done"
            client.close()
            tunnel.assert_closed(SOON + 1)
            target.wait_for_connections(0, SOON)
        assert proxy.wait(timeout=5) == 0


@pytest.mark.ours
def test_a_stop_with_nothing_but_idle_tunnels_takes_no_time(start_proxy: StartProxy) -> None:
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy("--drain-timeout", "60", workers=2)
        proxy.api.add("/", target.url)
        with switched_client(proxy.client(), "/") as client:
            assert says_back(client, "hello")
            stopped = time.monotonic()
            proxy.signal(signal.SIGTERM)
            client.assert_closed(5)
            assert proxy.wait(timeout=5) == 0
            assert time.monotonic() - stopped < 5


@pytest.mark.ours
def test_a_stop_ends_a_worker_that_drains_because_of_a_reload(start_proxy: StartProxy) -> None:
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy()
        proxy.api.add("/", target.url)
        with switched_client(proxy.client(), "/") as client:
            old = proxy.worker_of(client)
            proxy.signal(signal.SIGHUP)
            wait_until(lambda: is_served_by_another(proxy, {old}), 10, "a new worker")
            proxy.signal(signal.SIGTERM)
            client.assert_closed(5)
        assert proxy.wait(timeout=5) == 0


@pytest.mark.ours
def test_a_reload_keeps_tunnels_for_longer_than_the_drain_timeout(
    start_proxy: StartProxy,
) -> None:
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy("--drain-timeout", "0.2", "--reload-drain-timeout", "2")
        proxy.api.add("/", target.url)
        with switched_client(proxy.client(), "/") as client:
            old = proxy.worker_of(client)
            signalled = time.monotonic()
            proxy.signal(signal.SIGHUP)
            wait_until(lambda: is_served_by_another(proxy, {old}), 10, "a new worker")
            while time.monotonic() - signalled < 1:
                assert says_back(client, "still here")
            client.assert_closed(10)
            assert time.monotonic() - signalled > 2


@pytest.mark.ours
def test_of_too_many_draining_workers_the_oldest_is_ended(start_proxy: StartProxy) -> None:
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy("--max-draining", "1")
        proxy.api.add("/", target.url)
        clients: list[RawClient] = []
        workers: set[int] = set()

        for number in range(3):
            clients.append(tunnel_elsewhere(proxy, workers))
            if number < 2:
                proxy.signal(signal.SIGHUP)
        clients[0].assert_closed(5)
        proxy.wait_for_log(r"too many workers drain \(--max-draining\)")
        for client in clients[1:]:
            assert says_back(client, "still here")
            client.close()


@pytest.mark.ours
def test_a_worker_that_somebody_stops_is_replaced_while_it_drains(start_proxy: StartProxy) -> None:
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy()
        proxy.api.add("/", target.url)
        with switched_client(proxy.client(), "/") as client:
            old = proxy.worker_of(client)
            os.kill(old, signal.SIGTERM)
            wait_until(lambda: is_served_by_another(proxy, {old}), 10, "a new worker")
            assert says_back(client, "still here")
            assert old in proxy.tree()


def refuses_connections(proxy: Proxy) -> bool:
    """Whether nobody listens on the public port any more."""
    try:
        proxy.client().close()
    except ConnectionRefusedError:
        return True
    return False


# -- accounts


def metric(text: str, name: str) -> float:
    """Return the sum of a metric over all its labels."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))


@pytest.mark.ours
def test_gauges_and_counters_of_tunnels(start_proxy: StartProxy) -> None:
    (port,) = free_ports(1)
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy("--metrics-ip", "127.0.0.1", "--metrics-port", str(port), workers=2)
        proxy.api.add("/", target.url)

        def read(name: str) -> float:
            return metric(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text, name)

        clients = [switched_client(proxy.client(), "/") for _ in range(5)]
        for client in clients:
            assert says_back(client, "x" * 1000)
        assert read("chp_open_tunnels") == 5
        # That which asked whether the server is ready may still be going.
        wait_until(lambda: read("chp_open_connections") == 0, 5, "tunnels are no connections")
        assert read("requests_ws") == 5
        assert read("chp_bytes_from_clients_total") == 5000
        assert read("chp_bytes_to_clients_total") == 5000
        for client in clients:
            client.close()
        wait_until(lambda: read("chp_open_tunnels") == 0, 2, "no open tunnels")


@pytest.mark.ours
def test_tunnels_are_logged_at_debug_with_duration_and_bytes(start_proxy: StartProxy) -> None:
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy("--log-level", "debug")
        proxy.api.add("/", target.url)
        with switched_client(proxy.client(), "/kernel?token=secret") as client:
            proxy.wait_for_log(r"tunnel opened: /kernel to ")
            assert says_back(client, "12345")
        proxy.wait_for_log(r"tunnel closed: /kernel after \d+\.\d s, 5 bytes .*, 5 ")
        assert "secret" not in proxy.log()


@pytest.mark.ours
def test_tunnels_count_as_connections_of_a_worker(start_proxy: StartProxy) -> None:
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy("--worker-connections", "2")
        proxy.api.add("/", target.url)
        first, second = (switched_client(proxy.client(), "/") for _ in range(2))
        with first, second, proxy.client(timeout=10) as third:
            third.send(get("/_chp_healthz"))
            assert not select.select([third.socket], [], [], 0.3)[0], "it has to wait"
            first.close()
            assert third.read_response().status == 200


# -- memory and descriptors


@pytest.mark.parametrize("who", ["client", "target"])
def test_a_reader_that_stops_costs_no_memory(start_proxy: StartProxy, who: str) -> None:
    total, chunks = 200 * MEGABYTE, 200 * MEGABYTE // len(CHUNK)
    go_on = threading.Event()
    sent = 0

    def send_all(send: Callable[[bytes], None]) -> None:
        nonlocal sent
        for _ in range(chunks):
            send(CHUNK)
            sent += len(CHUNK)

    def talk(exchange: Exchange) -> None:
        send_all(exchange.send)
        exchange.source.at_end()

    def listen(exchange: Exchange) -> None:
        go_on.wait(30)
        drained.append(sum(map(len, exchange.source.pieces(total))))

    drained: list[int] = []
    with RawTarget(switched(talk if who == "client" else listen)) as target:
        proxy = start_proxy()
        proxy.api.add("/", target.url)
        with proxy.client(timeout=30) as client:
            before = proxy.rss()
            switched_client(client, "/")
            sender = threading.Thread(target=send_all, args=(client.send,))
            if who == "target":
                sender.start()
            stopped = wait_until_still(lambda: sent)
            assert stopped < 50 * MEGABYTE
            assert proxy.rss() - before < 5 * MEGABYTE
            go_on.set()
            if who == "target":
                sender.join(30)
                wait_until(lambda: drained == [total], 30, "everything at the target")
            else:
                assert sum(map(len, client.source.pieces(total))) == total
        assert proxy.rss() - before < 8 * MEGABYTE


def wait_until_still(number: Callable[[], int], seconds: float = 0.5) -> int:
    """Wait until ``number`` has stayed the same for some time; return it."""
    last, since = number(), time.monotonic()

    def is_still() -> bool:
        nonlocal last, since
        if number() != last:
            last, since = number(), time.monotonic()
        return time.monotonic() - since > seconds

    wait_until(is_still, 20, "the sender stands still")
    return last


@pytest.mark.ours
def test_a_thousand_tunnels_leave_no_descriptor_behind(start_proxy: StartProxy) -> None:
    endings = (RawClient.close, RawClient.reset, RawClient.half_close)
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy()
        proxy.api.add("/", target.url)

        def open_and_end(count: int) -> None:
            for number in range(count):
                with switched_client(proxy.client(), "/") as client:
                    assert says_back(client, "hello")
                    endings[number % len(endings)](client)
            target.wait_for_connections(0)

        with proxy.client() as client:
            client.request(get("/_chp_healthz"))
            worker = proxy.worker_of(client)
        open_and_end(30)
        before = wait_until(lambda: processes.open_descriptors(worker), 1, "a number")
        open_and_end(1000)
        wait_until(lambda: processes.open_descriptors(worker) <= before, 5, "no descriptor left")


@pytest.mark.ours
def test_a_tunnel_is_activity_on_its_path_when_the_route_was_deleted_and_added_again(
    start_proxy: StartProxy,
) -> None:
    with RawTarget(switched(echo)) as target:
        proxy = start_proxy()
        proxy.api.add("/user/ada", target.url)
        with switched_client(proxy.client(), "/user/ada/ws") as client:
            assert proxy.api.remove("/user/ada") == 204
            proxy.api.add("/user/other", target.url)
            proxy.api.add("/user/ada", target.url)
            added = proxy.api.routes()["/user/ada"]["last_activity"]

            def is_noted() -> bool:
                assert says_back(client, "data")
                return bool(proxy.api.routes()["/user/ada"]["last_activity"] > added)

            wait_until(is_noted, 5, "the activity of the tunnel")
