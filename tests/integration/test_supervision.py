"""Processes die, are replaced, and nobody outside notices more than they must."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.kit.peers import (
    EchoTarget,
    KeepAliveLoad,
    RawClient,
    RawTarget,
    Response,
    get,
    response,
    stalled,
)
from tests.kit.peers.waiting import wait_until
from tests.kit.server import Proxy, start_proxy

pytestmark = pytest.mark.ours

CLIENTS = 16
ROUTES = 200
BACK_WITHIN = 1.0
"""Seconds in which a dead management process is to be replaced."""


@contextmanager
def loaded(workers: int = 2) -> Iterator[tuple[Proxy, KeepAliveLoad]]:
    """A server with ROUTES routes, and CLIENTS keep-alive clients that use one of them."""

    def is_right(answer: Response) -> bool:
        return answer.status == 200 and b'"name": "loaded"' in answer.body

    with (
        EchoTarget("loaded") as target,
        start_proxy("--log-level", "info", workers=workers) as proxy,
    ):
        for number in range(ROUTES):
            proxy.api.add(f"/user/{number}", target.url, user=f"user-{number}", jupyterhub=True)
        with KeepAliveLoad(proxy.address, "/user/7/page", is_right, CLIENTS) as load:
            load.wait_for_answers(CLIENTS)
            yield proxy, load


class ApiCaller:
    """Makes API calls one after another and counts those that fail."""

    def __init__(self, proxy: Proxy) -> None:
        self.calls = 0
        self.failures: list[str] = []
        self._proxy = proxy
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> ApiCaller:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.calls += 1
            try:
                self._proxy.api.add("/called", "http://127.0.0.1:9")
            except (requests.RequestException, AssertionError) as error:
                self.failures.append(str(error))


def test_five_kills_of_the_management_process_cost_no_proxied_request_and_no_route() -> None:
    kills = 5
    with loaded() as (proxy, load), ApiCaller(proxy) as caller:
        before = proxy.api.routes()
        for _ in range(kills):
            pid = proxy.management_pid()
            killed_at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            table = proxy.api.routes()
            assert time.monotonic() - killed_at < BACK_WITHIN + 0.5
            assert set(before) <= set(table)
            for path in set(before) - {"/user/7", "/called"}:
                assert table[path] == before[path], "fields and activity as they were"
            assert table["/user/7"]["last_activity"] >= before["/user/7"]["last_activity"]
            load.wait_for_answers(CLIENTS)
            wait_until(lambda t=killed_at: time.monotonic() > t + 1, 2, "a second")  # type: ignore[misc]
        load.wait_for_answers(CLIENTS)
    assert not load.failures
    assert len(caller.failures) <= kills, caller.failures
    assert caller.calls > 2 * kills


def test_an_api_call_made_while_the_management_process_is_down_waits_and_succeeds() -> None:
    with start_proxy() as proxy:
        proxy.api.add("/kept", "http://127.0.0.1:9", user="x")
        for number in range(3):
            dead = proxy.management_pid()
            os.kill(dead, signal.SIGKILL)
            proxy.api.add(f"/new-{number}", "http://127.0.0.1:9")
            assert proxy.management_pid() != dead
        assert set(proxy.api.routes()) == {"/kept", "/new-0", "/new-1", "/new-2"}
        assert proxy.api.remove("/kept") == 204


def test_a_killed_worker_costs_at_most_the_requests_in_flight_on_it() -> None:
    with loaded() as (proxy, load):
        for _ in range(3):
            workers = proxy.worker_pids()
            assert len(workers) == 2
            failures = sum(load.failures.values())
            os.kill(victim := workers.pop(), signal.SIGKILL)
            wait_until(lambda dead=victim: dead not in proxy.tree(), 5, "the worker is gone")  # type: ignore[misc]
            seen: set[int] = set()
            while not seen - workers:
                with proxy.client() as client:
                    answer = client.request(get("/user/9/first"))
                    assert answer.status == 200, "a new worker routes from its first request"
                    seen.add(proxy.worker_of(client))
            load.wait_for_answers(CLIENTS)
            assert sum(load.failures.values()) - failures <= CLIENTS, load.failures
    assert all("wrong answer" not in kind for kind in load.failures), load.failures


def test_a_new_worker_has_the_whole_table_while_the_management_process_is_down() -> None:
    with loaded(workers=1) as (proxy, load):
        (worker,) = proxy.worker_pids()
        os.kill(proxy.management_pid(), signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        for number in range(ROUTES):
            assert proxy.get(f"/user/{number}").status == 200
        load.wait_for_answers(CLIENTS)


def test_two_hups_replace_the_workers_without_a_failed_request() -> None:
    with loaded() as (proxy, load):
        for _ in range(2):
            old = proxy.worker_pids()
            proxy.signal(signal.SIGHUP)
            wait_until(
                lambda gone=old: not gone & set(proxy.tree()),  # type: ignore[misc]
                20,
                "the old workers have left",
            )
            load.wait_for_answers(10 * CLIENTS)
            wait_until(lambda: len(proxy.worker_pids()) == 2, 5, "two new workers")
        assert len(proxy.api.routes()) == ROUTES
    assert not load.failures


def test_a_request_in_flight_finishes_after_sigterm() -> None:
    go = threading.Event()
    with RawTarget(stalled(go, then=response(b"finished"))) as target, start_proxy() as proxy:
        proxy.api.add("/", target.url)
        with proxy.client() as client:
            client.send(get("/slow"))
            target.wait_for_requests(1)
            proxy.signal(signal.SIGTERM)
            wait_until(lambda: refuses_connections(proxy), 5, "new connections are refused")
            assert proxy.process.poll() is None
            go.set()
            assert client.read_response().body == b"finished"
            client.assert_closed()
        assert proxy.wait() == 0
        proxy.assert_nothing_left()


def test_half_a_request_head_holds_a_stop_for_some_seconds_at_most() -> None:
    with start_proxy() as proxy, proxy.client() as client, RawClient(proxy.api_address) as caller:
        for half in (client, caller):
            half.send("GET / HTTP/1.1\r\nHo")
        wait_until(lambda: proxy.get("/_chp_healthz").status == 200, 5, "it has arrived")
        start = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert time.monotonic() - start < 8


def test_draining_ends_when_its_timeout_has_passed() -> None:
    never = threading.Event()
    with (
        RawTarget(stalled(never)) as target,
        start_proxy("--drain-timeout", "1") as proxy,
        proxy.client() as client,
    ):
        proxy.api.add("/", target.url)
        client.send(get("/slow"))
        target.wait_for_requests(1)
        start = time.monotonic()
        proxy.signal(signal.SIGTERM)
        proxy.wait()
        assert 0.8 < time.monotonic() - start < 6
        proxy.assert_nothing_left()


@pytest.mark.parametrize("used", [True, False], ids=["after a request", "never used"])
def test_idle_connections_do_not_delay_a_stop(used: bool) -> None:
    with RawTarget() as target, start_proxy(workers=2) as proxy:
        proxy.api.add("/", target.url)
        clients = [proxy.client() for _ in range(20)]
        for client in clients if used else ():
            assert client.request(get("/")).status == 200
        start = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert time.monotonic() - start < 5
        for client in clients:
            client.close()


def refuses_connections(proxy: Proxy) -> bool:
    """Whether nobody accepts connections to the public port any more."""
    try:
        proxy.client(timeout=1).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False
