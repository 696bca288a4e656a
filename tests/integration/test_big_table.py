"""A table of 100,000 routes costs memory, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from tests.kit import processes
from tests.kit.peers import EchoTarget, RawClient, get, wait_until
from tests.kit.server import TOKEN, Proxy, start_proxy

pytestmark = [pytest.mark.ours, pytest.mark.calm, pytest.mark.timeout(300)]

ROUTES = 100_000
BATCH = 100
REQUESTS = 3_000
LOOKUP_FACTOR = 2
"""By how much CPU per request may differ between 10 and 100,000 routes.

Measuring noise on a busy machine; a search through the table would cost a hundred times more.
"""


def post_requests(url: str, start: int, stop: int) -> Iterator[bytes]:
    """Yield API requests that add routes."""
    for number in range(start, stop):
        body = json.dumps({"target": url, "user": f"user-{number}", "jupyterhub": True})
        yield (
            f"POST /api/routes/user/name-{number} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: token {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


def add_routes(proxy: Proxy, url: str, start: int, stop: int) -> None:
    """Add the routes with these numbers over one pipelined connection."""
    pending = post_requests(url, start, stop)
    with RawClient(proxy.api_address, timeout=30) as api:
        while batch := list(islice(pending, BATCH)):
            api.send(b"".join(batch))
            for _ in batch:
                assert api.read_response().status == 201


def worker_pid(proxy: Proxy) -> int:
    """Return the pid of the only worker."""
    with proxy.client() as client:
        assert client.request(get("/_chp_healthz")).status == 200
        return proxy.worker_of(client)


def cpu_per_request(proxy: Proxy) -> float:
    """Return the CPU seconds of the worker per request, the least of three measurements."""
    pid = worker_pid(proxy)
    costs = []
    with proxy.client() as client:
        request = get("/user/name-5/some/page")
        for _ in range(3):
            before = processes.status(pid)
            for _ in range(REQUESTS):
                assert client.request(request).status == 200
            after = processes.status(pid)
            assert before is not None
            assert after is not None
            costs.append((after.cpu - before.cpu) / REQUESTS)
    return min(costs)


def test_100_000_routes() -> None:
    with EchoTarget() as target, start_proxy("--log-level", "warn", workers=1) as proxy:
        add_routes(proxy, target.url, 0, 10)
        few = cpu_per_request(proxy)
        add_routes(proxy, target.url, 10, ROUTES)
        assert proxy.get("/user/name-99999/x").status == 200
        many = cpu_per_request(proxy)
        assert many < few * LOOKUP_FACTOR, "a lookup costs what it costs with 10 routes"

        start = time.perf_counter()
        with RawClient(proxy.api_address, timeout=30) as api:
            answer = api.request(get("/api/routes", f"Authorization: token {TOKEN}"))
        assert time.perf_counter() - start < 1.0, "the whole table comes within a second"
        assert len(json.loads(answer.body)) == ROUTES

        worker = processes.status(worker_pid(proxy))
        assert worker is not None
        assert worker.rss < 120_000_000, "resident memory of a worker"

        start = time.perf_counter()
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: answers(proxy), 10, "a new worker is in service")
        assert time.perf_counter() - start < 2.0
        assert worker_pid(proxy) != worker.pid

        start = time.perf_counter()
        os.kill(proxy.management_pid(), signal.SIGKILL)
        assert proxy.api.route("/user/name-50000") is not None
        assert time.perf_counter() - start < 3.0, "the management process is back with its table"


def answers(proxy: Proxy) -> bool:
    """Whether a new connection to the proxy gets the right answer now."""
    try:
        return proxy.get("/user/name-77777/x").status == 200
    except Exception:
        return False
