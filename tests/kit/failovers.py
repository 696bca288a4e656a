"""Engines of which one takes over from another: with Sentinels, and as a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.kit.engine import PROGRAMS, Engine, running_engine
from tests.kit.peers import wait_until
from tests.kit.server import free_ports


@contextmanager
def sentinels(folder: Path, master: Engine) -> Iterator[list[int]]:
    """Run three Sentinels, two of which have to agree; yields their ports."""
    ports = free_ports(3)
    with ExitStack() as stack:
        for port in ports:
            config = folder / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor routes 127.0.0.1 {master.port} 2\n"
                "sentinel down-after-milliseconds routes 1000\n"
                "sentinel failover-timeout routes 5000\n"
            )
            process = subprocess.Popen(
                [str(PROGRAMS["redis"]), str(config), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
        for port in ports:
            client = stack.enter_context(Redis(port=port, decode_responses=True))
            wait_until(lambda c=client: _knows_all(c), 20, "a Sentinel knows the others")  # type: ignore[misc]
        yield ports


def _knows_all(sentinel: Redis) -> bool:
    with suppress(RedisError):
        told = sentinel.sentinel_master("routes")
        return bool(told["num-other-sentinels"] == 2 and told["num-slaves"] == 1)
    return False


class Replicated:
    """A master, another engine that copies it, and three Sentinels."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        folders = [folder / name for name in ("one", "two", "sentinels")]
        for each in folders:
            each.mkdir()
        self.master = stack.enter_context(running_engine(folders[0]))
        self.other = stack.enter_context(
            running_engine(folders[1], "--replicaof", f"127.0.0.1 {self.master.port}")
        )
        wait_until(
            lambda: self.other.client.info("replication")["master_link_status"] == "up",
            20,
            "it copies",
        )
        self.sentinels = stack.enter_context(sentinels(folders[2], self.master))
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/routes"


def a_cluster(stack: ExitStack, folder: Path, masters: int, replicas: int) -> list[Engine]:
    """Run a cluster; the masters come first, each with a share of the slots."""
    nodes = []
    for number in range(masters + replicas):
        home = folder / f"node{number}"
        home.mkdir()
        (bus,) = free_ports(1)
        flags = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"]
        flags += ["--cluster-port", str(bus)]
        nodes.append(stack.enter_context(running_engine(home, *flags)))
        if number:
            nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[-1].port, bus)
    for number, node in enumerate(nodes[:masters]):
        first, last = (16384 * each // masters for each in (number, number + 1))
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
    for node in nodes:
        wait_until(lambda n=node: _is_whole(n, len(nodes)), 30, "a node knows all")  # type: ignore[misc]
    for number, node in enumerate(nodes[masters:]):
        name = nodes[number % masters].client.execute_command("CLUSTER", "MYID")
        node.client.execute_command("CLUSTER", "REPLICATE", name)
        wait_until(
            lambda n=node: n.client.info("replication").get("master_link_status") == "up",  # type: ignore[misc]
            20,
            "it copies",
        )
    return nodes


def _is_whole(node: Engine, number: int) -> bool:
    told = node.client.cluster("info")
    return bool(told["cluster_state"] == "ok" and int(told["cluster_known_nodes"]) == number)
