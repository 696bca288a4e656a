"""The log's reader stops to read, or is gone, or never was there: the server goes on."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.kit.peers import EchoTarget, get
from tests.kit.peers.waiting import wait_until
from tests.kit.processes import open_descriptors
from tests.kit.server import CONSOLE_SCRIPT, Proxy, free_ports, start_proxy

pytestmark = pytest.mark.ours

STOPS_WITHIN = 5.0
"""Seconds in which a server without connections stops."""

DROPPED = re.compile(r"warn: (\d+) log lines? (?:was|were) dropped: nobody read the log for \d+ s$")


class UnreadOutput:
    """Both ends of a pipe or a socket that a server writes its log to.

    Attributes:
        inlet: the descriptor to give the server.
    """

    def __init__(self, kind: str) -> None:
        if kind == "pipe":
            self._outlet, self.inlet = os.pipe()
        else:
            self._outlet, self.inlet = (end.detach() for end in socket.socketpair())
        self._kind = kind

    def fill(self) -> None:
        """Leave no room, not even for a short line."""
        with suppress(BlockingIOError):
            if self._kind == "pipe":
                path = f"/proc/self/fd/{self.inlet}"
                with open(path, "wb", buffering=0, opener=_without_waiting) as inlet:
                    while True:
                        _write_all(inlet.fileno(), b"." * 4095 + b"\n")
            with socket.socket(fileno=os.dup(self.inlet)) as sock:
                while True:
                    sock.send(b"." * 99 + b"\n", socket.MSG_DONTWAIT)

    def read(self) -> list[str]:
        """Return the lines that are in it now."""
        found = b""
        while select.select([self._outlet], [], [], 0)[0]:
            found += os.read(self._outlet, 1 << 20)
        return found.decode().splitlines()

    def close(self) -> None:
        """Let go of the reading end: from now on there is no reader."""
        os.close(self._outlet)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK)


def _write_all(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) < len(data):
        raise BlockingIOError


@contextmanager
def started(output: int, *flags: str) -> Iterator[Proxy]:
    """A server of two workers that writes to ``output``."""
    with start_proxy(*flags, workers=2, output=output) as proxy:
        os.close(output)
        yield proxy


def assert_it_works(proxy: Proxy, target: EchoTarget) -> None:
    """Requests and calls are answered, dead processes replaced; all of them log something."""
    for number in range(20):
        proxy.api.add(f"/user/{number}", target.url)
        assert proxy.get(f"/user/{number}").status == 200
    workers = proxy.worker_pids()
    seen: set[int] = set()
    while seen != workers:
        with proxy.client() as client:
            assert client.request(get("/missing-" + "x" * 3000)).status == 404
            seen.add(proxy.worker_of(client))
    management, killed = proxy.management_pid(), workers.pop()
    for pid in (management, killed):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: {management, killed}.isdisjoint(proxy.tree()), 5, "both are gone")
    wait_until(lambda: len(proxy.tree()) == 4, 5, "both are replaced")
    assert len(proxy.api.routes()) == 20
    assert proxy.get("/user/7").status == 200


def assert_it_stops(proxy: Proxy) -> None:
    """SIGTERM is obeyed as ever."""
    proxy.api.close()
    start = time.monotonic()
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    assert time.monotonic() - start < STOPS_WITHIN


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_log_that_nobody_reads_holds_nobody_up(kind: str) -> None:
    output = UnreadOutput(kind)
    inlet = os.dup(output.inlet)
    with EchoTarget("target") as target, started(inlet, "--log-level", "debug") as proxy:
        output.fill()
        assert_it_works(proxy, target)
        assert_it_stops(proxy)
    output.close()
    os.close(output.inlet)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_how_many_lines_were_dropped_is_logged_when_somebody_reads_again(kind: str) -> None:
    output = UnreadOutput(kind)
    with EchoTarget("target") as target, started(os.dup(output.inlet)) as proxy:
        output.read()
        output.fill()
        for number in range(5):
            proxy.api.add(f"/{number}", target.url)  # three lines each
        assert proxy.get("/missing").status == 404
        output.read()
        counted: list[int] = []

        def told() -> bool:
            # Nothing is logged meanwhile: the processes say it by themselves.
            for line in output.read():
                match = DROPPED.search(line)
                assert match, line
                counted.append(int(match[1]))
            return len(counted) == 2

        wait_until(told, 5, "the numbers of lines are logged")
        assert sorted(counted) == [1, 15], "of a worker, and of the management process"
        proxy.api.add("/again", target.url)
        wait_until(lambda: any("201 POST" in line for line in output.read()), 5, "it goes on")
    output.close()
    os.close(output.inlet)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_log_whose_reader_is_gone_holds_nobody_up(kind: str) -> None:
    output = UnreadOutput(kind)
    with EchoTarget("target") as target, started(output.inlet) as proxy:
        output.close()
        assert_it_works(proxy, target)
        assert_it_stops(proxy)


def test_a_full_disk_under_the_log_holds_nobody_up() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with EchoTarget("target") as target, started(full, "--log-level", "debug") as proxy:
        assert_it_works(proxy, target)
        assert_it_stops(proxy)


def test_a_reload_opens_the_log_no_second_time() -> None:
    with start_proxy(workers=2) as proxy:
        before = open_descriptors(proxy.pid)
        for _ in range(2):
            old = proxy.worker_pids()
            proxy.signal(signal.SIGHUP)
            wait_until(lambda gone=old: not gone & set(proxy.tree()), 20, "the old workers left")  # type: ignore[misc]
        wait_until(lambda: open_descriptors(proxy.pid) == before, 5, "as many as before")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_server_without_standard_descriptors_serves(closed: str) -> None:
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', *CONSOLE_SCRIPT, "--workers", "2"]
    with EchoTarget("target") as target, start_proxy(command=command) as proxy:
        wait_until(lambda: len(proxy.tree()) == 4, 10, "all processes are there")
        assert_it_works(proxy, target)
        assert_it_stops(proxy)


def test_a_start_that_fails_without_standard_descriptors_ends() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        command = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', *CONSOLE_SCRIPT, "--port", str(port)]
        pid = os.posix_spawnp("sh", [*command, "--ip", "127.0.0.1"], os.environ)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
