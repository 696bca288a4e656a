"""The engine of routes that servers share is lost, and another one takes over."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from redis.crc import key_slot

from tests.kit.failovers import Replicated, a_cluster
from tests.kit.peers import wait_until
from tests.kit.shared_servers import (
    StartServer,
    added_again,
    engine_fixture,
    is_current,
    needs_redis,
    paths,
    start_fixture,
)

pytestmark = [pytest.mark.ours, needs_redis]

__all__ = ["engine_fixture", "start_fixture"]

# Seconds: another engine is promoted, and an election of ours.
FAILOVER = 15.0


def test_a_failover_loses_nothing(tmp_path: Path, start: StartServer) -> None:
    with ExitStack() as stack:
        engines = Replicated(stack, tmp_path)
        master, other = engines.master, engines.other
        first, second = (start(name, url=engines.url) for name in "ab")
        first.api.add("/both-have-it", "http://127.0.0.1:9")
        # The other one is cut off, and does not get these.
        other.client.replicaof("127.0.0.1", 1)
        for number in range(10):
            first.api.add(f"/r{number}", "http://127.0.0.1:9")
        other.client.replicaof("127.0.0.1", master.port)
        other.freeze()
        for number in range(10, 20):
            second.api.add(f"/r{number}", "http://127.0.0.1:9")
        master.kill()
        other.thaw()
        assert added_again(first, "/after") < FAILOVER + 10
        assert other.client.info("replication")["role"] == "master"
        wait_until(lambda: len(paths(second)) == 22, 5, "nothing is lost")
        assert paths(first) == paths(second) == set(other.client.hkeys("{chp}:routes"))
        master.start()


def test_a_failover_that_is_planned_fails_no_change(tmp_path: Path, start: StartServer) -> None:
    with ExitStack() as stack:
        engines = Replicated(stack, tmp_path)
        first, second = (start(name, url=engines.url) for name in "ab")
        first.api.add("/before", "http://127.0.0.1:9")
        with Redis(port=engines.sentinels[0], decode_responses=True) as sentinel:
            assert sentinel.execute_command("SENTINEL", "FAILOVER", "routes")
        numbers = itertools.count()

        def is_over() -> bool:
            first.api.add(f"/r{next(numbers)}", "http://127.0.0.1:9")
            return bool(engines.other.client.info("replication")["role"] == "master")

        wait_until(is_over, FAILOVER, "the other one is the master")
        first.api.add("/after", "http://127.0.0.1:9")
        # There are two masters for a moment: what the first one was told comes to the second.
        wanted = {"/before", "/after", *(f"/r{number}" for number in range(next(numbers)))}
        engine = engines.other.client
        wait_until(lambda: set(engine.hkeys("{chp}:routes")) == wanted, 15, "nothing is lost")
        wait_until(lambda: is_current(first) and is_current(second), 10, "they are current")
        assert paths(first) == paths(second) == wanted


def test_a_node_of_a_cluster_is_lost(tmp_path: Path, start: StartServer) -> None:
    with ExitStack() as stack:
        nodes = a_cluster(stack, tmp_path, 3, 3)
        # The hosts that servers are told of are not those that have the keys.
        slot = key_slot(b"{chp}:")
        number = next(n for n in range(3) if slot < 16384 * (n + 1) // 3)
        others = [node for node in nodes if node not in (nodes[number], nodes[number + 3])]
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in others)
        first, second = (start(name, url=url) for name in "ab")
        for route in range(20):
            (first, second)[route % 2].api.add(f"/r{route}", "http://127.0.0.1:9")
        nodes[number].kill()
        assert added_again(second, "/after") < FAILOVER
        assert nodes[number + 3].client.info("replication")["role"] == "master"
        wait_until(lambda: len(paths(first)) == 21, 5, "nothing is lost")
        assert paths(first) == paths(second) == set(nodes[number + 3].client.hkeys("{chp}:routes"))
        nodes[number].start()
