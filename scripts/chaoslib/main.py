"""One run of chaos, and its report."""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from scripts.chaoslib.disturb import Disturber, Target
from scripts.chaoslib.record import Record
from scripts.chaoslib.traffic import Traffic
from tests.crash_lines import CRASH
from tests.integration import processes
from tests.integration.server import TOKEN, Proxy, free_ports, start_proxy
from tests.peers import RawClient, get, wait_until
from tests.peers.upgrades import switched_client

WORKERS = 2
_SHOWN = 20


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


def warm_up(proxy: Proxy, targets: list[Target]) -> None:
    """Use every worker once, so that it has opened what it keeps open."""
    path = f"/kept/{targets[0].name}/"
    with ExitStack() as open_tunnels:
        # Held together, they are shared out among the workers.
        for _ in range(10 * WORKERS):
            client = open_tunnels.enter_context(RawClient(proxy.address))
            switched_client(client, path)
    for _ in range(10 * WORKERS):
        with RawClient(proxy.address) as client:
            client.request(get(path, "Connection: close"))


def baseline(proxy: Proxy, levels: Levels, targets: list[Target]) -> dict[str, Counter[str]]:
    """Return the descriptors of each role at rest, after some use and without targets."""
    wait_until(levels.settled, 20, "all processes are there")
    warm_up(proxy, targets)
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


def run(seconds: float, seed: int, log_file: str | None) -> bool:
    """Run and report. Returns whether everything held."""
    record = Record()
    left: list[str] = []
    with ExitStack() as stack:
        names = [f"target{number}" for number in range(4)]
        ports = free_ports(len(names))
        targets = [Target(name, port, record) for name, port in zip(names, ports, strict=True)]
        for target in targets:
            target.start()
            stack.callback(target.kill)
        server = start_proxy("--drain-timeout", "15", "--log-level", "info", workers=WORKERS)
        proxy = server.__enter__()
        try:
            leaks, crashes = _disturbed(proxy, targets, record, seconds, seed)
        except BaseException:
            proxy.kill()
            print("\n".join(proxy.log().splitlines()[-60:]))
            raise
        try:
            server.__exit__(None, None, None)
            code = proxy.process.returncode
            if code != 0:
                left.append(f"exit status {code} after SIGTERM")
        except AssertionError as error:
            left.append(str(error))
        left += _killed_arbiter()
    record.judge()
    log = [line for line in proxy.log().splitlines() if CRASH.search(line)]
    if log_file is not None:
        Path(log_file).write_text(proxy.log(), encoding="utf-8")
    return report(record, leaks, left, crashes + log)


def _disturbed(
    proxy: Proxy, targets: list[Target], record: Record, seconds: float, seed: int
) -> tuple[list[str], list[str]]:
    """Disturb traffic; return leaked descriptors, and crashes of clients."""
    for target in targets:
        proxy.api.add(f"/kept/{target.name}", target.url)
    disturber = Disturber(proxy, targets, record, random.Random(seed))
    levels = Levels(proxy, disturber)
    before = baseline(proxy, levels, targets)
    addresses = {target.name: target.url for target in targets}
    traffic = Traffic(record, proxy.address, proxy.api_address, TOKEN, addresses)
    record.started = time.monotonic()
    traffic.start(seed)
    try:
        disturber.run(seconds)
    finally:
        traffic.stop()
    wanted = {path: addresses[name] for path, name in traffic.model.items()}
    wanted |= {f"/kept/{name}": url for name, url in addresses.items()}
    have = {path: route["target"] for path, route in proxy.api.routes().items()}
    for path in wanted.keys() | have.keys():
        if wanted.get(path) != have.get(path):
            where = f"{path}: {have.get(path)} instead of {wanted.get(path)}"
            record.wrong(record.lost, where)
    for target in targets:
        target.kill()
    # Workers that drain end within their 15 s.
    return wait_for_no_leaks(levels, before, 20), traffic.crashes


def _killed_arbiter() -> list[str]:
    """Kill the arbiter of a server of its own; return what is wrong after that."""
    with start_proxy(workers=WORKERS) as proxy:
        os.kill(proxy.pid, signal.SIGKILL)
        proxy.wait()
        try:
            proxy.assert_nothing_left(5)
        except AssertionError as error:
            return [f"after SIGKILL of the arbiter: {error}"]
    return []


def report(record: Record, leaks: list[str], left: list[str], crashes: list[str]) -> bool:
    """Print what happened. Returns whether everything held."""

    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"

    print(f"disturbances: {listed(record.disturbed)}")
    print(f"sent: {record.sent.total()} ({listed(record.sent)})")
    print(f"answered: {record.done.total()} ({listed(record.done)})")
    print(f"broken off by their clients: {record.aborted}")
    print(f"failed, as they may: {record.explained.total()} ({listed(record.explained)})")
    verdicts = {
        "failed for no such reason": record.unexplained,
        "wrong target": record.wrong_target,
        "stale route": record.stale,
        "lost route": record.lost,
        "leaked descriptors": leaks,
        "processes left": left,
        "crashes": crashes,
    }
    for name, found in verdicts.items():
        print(f"{name}: {len(found)}")
        for line in found[:_SHOWN]:
            print(f"    {line}")
    return not any(verdicts.values())


def main() -> int:
    """Parse the command line, run, and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of disturbed traffic")
    parser.add_argument("--seed", type=int, default=None, help="of the disturbances")
    parser.add_argument("--log", help="file to write the server's log to")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    print(f"chaos for {arguments.seconds:g} s, seed {seed}", flush=True)
    held = run(arguments.seconds, seed, arguments.log)
    print("held" if held else f"FAILED (seed {seed})")
    return 0 if held else 1
