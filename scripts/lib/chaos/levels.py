"""Descriptors at rest, before and after a run."""

from __future__ import annotations

import ssl
import time
from collections import Counter
from contextlib import ExitStack

from scripts.lib.chaos.disturb import Disturber
from scripts.lib.chaos.home import WORKERS
from scripts.lib.chaos.target_process import Target
from tests.kit import processes
from tests.kit.peers import RawClient, get, wait_until
from tests.kit.peers.upgrades import switched_client
from tests.kit.server import Proxy


class Levels:
    """The descriptors of each role: the arbiter, the management process and a worker."""

    def __init__(self, proxy: Proxy, disturber: Disturber) -> None:
        self._proxy = proxy
        self._disturber = disturber

    def now(self) -> list[tuple[str, int, Counter[str]]]:
        """Return role, pid and descriptors of each process; raises OSError if one has gone."""
        workers, management = self._disturber.children()
        roles = [("arbiter", self._proxy.pid), *(("management process", p) for p in management)]
        roles += [("worker", pid) for pid in workers]
        return [(role, pid, processes.descriptors_by_kind(pid)) for role, pid in roles]

    def settled(self) -> list[tuple[str, int, Counter[str]]] | None:
        """Return the levels if there are all the processes that there should be, and no more."""
        try:
            levels = self.now()
        except OSError:
            return None
        return levels if len(levels) == WORKERS + 2 else None

    def leaks(self, before: dict[str, Counter[str]]) -> list[str]:
        """Return the descriptors that are too many, or why processes can't be compared."""
        levels = self.settled()
        if levels is None:
            return [f"not {WORKERS} workers and a management process: {self.now()}"]
        return [
            f"{role} (pid {pid}): {dict(more)}"
            for role, pid, kinds in levels
            if (more := kinds - before[role])
        ]


def wait_for_no_leaks(levels: Levels, before: dict[str, Counter[str]], timeout: float) -> list[str]:
    """Return the leaks that are there after ``timeout`` seconds; none, sooner."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            leaks = levels.leaks(before)
        except OSError as error:
            leaks = [str(error)]
        if not leaks or time.monotonic() > deadline:
            return leaks
        time.sleep(0.2)


def warm_up(proxy: Proxy, targets: list[Target], tls: ssl.SSLContext | None) -> None:
    """Use every worker once, so that it has opened what it keeps open."""
    path = f"/kept/{targets[0].name}/"
    with ExitStack() as open_tunnels:
        # Held together, they are shared out among the workers.
        for _ in range(10 * WORKERS):
            client = open_tunnels.enter_context(RawClient(proxy.address, tls=tls))
            switched_client(client, path)
    for _ in range(10 * WORKERS):
        with RawClient(proxy.address, tls=tls) as client:
            client.request(get(path, "Connection: close"))


def baseline(
    proxy: Proxy, levels: Levels, targets: list[Target], tls: ssl.SSLContext | None
) -> dict[str, Counter[str]]:
    """Return the descriptors of each role at rest, after some use and without targets."""
    wait_until(levels.settled, 20, "all processes are there")
    warm_up(proxy, targets, tls)
    for target in targets:
        target.kill()
    seen = -1

    def steady() -> list[tuple[str, int, Counter[str]]] | None:
        nonlocal seen
        now = levels.settled()
        total = sum(kinds.total() for _, _, kinds in now) if now else -1
        time.sleep(0.3)
        seen, before = total, seen
        return now if total == before else None

    found = wait_until(steady, 20, "descriptors settle")
    for target in targets:
        target.start()
    most: dict[str, Counter[str]] = {}
    for role, _, kinds in found:
        most[role] = most.get(role, Counter()) | kinds
    return most
