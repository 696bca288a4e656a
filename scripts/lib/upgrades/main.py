"""Upgrades a server under load, and reports."""

from __future__ import annotations

import argparse
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.lib.chaos.target_process import Target
from scripts.lib.chaos.traffic import Traffic
from scripts.lib.upgrades.load import WEBSOCKETS, BigBodies, TimedRecord, WebSockets, Wrk
from tests.kit import processes
from tests.kit.crash_lines import CRASH
from tests.kit.peers import wait_until
from tests.kit.server import TOKEN, Proxy, free_ports, start_proxy
from tests.kit.versions import Installation

WORKERS = 2
# Seconds that no API call may take.
PATIENCE = 1.0
_UPGRADE_TIMEOUT = 60.0
_LONGEST = 600.0
_SHOWN = 10


def upgrade(proxy: Proxy, installed: Installation, version: str) -> tuple[float, float]:
    """Install a version and have the server become it.

    Returns the seconds until that has taken over, and until its workers serve.
    """
    installed.install(version)
    position = proxy.log_position()
    begin = time.monotonic()
    proxy.signal(signal.SIGUSR2)
    proxy.wait_for_log("took over from version", _UPGRADE_TIMEOUT, after=position)
    took_over = time.monotonic() - begin
    proxy.wait_for_log("reloaded: ", _UPGRADE_TIMEOUT, after=position)
    return took_over, time.monotonic() - begin


class Run:
    """One run; ``faults`` has what went wrong, by what it is."""

    def __init__(self, rounds: int, pause: float, seed: int) -> None:
        self._rounds = rounds
        self._pause = pause
        self._seed = seed
        self._record = TimedRecord()
        self.faults: dict[str, list[str]] = {}

    def run(self) -> bool:
        """Run and report. Returns whether everything held."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="upgrades-")))
            installed = Installation(folder)
            targets = [
                Target(f"target{number}", port, self._record)
                for number, port in enumerate(free_ports(3))
            ]
            for target in targets:
                target.start()
                stack.callback(target.kill)
            flags = ("--workers", str(WORKERS))
            with start_proxy(*flags, command=installed.command, workers=None) as proxy:
                self._under_load(proxy, installed, targets)
                crashes = [line for line in proxy.log().splitlines() if CRASH.search(line)]
                self.faults["crashes"] = crashes
        return self._report()

    def _under_load(self, proxy: Proxy, installed: Installation, targets: list[Target]) -> None:
        record = self._record
        for target in targets:
            proxy.api.add(f"/kept/{target.name}", target.url)
        addresses = {target.name: target.url for target in targets}
        before = processes.open_descriptors(proxy.pid)
        big = targets[0]
        traffic = Traffic(record, proxy.address, proxy.api_address, TOKEN, addresses)
        bodies = BigBodies(proxy.address, record, f"/kept/{big.name}/big", big.name)
        sockets = WebSockets(proxy.address, f"/kept/{targets[1].name}/tunnel")
        wrk = Wrk(f"{proxy.url}/kept/{targets[2].name}/wrk?size=100")
        record.started = time.monotonic()
        for part in (bodies, sockets):
            part.start()
        traffic.start(self._seed)
        wrk.start(_LONGEST)
        times = []
        try:
            for number in range(self._rounds):
                time.sleep(self._pause)
                times.append(upgrade(proxy, installed, f"0.1.{number}"))
            time.sleep(self._pause)
        finally:
            for load in (wrk, bodies, traffic, sockets):
                load.stop()
        record.judge()
        print(
            "upgraded after (s):", ", ".join(f"{over:.1f}/{serves:.1f}" for over, serves in times)
        )
        print(f"wrk: {wrk.requests} requests" if wrk.is_there else "SKIPPED: there is no wrk")
        print(f"WebSockets: {WEBSOCKETS}, {sockets.echoes} messages came back")
        self.faults |= {
            "failed": record.unexplained,
            "wrong target": record.wrong_target,
            "stale route": record.stale,
            "lost route": record.lost + _lost(proxy, traffic.model | _kept(targets), addresses),
            "wrong by wrk": wrk.wrong,
            "broken WebSockets": sockets.broken,
            "clients that failed": traffic.crashes,
            "left behind": _left(proxy, before),
        }

    def _report(self) -> bool:
        record = self._record
        print(f"sent: {record.sent.total()} ({_listed(record.sent)})")
        print(f"answered: {record.done.total()} ({_listed(record.done)})")
        print(f"broken off by their clients: {record.aborted}")
        print(f"slowest (s): {_listed(record.slowest)}")
        slow = record.slowest.get("change", 0.0)
        self.faults["slow API calls"] = [f"{slow:.2f} s"] if slow > PATIENCE else []
        for name, found in self.faults.items():
            print(f"{name}: {len(found)}")
            for line in found[:_SHOWN]:
                print(f"    {line}")
        return not any(self.faults.values())


def _kept(targets: list[Target]) -> dict[str, str]:
    return {f"/kept/{target.name}": target.name for target in targets}


def _listed(counts: dict[str, int] | dict[str, float]) -> str:
    return ", ".join(f"{count:.4g} {what}" for what, count in sorted(counts.items())) or "none"


def _lost(proxy: Proxy, model: dict[str, str], addresses: dict[str, str]) -> list[str]:
    """Return how the table differs from what the API was told last."""
    wanted = {path: addresses[name] for path, name in model.items()}
    have = {path: route["target"] for path, route in proxy.api.routes().items()}
    return [
        f"{path}: {have.get(path)} instead of {wanted.get(path)}"
        for path in wanted.keys() | have.keys()
        if wanted.get(path) != have.get(path)
    ]


def _left(proxy: Proxy, descriptors: int) -> list[str]:
    """Return what the upgrades have left: processes, and descriptors of the arbiter."""
    expected = WORKERS + 2
    try:
        wait_until(lambda: len(proxy.tree()) == expected, 20, "the old processes have left")
    except AssertionError:
        return [f"{len(proxy.tree())} processes instead of {expected}"]
    now = processes.open_descriptors(proxy.pid)
    # The arbiter closes the heartbeat of a worker that has left a moment later.
    return [f"{now} descriptors instead of {descriptors}"] if now > descriptors + WORKERS else []


def main() -> int:
    """Parse the command line, run, and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/upgrades", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="upgrades")
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two")
    parser.add_argument("--seed", type=int, default=None, help="of the traffic")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    print(f"{arguments.rounds} upgrades under load, seed {seed}", flush=True)
    held = Run(arguments.rounds, arguments.pause, seed).run()
    print("held" if held else f"FAILED (seed {seed})")
    return 0 if held else 1
