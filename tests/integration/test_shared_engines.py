"""Ways to the engine of routes that servers share: TLS, Sentinels, a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kit.authority import Authority
from tests.kit.engine import PROGRAMS, Engine, running_engine
from tests.kit.peers import wait_until
from tests.kit.server import free_ports, run_to_exit
from tests.kit.shared_servers import (
    StartServer,
    added_again,
    engine_fixture,
    needs_redis,
    paths,
    start_fixture,
)

pytestmark = [pytest.mark.ours, needs_redis]

__all__ = ["engine_fixture", "start_fixture"]

# Seconds: Sentinels take a master for dead, agree, and promote another; and an election of ours.
FAILOVER = 15.0


@contextmanager
def sentinel(folder: Path, master: Engine) -> Iterator[int]:
    """Run a Sentinel that needs no other to agree; yields its port."""
    (port,) = free_ports(1)
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor routes 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds routes 1000\n"
        "sentinel failover-timeout routes 5000\n"
    )
    process = subprocess.Popen(
        [str(PROGRAMS["redis"]), str(config), "--sentinel"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait(10)


def test_a_failover_loses_nothing(tmp_path: Path, start: StartServer) -> None:
    folders = [tmp_path / name for name in ("one", "two", "sentinel")]
    for folder in folders:
        folder.mkdir()
    with ExitStack() as stack:
        master = stack.enter_context(running_engine(folders[0]))
        other = stack.enter_context(
            running_engine(folders[1], "--replicaof", f"127.0.0.1 {master.port}")
        )
        wait_until(
            lambda: other.client.info("replication")["master_link_status"] == "up", 20, "it copies"
        )
        port = stack.enter_context(sentinel(folders[2], master))
        url = f"redis+sentinel://127.0.0.1:{port}/routes"
        first, second = (start(name, url=url) for name in "ab")
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


def test_a_cluster(tmp_path: Path, start: StartServer) -> None:
    with running_engine(tmp_path, "--cluster-enabled", "yes") as node:
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: node.client.cluster("info")["cluster_state"] == "ok", 10, "ok")
        url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{node.port}"
        first, second = (start(name, url=url) for name in "ab")
        first.api.add("/new", "http://127.0.0.1:9")
        assert second.api.remove("/new") == 204


def test_over_tls(tmp_path: Path, start: StartServer) -> None:
    authority = Authority(tmp_path / "ca")
    key, cert = authority.issue("localhost")
    (port,) = free_ports(1)
    tls = ("--tls-port", str(port), "--tls-key-file", key, "--tls-cert-file", cert)
    with running_engine(tmp_path, *tls, "--tls-ca-cert-file", authority.ca):
        url = f"rediss://localhost:{port}"
        ours = ("--storage-ssl-ca", authority.ca)
        shown = ("--storage-ssl-cert", cert, "--storage-ssl-key", key)
        first, second = (start(name, *ours, *shown, url=url) for name in "ab")
        first.api.add("/new", "http://127.0.0.1:9")
        assert second.api.remove("/new") == 204
        # A certificate of nobody that is known.
        refused = run_to_exit(
            *("--storage-backend", url, "--storage-start-timeout", "1", "--port", "0")
        )
        assert refused.returncode == 1
        assert "certificate verify failed" in refused.stdout + refused.stderr
