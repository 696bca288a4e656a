"""Metrics for Prometheus and for statsd, of a real server that has really served."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests

from tests.kit.option_servers import connects, start_server
from tests.kit.peers import RawTarget, fetch, get, response, wait_until
from tests.kit.peers.raw_target import Exchange, stalled
from tests.kit.peers.upgrades import echo, receive, switched, switched_client
from tests.kit.server import TOKEN, Proxy, free_ports

CHP_NAMES = {
    "requests_web": "counter",
    "requests_ws": "counter",
    "requests_proxy": "counter",
    "requests_api": "counter",
    "api_route_get": "counter",
    "api_route_add": "counter",
    "api_route_delete": "counter",
    "find_target_for_req": "summary",
    "last_activity_updating": "summary",
}


def use(proxy: Proxy) -> None:
    """Make requests of all kinds: 5 to the proxy, one of them a WebSocket, and 5 to the API."""
    with ExitStack() as stack:
        plain = stack.enter_context(RawTarget(response(b"0123456789")))
        websocket = stack.enter_context(RawTarget(switched(echo)))
        proxy.api.add("/a", plain.url)
        proxy.api.add("/ws", websocket.url)
        with proxy.client() as client:
            assert client.request(get("/a")).status == 200
            assert client.request(get("/a/b")).status == 200
            assert client.request(get("/none")).status == 404
        with proxy.client() as client:
            switched_client(client, "/ws").send("hello")
            assert receive(client, 5) == b"hello"
        proxy.api.add("/dead", f"http://127.0.0.1:{free_ports(1)[0]}")
        assert proxy.get("/dead").status == 503
        proxy.api.routes()
        assert proxy.api.remove("/a") == 204
        assert requests.get(f"{proxy.api.url}/api/routes", timeout=10).status_code == 403
        fetch(proxy.address, get("/_chp_healthz"))  # counted nowhere


def read(port: int) -> dict[str, float]:
    """Return all samples, by name with labels."""
    text = fetch(("127.0.0.1", port), get("/metrics")).body.decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in lines}


@pytest.fixture
def measured() -> Iterator[tuple[Proxy, int]]:
    """A server that was used, and the port of its metrics."""
    port = free_ports(1)[0]
    with start_server("--metrics-port", str(port), "--metrics-ip", "127.0.0.1") as proxy:
        proxy.wait_for_log(r"info: Serve metrics at http://\S*/metrics$")
        wait_until(lambda: connects("127.0.0.1", port), 5, "the metrics server listens")
        use(proxy)
        yield proxy, port


def test_metrics_have_the_names_of_chp(measured: tuple[Proxy, int]) -> None:
    _, port = measured
    answer = fetch(("127.0.0.1", port), get("/metrics"))
    assert (answer.get("content-type") or "").startswith("text/plain; version=0.0.4")
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", answer.body.decode(), re.MULTILINE))
    assert {name: types.get(name) for name in CHP_NAMES} == CHP_NAMES
    samples = read(port)
    assert samples["requests_web"] == 4
    assert samples["requests_ws"] == 1
    assert samples['requests_proxy{status="200"}'] == 2
    assert samples['requests_proxy{status="404"}'] == 1
    assert samples['requests_proxy{status="503"}'] == 1
    assert samples['requests_api{status="201"}'] == 3
    assert samples['requests_api{status="200"}'] == 1
    assert samples['requests_api{status="204"}'] == 1
    assert samples['requests_api{status="403"}'] == 1
    assert (samples["api_route_get"], samples["api_route_add"]) == (1, 3)
    assert samples["api_route_delete"] == 1
    assert samples["find_target_for_req_count"] == 5
    assert samples["last_activity_updating_count"] >= 3
    assert fetch(("127.0.0.1", port), get("/other")).status == 404


@pytest.mark.ours
def test_metrics_of_ours_are_beside_them(measured: tuple[Proxy, int]) -> None:
    proxy, port = measured
    with proxy.client() as client:
        client.request(get("/none"))
        samples = read(port)
        assert samples['chp_open_connections{worker="0"}'] == 1
    assert samples['chp_open_tunnels{worker="0"}'] == 0
    assert samples['chp_bytes_to_clients_total{worker="0"}'] >= 25
    assert samples["chp_routes"] == 2
    assert samples["chp_table_generation"] == 4
    assert samples["chp_management_restarts_total"] == 0
    assert samples['chp_process_open_fds{process="worker-0"}'] > 5
    # Counters go on when those who count are replaced.
    management = proxy.management_pid()
    with proxy.client() as client:
        client.request(get("/none"))
        worker = proxy.worker_of(client)
    for pid in (worker, management):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: {worker, management}.isdisjoint(proxy.tree()), 5, "both are gone")
    after = read(port)
    assert after["requests_web"] == 6
    assert after["api_route_add"] == 3
    assert after["chp_management_restarts_total"] == 1
    assert proxy.get("/none").status == 404
    # Within a second the same text is served.
    wait_until(lambda: read(port)["requests_web"] == 7, 5, "the request is counted")
    after = read(port)
    assert after['chp_worker_restarts_total{worker="0"}'] == 1


def test_without_a_port_there_are_no_metrics() -> None:
    with start_server("--metrics-ip", "127.0.0.1") as proxy:
        assert "Serve metrics" not in proxy.log()


@pytest.mark.ours
def test_statsd_gets_what_earlier_versions_sent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(10)
        flags = ["--statsd-host", "127.0.0.1", "--statsd-port", str(statsd.getsockname()[1])]
        counters: Counter[str] = Counter()
        timings: set[str] = set()

        def receive_packet() -> bool:
            for line in statsd.recv(65536).decode().splitlines():
                name, _, value = line.partition(":")
                number, kind = value.split("|")
                if kind == "c":
                    counters[name] += int(number)
                else:
                    assert kind == "ms"
                    timings.add(name)
            return counters == EXPECTED

        with start_server(*flags, "--statsd-prefix", "my.chp") as proxy:
            use(proxy)
            wait_until(receive_packet, 10, lambda: f"{EXPECTED}, not {counters}")
            assert timings == {"my.chp.find_target_for_req", "my.chp.last_activity_updating"}
            assert TOKEN not in proxy.log()


EXPECTED = Counter(
    {
        "my.chp.requests.web": 4,
        "my.chp.requests.ws": 1,
        "my.chp.requests.101": 1,
        "my.chp.requests.200": 2,
        "my.chp.requests.404": 1,
        "my.chp.requests.503": 1,
        "my.chp.requests.api": 6,
        "my.chp.api.route.get": 1,
        "my.chp.api.route.add": 3,
        "my.chp.api.route.delete": 1,
    }
)


@pytest.mark.ours
def test_a_dead_statsd_host_costs_nothing_and_is_logged_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    with start_server("--statsd-host", "127.0.0.1", "--statsd-port", str(port)) as proxy:

        def logged() -> bool:
            use(proxy)
            return "Can't send metrics to statsd" in proxy.log()

        wait_until(logged, 15, "a line about it")
        use(proxy)
    assert proxy.log().count("statsd") == 1


def cut(exchange: Exchange) -> None:
    """Send a part of an answer, and leave."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    exchange.close()


