"""The targets of a worker: which pools of connections are kept, and for how long."""

from __future__ import annotations

import ssl
import time

import pytest

from chp_gevent.proxy.upstream.pools import Upstream

URL = "http://127.0.0.1:9"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(ssl.create_default_context(), connect_timeout=1.0)


def sweep(upstream: Upstream) -> None:
    upstream.close_idle(time.monotonic())


def test_a_pool_whose_only_connection_is_in_use_takes_it_back(upstream: Upstream) -> None:
    _, pool = upstream.target(URL)
    connection = pool.acquire()
    sweep(upstream)
    pool.release(connection)
    _, later = upstream.target(URL)
    assert later is pool


def test_a_pool_that_is_not_used_any_more_is_forgotten(upstream: Upstream) -> None:
    _, pool = upstream.target(URL)
    pool.acquire()
    sweep(upstream)
    sweep(upstream)
    _, later = upstream.target(URL)
    assert later is not pool


def test_a_pool_that_was_never_used_is_forgotten(upstream: Upstream) -> None:
    _, pool = upstream.target(URL)
    sweep(upstream)
    _, later = upstream.target(URL)
    assert later is not pool
