"""What the server must not hold on to: others' descriptors, and a pid file it could not write."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from tests.kit.peers import EchoTarget, WebSocketEchoTarget, wait_until
from tests.kit.peers.upgrades import switched_client
from tests.kit.server import Proxy, start_proxy


def heartbeat_files(pid: int) -> list[str]:
    """Return the files by which workers show the arbiter that they live, as far as open here."""
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return [link for link in links if "worker-heartbeat" in link]


def worker(proxy: Proxy) -> int:
    """Return the worker that takes new connections."""
    with proxy.client() as client:
        return proxy.worker_of(client)


@pytest.mark.ours
def test_a_worker_started_by_a_reload_holds_no_file_of_one_that_drains() -> None:
    with WebSocketEchoTarget() as target, start_proxy("--drain-timeout", "10") as proxy:
        proxy.api.add("/", target.url)
        with proxy.client() as client:
            switched_client(client, "/")
            first = proxy.worker_of(client)
            proxy.signal(signal.SIGHUP)
            wait_until(lambda: worker(proxy) != first, 10, "another worker serves")
            second = worker(proxy)
            proxy.signal(signal.SIGHUP)
            others = []

            def third_serves() -> bool:
                # For a moment the second one accepts beside it: each answer is of either.
                others.append(worker(proxy))
                return others[-1] not in (first, second)

            wait_until(third_serves, 10, "a third one serves")
            assert first in proxy.tree()
            assert len(heartbeat_files(others[-1])) == 1


@pytest.mark.ours
def test_a_pid_file_that_cannot_be_written_is_one_line_and_no_reason_not_to_serve() -> None:
    with EchoTarget() as target, start_proxy("--pid-file", "/dev/full") as proxy:
        proxy.api.add("/", target.url)
        assert proxy.get("/").status == 200
        proxy.wait_for_log("error: cannot write --pid-file /dev/full: No space left on device")
    # It stopped, too: what it tried to write to is not read back.
    assert proxy.process.returncode == 0


@pytest.mark.ours
def test_processes_that_are_stopped_die_with_the_arbiter_too() -> None:
    with start_proxy(workers=2) as proxy:
        children = set(proxy.tree()) - {proxy.pid}
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
        os.kill(proxy.pid, signal.SIGKILL)
        proxy.process.wait(5)
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), 5, "gone")
