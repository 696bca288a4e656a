"""Clients that are slow on purpose: they hold connections, and nobody waits for them."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

import pytest

from tests.kit.peers import RawTarget, get
from tests.kit.server import start_proxy

SLOW, IDLE = 200, 1000
# Seconds; a generous bound for a machine that runs other tests too. Alone it is 1 ms.
BOUND = 0.25


@pytest.mark.ours
def test_200_slow_heads_and_1000_idle_connections_do_not_keep_others_waiting() -> None:
    with RawTarget() as target, start_proxy("--keep-alive-timeout", "60000") as proxy:
        proxy.api.add("/", target.url)
        with ExitStack() as stack:
            slow = [stack.enter_context(proxy.client()) for _ in range(SLOW)]
            for client in slow:
                client.send("GET / HTTP/1.1\r\nHost: a\r\n")
            for _ in range(IDLE):
                stack.enter_context(proxy.client())
            took = []
            for number in range(200):
                slow[number].send(f"X-{number}: drop by drop\r\n")
                with proxy.client() as client:
                    start = time.monotonic()
                    assert client.request(get("/")).status == 200
                    took.append(time.monotonic() - start)
            assert statistics.median(took) < BOUND
            assert max(took) < 10 * BOUND