def test_failures_of_targets_are_counted_by_their_reason() -> None:
    port = free_ports(1)[0]
    flags = ("--metrics-port", str(port), "--metrics-ip", "127.0.0.1", "--proxy-timeout", "300")
    with (
        RawTarget(stalled(threading.Event())) as silent,
        RawTarget(cut) as cutting,
        start_server(*flags) as proxy,
    ):
        targets = {
            "refused": f"http://127.0.0.1:{free_ports(1)[0]}",
            "unreachable": "http+unix://%2Fno%2Fsuch%2Fsocket",
            "timeout": silent.url,
            "tls": f"https://127.0.0.1:{proxy.api_port}",  # which speaks plain HTTP
            "name": f"http://{'a' * 63}.invalid",
            "other": cutting.url,
        }
        for reason, url in targets.items():
            proxy.api.add(f"/{reason}", url)
        for reason in targets:
            with proxy.client() as client:
                client.send(get(f"/{reason}", "Connection: close"))
                client.read_to_end()
        counted: dict[str, float] = {}

        def all_are_counted() -> bool:
            nonlocal counted
            counted = {
                name.split('"')[1]: value
                for name, value in read(port).items()
                if name.startswith("chp_target_errors_total{")
            }
            return all(counted.values())

        wait_until(all_are_counted, 10, lambda: f"one of each: {counted}")
        assert counted == dict.fromkeys(targets, 1.0)
