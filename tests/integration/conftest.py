"""Fixtures of the integration tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest

from tests.kit import server
from tests.kit.server import OTHER_COMMAND, Proxy, start_proxy

LOG_LINES_SHOWN = 40

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker ``ours``."""
    config.addinivalue_line("markers", "ours: what configurable-http-proxy does otherwise or lacks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is ours alone when the tests run against another implementation."""
    if OTHER_COMMAND:
        for item in items:
            if item.get_closest_marker("ours"):
                item.add_marker(pytest.mark.skip(reason="not a promise of the other command"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the servers' logs with a failure."""
    report = yield
    if report.failed:
        for proxy in server.running:
            lines = proxy.log().splitlines()[-LOG_LINES_SHOWN:]
            report.sections.append((f"log of server {proxy.pid}", "\n".join(lines)))
    return report


@pytest.fixture(name="start_proxy")
def start_proxy_fixture() -> Iterator[Callable[..., Proxy]]:
    """A function like ``server.start_proxy`` whose servers live until the test ends."""
    with ExitStack() as servers:
        yield lambda *flags, **options: servers.enter_context(start_proxy(*flags, **options))


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A server with one worker and no default target that the tests of a module share."""
    with start_proxy("--log-level", "debug") as proxy:
        yield proxy


@pytest.fixture
def add_route(proxy: Proxy) -> Iterator[Callable[[str], str]]:
    """A function that routes a new path to a target of the module's ``proxy``.

    It returns the path; the routes are removed when the test ends.
    """
    paths: list[str] = []

    def add(target: str) -> str:
        path = f"/route-{next(_numbers)}"
        proxy.api.add(path, target)
        paths.append(path)
        return path

    yield add
    for path in paths:
        proxy.api.remove(path)
