"""Servers that share their routes, for tests; ``engine`` and ``start`` are fixtures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.kit.engine import PROGRAMS, WHY_SKIPPED, Engine, running_engine
from tests.kit.peers import wait_until
from tests.kit.server import Proxy, start_proxy

needs_redis = pytest.mark.skipif(PROGRAMS["redis"] is None, reason=WHY_SKIPPED)

# Seconds; the shortest that there may be. A server is current for three fifths of it.
LEASE = 2.0
CURRENT = 0.6 * LEASE
# An election takes 1.5 s, and nothing is confirmed for CURRENT after its begin; and some more.
AGAIN = 4.5

StartServer = Callable[..., Proxy]


@pytest.fixture(name="engine")
def engine_fixture(tmp_path: Path) -> Iterator[Engine]:
    with running_engine(tmp_path) as engine:
        yield engine


@pytest.fixture(name="start")
def start_fixture(engine: Engine) -> Iterator[StartServer]:
    """Start a server on the engine."""
    with ExitStack() as servers:

        def start(name: str, *flags: str, url: str = "", **options: object) -> Proxy:
            more = ("--storage-backend", url or engine.url, "--storage-lease", str(LEASE))
            proxy = servers.enter_context(
                start_proxy(*more, "--replica-name", name, *flags, **options)
            )
            wait_until(lambda: is_current(proxy), 10, f"{name} is current")
            return proxy

        yield start


@pytest.fixture(name="servers")
def servers_fixture(start: StartServer) -> list[Proxy]:
    return [start(name) for name in "abc"]


def ready(proxy: Proxy, query: str = "", *, api: bool = False) -> int:
    url = proxy.api.url if api else proxy.url
    return requests.get(f"{url}/_chp_ready{query}", timeout=10).status_code


def is_current(proxy: Proxy) -> bool:
    return ready(proxy, "?current") == 200


def post(proxy: Proxy, path: str, target: str = "http://127.0.0.1:9") -> requests.Response:
    return proxy.api.post(proxy.api.route_url(path), json={"target": target}, timeout=20)


def added_again(proxy: Proxy, path: str) -> float:
    """Add a route as soon as that is possible; return how many seconds that took."""
    begin = time.monotonic()
    wait_until(lambda: post(proxy, path).status_code == 201, 15, "a change is confirmed")
    return time.monotonic() - begin


def paths(proxy: Proxy) -> set[str]:
    return set(proxy.api.routes())


def equal(servers: list[Proxy], engine: Engine, prefix: str = "chp") -> bool:
    """Whether all servers have what the engine has."""
    shared = set(engine.client.hkeys(f"{{{prefix}}}:routes"))
    return all(paths(proxy) == shared for proxy in servers)
